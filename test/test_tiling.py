"""Frames in tiles: the plan, the halo, and that the pixels are the untiled ones."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from iov_restore_ros.inference import Before, RestoreError, Restorer, pixels
from iov_restore_ros.inference.pixels import Input, make_evidence, noise_in
from iov_restore_ros.inference.tiling import halo, plan_tiles
from iov_restore_ros.model import PRESETS, Generator
from iov_restore_ros.model.fusion import MOMENTS, no_evidence
from iov_restore_ros.video.before import Blurring
from iov_restore_ros.video.flow import Flow


@given(st.integers(1, 250), st.integers(1, 250), st.integers(0, 20_000), st.sampled_from([8, 36]))
def test_tiles_keep_every_pixel_once_and_read_their_halo(height, width, spare, halo):
    pixels = (2 * halo + 4) ** 2 + spare
    tiles = plan_tiles(height, width, pixels, halo)
    kept = np.zeros((height, width), int)
    place = np.arange(height * width).reshape(height, width)
    for read, keep, inner in tiles:
        kept[keep] += 1
        assert np.array_equal(place[read][inner], place[keep])
        assert place[read].size <= pixels
        for window, need, length in zip(read, keep, (height, width), strict=True):
            assert window.start % 4 == 0
            assert window.start <= max(0, need.start - halo)
            assert window.stop >= min(length, need.stop + halo)
            assert window.stop % 4 == 0 or window.stop == length
    assert (kept == 1).all()


def test_a_tile_smaller_than_its_halo_is_refused():
    with pytest.raises(ValueError, match='too small for a halo of 128'):
        plan_tiles(1000, 1000, 259 * 259, 128)


@pytest.mark.parametrize('model', PRESETS)
def test_halo_is_how_far_the_gradient_reaches(model):
    body = Generator(model).double().eval()
    if body.fusion is not None:
        nn.init.zeros_(body.fusion.brighter)
        nn.init.constant_(body.fusion.raised, 0.5)  # with 1 nothing of the difference were left
    for layer in body.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            planes = layer.weight.shape[1]  # not all alike, or differences would cancel out
            layer.weight.data[:] = torch.linspace(1, 2, planes).view(1, -1, 1, 1)
            layer.weight.data /= layer.weight[0].numel()
    middle = 160
    row = torch.full((1, 3, 4, 2 * middle + 4), 0.501, dtype=torch.float64, requires_grad=True)
    # Where the frame before is another one, how much of it is taken counts too, and it is raised.
    known = no_evidence(row)
    known = known._replace(before=row.detach() - 0.1, cues=torch.ones_like(known.cues))
    body(row, known)[..., middle : middle + 4].sum().backward()
    [columns] = row.grad.abs().sum((0, 1, 2)).nonzero(as_tuple=True)
    reach = max(middle - columns.min(), columns.max() - (middle + 3))
    assert halo(model) == -(-reach // 4) * 4


@pytest.fixture(scope='module')
def large(photograph):
    """Large enough that `fast` is cut in both directions."""
    return np.ascontiguousarray(np.tile(photograph, (3, 2, 1))[:701, :702])


@pytest.mark.parametrize(('model', 'pixels'), [
    ('fast', 430 * 430), ('wei2021', 128 * 340), ('wei2021_preprint', 128 * 340),
])
def test_tiles_are_exact(model, pixels, large):
    torch.manual_seed(0)
    generator = Generator(model).eval()
    generator.initialise()
    frame = large if model == 'fast' else large[:127, :367]
    tiles = plan_tiles(*frame.shape[:2], pixels, halo(model))
    assert len({tile.keep[1].start for tile in tiles}) > 1
    assert model != 'fast' or len({tile.keep[0].start for tile in tiles}) > 1
    image = torch.from_numpy(frame).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        whole = generator(image)
        for tile in tiles:
            restored = generator(image[(..., *tile.read)])[(..., *tile.inner)]
            expected = whole[(..., *tile.keep)]
            if model == 'wei2021_preprint':
                # oneDNN adds a transposed convolution up in an order that depends on the shape.
                restored, expected = ((x * 255).round() for x in (restored, expected))
            assert torch.equal(restored, expected)


def test_restorer_cuts_what_is_too_large_and_batches_the_rest(large):
    restorer = Restorer(device='cpu', precision='float32', tasks=['deblur'])
    frames = [large[:600], large[:80, :90], large[80:160, :90], large[160:240, :90]]
    expected = restorer.restore(frames, 'deblur')
    seen = []
    restorer._generators['deblur'].register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].shape))
    )
    restorer.batch = 4
    restorer.tiling.pixels = 400 * 400
    for a, b in zip(restorer.restore(frames, 'deblur'), expected, strict=True):
        assert np.array_equal(a, b)
    assert seen[0] == (3, 3, 80, 90)
    assert len(seen) > 2
    assert all(n * h * w <= 400 * 400 for n, _, h, w in seen)


@pytest.fixture(scope='module')
def known(large):
    """A frame, and all that can be known beside it; nothing of it even."""
    rng = np.random.default_rng(0)
    height, width = large.shape[:2]
    rows, columns = -(-height // 4), -(-width // 4)

    def field(*shape):
        coarse = rng.normal(size=(9, 11, int(np.prod(shape)))).astype(np.float32)
        planes = [cv2.resize(plane, (columns, rows)) for plane in np.moveaxis(coarse, -1, 0)]
        return np.stack(planes, -1).reshape(rows, columns, *shape)

    noise = rng.normal(size=large.shape)
    frame = (large + 3 * noise).clip(0, 255).astype(np.uint8)
    flow = Flow(20 * field(2), rng.random((rows, columns, 3), np.float32))
    path = 6 * field(MOMENTS, 2)
    return frame, Before(large, flow, Blurring(9 * field(2), path, (1.0, 1.0)))


@pytest.mark.parametrize('window', [
    (slice(0, 300), slice(0, 404)), (slice(180, 420), slice(300, 612)),
    (slice(360, 701), slice(412, 702)), (slice(0, 701), slice(96, 356)),
])
def test_what_is_gathered_for_a_window_is_a_part_of_the_whole(known, window):
    frame, before = known
    whole = make_evidence(frame, before)
    part = make_evidence(frame, before, window, noise_in(Input(frame, before)))
    cells = tuple(slice(side.start // 4, -(-side.stop // 4)) for side in window)
    for name in ('frame', 'before', 'undone'):
        assert np.array_equal(getattr(part, name), getattr(whole, name)[window]), name
    assert np.array_equal(part.cues, whole.cues[cells])


def test_a_large_frame_is_gathered_in_tiles(known, monkeypatch):
    """With little memory: the result is the same, and nothing was made of all at once."""
    frame, before = known[0][:440], known[1]
    before = Before(before.pixels[:440], Flow(*(field[:110] for field in before.flow)), Blurring(
        *(field[:110] for field in before.blurring[:2]), before.blurring.told
    ))
    restorer = Restorer(device='cpu', precision='float32', tasks=['deblur'])
    [whole] = restorer.restore([frame], 'deblur', [before])
    alone = restorer.restore([frame], 'deblur')[0]
    assert not np.array_equal(alone, whole)
    gathered = []

    def record(*arguments):
        gathered.append(make_evidence(*arguments))
        return gathered[-1]

    monkeypatch.setattr(pixels, 'make_evidence', record)
    restorer.tiling.pixels = 430 * 430
    assert np.array_equal(restorer.restore([frame], 'deblur', [before])[0], whole)
    assert len(gathered) > 2
    for one in gathered:
        assert one.undone.shape[0] * one.undone.shape[1] <= 430 * 430


def test_passes_are_halved_until_they_fit(large):
    restorer = Restorer(device='cpu', precision='float32', tasks=['deblur'])
    frame = large[:300]
    [expected] = restorer.restore([frame], 'deblur')
    memory = 110_000

    def allocate(_, inputs):
        if inputs[0].numel() / 3 > memory:
            raise torch.OutOfMemoryError('CUDA out of memory')

    restorer._generators['deblur'].register_forward_pre_hook(allocate)
    assert np.array_equal(restorer.restore([frame], 'deblur')[0], expected)
    assert restorer.tiling.halved == 1
    restorer.restore([frame], 'deblur')
    assert restorer.tiling.halved == 1, 'it did not learn'
    memory = 0
    with pytest.raises(RestoreError, match='cpu failed: CUDA out of memory'):
        restorer.restore([frame], 'deblur')
