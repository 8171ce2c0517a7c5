"""The writer of all pictures for users: it knows what each format can hold."""

import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
import tifffile
from PIL.PngImagePlugin import putchunk

from iov_restore_ros.pictures.picture import Picture, PictureError
from iov_restore_ros.pictures.sixteen_bits import to_eight_bits
from iov_restore_ros.whole import write_whole


@dataclass(frozen=True)
class Format:
    """Pillow's name of a format, its options, and what the format can hold."""

    name: str
    settings: dict[str, Any]
    deep: bool = False  # 16 bits per channel
    alpha: bool = False
    grey: bool = True
    profile: bool = True


PNG = Format('PNG', {'compress_level': 3}, deep=True, alpha=True)
JPEG = Format('JPEG', {'quality': 95})
TIFF = Format('TIFF', {'compression': 'zlib', 'predictor': True}, deep=True, alpha=True)
FORMATS = {
    '.png': PNG, '.jpg': JPEG, '.jpeg': JPEG, '.tif': TIFF, '.tiff': TIFF,
    '.bmp': Format('BMP', {}, profile=False),
    '.webp': Format('WEBP', {'lossless': True, 'exact': True}, alpha=True, grey=False),
}
HEAD = 33  # bytes of a PNG before the first optional chunk
SPACES = {2: b'GRAY', 3: b'RGB '}  # colour space of a profile, by the dimensions of the pixels


def write_picture(path: Path, picture: Picture) -> list[str]:
    """
    Write ``picture`` in the format of the suffix of ``path``, completely or not at all.

    Returns the parts that the format cannot hold, which are lost. Raises ``PictureError``, or
    ``OSError``.
    """
    known = FORMATS[path.suffix.lower()]
    picture, lost = _fitted(picture, known)
    try:
        data = _encoded(picture, known)
    except Exception as error:  # for example sizes that a format cannot hold, or no memory
        raise PictureError(f'cannot be written as {known.name}: {error}') from error
    write_whole(path, data)
    return lost


def _fitted(picture: Picture, known: Format) -> tuple[Picture, list[str]]:
    """Return the part of ``picture`` that ``known`` can hold, and the names of the rest."""
    lost = []
    pixels, alpha, profile = picture.pixels, picture.alpha, picture.profile
    if alpha is not None and not known.alpha:
        alpha = None
        lost.append('alpha')
    if pixels.dtype == np.uint16 and not known.deep:
        pixels = to_eight_bits(pixels)
        alpha = alpha if alpha is None else to_eight_bits(alpha)
        lost.append('bits beyond 8')
    veiled = alpha is not None and pixels.dtype == np.uint16  # OpenCV has no grey with alpha
    if pixels.ndim == 2 and (veiled or not known.grey):
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if profile and not (known.profile and profile[16:20] == SPACES[pixels.ndim]):
        profile = b''
        lost.append('colour profile')
    return Picture(pixels, alpha, profile), lost


def _encoded(picture: Picture, known: Format) -> bytes:
    pixels, alpha = picture.pixels, picture.alpha
    if alpha is not None:
        pixels = np.dstack([pixels, alpha])
    stream = io.BytesIO()
    if known is TIFF:
        tifffile.imwrite(
            stream, pixels, photometric='minisblack' if picture.pixels.ndim == 2 else 'rgb',
            extrasamples=() if alpha is None else ('unassalpha',), metadata=None,
            iccprofile=picture.profile or None, **known.settings,
        )
    elif pixels.dtype == np.uint16:
        return _deep_png(pixels, picture.profile)
    else:
        image = PIL.Image.fromarray(pixels)
        image.save(stream, known.name, icc_profile=picture.profile or None, **known.settings)
    return stream.getvalue()


def _deep_png(pixels: np.ndarray, profile: bytes) -> bytes:
    """Return a PNG of uint16 pixels with its profile; Pillow cannot write it."""
    if pixels.ndim == 3:
        to_bgr = {3: cv2.COLOR_RGB2BGR, 4: cv2.COLOR_RGBA2BGRA}
        pixels = cv2.cvtColor(pixels, to_bgr[pixels.shape[2]])
    data = cv2.imencode('.png', pixels)[1].tobytes()
    if not profile:
        return data
    chunk = io.BytesIO()
    putchunk(chunk, b'iCCP', b'ICC Profile\0\0' + zlib.compress(profile))
    return data[:HEAD] + chunk.getvalue() + data[HEAD:]
