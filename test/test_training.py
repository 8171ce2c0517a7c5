"""The trainer, on a folder of two pictures."""

import csv
import json
import os
import signal
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from training_runs import ALONE, assert_equal, finish, start, take_steps

from iov_restore_ros.model import FINDERS, load_weights, read_info
from iov_restore_ros.training.adversarial import COLLAPSE_STEPS, Judgement
from iov_restore_ros.training.batches import Batches
from iov_restore_ros.training.config import (
    RateConfig,
    Stage,
    TrainConfig,
    config_of,
    make_plan,
    read_config,
)
from iov_restore_ros.training.logs import draw_curves, running_mean
from iov_restore_ros.training.processes import Processes
from iov_restore_ros.training.train import run
from iov_restore_ros.training.trainer import BROKEN_STEPS, Trainer, TrainingError

OTHERS = {*FINDERS, 'learned_blur'}  # settings of other commands
GAN = ['data.crop=256', 'batch=1', 'adversarial.weight=0.01']


@pytest.fixture(scope='module')
def pairs(tmp_path_factory, pictures):
    root = tmp_path_factory.mktemp('pairs')
    for name in ('input', 'gt'):
        (root / name).mkdir()
        for number in '01':
            (root / name / f'{number}.png').write_bytes((pictures / f'{number}.png').read_bytes())
    return root


@pytest.fixture
def settings(pictures, tmp_path):
    """Return the settings of a very short run."""
    return [
        'task=derain', f'data.root={pictures}', f'output={tmp_path / "run"}', 'data.crop=32',
        'batch=2', 'stages=[{steps: 6}]', 'losses={charbonnier: 1.0}', 'save_every=3',
        'device=cpu', 'precision=float32',
    ]


def weights(path):
    return load_weights(path, 'derain')[0].state_dict()


def test_run_writes_weights_logs_and_samples(settings, pairs):
    config = read_config([
        *settings, f'data.validation={pairs}', 'data.description=two photographs',
    ])
    _, info = load_weights(run(config), 'derain', 'fast')
    assert info.trained_on == 'two photographs'
    assert pairs.name in info.metrics and 'dB' in info.metrics
    assert info.command.startswith('train')
    assert info.steps == '6 of 6' and float(info.hours) < 0.1
    assert 'thread' in info.machine and info.machine.endswith(', float32')
    settings = json.loads(info.settings)
    assert settings['batch'] == 2 and settings['data']['root'] == config.data.root.name
    assert settings['rate']['end'] == 1e-7, 'what nobody set is told, too'
    assert str(pairs.parent) not in info.settings + info.command, 'a folder of this machine'
    with (config.output / 'log.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['step'] for row in rows] == ['3', '6']
    assert float(rows[0]['charbonnier']) > 0 and float(rows[1]['PSNR']) > 20
    sample = cv2.imread(str(config.output / 'samples' / '0000006.jpg'))
    assert sample.shape == (2 * 32, 3 * 32, 3)
    assert list(config.output.glob('events.out.tfevents*')), 'TensorBoard'
    assert cv2.imread(str(config.output / 'curves.png')).std() > 10, 'something is drawn'


def test_curves_are_drawn_of_columns_that_begin_late_and_of_several_stages(tmp_path):
    rows = [{'step': str(n), 'stage': str(n // 3), 'loss': f'{1 / n}'} for n in range(1, 7)]
    rows[-1]['PSNR'] = '30.1'  # measured with the last checkpoint only
    draw_curves(rows, tmp_path / 'curves.png')
    assert cv2.imread(str(tmp_path / 'curves.png')).shape[1] == 800, 'two panels'


def test_running_mean_is_of_what_was_logged_before():
    assert running_mean(np.array([4.0, 2.0, 0.0, 8.0]), 2).tolist() == [4, 3, 1, 4]


def test_resumed_run_equals_an_uninterrupted_one(settings, tmp_path):
    """With everything that draws random numbers: degradations, discriminator, its penalty."""
    settings = [*settings, *GAN, 'adversarial.objective=wgan_gp', 'stages=[{steps: 2}, {steps: 2}]']
    configs = [read_config([*settings, f'output={tmp_path / name}']) for name in ('a', 'b')]
    take_steps(configs[0], 4)
    take_steps(configs[1], 1, 3, 4)
    whole, parts = (torch.load(c.output / 'checkpoint.pt', weights_only=True) for c in configs)
    for network in ('generator', 'average', 'discriminator'):
        assert_equal(whole[network], parts[network])
    assert whole['judgements'] == parts['judgements']


def test_the_hours_of_a_run_go_on_where_it_went_on(settings):
    config = read_config(settings)
    trainer = Trainer(config, ALONE)
    trainer.started -= 7200.0
    trainer.save()
    assert Trainer(config, ALONE).seconds() == pytest.approx(7200, abs=100)


def test_it_learns(settings):
    trainer = Trainer(read_config([*settings, 'rate={start: 1e-3, end: 1e-3}']), ALONE)
    [batch] = trainer.batches.read([7])
    losses = []
    for _ in range(60):
        trainer.step = 2  # the same rain each time
        losses.append(trainer.take_step([batch])['loss'])
    assert losses[-1] < 0.8 * losses[0]


def test_transfer_starts_from_the_other_tasks_weights(settings):
    path = run(read_config(settings))
    trainer = Trainer(read_config([
        *settings, 'task=deblur', f'start_from={path}', f'output={path.parent / "deblur"}'
    ]), ALONE)
    assert_equal(weights(path), trainer.generator.state_dict())


def test_the_papers_plan(pytestconfig):
    """Sec. 4.1: 500 + 5 x 200 epochs, from 1e-4 linearly to 1e-7; 2103 pictures of GOPRO."""
    path = pytestconfig.rootpath / 'config' / 'train' / 'wei2021_gopro.yaml'
    config = read_config([str(path), 'data.root=unused'])
    plan = make_plan(config, steps_per_epoch=2103)
    assert plan.steps == 1500 * 2103
    first = [next(s for s in range(0, plan.steps, 2103) if plan.stage(s) == n) for n in range(6)]
    assert [step // 2103 for step in first] == [0, 500, 700, 900, 1100, 1300]
    assert plan.learning_rate(0) == 1e-4
    assert plan.learning_rate(plan.steps // 2) == pytest.approx(0.50005e-4, rel=1e-3)
    assert plan.learning_rate(plan.steps - 1) == pytest.approx(1e-7)


def test_rate_rises_then_falls_along_a_cosine():
    rate = RateConfig(1.0, 0.0, 'cosine', warm_up=3)
    plan = make_plan(TrainConfig(stages=[Stage(steps=101)], rate=rate), 1)
    assert [plan.learning_rate(step) for step in (0, 50, 75, 100)] == pytest.approx(
        [0.25, 0.5, 0.146447, 0.0], abs=1e-6)


def test_degradations_grow_with_the_steps(settings):
    trainer = Trainer(read_config([*settings, 'stages=[{steps: 100}]', 'ramp=0.5']), ALONE)
    strengths = []
    for trainer.step in (0, 25, 50, 99):
        strengths.append(trainer.strength())
    assert strengths == pytest.approx([0.3, 0.65, 1.0, 1.0])


OWN = (
    'stages=[{steps: 2, settings: {batch: 1, ema: 0.5, rate: {start: 1e-3, end: 1e-4}}},'
    '{steps: 2, settings: {data: {frames: 2, crop: 16}, rate.start: 4e-4, losses.l1: 0.5}}]'
)


def test_a_stage_has_settings_of_its_own_and_the_command_line_beats_them(settings):
    config = read_config([*settings, OWN])
    first, second = (config_of(config, number) for number in range(2))
    assert (first.batch, first.data.frames, second.batch, second.data.frames) == (2, 1, 2, 2)
    given = [s for s in settings if not s.startswith('batch')]
    assert config_of(read_config([*given, OWN]), 0).batch == 1
    rates = [make_plan(config, 1).learning_rate(step) for step in range(4)]
    assert rates == pytest.approx([1e-3, 1e-4, 4e-4, 1e-7]), 'each falls within its stage'
    with pytest.raises(ValueError, match='seed is of the whole run'):
        read_config([*settings, 'stages=[{steps: 2, settings: {seed: 4}}]'])
    with pytest.raises(ValueError, match='ema=7'):
        read_config([*settings, 'stages=[{steps: 1}, {steps: 2, settings: {ema: 7}}]'])
    with pytest.raises(ValueError, match='colour'):
        read_config([*settings, 'stages=[{steps: 2, settings: {data.colour: 4}}]'])
    with pytest.raises(ValueError, match='not in epochs'):
        read_config([*settings, 'stages=[{epochs: 2, settings: {ema: 0.4}}]'])


def test_a_stage_with_settings_is_as_a_run_that_starts_from_the_weights(settings, tmp_path):
    """Also where a run is stopped between the two, and in the second."""
    settings = [s for s in settings if not s.startswith('batch')]
    names = 'whole', 'parts', 'second'
    whole, parts, second = ([*settings, OWN, f'output={tmp_path / name}'] for name in names)
    weights_of_both = run(read_config(whole))
    told = json.loads(read_info(weights_of_both).settings)
    assert told['data']['frames'] == 1, 'of the run'
    assert told['stages'][1]['settings']['data.frames'] == 2, 'and of each stage'
    take_steps(read_config(parts), 1, 2, 3, 4)
    alone = OWN.partition(',{steps')[0] + ']'
    first = run(read_config([*settings, f'output={tmp_path / "first"}', alone]))
    run(read_config([*second, f'start_from={first}', 'first_stage=1']))
    saved = [torch.load(tmp_path / n / 'checkpoint.pt', weights_only=True) for n in names]
    for other in saved[1:]:
        assert_equal(saved[0]['generator'], other['generator'])
        assert_equal(saved[0]['average'], other['average'])
    assert not torch.equal(weights(first)['body.0.bias'], weights(weights_of_both)['body.0.bias'])


def test_crops_on_the_device_are_pictures_by_number(settings, pictures):
    """Cut there, they are whole parts of the pictures, or of shrunk ones."""
    given = [*settings, 'data.on_device=true', 'batch=40']
    batches = [Batches(read_config(given), ALONE.device) for _ in range(2)]
    (first, second), (other, _) = (list(one.read([3, 4])) for one in batches)
    assert first.shape == (40, 3, 32, 32) and first.dtype == torch.uint8
    assert torch.equal(first, other) and not torch.equal(first, second)
    photographs = [cv2.imread(str(pictures / f'{name}.png'))[..., ::-1] for name in '01']
    crops = [np.ascontiguousarray(crop.permute(1, 2, 0).numpy()) for crop in first]
    found = [
        any(cv2.matchTemplate(photograph, one, cv2.TM_SQDIFF).min() < 1
            for photograph in map(np.ascontiguousarray, photographs)
            for one in (crop, np.ascontiguousarray(crop[:, ::-1])))
        for crop in crops
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.3), 'the others are of shrunk ones'
    take_steps(read_config([*given, 'batch=2']), 2)
    with pytest.raises(ValueError, match=r'on_device is for data\.frames=1'):
        read_config([*given, 'data.frames=2'])


def test_a_stage_keeps_the_generator_and_starts_the_discriminator_afresh(settings):
    trainer = Trainer(read_config([*settings, *GAN, 'stages=[{steps: 2}, {steps: 1}]']), ALONE)
    fresh = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    reader = trainer.read()
    for _ in range(2):
        trainer.take_step(next(reader))
    trained = {k: v.clone() for k, v in trainer.generator.state_dict().items()}
    old = trainer.discriminator
    assert any(not torch.equal(v, fresh[k]) for k, v in old.state_dict().items())
    assert len(trainer.judgements) == 2
    trainer.begin_stage(1)
    assert trainer.stage == 1 and trainer.discriminator is not old and not trainer.judgements
    assert_equal(trained, trainer.generator.state_dict())
    assert not trainer.optimiser.state, "the generator's optimiser starts afresh too"


def test_the_adversarial_term_reaches_the_generator_and_not_the_discriminator(settings):
    """The generator's own step must leave no gradient in the discriminator."""
    trainer = Trainer(read_config([*settings, *GAN]), ALONE)
    [batch] = trainer.batches.read([0])
    report = trainer.take_step([batch])
    with_game = trainer.generator.body[0].weight.grad.clone()
    judged = [p.grad.clone() for p in trainer.discriminator.parameters()]

    plain = Trainer(read_config([*settings, *GAN, 'adversarial.weight=1e-30']), ALONE)
    plain.take_step([batch])
    assert not torch.equal(with_game, plain.generator.body[0].weight.grad)
    for gradient, other in zip(judged, plain.discriminator.parameters(), strict=True):
        torch.testing.assert_close(gradient, other.grad)
    assert {'adversarial', 'discriminator', 'D_real', 'D_restored'} <= report.keys()


def test_accumulated_batches_equal_one_step(settings, pairs):
    """Two batches of one crop give the gradient of one batch of two (pairs: nothing is drawn)."""
    settings = [*settings, f'data.root={pairs}', 'data.layout=folders']
    reports = []
    for more, numbers in (['batch=2'], [0]), (['batch=1', 'accumulate=2'], [0, 1]):
        trainer = Trainer(read_config([*settings, *more]), ALONE)
        reports.append(trainer.take_step(list(trainer.batches.read(numbers))))
    assert reports[0] == pytest.approx(reports[1], rel=1e-4)


def test_two_processes_equal_one_with_the_same_global_batch(settings, tmp_path):
    """Real torchrun, real gloo, with the discriminator and its gradient penalty."""
    settings = [*settings, *GAN, 'adversarial.objective=wgan_gp', 'stages=[{steps: 2}]']
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
    assert_equal(one['discriminator'], two['discriminator'], 1e-5)


class Outvoted(Processes):
    """One of three processes; the other two found the other precision to be faster."""

    def mean(self, values):
        return (values + 2 * (1 - values)) / 3


@pytest.mark.parametrize(('found', 'taken'), [
    ('float32', torch.bfloat16), ('bfloat16', torch.float32),
])
def test_processes_agree_on_a_precision(settings, monkeypatch, found, taken):
    """It is measured: of two processes alike on a busy machine one may find the other faster."""
    monkeypatch.setattr(
        'iov_restore_ros.training.trainer.fastest_precision', lambda *_, **__: found
    )
    config = read_config([*settings, 'precision=auto'])
    assert Trainer(config, Outvoted(0, 1, torch.device('cpu'))).dtype == taken


def test_a_step_in_bfloat16_is_about_that_in_float32(settings):
    reports = []
    for precision in ('float32', 'bfloat16'):
        trainer = Trainer(read_config([*settings, f'precision={precision}']), ALONE)
        reports.append(trainer.take_step(list(trainer.batches.read([0]))))
    assert reports[0] != reports[1]
    assert reports[1] == pytest.approx(reports[0], rel=0.02)
    assert {p.dtype for p in trainer.generator.parameters()} == {torch.float32}


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_steps_on_cuda_like_on_the_cpu(settings, pairs):
    """On pairs, so that both devices see the same pictures."""
    settings = [*settings, *GAN, f'data.root={pairs}', 'data.layout=folders']
    reports = []
    for device, precision in ('cpu', 'float32'), ('cuda', 'bfloat16'):
        config = read_config([*settings, f'precision={precision}'])
        trainer = Trainer(config, Processes(0, 1, torch.device(device)))
        reports.append(trainer.take_step(list(trainer.batches.read([0]))))
    assert trainer.generator.body[0].weight.is_cuda
    for name in ('charbonnier', 'D_real', 'D_restored'):
        assert reports[1][name] == pytest.approx(reports[0][name], rel=0.05)


def test_interrupted_run_saves_and_says_where(settings):
    process = start([*settings, 'stages=[{steps: 100000}]', 'save_every=100000'])
    log = settings[2].removeprefix('output=') + '/log.csv'
    while not os.path.exists(log):  # written at step 50
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    printed, complaints = process.communicate(timeout=60)
    assert process.returncode == 0, complaints
    assert 'stopped and saved at step' in complaints
    assert weights(Path(printed.strip()))


def test_full_disk_does_not_end_the_run(settings, capsys):
    """A folder where the checkpoint's temporary file belongs makes writing fail, even for root."""
    config = read_config(settings)
    (config.output / '.checkpoint.part.pt').mkdir(parents=True)
    with pytest.raises(OSError, match=r'checkpoint\.pt was not written'):
        run(config)  # the last one is an error
    assert 'training goes on' in ' '.join(capsys.readouterr().err.split())


def test_steps_that_are_not_finite_change_nothing_and_end_the_run(settings):
    trainer = Trainer(read_config([*settings, 'losses={charbonnier: .inf}']), ALONE)
    before = {k: v.clone() for k, v in trainer.generator.state_dict().items()}
    [batch] = trainer.batches.read([0])
    for _ in range(BROKEN_STEPS - 1):
        trainer.take_step([batch])
    with pytest.raises(TrainingError, match=r'lower rate\.start'):
        trainer.take_step([batch])
    assert_equal(before, trainer.generator.state_dict())


def test_collapsed_discriminator_is_replaced(settings):
    trainer = Trainer(read_config([*settings, *GAN]), ALONE)
    old = trainer.discriminator
    trainer.judgements = [Judgement(0.6, 0.4, 0.24)] * COLLAPSE_STEPS
    assert trainer.replace_collapsed() is None and trainer.discriminator is old
    trainer.judgements = [Judgement(1.0, 0.0, 0.0)] * COLLAPSE_STEPS
    assert 'saturated' in trainer.replace_collapsed()
    assert trainer.discriminator is not old and not trainer.judgements


@pytest.mark.parametrize(('change', 'complaint'), [
    ('task=paint', 'choose one of deblur, derain'),
    ('batch=many', 'batch'),
    ('precision=float16', 'choose one of auto, float32, bfloat16'),
    ('data.color=red', 'color'),
    ('data.root=???', r'not set: data\.root'),
    ('data.layout=attic', 'data.layout=attic: choose one of sharp, footage, gopro'),
    ('losses={beauty: 1}', 'losses=beauty: choose one of charbonnier'),
    ('stages=[{epochs: 1, steps: 1}]', 'one of both'),
    ('adversarial.weight=1', 'data.crop=32: the discriminator judges crops of 256'),
])
def test_wrong_settings_are_named(settings, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_config([*settings, change])


def test_missing_config_file():
    with pytest.raises(ValueError, match=r'nowhere\.yaml'):
        read_config(['nowhere.yaml'])


def test_published_and_own_configs_are_valid(pytestconfig):
    folder = pytestconfig.rootpath / 'config' / 'train'
    paths = sorted(path for path in folder.glob('*.yaml') if path.stem not in OTHERS)
    assert len(paths) == 8
    for path in paths:
        given = OmegaConf.load(path)
        config = read_config([
            str(path), 'data.root=unused',
            *(['start_from=unused'] if OmegaConf.is_missing(given, 'start_from') else []),
        ])
        assert path.stem.startswith(config.preset), path.name
