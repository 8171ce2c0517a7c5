"""Sharp crops, from folders of pictures."""

import pytest
import torch

from iov_restore_ros.pictures.files import DataError, SharpCrops


def test_crops_are_a_function_of_seed_and_number(pictures):
    first, again = (SharpCrops(pictures, 40, 10, 7, cache_gb=gb) for gb in (1, 0))
    other = SharpCrops(pictures, 40, 10, 8, cache_gb=1)
    for number in (3, 0, 3):
        assert torch.equal(first[number], again[number])
    assert first[0].shape == (3, 40, 40) and first[0].dtype == torch.uint8
    assert not torch.equal(first[0], other[0])


def test_pictures_smaller_than_a_crop_are_mirrored(pictures):
    crop = SharpCrops(pictures, 500, 1, 1, cache_gb=1)[0]
    assert crop.shape == (3, 500, 500)
    assert (crop != 0).float().mean() > 0.9


def test_unreadable_picture_is_skipped(tmp_path, pictures, caplog):
    (tmp_path / 'bad.png').write_bytes(b'not a picture' * 10_000)
    (tmp_path / 'good.png').write_bytes((pictures / '0.png').read_bytes())
    crops = SharpCrops(tmp_path, 16, 8, 1, cache_gb=1)
    assert all(crops[i].shape == (3, 16, 16) for i in range(8))
    assert 'bad.png: not a readable picture: no PNG, JPEG, BMP, TIFF, WebP, skipped' in caplog.text


def test_wrong_folders_say_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match='nowhere: not a folder'):
        SharpCrops(tmp_path / 'nowhere', 16, 1, 1, 1)
    with pytest.raises(DataError, match=r'no image found \(looked for .*\.png'):
        SharpCrops(tmp_path, 16, 1, 1, 1)
