"""Training on sequences: each frame restored beside the one before, as it was restored."""

import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_runs import ALONE, assert_equal, finish, start, take_steps

from iov_restore_ros.model import Generator, WeightsInfo, load_weights, save_weights
from iov_restore_ros.model.fusion import ASSUMED_SHUTTER, CUES, MOTION_UNIT
from iov_restore_ros.pictures.moving import CameraPath, MovingScene
from iov_restore_ros.pictures.shaking import ShakenCamera
from iov_restore_ros.training import unroll as unrolling
from iov_restore_ros.training.checkpoint import start_from
from iov_restore_ros.training.config import read_config
from iov_restore_ros.training.train import run
from iov_restore_ros.training.trainer import Trainer
from iov_restore_ros.training.unroll import FLOW_MARGIN, Unroll
from iov_restore_ros.video.camera_path import TAU

SIDE = 32
PACE = 6.0


@pytest.fixture
def settings(pictures, tmp_path):
    """Return the settings of a very short run on sequences."""
    return [
        'task=deblur', f'data.root={pictures}', f'output={tmp_path / "run"}', 'data.crop=32',
        'data.frames=3', 'batch=2', 'stages=[{steps: 4}]', 'losses={charbonnier: 1.0}',
        'device=cpu', 'precision=float32', 'fusion_rate=2', 'max_gradient=1',
    ]


def ride(photograph, shutter=0.5):
    """Return a batch of one: three sharp frames of a camera that moves 6 pixels a frame."""
    path = CameraPath(torch.tensor([PACE, 0.0]).numpy(), *torch.zeros(4, 2).numpy())
    scene = MovingScene(photograph, SIDE + 2 * FLOW_MARGIN, path, (180.0, 120.0))
    frames = torch.stack([torch.from_numpy(scene.frame(time)) for time in (-1, 0, 1)])
    frames = frames.round().byte().permute(0, 3, 1, 2)[None]
    return frames, frames, torch.tensor([shutter]), torch.zeros(1, 129, 3), torch.zeros(1, 4)


@pytest.fixture(autouse=True)
def right_flows(monkeypatch):
    """Leave out the flows that are wrong on purpose, and those that are not there."""
    monkeypatch.setattr(unrolling, 'WRONG', 0.0)
    monkeypatch.setattr(unrolling, 'ALONE', 0.0)


def evidence_of(batch, task, seeds, restore=lambda image: image):
    """Return (target, evidence) of second frames, for each seed."""
    found = []
    for seed in range(seeds):
        unroll = Unroll(batch, task, torch.device('cpu'), seed)
        image, nothing, _ = unroll.frame(0)
        assert nothing is None
        unroll.keep(restore(image))
        _, evidence, target = unroll.frame(1)
        found.append((target, evidence))
    return found


def test_the_frame_before_is_aligned_with_this_one(photograph):
    [(target, evidence)] = evidence_of(ride(photograph), 'derain', 1)
    assert target.shape == evidence.before.shape == (1, 3, SIDE, SIDE)
    assert evidence.cues.shape == (1, CUES, SIDE // 4, SIDE // 4)
    off = (evidence.before - target).abs().mean()
    not_aligned = (evidence.before.roll(6, -1) - target).abs().mean()
    assert off < 0.03 and off < 0.3 * not_aligned
    assert evidence.undone.abs().max() == 0, 'no blur to undo in rain'


def test_what_was_restored_comes_back_and_now_and_then_what_was_received(photograph):
    def restore(image):
        return torch.zeros_like(image)
    black = [
        evidence.before.mean() < 0.5 * target.mean()
        for target, evidence in evidence_of(ride(photograph), 'derain', 60, restore)
    ]
    assert sum(black) / 60 == pytest.approx(0.9, abs=0.09)


def test_stills_are_seen_in_every_place_of_some_sequences_and_in_none_of_others(
    photograph, monkeypatch,
):
    monkeypatch.setattr(unrolling, 'ALONE', 0.3)
    alone = 0
    for seed in range(60):
        unroll = Unroll(ride(photograph), 'derain', torch.device('cpu'), seed)
        beside = []
        for number in unroll.numbers:
            image, evidence, _ = unroll.frame(number)
            unroll.keep(image)
            beside.append(evidence is not None)
        assert beside in ([False, True, True], [False, False, False])
        alone += not any(beside)
    assert alone / 60 == pytest.approx(0.3, abs=0.15)


def test_frames_before_those_learnt_from_are_restored_without_gradients(settings, monkeypatch):
    trainer = Trainer(read_config([*settings, 'data.burn_in=2']), ALONE)
    whole, learnt = trainer._forward, []

    def restore(*inputs):
        learnt.append(torch.is_grad_enabled())
        return whole(*inputs)
    monkeypatch.setattr(trainer, '_forward', restore)
    before = trainer.generator.state_dict()['fusion.weigh.bias'].clone()
    counts = set()
    for number in range(8):
        learnt.clear()
        trainer.take_step(list(trainer.batches.read([number])))
        assert learnt == [False] * (len(learnt) - 1) + [True]
        counts.add(len(learnt))
    assert counts == {1, 2, 3}
    assert not torch.equal(trainer.generator.state_dict()['fusion.weigh.bias'], before)


def test_the_frames_learnt_from_are_fewer_than_the_sequence(settings):
    with pytest.raises(ValueError, match=r'data\.burn_in=3: 0 to data\.frames - 1 \(2\)'):
        read_config([*settings, 'data.burn_in=3'])


def test_what_comes_in_at_the_border_errs_as_what_was_restored(photograph, monkeypatch):
    """Else what a camera drives towards would come in sharp, and no error would add up."""
    monkeypatch.setattr(unrolling, 'UNRESTORED', 0.0)
    unroll = Unroll(ride(photograph), 'derain', torch.device('cpu'), 1)
    _, _, target = unroll.frame(0)
    for error in (0.0, -0.1):
        unroll.keep(target + error)
        top = unroll._before(0) - unroll.sharp[:, 0]
        assert top[..., : unrolling.FLOW_MARGIN, :].mean() == pytest.approx(error, abs=0.02)


def test_the_shutter_is_told_roughly_or_assumed_or_not(photograph):
    cues = torch.stack([
        evidence.cues[0, 3:].mean((1, 2))
        for _, evidence in evidence_of(ride(photograph), 'deblur', 80)
    ])
    motion, known = cues[:, 0] * MOTION_UNIT / PACE, cues[:, -2] > 0.5
    assert known.float().mean() == pytest.approx(0.6, abs=0.12)
    assert motion[known].abs().mean() == pytest.approx(0.5, rel=0.1)
    assert motion[known].std() > 0.01
    none = motion.abs() < 1e-6
    assert 0.01 < none.float().mean() < 0.2 and not (none & known).any()
    assumed = motion[~known & ~none].abs()
    torch.testing.assert_close(
        assumed, torch.full_like(assumed, ASSUMED_SHUTTER), rtol=0.1, atol=0)


def test_an_unknown_shutter_is_never_told(photograph):
    batch = ride(photograph, float('nan'))
    for _, evidence in evidence_of(batch, 'deblur', 20):
        assert evidence.cues.isfinite().all() and evidence.cues[:, -2].max() == 0


@pytest.fixture
def exact(monkeypatch):
    """Tell the shutter and the rates as they are."""
    for name in (
        'UNSURE', 'UNSURE_BESIDE_IT', 'UNKNOWN', 'UNKNOWN_BESIDE_IT', 'NOT_ASKED', 'UNUSED',
        'NOISE', 'BIAS', 'LATE', 'FOCAL', 'MISTAKEN',
    ):
        monkeypatch.setattr(unrolling, name, 0.0)
    monkeypatch.setattr(unrolling, 'RATES', (2000.0, 2000.0))


def shaken(photograph, share=0.6, far=6):
    """Return a batch of one of a camera that only shakes, ``far`` pixels, and the camera."""
    side = SIDE + 2 * FLOW_MARGIN
    camera = ShakenCamera.draw(np.random.default_rng(3), 3, side, share)
    farther = far / max(camera.extent(time, share) for time in range(3))
    camera = replace(camera, shake=camera.shake.scaled(farther))
    still = CameraPath(*np.zeros((2, 2)), *np.zeros((2, 2, 2)), np.zeros(2))
    scene = MovingScene(photograph, side, still, (180.0, 120.0))
    scene.shaken = camera, 1.0
    sharp, blurred = (
        torch.from_numpy(np.stack(frames)).round().clamp(0, 255).byte().permute(0, 3, 1, 2)[None]
        for frames in (
            [scene.frame(time) for time in (-1, 0, 1)],
            [scene.exposure(time, share, True) for time in (-1, 0, 1)],
        )
    )
    known = torch.tensor([camera.focal, *camera.middle, camera.period])
    rates = torch.from_numpy(camera.rates(3)).float()
    return (blurred, sharp, torch.tensor([share]), rates[None], known.float()[None]), camera


def true_path(camera, time, share, side):
    """Return where what each cell shows at ``time`` (frames) lies at the moments about it."""
    middles = np.arange(side // 4) * 4 + 1.5
    places = np.stack([*np.meshgrid(middles, middles), np.ones((side // 4,) * 2)], -1)
    path = []
    for moment in time + share * TAU:
        there = places @ (np.linalg.inv(camera.view(moment)) @ camera.view(time)).T
        path.append(there[..., :2] / there[..., 2:] - places[..., :2])
    return np.stack(path, 2)


def test_the_path_of_a_shaken_camera_is_the_true_one(photograph, exact):
    batch, camera = shaken(photograph, far=2.5)
    unroll = Unroll(batch, 'deblur', torch.device('cpu'), 1)
    for number in range(3):
        [known] = unroll._known(number, unroll.sharp[:, number - 1] if number else None)
        expected = true_path(camera, number, 0.6, SIDE + 2 * FLOW_MARGIN)
        assert np.abs(expected).max() > 1
        np.testing.assert_allclose(known.blurring.path, expected, atol=0.1)
        assert known.blurring.told == (1, 1)
        if number:  # nothing moves but by the camera's turning
            inner = np.s_[8:-8, 8:-8]
            assert np.abs(np.median(known.blurring.motion[inner], (0, 1))).max() < 0.6


def test_a_first_frame_has_a_path_and_nothing_before_it(photograph, exact):
    unroll = Unroll(shaken(photograph)[0], 'deblur', torch.device('cpu'), 1)
    image, evidence, _ = unroll.frame(0)
    assert torch.equal(evidence.before, image)
    assert not evidence.cues[:, :5].any() and evidence.cues[:, -1].min() == 1
    assert evidence.cues[:, 5:-2].abs().max() > 0.01
    assert evidence.undone.abs().mean() > 1e-3, "what Wiener's filter changes"


def test_some_gyroscopes_are_not_listened_to_and_some_are_wrong(photograph, monkeypatch):
    monkeypatch.setattr(unrolling, 'NOISE', 0.0)
    monkeypatch.setattr(unrolling, 'BIAS', 0.0)
    batch, _ = shaken(photograph)
    first, second = batch[3][0, 0, :2].tolist()
    assert first != second
    seen = []
    for seed in range(300):
        [gyroscope] = Unroll(batch, 'deblur', torch.device('cpu'), seed).gyroscopes
        x = gyroscope and gyroscope[0]._rates[0][0]
        seen.append('unused' if x is None else 'right' if x == first else 'wrong')
    shares = {name: seen.count(name) / 300 for name in set(seen)}
    assert shares['unused'] == pytest.approx(unrolling.UNUSED, abs=0.08)
    assert shares['wrong'] == pytest.approx(0.02, abs=0.015)
    no_gyroscope = (*batch[:3], torch.zeros_like(batch[3]), torch.zeros(1, 4))
    assert Unroll(no_gyroscope, 'deblur', torch.device('cpu'), 1).gyroscopes == [None]


def test_no_gradient_goes_through_time(photograph):
    generator = Generator('fast')
    unroll = Unroll(ride(photograph), 'deblur', torch.device('cpu'), 1)
    restored = generator(unroll.frame(0)[0])
    unroll.keep(restored)
    _, evidence, _ = unroll.frame(1)
    assert restored.requires_grad and not evidence.before.requires_grad


@pytest.mark.parametrize('task', ['derain', 'deblur'])
def test_it_learns_and_so_does_the_fusion(settings, task):
    trainer = Trainer(read_config([
        *settings, f'task={task}', 'rate={start: 1e-3, end: 1e-3}', 'data.clean=0', 'data.light=0',
    ]), ALONE)
    [batch] = trainer.batches.read([3])
    before = {k: v.clone() for k, v in trainer.generator.fusion.state_dict().items()}
    losses = []
    for _ in range(40):
        trainer.step = 2  # the same frames each time
        losses.append(trainer.take_step([batch])['loss'])
    assert losses[-1] < 0.85 * losses[0]
    after = trainer.generator.fusion.state_dict()
    assert all(not torch.equal(after[name], before[name]) for name in before)


def test_the_fusion_has_a_rate_of_its_own(settings):
    trainer = Trainer(read_config([*settings, 'rate={start: 1e-3, end: 1e-3}']), ALONE)
    trainer.take_step(list(trainer.batches.read([0])))
    body, fusion = trainer.optimiser.param_groups
    assert (body['lr'], fusion['lr']) == pytest.approx((1e-3, 2e-3))
    assert len(fusion['params']) == len(list(trainer.generator.fusion.parameters()))


def test_resumed_run_equals_an_uninterrupted_one(settings, tmp_path):
    configs = [read_config([*settings, f'output={tmp_path / name}']) for name in ('a', 'b')]
    take_steps(configs[0], 4)
    take_steps(configs[1], 1, 3, 4)
    whole, parts = (torch.load(c.output / 'checkpoint.pt', weights_only=True) for c in configs)
    for network in ('generator', 'average'):
        assert_equal(whole[network], parts[network])


def test_two_processes_equal_one_with_the_same_global_batch(settings, tmp_path):
    settings = [*settings, 'batch=1', 'stages=[{steps: 2}]']
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    finish(
        start(
            [*settings, f'output={tmp_path / "two"}'],
            '-m', 'torch.distributed.run', '--nproc_per_node=2', f'--master_port={port}',
        ),
        start([*settings, f'output={tmp_path / "one"}', 'accumulate=2']),
    )
    one, two = (
        torch.load(tmp_path / name / 'checkpoint.pt', weights_only=True) for name in ('one', 'two')
    )
    assert_equal(one['generator'], two['generator'], 1e-5)


def test_run_writes_weights_and_samples(settings):
    config = read_config([*settings, 'stages=[{steps: 2}]', 'save_every=2'])
    load_weights(run(config), 'deblur', 'fast')
    assert (config.output / 'samples' / '0000002.jpg').exists()


def test_weights_of_fast_without_a_past_are_taken_over(tmp_path, photograph):
    """Its layers had numbers one higher and its first convolution saw the frame's 48 planes."""
    old, new = Generator('fast'), Generator('fast')
    new.initialise()
    tensors = {
        f'body.{int(name.split(".")[1]) + 1}.{name.split(".", 2)[2]}': tensor
        for name, tensor in old.body.state_dict(prefix='body.').items()
    }
    tensors['body.1.weight'] = tensors['body.1.weight'][:, :48]
    old.state_dict = lambda: tensors
    save_weights(tmp_path / 'old', old, WeightsInfo('fast', 'deblur'))
    fusion = {k: v.clone() for k, v in new.fusion.state_dict().items()}
    start_from(new, tmp_path / 'old')
    assert_equal(fusion, new.fusion.state_dict())
    for name, tensor in new.body.state_dict(prefix='body.').items():
        expected = old.body.state_dict(prefix='body.')[name]
        if name == 'body.0.weight':
            tensor, expected = tensor[:, :48], expected[:, :48]
        torch.testing.assert_close(tensor, expected)


@pytest.mark.parametrize(('change', 'complaint'), [
    ('preset=wei2021', r'data\.frames=3: wei2021 sees one frame only, fast more'),
    ('adversarial.weight=1', r'data\.frames=3: the discriminator judges pictures'),
    ('data.layout=gopro', r'sequences are made from data\.layout=sharp or footage'),
    ('data.crop=30', r'data\.crop=30 has to be a multiple of 4'),
    ('data.frames=0', r'data\.frames=0: 1 to 10'),
    ('data.frames=1 data.streaks=rain', r'data\.streaks is for sequences: set data\.frames'),
])
def test_wrong_settings_are_named(settings, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_config([*settings, *change.split()])
