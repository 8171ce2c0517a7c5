"""Pairs of the public sets, found in tiny copies of what the releases look like on disk."""

import cv2
import numpy as np
import pytest
import torch

from iov_restore_ros.pictures.datasets import LAYOUTS, Pair, PairCrops, find_pairs
from iov_restore_ros.pictures.files import DataError


def make(root, *names, width=8):
    """Write a picture of its own grey for every name."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((6, width, 3), 10 * number + 5, np.uint8))


def found(root, layout, split='train'):
    """Return name, degraded and sharp of each pair, the paths relative to the root."""
    return [
        (pair.name, *(path.relative_to(root).as_posix() for path in (pair.degraded, pair.sharp)))
        for pair in find_pairs(root, layout, split)
    ]


@pytest.mark.parametrize(('layout', 'split', 'pairs', 'others'), [
    ('gopro', 'train', [
        ('GOPR0372_07_00/000047', 'train/GOPR0372_07_00/blur/000047.png',
         'train/GOPR0372_07_00/sharp/000047.png'),
        ('GOPR0378_13_00/000047', 'train/GOPR0378_13_00/blur/000047.png',
         'train/GOPR0378_13_00/sharp/000047.png'),
    ], ['train/GOPR0372_07_00/blur_gamma/000047.png', 'test/GOPR0384_11_00/blur/000001.png']),
    ('gopro', 'test', [
        ('GOPR0384-000001', 'test/input/GOPR0384-000001.png', 'test/target/GOPR0384-000001.png'),
    ], ['train/input/0.png']),
    ('gopro_gamma', 'test', [
        ('A/1', 'test/A/blur_gamma/1.png', 'test/A/sharp/1.png'),
    ], ['test/A/blur/1.png', 'train/B/sharp/2.png']),
    ('rain100h', 'train', [  # as the authors pack it since 2018
        ('norain-10x2', 'rain_data_train_Heavy/rain/X2/norain-10x2.png',
         'rain_data_train_Heavy/norain/norain-10.png'),
    ], ['rain_data_test_Heavy/norain/norain-001.png']),
    ('rain100h', 'test', [  # as PReNet packs it: the clean pictures beside the rainy folder
        ('rain-001', 'test/Rain100H/rainy/rain-001.png', 'test/Rain100H/norain-001.png'),
        ('rain-002', 'test/Rain100H/rainy/rain-002.png', 'test/Rain100H/norain-002.png'),
    ], ['train/RainTrainH/rain-1.png']),
    ('rain100h', 'train', [  # RainTrainH lacks some of the rainy ones
        ('rain-2', 'train/RainTrainH/rain-2.png', 'train/RainTrainH/norain-2.png'),
    ], ['train/RainTrainH/norain-1.png', 'train/RainTrainH/rainstreak-2.png']),
    ('rain100l', 'test', [
        ('1', 'test/input/1.png', 'test/target/1.png'),
    ], []),
    ('rain1400', 'test', [
        ('901_1', 'testing/rainy_image/901_1.jpg', 'testing/ground_truth/901.jpg'),
        ('901_14', 'testing/rainy_image/901_14.jpg', 'testing/ground_truth/901.jpg'),
        ('902_1', 'testing/rainy_image/902_1.jpg', 'testing/ground_truth/902.jpg'),
    ], ['training/rainy_image/1_1.jpg']),
    ('rain1400', 'train', [
        ('1_2', 'rainy image/1_2.jpg', 'ground truth/1.jpg'),
    ], []),
    ('raindrop', 'test', [
        ('0_rain', 'test_a/data/0_rain.png', 'test_a/gt/0_clean.png'),
    ], ['test_b/data/7_rain.jpg', 'train/data/3_rain.png']),
    ('folders', 'train', [
        ('a', 'rainy/a.jpg', 'clean/a.png'),
        ('night/b', 'rainy/night/b.jpg', 'clean/night/b.png'),
    ], ['depth/a.png']),
    ('folders:foggy+depth', 'train', [('a', 'foggy/a.png', 'depth/a.png')], ['clean/a.png']),
])
def test_layouts(tmp_path, layout, split, pairs, others):
    make(tmp_path, *others, *(path for _, *both in pairs for path in both))
    assert found(tmp_path, layout, split) == pairs


def test_a_folder_of_a_split_is_read_whatever_the_split(tmp_path):
    make(tmp_path, 'test_b/data/7_rain.jpg', 'test_b/gt/7_clean.jpg', 'train/data/1_rain.png')
    for split in ('train', 'test'):
        assert found(tmp_path / 'test_b', 'raindrop', split) == [
            ('7_rain', 'data/7_rain.jpg', 'gt/7_clean.jpg')
        ]


@pytest.mark.parametrize(('layout', 'pictures'), [
    ('realblur_j', 'RealBlur-J_ECC_IMCORR_centroid_itensity_ref'),
    ('realblur_r', 'RealBlur-R_BM3D_ECC_IMCORR_centroid_itensity_ref'),
])
@pytest.mark.parametrize('given', ['', '..', 'PICTURES'])
def test_realblur_lists_name_the_sharp_picture_first(tmp_path, layout, pictures, given):
    home = tmp_path / 'RealBlur'
    scenes = [f'{pictures}/scene{scene}' for scene in ('230', '007')]
    make(home, *(f'{scene}/{kind}/{kind}_7.png' for scene in scenes for kind in ('gt', 'blur')))
    lines = [f'{scene}/gt/gt_7.png {scene}/blur/blur_7.png ' for scene in scenes]
    name = f'RealBlur_{layout[-1].upper()}_{{}}_list.txt'
    (home / name.format('test')).write_text('\n'.join(lines) + '\n')
    (home / name.format('train')).write_text(lines[0])

    root = home / given.replace('PICTURES', pictures)
    pairs = find_pairs(root, layout, 'test')
    assert [pair.name for pair in pairs] == ['scene007/blur_7', 'scene230/blur_7']
    assert pairs[0].degraded.samefile(home / scenes[1] / 'blur/blur_7.png')
    assert pairs[0].sharp.samefile(home / scenes[1] / 'gt/gt_7.png')
    assert len(find_pairs(root, layout, 'train')) == 1

    (home / name.format('test')).write_text(lines[0] + '\n' + lines[1].replace('_7', '_8'))
    with pytest.raises(DataError, match=r'2 of its pictures .* first .*scene007/gt/gt_8\.png'):
        find_pairs(root, layout, 'test')
    (home / name.format('test')).write_text(lines[0] + '\nalone.png\n')
    with pytest.raises(DataError, match="line 2: looked for 'SHARP BLURRED'"):
        find_pairs(root, layout, 'test')


@pytest.mark.parametrize(('layout', 'sharp'), [('rain800', 50), ('rain800_clean_right', 200)])
def test_rain800_halves(tmp_path, layout, sharp):
    halves = np.full((4, 10, 3), 50, np.uint8)
    halves[:, 5:] = 200
    for name in ('rain/training/1.png', 'rain/test_syn/2.png'):
        make(tmp_path, name)
        cv2.imwrite(str(tmp_path / name), halves)
    [pair] = find_pairs(tmp_path, layout, 'test')
    assert pair.name == '2'
    degraded, clean = pair.read()
    assert degraded.shape == clean.shape == (4, 5, 3)
    assert (clean == sharp).all() and (degraded == 250 - sharp).all()

    cv2.imwrite(str(pair.sharp), halves[:, 1:])
    with pytest.raises(DataError, match=r'2\.png: 9 pixels wide, looked for two equal halves'):
        pair.read()


def test_pictures_are_read_as_rgb_and_must_be_of_one_size(tmp_path):
    make(tmp_path, 'input/a.png', 'gt/a.png')
    cv2.imwrite(str(tmp_path / 'gt/a.png'), np.full((6, 8, 3), (1, 2, 3), np.uint8))
    [pair] = find_pairs(tmp_path, 'folders')
    degraded, sharp = pair.read()
    assert (degraded == 5).all() and (sharp == (3, 2, 1)).all()
    make(tmp_path, 'gt/a.png', width=9)
    with pytest.raises(DataError, match=r'input/a\.png: 8x6 pixels, but .*gt/a\.png has 9x6'):
        pair.read()


@pytest.mark.parametrize(('files', 'layout', 'complaint'), [
    (['other/a.png'], 'gopro', r'no pairs of gopro: looked for .*blur beside sharp.*found other/'),
    (['other/a.png'], 'realblur_j', r'RealBlur_J_train_list\.txt.*found other/'),
    (['notes/a.png'], 'rain800', 'pictures whose left half is sharp.*found notes/'),
    (['test/input/a.png'], 'rain100l', 'no train split: looked for .*found test/'),
    (['input/a.png', 'input/b.png', 'gt/a.png', 'gt/c.png'], 'folders',
     r'2 pictures of input and gt without partner, first input/b\.png, gt/c\.png'),
    (['A/sharp/1.png', 'A/blur/1.png', 'B/sharp/1.png'], 'gopro', 'B: looked for .*found sharp/'),
    (['rain-1.png', 'rain-2.png', 'norain-1.png'], 'rain100h', r'without partner, first rain-2'),
    (['rainy_image/901_1.jpg', 'rainy_image/901_1(1).jpg', 'ground_truth/901.jpg'], 'rain1400',
     r'901_1\(1\)\.jpg: looked for names like'),
    (['input/a.png', 'gt/a.png', 'gt/a.jpg'], 'folders', r'gt/a\.png: the same picture as a\.jpg'),
    (['input/a.png', 'input/a.jpg', 'gt/a.png'], 'folders', 'input/a.png: the same picture as'),
    (['input/a.png'], 'gopro2', 'gopro2: no such layout, choose one of gopro, '),
])
def test_wrong_roots_say_what_was_looked_for_and_found(tmp_path, files, layout, complaint):
    make(tmp_path, *files)
    with pytest.raises(DataError, match=complaint):
        find_pairs(tmp_path, layout)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_every_layout_names_a_missing_root(tmp_path, layout):
    with pytest.raises(DataError, match=f'nowhere: not a folder .looked for {layout} in it'):
        find_pairs(tmp_path / 'nowhere', layout)
    assert LAYOUTS[layout].about


@pytest.fixture
def negatives(tmp_path, photograph):
    """Return a pair whose degraded picture is the negative of the sharp one."""
    for name, picture in (('input', 255 - photograph), ('gt', photograph)):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), picture)
    return find_pairs(tmp_path, 'folders')


def test_crops_come_from_the_same_place_of_both_pictures(negatives, photograph):
    crops = PairCrops(negatives, 40, 100, 7)
    flips = set()
    for index in range(20):
        degraded, sharp = crops[index]
        assert sharp.shape == (3, 40, 40) and sharp.dtype == torch.uint8
        assert torch.equal(degraded, 255 - sharp)
        crop = np.ascontiguousarray(sharp.permute(1, 2, 0).flip(2))
        for flip in (None, 0, 1, -1):
            flipped = crop if flip is None else cv2.flip(crop, flip)
            if cv2.matchTemplate(photograph, flipped, cv2.TM_SQDIFF_NORMED).min() < 1e-4:
                flips.add(flip)
    assert flips == {None, 0, 1, -1}, 'as it is, upside down, left to right, both'


def test_crops_are_a_function_of_seed_and_number(negatives):
    first, again = (PairCrops(negatives, 40, 10, 7, cache_gb=gb) for gb in (1, 0))
    other = PairCrops(negatives, 40, 10, 8)
    for number in (3, 0, 3):
        for one, two in zip(first[number], again[number], strict=True):
            assert torch.equal(one, two)
    assert not torch.equal(first[0][0], other[0][0])


def test_small_pairs_are_mirrored_and_unreadable_ones_skipped(negatives, tmp_path, caplog):
    (tmp_path / 'bad.png').write_bytes(b'no picture')
    bad = Pair('bad', tmp_path / 'bad.png', negatives[0].sharp)
    crops = PairCrops([bad, *negatives], 500, 8, 1)
    for index in range(8):
        degraded, sharp = crops[index]
        assert sharp.shape == (3, 500, 500) and torch.equal(degraded, 255 - sharp)
    assert 'bad.png: not a readable picture: no PNG, JPEG, BMP, TIFF, WebP, skipped' in caplog.text
