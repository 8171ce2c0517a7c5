"""
Conversion between sensor_msgs/CompressedImage and Image, as in compressed_image_transport.

`format` is `jpeg`, `png`, or the encoding of the picture followed by its compression:
`rgb8; jpeg compressed bgr8`, `mono16; png compressed `.
"""

import io
import struct
from array import array

import cv2
import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from sensor_msgs.msg import CompressedImage, Image

from iov_restore_ros.node.encodings import ENCODINGS, GREY
from iov_restore_ros.node.images import (
    MalformedImageError,
    UnsupportedEncodingError,
    new_message,
    to_rgb,
    view,
)
from iov_restore_ros.pictures.sixteen_bits import to_eight_bits

CODECS = ('jpeg', 'png')
PNG_LEVEL = 3  # as in compressed_image_transport
MAX_PIXELS = 50_000_000  # a small file can claim any size; decoding takes 3 bytes per pixel
STARTS = {b'\xff\xd8\xff': JpegImageFile, b'\x89PNG\r\n\x1a\n': PngImageFile}
FROM_BGR = {
    'rgb8': cv2.COLOR_BGR2RGB, 'rgb16': cv2.COLOR_BGR2RGB, 'bgr8': None, 'bgr16': None,
    'rgba8': cv2.COLOR_BGR2RGBA, 'bgra8': cv2.COLOR_BGR2BGRA,
}
FROM_JPEG_TO_16_BITS = 256  # factor, as in compressed_image_transport


def check_compressed(message: CompressedImage) -> None:
    """
    Check format and file header, without decoding.

    Raises ``UnsupportedEncodingError`` for anything but JPEG and PNG, ``MalformedImageError`` for
    a broken header or more than ``MAX_PIXELS`` pixels.
    """
    if 'compressedDepth' in message.format:
        raise UnsupportedEncodingError(
            f'format {message.format!r} is a depth image, which cannot be restored: '
            "use the camera's colour topic"
        )
    start = bytes(message.data[:8])
    opener = next((opener for s, opener in STARTS.items() if start.startswith(s)), None)
    if opener is None:
        _, _, how = message.format.rpartition(';')
        if how and not any(codec in how for codec in ('jpeg', 'jpg', 'png')):
            raise UnsupportedEncodingError(
                f'format {message.format!r} is not supported, only jpeg and png are'
            )
        raise MalformedImageError(f'the {len(message.data)} bytes of data are neither JPEG nor PNG')
    if opener is PngImageFile and not _chunks_are_whole(message.data):
        raise MalformedImageError('a PNG whose chunks are longer than the file')
    try:
        width, height = opener(io.BytesIO(message.data)).size
    except Exception as error:  # Pillow's parsers raise a dozen types
        raise MalformedImageError(f'a broken {message.format!r} header: {error}') from error
    if width * height > MAX_PIXELS:
        raise MalformedImageError(
            f'a picture of {width} x {height} pixels: more than {MAX_PIXELS} are not decoded'
        )


def _chunks_are_whole(png: array) -> bool:
    """Return whether all chunks end within the file: OpenCV allocates what a chunk claims."""
    place, kind = 8, b''
    while place + 8 <= len(png) and kind != b'IEND':
        length, kind = struct.unpack_from('>I4s', png, place)
        place += 12 + length
    return place <= len(png)


def decode(message: CompressedImage) -> Image:
    """
    Return the picture of ``message`` in the encoding that its format names.

    Raises ``UnsupportedEncodingError`` or ``MalformedImageError``.
    """
    check_compressed(message)
    try:
        pixels = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise MalformedImageError(f'{message.format!r} cannot be decoded: {error}') from error
    if pixels is None:
        raise MalformedImageError(f'{message.format!r} cannot be decoded: the data are damaged')
    pixels, encoding = _as_named(np.atleast_3d(pixels), message.format)
    return new_message(message.header, pixels, encoding, False)


def open_image(message: Image | CompressedImage) -> tuple[Image, np.ndarray]:
    """
    Return the image of ``message``, and its pixels as uint8 H x W x 3, RGB.

    Raises ``UnsupportedEncodingError`` or ``MalformedImageError``.
    """
    image = message if isinstance(message, Image) else decode(message)
    return image, to_rgb(view(image), image.encoding)


def _as_named(pixels: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Convert decoded pixels (grey, BGR or BGRA) to the encoding that the format names."""
    encoding, named, how = name.partition(';')
    encoding = encoding.strip() if named else ''
    channels, bits = pixels.shape[2], 8 * pixels.itemsize
    known = ENCODINGS.get(encoding)
    if known is not None and known.bits == 16 and bits == 8:
        pixels, bits = pixels.astype(np.uint16) * FROM_JPEG_TO_16_BITS, 16
    if channels == 3 and encoding in FROM_BGR and known is not None and known.bits == bits:
        if 'compressed bgr' not in how:  # RGB was compressed as if it were BGR
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        code = FROM_BGR[encoding]
        return pixels if code is None else cv2.cvtColor(pixels, code), encoding
    if encoding and _lies_like(encoding, channels, bits, how):
        return pixels, encoding
    return pixels, f'{({1: "mono", 3: "bgr", 4: "bgra"})[channels]}{bits}'


def _lies_like(encoding: str, channels: int, bits: int, how: str) -> bool:
    """Return whether a decoded grey or BGR picture has the layout of ``encoding``."""
    known = ENCODINGS.get(encoding)
    if known is None:
        return (channels, bits) == (1, 16)  # depth, or 16-bit Bayer: cannot be restored
    if (channels, bits) != (known.channels, known.bits) or channels == 4 or known.chroma:
        return False
    # A Bayer mosaic may have been converted to grey before it was compressed.
    return known[1:3] == GREY or 'compressed mono' not in how


def encode(image: Image, codec: str, jpeg_quality: int) -> CompressedImage:
    """
    Compress ``image`` with ``codec``, jpeg or png; ``jpeg_quality`` is 1..100.

    JPEG has 8 bits, PNG has those of the image. Neither has alpha. Bayer and YUV become RGB.
    Raises ``UnsupportedEncodingError`` or ``MalformedImageError``.
    """
    samples = view(image)
    encoding = ENCODINGS[image.encoding]
    if encoding.bits == 16 and codec == 'png':
        pixels, bits = samples.astype(np.uint16), 16
        colours = cv2.COLOR_RGB2BGR if encoding.to_rgb is None else None
    elif encoding[1:3] == GREY:
        pixels, bits, colours = np.ascontiguousarray(to_eight_bits(samples)), 8, None
    else:
        pixels, bits, colours = to_rgb(samples, image.encoding), 8, cv2.COLOR_RGB2BGR
    if colours is not None:
        pixels = cv2.cvtColor(pixels, colours)
    target = f'bgr{bits}' if pixels.shape[2] == 3 else 'mono8' if codec == 'jpeg' else ''
    settings = {
        'jpeg': ('.jpg', [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality]),
        'png': ('.png', [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL]),
    }
    written, buffer = cv2.imencode(settings[codec][0], pixels, settings[codec][1])
    if not written:
        raise MalformedImageError(f'{image.width} x {image.height} pixels do not fit into {codec}')
    message = CompressedImage(
        header=image.header,
        format=f'{encoding.restored_as or image.encoding}; {codec} compressed {target}',
    )
    message.data.frombytes(buffer.data)
    return message
