"""
Print what weight files say of themselves.

    iov_restore weights FILE...    without FILE: the shipped ones

That is the network, the pictures, the command, the commit, the machine, and all settings of the
training as YAML. Files that were written before these were noted have fewer lines.
"""

import argparse
import json
import math
import sys
from pathlib import Path

from omegaconf import OmegaConf
from safetensors import safe_open

from iov_restore_ros.model.weights import WEIGHTS_FOLDER, WeightsError, read_header

ORDER = (
    'preset', 'network', 'task', 'trained_on', 'metrics', 'command', 'commit', 'steps', 'hours',
    'machine',
)
INDENT = 12


def describe(path: Path) -> str:
    """Return the text for one file. Raises ``WeightsError``, one sentence, for no weight file."""
    header = read_header(path)
    if not header.keys() & {'preset', 'network'}:
        raise WeightsError(f'{path}: the header names neither a preset nor a network')
    with safe_open(path, framework='pt') as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    count = sum(map(math.prod, shapes))
    lines = [
        str(path), f'  {"parameters":<{INDENT}}{count:,} in {path.stat().st_size / 1e6:.1f} MB'
    ]
    for name in ORDER:
        if header.get(name):
            lines.append(f'  {name:<{INDENT}}{header[name]}')
    if header.get('settings'):
        settings = OmegaConf.to_yaml(OmegaConf.create(json.loads(header['settings'])))
        lines += ['  settings', *(f'    {line}' for line in settings.splitlines())]
    return '\n'.join(lines)


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Print what weight files say of themselves.')
    parser.add_argument('files', nargs='*', type=Path, help='default: the shipped ones')
    files = parser.parse_args().files or sorted(WEIGHTS_FOLDER.glob('*.safetensors'))
    try:
        print('\n\n'.join(map(describe, files)))
    except WeightsError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
