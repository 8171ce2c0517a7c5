"""The options of commands for the veil and the glass, which are removed before deraining."""

import argparse
from pathlib import Path

from iov_restore_ros.model import finder_weights

FLAGS = {'veil': 'unveil', 'glass': 'clean_glass'}  # by the names of `model.FINDERS`


def add_finder_options(parser: argparse.ArgumentParser) -> None:
    """Add these options to ``parser``."""
    parser.add_argument(
        '--no-unveil', dest='unveil', action='store_false',
        help='keep the veil of fog and far rain, which task derain removes',
    )
    parser.add_argument(
        '--no-clean-glass', dest='clean_glass', action='store_false',
        help='keep drops and dirt on the glass, which task derain removes',
    )
    for name in FLAGS:
        parser.add_argument(
            f'--{name}-weights', type=Path, metavar='FILE',
            help=f'weights of the {name} network (default: the shipped ones)',
        )


def finder_files(options: argparse.Namespace) -> dict[str, Path]:
    """Return the weight files of the finders to use, by the names of `model.FINDERS`."""
    return {
        name: getattr(options, f'{name}_weights') or finder_weights(name)
        for name, flag in FLAGS.items() if getattr(options, flag)
    }
