"""
Restore frames that do not fit in memory in tiles, with the result of the whole frame.

No generator has a global operation. A restored pixel depends on the frame within ``halo`` pixels,
and on the position of the pixel in its cell of 4x4. So a tile is read with this margin, at
multiples of 4, and the margin of the result is dropped.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from iov_restore_ros.inference.pixels import Window
from iov_restore_ros.model.fusion import CELL, RAISED_REACH
from iov_restore_ros.model.generators import PRESETS, SIZE_MULTIPLE, Generator

CPU_MEMORY = 2 << 30  # bytes of a pass: enough for 1920x1080 with any model, safe with 8 GB


class Tile(NamedTuple):
    """The window to read of the frame, the window to keep, and the latter inside the former."""

    read: Window
    keep: Window
    inner: Window


class Tiling:
    """Splits frames by the available memory: a pass has at most ``pixels`` pixels."""

    def __init__(self, model: str, device: torch.device) -> None:
        """Allow a pass 2 GiB on the CPU, or half of the memory that is free now on the GPU."""
        on_gpu = device.type == 'cuda'
        memory = torch.cuda.mem_get_info(device)[0] // 2 if on_gpu else CPU_MEMORY
        self.pixels = memory // PRESETS[model].memory
        self.halo = halo(model)
        self.halved = 0  # how often ``pixels`` was halved because the memory ran out

    def together(self, height: int, width: int) -> int:
        """Return how many frames of this size fit in one pass."""
        return self.pixels // (height * width)

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Return the tiles of a frame of this size; none if it fits in one pass."""
        if self.together(height, width):
            return []
        return plan_tiles(height, width, self.pixels, self.halo)

    def halve(self, tried: int) -> bool:
        """
        Limit passes to half of ``tried`` from now on: so many pixels did not fit in memory.

        Returns whether this is possible. A tile needs room for a cell and its halo at least.
        """
        tried = min(self.pixels, tried)
        if tried // 2 < (2 * self.halo + SIZE_MULTIPLE) ** 2:
            return False
        self.pixels = tried // 2
        self.halved += 1
        return True


def plan_tiles(height: int, width: int, pixels: int, halo: int) -> list[Tile]:
    """
    Cut a frame into tiles of at most ``pixels`` pixels, so that the fewest pixels are computed.

    Their keep windows cover the frame once. All tiles have the same size; at the end of a frame
    whose sides are not multiples of 4, they are smaller by the missing pixels. Raises
    ``ValueError`` if a cell of 4x4 with its halo does not fit.
    """
    best: tuple[int, int, int] | None = None
    for rows in range(1, ceil_div(height, SIZE_MULTIPLE) + 1):
        keep_height = cell_up(ceil_div(height, rows))
        read_height = min(cell_up(height), keep_height + 2 * halo)
        read_width = pixels // read_height // SIZE_MULTIPLE * SIZE_MULTIPLE
        if read_width >= width:
            columns = 1
        elif read_width >= 2 * halo + SIZE_MULTIPLE:
            columns = ceil_div(width, read_width - 2 * halo)
        else:
            continue
        keep_width = cell_up(ceil_div(width, columns))
        read_width = min(cell_up(width), keep_width + 2 * halo)
        computed = rows * columns * read_height * read_width
        best = min(best or (computed, keep_height, keep_width), (computed, keep_height, keep_width))
    if best is None:
        raise ValueError(f'a tile of {pixels} pixels is too small for a halo of {halo}')
    _, keep_height, keep_width = best
    return [
        Tile((rows[0], columns[0]), (rows[1], columns[1]), (rows[2], columns[2]))
        for rows in cut(height, keep_height, halo)
        for columns in cut(width, keep_width, halo)
    ]


def cut(length: int, keep: int, halo: int) -> list[tuple[slice, slice, slice]]:
    """Cut an axis into pieces of ``keep`` (a multiple of 4): read, keep and inner slices."""
    size = min(cell_up(length), keep + 2 * halo)
    pieces = []
    for start in range(0, length, keep):
        stop = min(start + keep, length)
        first = max(0, min(start - halo, cell_up(length) - size))
        pieces.append((
            slice(first, min(first + size, length)),
            slice(start, stop),
            slice(start - first, stop - first),
        ))
    return pieces


@cache
def halo(model: str) -> int:
    """
    Return how many pixels around a cell of 4x4 its restored pixels depend on, as a multiple of 4.

    The function follows the layers back from the cell to the frame.
    """
    with torch.device('meta'):
        generator = Generator(model)
    layers = list(generator.body.modules())
    if generator.fusion is not None:
        layers = [nn.PixelUnshuffle(SIZE_MULTIPLE), *generator.fusion.modules(), *layers]
    first, last = 0, SIZE_MULTIPLE - 1
    for layer in reversed(layers):
        if isinstance(layer, nn.ConvTranspose2d):
            stride, padding, reach = layer.stride[0], int(layer.padding[0]), layer.kernel_size[0]
            first = ceil_div(first + padding - reach + 1, stride)
            last = (last + padding) // stride
        elif isinstance(layer, nn.Conv2d):
            stride, padding, reach = layer.stride[0], int(layer.padding[0]), layer.kernel_size[0]
            first, last = first * stride - padding, last * stride - padding + reach - 1
        elif isinstance(layer, nn.PixelUnshuffle):
            factor = layer.downscale_factor
            first, last = first * factor, last * factor + factor - 1
        elif isinstance(layer, nn.PixelShuffle):
            first, last = first // layer.upscale_factor, last // layer.upscale_factor
        elif isinstance(layer, nn.Upsample):
            factor = int(layer.scale_factor)  # type: ignore[arg-type]
            first, last = first // factor, last // factor
    if generator.fusion is not None:
        first, last = first - RAISED_REACH * CELL, last + RAISED_REACH * CELL
    return cell_up(max(-first, last - SIZE_MULTIPLE + 1))


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)


def cell_up(length: int) -> int:
    """Return ``length``, rounded up to a multiple of 4."""
    return ceil_div(length, SIZE_MULTIPLE) * SIZE_MULTIPLE
