"""Checks for TIFF content that Pillow and OpenCV would read wrongly without an error."""

import io

import tifffile
from tifffile import EXTRASAMPLE, PHOTOMETRIC, PLANARCONFIG, SAMPLEFORMAT

from iov_restore_ros.pictures.picture import PictureError, check_alone

PLAIN = PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.RGB


def tiff_depth(data: bytes) -> int:
    """Return the bits per channel. Raises ``PictureError`` for unsupported content."""
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = [page.aspage() for page in file.pages]
    # Cameras store small copies beside the picture.
    check_alone(sum(not page.is_reduced for page in pages))
    page = pages[0]
    bits, colours = page.bitspersample, page.photometric
    if page.is_reduced:
        raise PictureError('a small copy comes before the picture')
    if page.sampleformat not in (0, SAMPLEFORMAT.UINT) or (bits > 8 and bits != 16):
        raise PictureError(f'{page.dtype or f"{bits}-bit"} pixels; only 8 and 16 bits are read')
    if page.extrasamples and (
        len(page.extrasamples) > 1 or page.extrasamples[0] == EXTRASAMPLE.UNSPECIFIED
    ):
        raise PictureError('channels beside the colours that are no alpha')
    if bits == 16 and (
        colours not in PLAIN
        or page.samplesperpixel == 2
        or (page.samplesperpixel > 1 and page.planarconfig != PLANARCONFIG.CONTIG)
        or EXTRASAMPLE.ASSOCALPHA in page.extrasamples
    ):
        raise PictureError(
            '16 bits as planes, palette, negative, grey with alpha, or multiplied by alpha; '
            'only grey, RGB and RGBA are read'
        )
    return bits


def without_orientation(data: bytes) -> bytes:
    """Return the file as one that isn't turned: OpenCV turns what it can, and refuses the rest."""
    stream = io.BytesIO(data)
    with tifffile.TiffFile(stream, mode='r+') as file:
        tag = file.pages.first.tags.get('Orientation')
        if tag is not None:
            tag.overwrite(1)
    return stream.getvalue()
