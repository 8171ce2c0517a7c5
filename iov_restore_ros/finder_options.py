"""The options of commands that say what is taken off a frame before it is derained."""

import argparse
from pathlib import Path

from iov_restore_ros.model import finder_weights

FLAGS = {'veil': 'unveil', 'glass': 'clean_glass'}  # by the names of `model.FINDERS`


def add_finder_options(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    parser.add_argument(
        '--no-unveil', dest='unveil', action='store_false',
        help='leave the veil of fog and far rain, which task derain takes off',
    )
    parser.add_argument(
        '--no-clean-glass', dest='clean_glass', action='store_false',
        help='leave drops and dirt on the glass, which task derain takes off',
    )
    for name in FLAGS:
        parser.add_argument(
            f'--{name}-weights', type=Path, metavar='FILE',
            help='of what finds it (default: the shipped)',
        )


def finder_files(options: argparse.Namespace) -> dict[str, Path]:
    """Return the weight files of what is to be looked for, by the names of `model.FINDERS`."""
    return {
        name: getattr(options, f'{name}_weights') or finder_weights(name)
        for name, flag in FLAGS.items() if getattr(options, flag)
    }
