"""The layer-list networks with every convolution and pooling written out as a matrix, in float64 numpy.

A value is one flat vector (row-major in height, width, channels) and a network a list of units. Nothing here is
shared with the library.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from references.reader import networks, weights

Array = np.ndarray


class Affine(NamedTuple):
    """z_j = sum_i x_i W_ij + b_j; `linked` says which i reach which j, whatever the weight is."""

    name: str
    kind: str
    W: Array
    b: Array
    linked: Array


class Scale(NamedTuple):
    """A BatchNorm that is left where it stands: x_i scale_i + shift_i."""

    name: str
    scale: Array
    shift: Array


class Relu(NamedTuple):
    name: str


class Max(NamedTuple):
    """Output j is the largest of the inputs windows[j]."""

    name: str
    windows: list[Array]


class Average(NamedTuple):
    """Output j is sum_i x_i W_ij."""

    name: str
    W: Array


class Residual(NamedTuple):
    """The input plus what the units in `body` make of it."""

    name: str
    body: list["Unit"]


Unit = Affine | Scale | Relu | Max | Average | Residual


def cells(layer: dict[str, Any], shape: tuple[int, ...]) -> Iterator[tuple[int, int, list[tuple[int, ...]]]]:
    """For each output cell (row, column): the input cells (row, column, row and column in the window)."""
    (height, width), (down, right) = layer["window"], layer["stride"]
    (top, bottom), (left, last) = layer.get("padding", ((0, 0), (0, 0)))
    assert layer.get("dilation", [1, 1]) == [1, 1]
    assert layer.get("groups", 1) == 1
    for r in range((shape[0] + top + bottom - height) // down + 1):
        for c in range((shape[1] + left + last - width) // right + 1):
            inside = [
                (r * down - top + u, c * right - left + v, u, v) for u in range(height) for v in range(width)
            ]
            yield r, c, [cell for cell in inside if 0 <= cell[0] < shape[0] and 0 <= cell[1] < shape[1]]


def conv(
    layer: dict[str, Any], shape: tuple[int, ...], kernel: Array, bias: Array
) -> tuple[Unit, tuple[int, ...]]:
    placed = list(cells(layer, shape))
    out = (placed[-1][0] + 1, placed[-1][1] + 1, kernel.shape[3])
    W, linked = np.zeros((*shape, *out)), np.zeros((*shape, *out), bool)
    for r, c, inside in placed:
        for y, x, u, v in inside:
            W[y, x, :, r, c, :] = kernel[u, v]
            linked[y, x, :, r, c, :] = True
    matrix = (np.prod(shape), np.prod(out))
    everywhere = np.broadcast_to(bias, out).ravel()
    return Affine(layer["name"], "conv", W.reshape(matrix), everywhere, linked.reshape(matrix)), out


def pool(layer: dict[str, Any], shape: tuple[int, ...]) -> tuple[Unit, tuple[int, ...]]:
    index = np.arange(np.prod(shape)).reshape(shape)
    placed = list(cells(layer, shape))
    out = (placed[-1][0] + 1, placed[-1][1] + 1, shape[2])
    windows = [np.array([index[y, x, k] for y, x, *_ in inside]) for *_, inside in placed for k in range(shape[2])]
    if layer["op"] == "maxpool":
        return Max(layer["name"], windows), out
    return mean_of(layer["name"], windows, index.size), out


def mean_of(name: str, windows: list[Array], size: int) -> Average:
    W = np.zeros((size, len(windows)))
    for j, window in enumerate(windows):
        W[window, j] = 1 / len(window)
    return Average(name, W)


@functools.cache
def units(net: str, *, fold: bool = True) -> list[Unit]:
    """The units of a network; BatchNorm folded, with its eps, into the convolution before it if `fold`."""
    return build(networks()[net]["layers"], tuple(networks()[net]["shape"]), net, fold)[0]


def build(layers: list[dict[str, Any]], shape: tuple[int, ...], net: str, fold: bool):
    made: list[Unit] = []
    for layer in layers:
        name, op = layer["name"], layer["op"]
        own = {key.removeprefix(name + "."): np.asarray(w, float) for key, w in weights(net).items()}
        if op == "dense":
            W = own["kernel"]
            made.append(Affine(name, "dense", W, own["bias"], np.ones(W.shape, bool)))
            shape = (W.shape[1],)
        elif op == "conv":
            unit, shape = conv(layer, shape, own["kernel"], own["bias"])
            made.append(unit)
        elif op == "batchnorm":
            scale = own["scale"] / np.sqrt(own["var"] + layer["eps"])
            shift = own["bias"] - own["mean"] * scale
            scale, shift = (np.broadcast_to(v, shape).ravel() for v in (scale, shift))
            if fold:
                before = made.pop()
                made.append(before._replace(name=name, W=before.W * scale, b=before.b * scale + shift))
            else:
                made.append(Scale(name, scale, shift))
        elif op in ("maxpool", "avgpool"):
            unit, shape = pool(layer, shape)
            made.append(unit)
        elif op == "gap":
            index = np.arange(np.prod(shape)).reshape(-1, shape[-1])
            made.append(mean_of(name, list(index.T), index.size))
            shape = shape[-1:]
        elif op == "residual":
            assert layer["shortcut"] == []
            made.append(Residual(name, build(layer["body"], shape, net, fold)[0]))
        elif op == "relu":
            made.append(Relu(name))
        else:
            assert op == "flatten"
            shape = (int(np.prod(shape)),)
    return made, shape


def output(unit: Unit, x: Array) -> Array:
    if isinstance(unit, Affine):
        return x @ unit.W + unit.b
    if isinstance(unit, Scale):
        return x * unit.scale + unit.shift
    if isinstance(unit, Relu):
        return np.where(x > 0, x, 0.0)
    if isinstance(unit, Max):
        return np.array([x[window].max() for window in unit.windows])
    if isinstance(unit, Average):
        return x @ unit.W
    return x + values(unit.body, x)[-1]


def values(made: list[Unit], x: Array) -> list[Array]:
    """The input of every unit, and last the output."""
    passed = [np.asarray(x, float).ravel()]
    for unit in made:
        passed.append(output(unit, passed[-1]))
    return passed


def affine_names(made: list[Unit]) -> list[str]:
    """The affine units in the order of the layers, nested ones included."""
    names = []
    for unit in made:
        if isinstance(unit, Residual):
            names += affine_names(unit.body)
        elif isinstance(unit, Affine):
            names.append(unit.name)
    return names


def winner(x: Array, window: Array) -> int:
    """The place of the largest value in a window, the first of several."""
    return int(window[np.argmax(x[window])])
