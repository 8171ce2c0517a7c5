"""
Print a network layer by layer: python -m iov_restore_ros.tools.layer_table [NAME]

NAME is a generator (fast, wei2021, wei2021_preprint) or discriminator (the paper's Table 1).
"""

import argparse
import sys

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from iov_restore_ros.model import PRESETS, Discriminator, Generator

HEIGHT, WIDTH = 720, 1280


def layer_table(name: str) -> Table:
    """Return the table of network ``name``: output size, parameters, multiplications."""
    network: nn.Module
    if name == 'discriminator':
        network, size = Discriminator(), (256, 256)
    else:
        network, size = Generator(name), (HEIGHT, WIDTH)
    table = Table(title=f'{name}, input {size[1]}x{size[0]}x3')
    for heading in ('layer', 'kind', 'output', 'parameters', 'GMAC'):
        table.add_column(heading, justify='left' if heading in ('layer', 'kind') else 'right')
    totals = [0, 0.0]

    def add_row(layer: nn.Module, output: torch.Tensor, path: str) -> None:
        parameters = sum(p.numel() for p in layer.parameters())
        macs = 0.0
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            # A transposed convolution computes at its input's size, a quarter of its output's.
            places = output[0, 0].numel() if output.dim() == 4 else 1
            places = places // 4 if isinstance(layer, nn.ConvTranspose2d) else places
            macs = layer.weight.numel() * places / 1e9
        totals[0] += parameters
        totals[1] += macs
        shape = 'x'.join(str(n) for n in (*output.shape[2:], output.shape[1]))
        table.add_row(path, type(layer).__name__, shape, f'{parameters:,}', f'{macs:.2f}')

    for path, layer in network.named_modules():
        if not list(layer.children()) and not isinstance(layer, nn.Dropout):
            layer.register_forward_hook(
                lambda layer, _, output, path=path: add_row(layer, output, path)
            )
    # The meta device computes shapes, but no numbers.
    with torch.inference_mode():
        network.to('meta')(torch.empty(1, 3, *size, device='meta'))
    for path, layer in network.named_modules():
        if list(layer.children()):  # parameters outside of its layers
            for name, parameter in layer.named_parameters(path, recurse=False):
                totals[0] += parameter.numel()
                table.add_row(name, 'Parameter', '', f'{parameter.numel():,}', '')
    table.add_section()
    table.add_row('total', '', '', f'{totals[0]:,.0f}', f'{totals[1]:.1f}')
    return table


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description='Print a network layer by layer.')
    names = (*PRESETS, 'discriminator')
    parser.add_argument('name', nargs='*', default=['fast'], help=f'one of {", ".join(names)}')
    for name in parser.parse_args().name:
        if name not in names:
            parser.error(f'unknown network {name!r}: choose one of {", ".join(names)}')
        Console().print(layer_table(name))
    return 0


if __name__ == '__main__':
    sys.exit(main())
