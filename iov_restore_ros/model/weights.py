"""Weight files: safetensors with the facts about their training in the header, never pickle."""

from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from iov_restore_ros.model.generators import PRESETS, Generator
from iov_restore_ros.model.glass import Glass
from iov_restore_ros.model.veil import Veil
from iov_restore_ros.tasks import TASKS
from iov_restore_ros.whole import write_whole

WEIGHTS_FOLDER = Path(__file__).parents[1] / 'weights'
# What is found by networks of their own, before a frame is derained: by the name that the header of
# a file gives its network.
FINDERS: dict[str, type[nn.Module]] = {'veil': Veil, 'glass': Glass}


class WeightsError(Exception):
    """A weight file that cannot be used; the message names the file and says what is wrong."""


@dataclass(frozen=True)
class WeightsInfo:
    """
    What a weight file says of itself. All values are text, as safetensors wants them.

    ``settings`` is JSON: all settings of the training. Files from before they were noted have none
    of the last four.
    """

    preset: str
    task: str
    trained_on: str = ''
    command: str = ''
    commit: str = ''
    metrics: str = ''
    settings: str = ''
    steps: str = ''
    hours: str = ''
    machine: str = ''


def shipped_weights(model: str, task: str) -> Path:
    """Return the weight file that comes with the package; ``WeightsError`` if none does."""
    path = WEIGHTS_FOLDER / f'{model}_{task}.safetensors'
    if not path.is_file():
        raise WeightsError(f'{path}: no such file is shipped; give {model} a {task} file of yours')
    return path


def shipped_tasks(model: str) -> tuple[str, ...]:
    """Return the tasks for which a weight file of ``model`` comes with the package."""
    return tuple(
        task for task in TASKS if (WEIGHTS_FOLDER / f'{model}_{task}.safetensors').is_file()
    )


@dataclass(frozen=True)
class FinderInfo:
    """What the weight file of a network of ``FINDERS`` says of itself, as ``WeightsInfo``."""

    network: str
    trained_on: str = ''
    command: str = ''
    commit: str = ''
    settings: str = ''
    steps: str = ''
    hours: str = ''
    machine: str = ''


def finder_weights(name: str) -> Path:
    """Return the weight file of ``FINDERS`` that comes with the package."""
    return WEIGHTS_FOLDER / f'{name}.safetensors'


def save_weights(path: Path, generator: Generator, info: WeightsInfo) -> None:
    """Write ``generator``'s weights as float32 with ``info`` in the header, atomically."""
    _write(path, generator, asdict(info))


def save_finder(path: Path, network: nn.Module, info: FinderInfo) -> None:
    """Write the weights of a ``network`` of ``FINDERS`` as ``save_weights`` does."""
    _write(path, network, asdict(info))


def read_info(path: Path, task: str | None = None) -> WeightsInfo:
    """
    Read what ``path`` says of itself, which must be for ``task`` where that is given.

    Looks at the header only. Raises ``WeightsError``, one sentence, for a file that is no weights.
    """
    header = read_header(path)
    if header.get('preset') not in PRESETS:
        raise WeightsError(
            f'{path}: the header names model {header.get("preset")!r}, '
            f'known are {", ".join(PRESETS)}'
        )
    fields = WeightsInfo.__dataclass_fields__
    info = WeightsInfo(task=header.get('task', ''), **{
        name: header.get(name, '') for name in fields if name != 'task'
    })
    if task is not None and info.task != task:
        raise WeightsError(f'{path}: these weights are for {info.task!r}, not for {task!r}')
    return info


def load_weights(
    path: Path, task: str | None = None, preset: str | None = None
) -> tuple[Generator, WeightsInfo]:
    """
    Read a generator (evaluation mode, CPU, float32) and its description from ``path``.

    ``task`` and ``preset``, where given, must be what the file says it holds. Raises
    ``WeightsError``, one sentence, when anything is not as expected.
    """
    info = read_info(path, task)
    if preset is not None and info.preset != preset:
        raise WeightsError(f'{path}: these weights are for model {info.preset!r}, not {preset!r}')
    generator = Generator(info.preset)
    fill_network(generator, path, info.preset)
    return generator.eval(), info


def load_veil(path: Path | None = None) -> Veil:
    """
    Read what finds veils (evaluation mode, CPU, float32); without ``path`` the shipped one.

    Raises ``WeightsError``, one sentence, when anything is not as expected.
    """
    veil = load_finder('veil', path)
    assert isinstance(veil, Veil)
    return veil


def load_glass(path: Path | None = None) -> Glass:
    """Read what finds drops and dirt on the glass, as ``load_veil`` reads."""
    glass = load_finder('glass', path)
    assert isinstance(glass, Glass)
    return glass


def load_finder(name: str, path: Path | None = None) -> nn.Module:
    """Read a network of ``FINDERS`` as ``load_veil`` reads."""
    path = path or finder_weights(name)
    network = read_header(path).get('network')
    if network != name:
        raise WeightsError(f'{path}: the header names network {network!r}, not {name!r}')
    finder = FINDERS[name]()
    fill_network(finder, path, name)
    return finder.eval()


def _write(path: Path, network: nn.Module, header: dict[str, str]) -> None:
    tensors = {
        name: tensor.detach().float().cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    # Not save_file, whose files nobody but their owner may read.
    write_whole(path, save(tensors, metadata=header))


def read_header(path: Path) -> dict[str, str]:
    """Return all that ``path`` says of itself; ``WeightsError`` if it is no safetensors file."""
    if not path.is_file():
        raise WeightsError(f'{path}: there is no such weight file')
    try:
        with safe_open(path, framework='pt') as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f'{path}: not a readable safetensors file ({error})') from error


def fill_network(network: nn.Module, path: Path, name: str) -> None:
    """Give ``network``, which is called ``name``, the weights of ``path``."""
    with safe_open(path, framework='pt') as file:
        tensors = {layer: file.get_tensor(layer) for layer in file.keys()}  # noqa: SIM118
    expected = network.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise WeightsError(
            f'{path}: not the layers of {name!r}: '
            f'missing {missing[:3] or "none"}, unknown {surplus[:3] or "none"}'
        )
    for layer, tensor in tensors.items():
        if tensor.shape != expected[layer].shape:
            raise WeightsError(
                f'{path}: {layer} has shape {tuple(tensor.shape)}, '
                f'{name!r} needs {tuple(expected[layer].shape)}'
            )
        if not tensor.isfinite().all():
            raise WeightsError(f'{path}: {layer} holds values that are not finite')
    network.load_state_dict(tensors)
