"""Single pictures in files: what is read of them, what is refused, what is written."""

import numpy as np
import pytest
import tifffile
from pictures import jpeg_bomb, png_bomb, smooth_picture
from PIL import Image, ImageCms

from iov_restore_ros.pictures.files import read_image
from iov_restore_ros.pictures.picture import Picture, PictureError
from iov_restore_ros.pictures.read import read_picture
from iov_restore_ros.pictures.write import FORMATS, write_picture

RGB = smooth_picture(40, 60)
ALPHA = np.broadcast_to(np.arange(60, dtype=np.uint8) * 4, (40, 60)).copy()
DEEP = RGB.astype(np.uint16) * 257 + 100
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes()
GREY_PROFILE = PROFILE[:16] + b'GRAY' + PROFILE[20:]
TURNED = {  # by EXIF orientation: a stored picture as it is to be looked at
    1: lambda p: p, 2: lambda p: p[:, ::-1], 3: lambda p: p[::-1, ::-1], 4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1), 6: lambda p: np.rot90(p, -1),
    7: lambda p: np.rot90(p, 2).swapaxes(0, 1), 8: np.rot90,
}


def why(path):
    """Return why ``path`` is refused: one line."""
    with pytest.raises(PictureError) as raised:
        read_picture(path)
    assert '\n' not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize('width', [60, 40])  # a square one can be turned and keep its size
@pytest.mark.parametrize('kind', ['.jpg', '.png', '.webp', '.tif', 'deep.tif', 'lzw.tif'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_pictures_are_read_as_they_are_looked_at(tmp_path, kind, orientation, width):
    stored, path = RGB[:, :width], tmp_path / f'a{kind}'
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind in ('.tif', 'deep.tif'):
        pixels = stored.astype(np.uint16) * 257 if kind == 'deep.tif' else stored
        tag = 0x0112, 'H', 1, orientation, True
        tifffile.imwrite(path, pixels, photometric='rgb', extratags=[tag])
    else:
        settings = {'.jpg': {'quality': 95, 'subsampling': 0}, '.webp': {'lossless': True},
                    'lzw.tif': {'compression': 'tiff_lzw'}}.get(kind, {})
        Image.fromarray(stored).save(path, exif=exif, **settings)
    read, upright = read_picture(path).rgb(), TURNED[orientation](stored)
    assert read.shape == upright.shape
    assert np.abs(read.astype(int) - upright).max() <= (4 if kind == '.jpg' else 0)


@pytest.mark.parametrize('suffix', sorted(FORMATS))
@pytest.mark.parametrize('deep', [False, True])
@pytest.mark.parametrize('grey', [False, True])
@pytest.mark.parametrize('alpha', [False, True])
def test_every_format_keeps_what_it_can_and_tells_the_rest(tmp_path, suffix, deep, grey, alpha):
    """16 bits as JPEG, BMP or WebP came out white; alpha multiplied TIFFs; no profile was kept."""
    pixels = RGB[..., 1] if grey else RGB
    mask = ALPHA if alpha else None
    if deep:
        pixels = pixels * np.uint16(257) + 100
        mask = mask if mask is None else mask * np.uint16(257)
    profile = GREY_PROFILE if grey else PROFILE
    lost = write_picture(tmp_path / f'a{suffix}', Picture(pixels, mask, profile))
    back = read_picture(tmp_path / f'a{suffix}')

    holds = FORMATS[suffix]
    grey_with_alpha = deep and grey and alpha and holds.deep  # written as RGBA
    expected = [
        *(['alpha'] if alpha and not holds.alpha else []),
        *(['bits beyond 8'] if deep and not holds.deep else []),
        *(['colour profile'] if not holds.profile or grey_with_alpha or (
            grey and suffix == '.webp') else []),
    ]
    assert lost == expected
    assert back.pixels.dtype == (np.uint16 if deep and holds.deep else np.uint8)
    whole = pixels if back.pixels.dtype == pixels.dtype else pixels // 257
    whole = np.repeat(whole[..., None], 3, -1) if back.pixels.ndim > whole.ndim else whole
    off = np.abs(back.pixels.astype(int) - whole)
    assert off.mean() < 2 if holds.name == 'JPEG' else off.max() == 0
    assert back.profile == (b'' if 'colour profile' in lost else profile)
    if alpha and holds.alpha:
        assert np.array_equal(back.alpha, mask if back.alpha.dtype == mask.dtype else mask // 257)
    else:
        assert back.alpha is None


@pytest.mark.parametrize('kind', ['.jpg', '.png', 'deep.png', '.bmp', '.tif', 'deep.tif', '.webp'])
@pytest.mark.parametrize('share', [0.0, 0.01, 0.5, 0.95])
def test_what_is_cut_off_is_refused_and_not_half_grey(tmp_path, kind, share):
    """From a path OpenCV fills JPEGs up with grey, while from memory it refuses them."""
    path = tmp_path / f'a{kind}'
    write_picture(path, Picture(DEEP if 'deep' in kind else RGB))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert 'not a readable picture' in why(path)


def test_broken_exif_is_no_reason_to_refuse_a_picture(tmp_path):
    for suffix in ('.webp', '.png', '.jpg'):
        path = tmp_path / f'a{suffix}'
        for exif in (b'Exif\0\0nothing', b'Exif\0\0II*\0\xff\xff\xff\xff', b'MM'):
            Image.fromarray(RGB).save(path, exif=exif)
            assert read_picture(path).rgb().shape == RGB.shape


def test_size_is_not_limited_by_pillow_and_what_only_claims_one_is_refused(tmp_path):
    path = tmp_path / 'a.png'
    path.write_bytes(png_bomb(20_000, 10_000))  # more than Pillow's 179 megapixels
    assert 'not a readable picture' in why(path)
    for bomb in (png_bomb(60_000, 60_000), jpeg_bomb(60_000, 60_000)):
        path.write_bytes(bomb)
        assert why(path) == 'more than 1073741824 pixels'
    Image.new('1', (18_000, 10_000)).save(path)
    assert read_picture(path).pixels.shape == (10_000, 18_000)


def test_several_pictures_in_a_file_are_refused(tmp_path):
    two = [Image.fromarray(RGB), Image.fromarray(RGB[::-1])]
    for suffix in ('.gif', '.png', '.webp', '.tif'):
        path = tmp_path / f'a{suffix}'
        two[0].save(path, save_all=True, append_images=two[1:])
        assert why(path) == '2 pictures in one file; only files with one are supported'
        two[0].save(path)
        assert read_picture(path).rgb().shape == RGB.shape


def test_previews_beside_a_picture_do_no_harm(tmp_path):
    with tifffile.TiffWriter(tmp_path / 'a.tif') as file:
        file.write(RGB, photometric='rgb')
        file.write(RGB[::4, ::4], photometric='rgb', subfiletype=1)
    assert np.array_equal(read_image(tmp_path / 'a.tif'), RGB)
    both = [Image.fromarray(p) for p in (RGB, RGB[::4, ::4].copy())]
    both[0].save(tmp_path / 'a.jpg', 'MPO', save_all=True, append_images=both[1:])
    assert read_image(tmp_path / 'a.jpg').shape == RGB.shape


@pytest.mark.parametrize(('pixels', 'settings', 'reason'), [
    (RGB.astype(np.float32), {}, 'float32 pixels'),
    (RGB.astype(np.int16), {}, 'int16 pixels'),
    (RGB.astype(np.uint32), {}, 'uint32 pixels'),
    (np.dstack([RGB, RGB]), {'extrasamples': ['unspecified'] * 3}, 'no alpha'),
    (np.moveaxis(DEEP, -1, 0), {'planarconfig': 'separate'}, 'planes'),
    (np.dstack([DEEP, DEEP[..., 0]]), {'extrasamples': ['assocalpha']}, 'multiplied'),
    (DEEP[..., 0], {'photometric': 'miniswhite'}, 'negative'),
])
def test_tiffs_that_would_be_read_wrongly_are_refused(tmp_path, pixels, settings, reason):
    tifffile.imwrite(tmp_path / 'a.tif', pixels, **{'photometric': 'rgb'} | settings)
    assert reason in why(tmp_path / 'a.tif')


def test_colours_for_print_are_refused(tmp_path):
    Image.fromarray(RGB).convert('CMYK').save(tmp_path / 'a.jpg')
    assert why(tmp_path / 'a.jpg') == (
        'CMYK pixels; only grey and RGB of 8 and 16 bits are supported'
    )


def test_palettes_and_transparent_colours_become_rgb_and_alpha(tmp_path):
    flat = np.zeros((4, 6, 3), np.uint8)
    flat[:, 3:] = 10, 200, 30
    palette = Image.fromarray(flat).quantize(2)
    for image, transparent in ((palette, None), (palette, 0), (Image.fromarray(flat), (0, 0, 0))):
        image.save(tmp_path / 'a.png', **({} if transparent is None else
                                          {'transparency': transparent}))
        read = read_picture(tmp_path / 'a.png')
        assert np.array_equal(read.rgb(), flat)
        assert (read.alpha is None) == (transparent is None)


def test_a_picture_too_large_for_a_format_is_named(tmp_path):
    wide = Picture(np.zeros((1, 70_000), np.uint8))
    for suffix in ('.jpg', '.webp'):
        with pytest.raises(PictureError, match='cannot be written as'):
            write_picture(tmp_path / f'a{suffix}', wide)
    assert not list(tmp_path.iterdir())
