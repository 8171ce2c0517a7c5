"""
Detectors as small ONNX graphs, in the layouts of YOLOX and of Ultralytics.

A cell of the grids of 8, 16 and 32 pixels is a box where its mean colour is bright enough. YOLOX's
gets BGR 0..255: blue is objectness, green the score of class 0, red that of class 1. Ultralytics'
gets RGB 0..1: red is the score of class 0, blue that of class 1. Grey scores nothing.
"""

import math

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save_model

CYAN, PINK, RED, BLUE = (0, 255, 255), (255, 0, 255), (255, 0, 0), (0, 0, 255)
SLOPE, OFFSET = 4.0, -3.0  # of a score over a colour of 0..1: below three quarters is nothing


def write_detector(path, layout, size=None, wide=1, names=None):
    """
    Write a detector of two classes; returns ``path``.

    ``size`` is (height, width) of its input where that is fixed, ``wide`` the width of boxes in
    cells, and ``names`` what the file says of its classes.
    """
    height, width = size or ('h', 'w')
    nodes, constants = [], [
        numpy_helper.from_array(np.array(axis), f'axis{axis}') for axis in (2, 3)
    ]
    rows = 7 if layout == 'yolox' else 6
    constants.append(numpy_helper.from_array(np.array([1, rows, -1]), 'flat'))
    for s in (8, 16, 32):
        weights, bias = (yolox if layout == 'yolox' else ultralytics)(s, wide)
        constants += [
            numpy_helper.from_array(weights.astype(np.float32)[..., None, None], f'weights{s}'),
            numpy_helper.from_array(bias.astype(np.float32), f'bias{s}'),
            numpy_helper.from_array(np.zeros((1, 3, 1, 1), np.float32), f'nothing{s}'),
            numpy_helper.from_array(np.ones(1, np.float32), f'one{s}'),
        ]
        nodes += [
            helper.make_node(
                'AveragePool', ['images'], [f'mean{s}'], kernel_shape=[s, s], strides=[s, s]
            ),
            helper.make_node('Conv', [f'mean{s}', f'nothing{s}', f'one{s}'], [f'ones{s}']),
            helper.make_node('CumSum', [f'ones{s}', 'axis3'], [f'column{s}']),
            helper.make_node('CumSum', [f'ones{s}', 'axis2'], [f'row{s}']),
            helper.make_node(
                'Concat', [f'mean{s}', f'column{s}', f'row{s}'], [f'known{s}'], axis=1
            ),
            helper.make_node('Conv', [f'known{s}', f'weights{s}', f'bias{s}'], [f'cells{s}']),
            helper.make_node('Reshape', [f'cells{s}', 'flat'], [f'level{s}']),
        ]
    nodes.append(helper.make_node('Concat', ['level8', 'level16', 'level32'], ['all'], axis=2))
    last, shape = 'all', [1, rows, 'n']
    if layout == 'yolox':
        nodes.append(helper.make_node('Transpose', ['all'], ['turned'], perm=[0, 2, 1]))
        last, shape = 'turned', [1, 'n', rows]
    return write_graph(path, nodes, constants, [1, 3, height, width], {last: shape}, names)


def yolox(stride, wide):
    """Return weights and bias of: centre in the cell, logarithms of the size, and scores."""
    weights, bias = np.zeros((7, 5)), np.zeros(7)  # of three colours, column and row from 1
    bias[:2], bias[2] = 0.5, math.log(wide)
    weights[4, 0], bias[4] = SLOPE / 255, OFFSET
    weights[5, 1] = weights[6, 2] = 1 / 255
    return weights, bias


def ultralytics(stride, wide):
    """Return weights and bias of: centre and size in pixels, and scores."""
    weights, bias = np.zeros((6, 5)), np.zeros(6)
    weights[0, 3] = weights[1, 4] = stride
    bias[:2] = -stride / 2
    bias[2:4] = stride * wide, stride
    weights[4, 0] = weights[5, 2] = SLOPE
    bias[4:] = OFFSET
    return weights, bias


def write_constant(path, *shapes, value=0.0):
    """Write a graph that gives ``value`` in these shapes, whatever the picture."""
    names = [f'out{number}' for number in range(len(shapes))]
    constants = [
        numpy_helper.from_array(np.full(shape, value, np.float32), f'same{name}')
        for name, shape in zip(names, shapes, strict=True)
    ]
    nodes = [helper.make_node('Identity', [f'same{name}'], [name]) for name in names]
    outputs = dict(zip(names, map(list, shapes), strict=True))
    return write_graph(path, nodes, constants, [1, 3, 64, 64], outputs)


def write_graph(path, nodes, constants, shape, outputs, names=None):
    graph = helper.make_graph(
        nodes, 'detector', [helper.make_tensor_value_info('images', TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    if names is not None:
        helper.set_model_props(model, {'names': str(names)})
    save_model(model, path)
    return path


def scene(shape, *squares):
    """Return a grey picture of (height, width) with squares: left, top, side, colour."""
    picture = np.full((*shape, 3), 114, np.uint8)
    for left, top, side, colour in squares:
        picture[top : top + side, left : left + side] = colour
    return picture
