"""A colourful picture, image messages of it by formulas of our own, and files that lie."""

import struct
import zlib

import cv2
import numpy as np
from sensor_msgs.msg import Image

BAYER = {'bayer_rggb8': 'RGGB', 'bayer_bggr8': 'BGGR', 'bayer_gbrg8': 'GBRG', 'bayer_grbg8': 'GRBG'}
YUV422 = {'uyvy': 'UYVY', 'yuv422': 'UYVY', 'yuyv': 'YUYV', 'yuv422_yuy2': 'YUYV'}
GREY = ('mono8', '8UC1', 'mono16')

RATE = 30.0  # frames per second of the made-up cameras
SIZE = 144, 192  # and their height and width


def smooth_picture(height=48, width=64):
    """Return uint8 H x W x 3, RGB: colours that differ, and change so slowly that halving
    the resolution of the colour loses next to nothing."""
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]
    return np.stack([40 + 150 * x, 200 - 120 * y, 60 + 60 * x * y], -1).round().astype(np.uint8)


def grey_of(rgb):
    """Return the brightness of RGB (BT.601) as RGB, uint8."""
    grey = (rgb @ [0.299, 0.587, 0.114]).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, -1)


def yuv_of(rgb):
    """Return Y, U and V (BT.601, Y 16..235), float."""
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    luma = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    return luma, 128 - 37.797 * r - 74.203 * g + 112 * b, 128 + 112 * r - 93.786 * g - 18.214 * b


def samples_of(rgb, encoding):
    """Return rows x width x channels of ``rgb`` in ``encoding``."""
    height, width = rgb.shape[:2]
    if encoding in GREY:
        samples = grey_of(rgb)[..., :1]
    elif encoding in BAYER:
        samples = np.zeros((height, width, 1), np.uint8)
        for place, colour in enumerate(BAYER[encoding]):
            y, x = divmod(place, 2)
            samples[y::2, x::2, 0] = rgb[y::2, x::2, 'RGB'.index(colour)]
    elif encoding in YUV422:
        luma, u, v = yuv_of(rgb)
        pairs = {'U': u, 'V': v}
        samples = np.zeros((height, width, 2))
        for place, name in enumerate(YUV422[encoding]):
            x, channel = divmod(place, 2)
            full = luma[:, x::2] if name == 'Y' else pairs[name].reshape(height, -1, 2).mean(2)
            samples[:, x::2, channel] = full
        samples = samples.round().astype(np.uint8)
    elif encoding in ('nv12', 'nv21'):
        luma, *chroma = yuv_of(rgb)
        if encoding == 'nv21':
            chroma.reverse()
        quarter = [c.reshape(height // 2, 2, -1, 2).mean((1, 3)) for c in chroma]
        below = np.stack(quarter, -1).reshape(height // 2, width)
        samples = np.concatenate([luma, below])[..., None].round().astype(np.uint8)
    else:
        samples = rgb[..., ::-1] if encoding in ('bgr8', 'bgra8', 'bgr16', '8UC3') else rgb
        if encoding in ('rgba8', 'bgra8'):
            samples = np.concatenate([samples, np.full((height, width, 1), 77, np.uint8)], -1)
    return samples * np.uint16(257) if encoding.endswith('16') else samples


def image_message(rgb, encoding, padding=0, bigendian=False):
    """Return ``rgb`` as a message in ``encoding``, with ``padding`` bytes behind each row."""
    samples = samples_of(rgb, encoding)
    if samples.dtype != np.uint8:
        samples = samples.astype('>u2' if bigendian else '<u2')
    rows = np.ascontiguousarray(samples).view(np.uint8).reshape(len(samples), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    return Image(
        height=rgb.shape[0], width=rgb.shape[1], encoding=encoding, is_bigendian=bigendian,
        step=rows.shape[1], data=rows.tobytes(),
    )


def png_bomb(width, height):
    """Return a PNG of a few dozen bytes that claims to have ``width`` x ``height`` pixels."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    parts = (b'IHDR', header), (b'IDAT', zlib.compress(bytes(50))), (b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in parts
    )


JPEG = cv2.imencode('.jpg', smooth_picture())[1].tobytes()


def jpeg_bomb(width, height):
    """Return a small JPEG whose frame header claims ``width`` x ``height`` pixels."""
    place = JPEG.index(b'\xff\xc0') + 5
    return JPEG[:place] + struct.pack('>HH', height, width) + JPEG[place + 4 :]


def drive(street, frames, step=(5.0, 1.0), start=(60.0, 60.0)):
    """Return frames of a camera that moves ``step`` pixels a frame over ``street``."""
    seen = []
    for number in range(frames):
        x, y = (s + number * d for s, d in zip(start, step, strict=True))
        place = np.array([[1, 0, x], [0, 1, y]], float)
        seen.append(cv2.warpAffine(
            street, place, SIZE[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        ))
    return seen


def rain(frames, seed=0):
    """Draw streaks on ``frames``, others on each."""
    rng = np.random.default_rng(seed)
    wet = []
    for frame in frames:
        layer = np.zeros(SIZE, np.uint8)
        for x, y in rng.integers((0, -20), SIZE[::-1], (60, 2)):
            cv2.line(layer, (int(x), int(y)), (int(x) + 3, int(y) + 25), 140, 1, cv2.LINE_AA)
        wet.append(cv2.add(frame, cv2.merge([layer] * 3)))
    return wet
