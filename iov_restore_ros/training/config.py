"""
The settings of a training run: a YAML file of config/train/, then name=value arguments.

The stages and the learning rate become a ``Plan``, which gives the stage and the rate of each step.
A stage can have its own settings, see ``config_of``.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from iov_restore_ros.compute.precisions import FOR_TRAINING
from iov_restore_ros.model import PRESETS
from iov_restore_ros.model.discriminator import INPUT_SIZE
from iov_restore_ros.model.fusion import CELL
from iov_restore_ros.model.generators import VIDEO
from iov_restore_ros.pictures.datasets import LAYOUTS
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.training.adversarial import OBJECTIVES
from iov_restore_ros.training.losses import LOSSES

SHARP, FOOTAGE = 'sharp', 'footage'  # layouts: sharp pictures degraded on the fly; videos
SHAPES = ('linear', 'cosine')
OPTIMISERS = ('adam', 'adamw')
PRECISIONS = ('auto', *FOR_TRAINING)
MOST_FRAMES = 10  # in a sequence; footage is read in stretches of 13
OF_THE_RUN = (  # settings that a stage cannot change
    'task', 'preset', 'output', 'stages', 'first_stage', 'device', 'precision', 'threads', 'vgg',
    'save_every', 'seed', 'start_from', 'data.validation', 'data.description',
)
MORE_THAN_0 = 1e-12
LIMITS = {  # minimum and maximum
    'batch': (1, math.inf),
    'accumulate': (1, math.inf),
    'save_every': (1, math.inf),
    'threads': (0, math.inf),
    'seed': (0, math.inf),
    'ema': (0, 1),
    'ramp': (0, 1),
    'fusion_rate': (0, math.inf),
    'max_gradient': (MORE_THAN_0, math.inf),
    'rate.start': (MORE_THAN_0, math.inf),
    'rate.end': (0, math.inf),
    'rate.warm_up': (0, math.inf),
    'adversarial.weight': (0, math.inf),
    'data.crop': (16, math.inf),
    'data.noise': (0, 1),
    'data.footage_share': (0, 1),
    'data.pairs_share': (0, 1),
    'data.pairs_shutter': (0, 1),
    'data.shaken': (0, 1),
    'data.clean': (0, 1),
    'data.light': (0, 1),
    'data.learned_share': (0, 1),
    'data.cache_gb': (0, math.inf),
    'data.workers': (0, math.inf),
}


@dataclass
class DataConfig:
    """The pictures' folders, and how crops and sequences are made from them."""

    root: Path = MISSING
    layout: str = SHARP  # or a name of datasets.LAYOUTS, or footage
    validation: Path | None = None  # a folder with input/ and gt/, for measuring only
    description: str = ''  # for the weight file: the data sets and their terms
    crop: int = 128  # pixels
    noise: float = 0.0  # greatest sigma of the noise on the input of real pairs (Sec. 4.1)
    frames: int = 1  # consecutive frames in a sequence; 1 means pictures
    burn_in: int = 0  # most frames of a sequence that are restored before those learnt from
    footage: list[Path] = field(default_factory=list)  # beside the stills, for sequences
    footage_share: float = 0.35
    pairs: list[Path] = field(default_factory=list)  # input and gt in temporal order, for sequences
    pairs_share: float = 0.15
    pairs_shutter: float | None = None  # exposure, as a share of the frame period, if known
    streaks: Path | None = None  # layers of rain streaks, for sequences
    shaken: float = 0.0  # share of the blurred sequences with a shaking camera and a gyroscope
    learned_blur: Path | None = None  # weights of `train_blur`, which blur some pictures
    learned_share: float = 0.3  # share of the pictures that `learned_blur` blurs
    clean: float = 0.1  # share of the crops degraded on the fly that are left clean
    light: float = 0.1  # share of those crops that are degraded only a little
    detailed: bool = False  # prefer crops with detail
    cache_gb: float = 4.0  # GB of decoded pictures for each kind of source; workers share them
    workers: int = 0  # processes that read ahead
    on_device: bool = False  # keep the sharp pictures on the device, and cut the crops there


@dataclass
class Stage:
    """
    One stage. With an adversarial term, each begins with a new discriminator (Sec. 4.1).

    ``settings`` apply to this stage alone, see ``config_of``.
    """

    epochs: int = 0  # either this
    steps: int = 0  # or this
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class RateConfig:
    """The learning rate over the whole training, or over a stage that sets its own."""

    start: float = 1e-4
    end: float = 1e-7
    shape: str = 'linear'
    warm_up: int = 0  # steps


@dataclass
class AdversarialConfig:
    """The adversarial term of the generator's loss; weight 0 trains without discriminator."""

    weight: float = 0.0
    objective: str = 'wasserstein'


@dataclass
class TrainConfig:
    """All settings of a run."""

    task: str = MISSING
    output: Path = MISSING
    stages: list[Stage] = MISSING
    losses: dict[str, float] = MISSING  # names of losses.LOSSES and their weights
    data: DataConfig = field(default_factory=DataConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    adversarial: AdversarialConfig = field(default_factory=AdversarialConfig)
    preset: str = 'fast'
    device: str = 'auto'
    precision: str = 'auto'  # of convolutions; auto takes the faster, measured at each start
    threads: int = 0  # CPU threads, 0 leaves it to PyTorch
    batch: int = 8  # crops in a batch, in each process
    accumulate: int = 1  # batches per step
    optimiser: str = 'adamw'
    fusion_rate: float = 1.0  # factor on the learning rate of the fusion
    max_gradient: float = 0.05  # norm; without it, rare large gradients would end a run
    ema: float = 0.999
    ramp: float = 0.0  # share of the steps until degradations of pictures have full strength
    vgg: Path | None = None  # VGG19 weights for the perceptual loss; None downloads them
    save_every: int = 1000  # steps
    seed: int = 1
    start_from: Path | None = None  # weights of any task (transfer, Sec. 2.4)
    first_stage: int = 0  # earlier stages are skipped


@dataclass(frozen=True)
class Plan:
    """
    Where each stage begins, in steps, and the learning rate of every step.

    This is the progressive ("gradient") training of Sec. 4.1, as data. The rate falls over the
    whole training. Each stage keeps the generator and begins with a new discriminator and new
    optimisers. If a stage sets its own rate, that rate falls within the stage.
    """

    starts: tuple[int, ...]
    steps: int
    rates: tuple[RateConfig, ...]  # of each stage
    spans: tuple[tuple[int, int], ...]  # the steps over which they fall: first, and last + 1

    def stage(self, step: int) -> int:
        """Return the number of the stage, from 0, that ``step`` belongs to."""
        return sum(start <= step for start in self.starts) - 1

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of ``step``: a linear rise, then the fall to ``rate.end``."""
        stage = self.stage(step)
        rate, (first, end) = self.rates[stage], self.spans[stage]
        done = (step - first) / max(1, end - first - 1)
        left = 1 - done if rate.shape == 'linear' else (1 + math.cos(math.pi * done)) / 2
        rise = min(1.0, (step - first + 1) / (rate.warm_up + 1))
        return rise * (rate.end + (rate.start - rate.end) * left)

    def end(self, stage: int) -> int:
        """Return the first step after ``stage``."""
        return (*self.starts, self.steps)[stage + 1]

    def done(self, step: int) -> float:
        """Return the completed share (0..1) of the steps over which the rate falls."""
        first, end = self.spans[self.stage(step)]
        return (step - first) / (end - first)


def make_plan(config: TrainConfig, steps_per_epoch: int) -> Plan:
    """Return the plan of ``config.stages``; an epoch shows every picture once."""
    starts = [0]
    for stage in config.stages:
        starts.append(starts[-1] + (stage.steps or stage.epochs * steps_per_epoch))
    spans = [
        (starts[number], starts[number + 1])
        if any(name.startswith('rate.') for name in stage.settings) else (0, starts[-1])
        for number, stage in enumerate(config.stages)
    ]
    rates = [config_of(config, number).rate for number in range(len(config.stages))]
    return Plan(tuple(starts[:-1]), starts[-1], tuple(rates), tuple(spans))


def config_of(config: TrainConfig, number: int) -> TrainConfig:
    """
    Return the settings of stage ``number``: the run's, overridden by the stage's own.

    A stage whose settings differ from the previous stage's is like a separate training that starts
    from the averaged weights.
    """
    settings = config.stages[number].settings
    if not settings:
        return config
    merged = OmegaConf.structured(config)
    for name, value in settings.items():
        OmegaConf.update(merged, name, value)
    changed = OmegaConf.to_object(merged)
    assert isinstance(changed, TrainConfig)
    return changed


def read_config(arguments: list[str]) -> TrainConfig:
    """
    Merge YAML files and name=value settings; the latter apply to all stages.

    Raises ``ValueError``, which says what is wrong.
    """
    try:
        given = OmegaConf.from_dotlist([a for a in arguments if '=' in a])
        merged = OmegaConf.merge(
            OmegaConf.structured(TrainConfig),
            *(_load(a) for a in arguments if '=' not in a), given,
        )
        missing = OmegaConf.missing_keys(merged)
        if missing:
            raise ValueError(f'not set: {", ".join(sorted(missing))}; give them as name=value')
        config = OmegaConf.to_object(merged)
        assert isinstance(config, TrainConfig)
        names = dict(_leaves(OmegaConf.to_container(given)))
        for stage in config.stages:
            stage.settings = {
                name: value for name, value in _leaves(stage.settings) if name not in names
            }
        _check_stages(config)
        every = [config_of(config, number) for number in range(len(config.stages))]
    except (OmegaConfBaseException, OSError, YAMLError) as error:
        raise ValueError(' '.join(str(error).split())) from error
    for stage_config in every:
        _check(stage_config)
    if all(one.data.frames == 1 for one in every):
        for name in ('footage', 'pairs', 'streaks'):
            if getattr(config.data, name):
                raise ValueError(f'data.{name} is for sequences: set data.frames, 2 and more')
    return config


def _leaves(settings: Any, above: str = '') -> Iterator[tuple[str, Any]]:
    """Yield (full name, value) of settings in nested mappings, named as on the command line."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f'{above}{name}.')
        else:
            yield f'{above}{name}', value


def _check_stages(config: TrainConfig) -> None:
    if not config.stages or any(bool(s.epochs) == bool(s.steps) for s in config.stages):
        raise ValueError('stages: a list of {epochs: N} or {steps: N}, one of both in each')
    for stage in config.stages:
        if min(stage.epochs, stage.steps) < 0:
            raise ValueError(f'stages: {{epochs: {stage.epochs}, steps: {stage.steps}}}: below 0')
        if stage.epochs and stage.settings:
            raise ValueError('stages: one with settings is given in steps, not in epochs')
        for name in stage.settings:
            if name in OF_THE_RUN:
                raise ValueError(f'stages: {name} is of the whole run, not of a stage')
    if not 0 <= config.first_stage < len(config.stages):
        raise ValueError(f'first_stage={config.first_stage}: 0 to {len(config.stages) - 1}')


def _check(config: TrainConfig) -> None:
    """Raise ``ValueError`` for the first invalid setting."""
    _check_limits(config)
    _choice('task', config.task, TASKS)
    _choice('preset', config.preset, PRESETS)
    _choice('precision', config.precision, PRECISIONS)
    _choice('optimiser', config.optimiser, OPTIMISERS)
    _choice('rate.shape', config.rate.shape, SHAPES)
    _choice('adversarial.objective', config.adversarial.objective, OBJECTIVES)
    # folders:A+B names two folders.
    _choice('data.layout', config.data.layout.partition(':')[0], (SHARP, FOOTAGE, *LAYOUTS))
    for name, weight in config.losses.items():
        _choice('losses', name, LOSSES)
        if not weight >= 0:
            raise ValueError(f'losses={{{name}: {weight}}}: 0 and more')
    if not any(config.losses.values()):
        raise ValueError('losses: none has a weight, nothing would be learnt')
    _check_sequences(config)
    if config.adversarial.weight and config.data.crop != INPUT_SIZE:
        raise ValueError(
            f'data.crop={config.data.crop}: the discriminator judges crops of {INPUT_SIZE}, Table 1'
        )


def _load(path: str) -> DictConfig:
    settings = OmegaConf.load(path)
    if not isinstance(settings, DictConfig):
        raise ValueError(f'{path}: a list, looked for settings as name: value')
    return settings


def _check_limits(config: TrainConfig) -> None:
    """Raise ``ValueError`` that names the first setting outside its ``LIMITS``."""
    for name, (least, most) in LIMITS.items():
        value = attrgetter(name)(config)
        if value is not None and not least <= value <= most:  # also true for NaN
            wanted = f'{least} and more' if most == math.inf else f'{least} to {most}'
            raise ValueError(f'{name}={value}: {wanted}')
    data = config.data
    if data.clean + data.light > 1:
        raise ValueError(f'data.clean={data.clean}, data.light={data.light}: together 1 at most')


def _check_sequences(config: TrainConfig) -> None:
    data = config.data
    if not 1 <= data.frames <= MOST_FRAMES:
        raise ValueError(f'data.frames={data.frames}: 1 to {MOST_FRAMES}')
    if not 0 <= data.burn_in < data.frames:
        raise ValueError(f'data.burn_in={data.burn_in}: 0 to data.frames - 1 ({data.frames - 1})')
    if data.learned_blur and not (TASKS[config.task].blur and data.layout == SHARP):
        blur = ' or '.join(f'task={task.name}' for task in TASKS.values() if task.blur)
        raise ValueError(f'data.learned_blur is for {blur} and data.layout={SHARP}')
    if data.on_device and (data.frames > 1 or data.layout != SHARP):
        raise ValueError(f'data.on_device is for data.frames=1 and data.layout={SHARP}')
    if data.frames == 1:
        return
    given = f'data.frames={data.frames}: '
    if not PRESETS[config.preset].evidence:
        raise ValueError(f'{given}{config.preset} sees one frame only, {", ".join(VIDEO)} more')
    if config.ramp:
        raise ValueError(f'{given}ramp is for pictures, set ramp=0')
    if config.adversarial.weight:
        raise ValueError(f'{given}the discriminator judges pictures, set adversarial.weight=0')
    if data.layout not in (SHARP, FOOTAGE):
        raise ValueError(
            f'{given}sequences are made from data.layout={SHARP} or {FOOTAGE}; '
            'pairs in order are given as data.pairs'
        )
    if data.crop % CELL:
        raise ValueError(f'{given}data.crop={data.crop} has to be a multiple of {CELL}')


def _choice(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise ValueError(f'{name}={value}: choose one of {", ".join(known)}')
