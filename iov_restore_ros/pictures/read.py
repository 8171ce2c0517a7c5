"""
The reader of all pictures in files: it returns the complete content, or says what is unsupported.

Pillow recognises the formats and decodes 8 bits per channel. OpenCV decodes 16 bits, which Pillow
would reduce to 8. Both give the same values for the same file.
"""

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from PIL.ExifTags import Base as ExifTag

from iov_restore_ros.pictures.picture import Picture, PictureError, check_alone
from iov_restore_ros.pictures.tiff import tiff_depth, without_orientation

MAX_PIXELS = 2**30  # the limit of OpenCV: a small file can claim any size
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow refuses twice this number
CODECS = ('PNG', 'JPEG', 'BMP', 'TIFF', 'WEBP', 'GIF')
TIFF_STARTS = b'II*\0', b'MM\0*', b'II+\0', b'MM\0+'
PNG_DEPTH = 24  # place of that byte in a PNG
MODES = {  # modes of Pillow, and their lossless mode with 8 bits per channel
    '1': 'L', 'L': 'L', 'LA': 'LA', 'P': 'RGB', 'PA': 'RGBA', 'RGB': 'RGB', 'RGBA': 'RGBA',
    'YCbCr': 'RGB',
}
WITH_TRANSPARENT = {'L': 'LA', 'RGB': 'RGBA'}  # one colour, or entry of a palette, is transparent
# EXIF orientations (CIPA DC-008): whether to swap rows and columns, then how to flip them (-1).
TRANSPOSED = 5, 6, 7, 8
MIRRORED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def read_picture(path: Path) -> Picture:
    """
    Return the content of ``path``, upright: the orientation in its EXIF data is applied.

    Raises ``PictureError`` for a damaged or truncated file, and for unsupported content: depths
    other than 8 and 16 bits per channel, colours other than grey and RGB, several pictures in one
    file.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # Pillow's, about EXIF data that is not used here
            return _decode(data)
    except PictureError:
        raise
    except FileNotFoundError as error:
        raise PictureError('no such file') from error
    except PIL.UnidentifiedImageError as error:
        raise PictureError('not a readable picture: no PNG, JPEG, BMP, TIFF, WebP') from error
    except PIL.Image.DecompressionBombError as error:
        raise PictureError(f'more than {MAX_PIXELS} pixels') from error
    except Exception as error:  # the decoders raise two dozen types
        reason = ' '.join(str(error).split()) or type(error).__name__
        raise PictureError(f'not a readable picture: {reason}') from error


def _decode(data: bytes) -> Picture:
    tiff = data[:4] in TIFF_STARTS
    bits = tiff_depth(data) if tiff else 8  # first, as Pillow says less of what it doesn't know
    with PIL.Image.open(io.BytesIO(data), formats=CODECS) as image:
        if image.format not in ('TIFF', 'MPO'):  # a JPEG with previews, as many cameras write it
            check_alone(getattr(image, 'n_frames', 1))
        if image.format == 'PNG':
            bits = data[PNG_DEPTH]
        if bits == 16:
            grey = image.mode[0] in 'IL'
            pixels = _sixteen_bits(without_orientation(data) if tiff else data)
            if grey and pixels.ndim == 3:
                pixels = np.ascontiguousarray(pixels[..., 2:])
        else:
            pixels = np.array(image.convert(_mode(image)))
        # Only now: where Pillow turns a picture as it decodes it, it takes the tag away.
        pixels = _upright(pixels, _orientation(image))
        profile = image.info.get('icc_profile') or b''
    if pixels.ndim == 2 or pixels.shape[2] == 3:
        return Picture(pixels, None, profile)
    colours = pixels[..., 0] if pixels.shape[2] == 2 else pixels[..., :3]
    return Picture(np.ascontiguousarray(colours), pixels[..., -1], profile)


def _mode(image: PIL.Image.Image) -> str:
    mode = MODES.get(image.mode)
    if mode is None:
        raise PictureError(f'{image.mode} pixels; only grey and RGB of 8 and 16 bits are supported')
    return WITH_TRANSPARENT.get(mode, mode) if 'transparency' in image.info else mode


def _sixteen_bits(data: bytes) -> np.ndarray:
    """Return uint16 H x W, or H x W x 3 or 4: RGB and alpha. It isn't turned."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16:
        raise PictureError('not a readable picture: its 16 bits cannot be decoded')
    if pixels.ndim == 2:
        return pixels
    return cv2.cvtColor(
        pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    )


def _orientation(image: PIL.Image.Image) -> int:
    try:
        return image.getexif().get(ExifTag.Orientation, 1)
    except Exception:  # noqa: BLE001  broken EXIF data, of which Pillow raises a dozen kinds
        return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in TRANSPOSED:
        pixels = pixels.swapaxes(0, 1)
    down, right = MIRRORED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::down, ::right])
