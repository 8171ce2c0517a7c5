"""Weight files: safetensors, never pickle. The header describes the training."""

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
# The finders: networks that run before a frame is derained. The key is the name of the network in
# the header of its file.
FINDERS: dict[str, type[nn.Module]] = {'veil': Veil, 'glass': Glass}


class WeightsError(Exception):
    """A weight file cannot be used; the message names the file and says what is wrong."""


@dataclass(frozen=True)
class WeightsInfo:
    """
    The header of a weight file. All values are text, as safetensors needs them.

    ``settings`` is JSON with all settings of the training. The last four fields are empty for old
    files, which do not have them.
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
    """Return the weight file that the package ships; raise ``WeightsError`` if there is none."""
    path = WEIGHTS_FOLDER / f'{model}_{task}.safetensors'
    if not path.is_file():
        raise WeightsError(f'{path}: no such file is shipped; give {model} a {task} file of yours')
    return path


def shipped_tasks(model: str) -> tuple[str, ...]:
    """Return the tasks for which the package ships a weight file of ``model``."""
    return tuple(
        task for task in TASKS if (WEIGHTS_FOLDER / f'{model}_{task}.safetensors').is_file()
    )


@dataclass(frozen=True)
class FinderInfo:
    """The header of the weight file of one of ``FINDERS``; see ``WeightsInfo``."""

    network: str
    trained_on: str = ''
    command: str = ''
    commit: str = ''
    settings: str = ''
    steps: str = ''
    hours: str = ''
    machine: str = ''


def finder_weights(name: str) -> Path:
    """Return the shipped weight file of one of ``FINDERS``."""
    return WEIGHTS_FOLDER / f'{name}.safetensors'


def save_weights(path: Path, generator: Generator, info: WeightsInfo) -> None:
    """Write the weights of ``generator`` as float32, with ``info`` in the header, atomically."""
    _write(path, generator, asdict(info))


def save_finder(path: Path, network: nn.Module, info: FinderInfo) -> None:
    """Write the weights of one of ``FINDERS``, as ``save_weights`` does."""
    _write(path, network, asdict(info))


def read_info(path: Path, task: str | None = None) -> WeightsInfo:
    """
    Read the header of the weight file ``path``, and nothing else of it.

    Raises ``WeightsError``, one sentence, if it is not a weight file, or not for the given
    ``task``.
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
    Read a generator (evaluation mode, CPU, float32) and its header from ``path``.

    Raises ``WeightsError``, one sentence, if anything is not as expected, also if the header names
    another ``task`` or ``preset`` than the given one.
    """
    info = read_info(path, task)
    if preset is not None and info.preset != preset:
        raise WeightsError(f'{path}: these weights are for model {info.preset!r}, not {preset!r}')
    generator = Generator(info.preset)
    fill_network(generator, path, info.preset)
    return generator.eval(), info


def load_veil(path: Path | None = None) -> Veil:
    """
    Read the finder of veils (evaluation mode, CPU, float32), by default the shipped one.

    Raises ``WeightsError``, one sentence, if anything is not as expected.
    """
    veil = load_finder('veil', path)
    assert isinstance(veil, Veil)
    return veil


def load_glass(path: Path | None = None) -> Glass:
    """Read the finder of drops and dirt on the glass; see ``load_veil``."""
    glass = load_finder('glass', path)
    assert isinstance(glass, Glass)
    return glass


def load_finder(name: str, path: Path | None = None) -> nn.Module:
    """Read one of ``FINDERS``; see ``load_veil``."""
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
    # Not save_file: only the owner can read the files that it writes.
    write_whole(path, save(tensors, metadata=header))


def read_header(path: Path) -> dict[str, str]:
    """Return the header of ``path``; raise ``WeightsError`` if it is no safetensors file."""
    if not path.is_file():
        raise WeightsError(f'{path}: there is no such weight file')
    try:
        with safe_open(path, framework='pt') as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f'{path}: not a readable safetensors file ({error})') from error


def fill_network(network: nn.Module, path: Path, name: str) -> None:
    """Load the weights of ``path`` into ``network``; errors call the network ``name``."""
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
