"""
The supported encodings of sensor_msgs/Image; docs/encodings.md shows them as a table.

Names and layouts are those of sensor_msgs/image_encodings.hpp. OpenCV converts them: cv_bridge from
PyPI ignores `step`, fails on big-endian data, and lacks bayer_grbg8, yuyv, nv12 and 16-bit colour.
"""

from typing import NamedTuple

import cv2


class Encoding(NamedTuple):
    """The layout of pixels, and OpenCV's codes to RGB and back (None: it is RGB)."""

    channels: int  # samples per pixel in a row
    to_rgb: int | None
    from_rgb: int | None = None
    bits: int = 8  # of a sample
    restored_as: str = ''  # encoding of a restored frame; empty: the same
    chroma: bool = False  # rows of chroma, half as many, follow the rows of luma
    grid: tuple[int, int] = (1, 1)  # height and width are multiples of this
    minimum: int = 1  # pixels in height and width


GREY = cv2.COLOR_GRAY2RGB, cv2.COLOR_RGB2GRAY
BGR = cv2.COLOR_BGR2RGB, cv2.COLOR_RGB2BGR


def _bayer(code: int) -> Encoding:
    return Encoding(1, code, restored_as='rgb8', minimum=3)  # OpenCV returns black for smaller ones


def _yuv422(code: int) -> Encoding:
    return Encoding(2, code, restored_as='rgb8', grid=(1, 2))


def _yuv420(code: int) -> Encoding:
    return Encoding(1, code, restored_as='rgb8', chroma=True, grid=(2, 2))


ENCODINGS = {
    'rgb8': Encoding(3, None),
    'bgr8': Encoding(3, *BGR),
    'rgba8': Encoding(4, cv2.COLOR_RGBA2RGB, cv2.COLOR_RGB2RGBA),
    'bgra8': Encoding(4, cv2.COLOR_BGRA2RGB, cv2.COLOR_RGB2BGRA),
    'mono8': Encoding(1, *GREY),
    '8UC1': Encoding(1, *GREY),
    '8UC3': Encoding(3, *BGR),  # OpenCV's own type has OpenCV's own order
    'rgb16': Encoding(3, None, bits=16),
    'bgr16': Encoding(3, *BGR, bits=16),
    'mono16': Encoding(1, *GREY, bits=16),
    'bayer_rggb8': _bayer(cv2.COLOR_BayerRGGB2RGB),
    'bayer_bggr8': _bayer(cv2.COLOR_BayerBGGR2RGB),
    'bayer_gbrg8': _bayer(cv2.COLOR_BayerGBRG2RGB),
    'bayer_grbg8': _bayer(cv2.COLOR_BayerGRBG2RGB),
    'uyvy': _yuv422(cv2.COLOR_YUV2RGB_UYVY),
    'yuv422': _yuv422(cv2.COLOR_YUV2RGB_UYVY),
    'yuyv': _yuv422(cv2.COLOR_YUV2RGB_YUYV),
    'yuv422_yuy2': _yuv422(cv2.COLOR_YUV2RGB_YUYV),
    'nv12': _yuv420(cv2.COLOR_YUV2RGB_NV12),
    'nv21': _yuv420(cv2.COLOR_YUV2RGB_NV21),
}
