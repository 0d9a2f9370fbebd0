"""The reference data as cases, and its networks as plain JAX functions of one example.

`cases("cam")` lists a group with inputs and outputs resolved to arrays. `network("N3")` is `logits(x)`; the
output of every layer is tagged with the layer's name, so `at="relu2"` finds it, nested layers included.
"""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp

DATA = Path(__file__).parent / "data"
GROUPS = tuple(sorted(path.stem.removeprefix("cases_") for path in DATA.glob("cases_*.json")))
ARRAYS = ("f64", "f32", "exact", "stderr")
Array = Any
Layer = Mapping[str, Any]


class Case(NamedTuple):
    """One answer of a library: what was asked, and of each output its arrays and tolerances."""

    id: str
    method: str
    variant: str
    net: str
    params: dict[str, Any]
    inputs: dict[str, Any]
    outputs: dict[str, dict[str, Any]]


@functools.cache
def cases(group: str) -> tuple[Case, ...]:
    """The cases of a group, with inputs and outputs resolved to arrays."""
    stored = arrays(f"cases_{group}.npz")

    def resolve(case: dict[str, Any]) -> Case:
        known = data(case["net"])

        def look_up(value):
            if not isinstance(value, str):
                return value
            return {"@": known, "#": stored}[value[0]][value[1:]]

        inputs = {name: look_up(value) for name, value in case["inputs"].items()}
        outputs = {
            name: {key: stored[value] if key in ARRAYS else value for key, value in output.items()}
            for name, output in case["outputs"].items()
        }
        as_stored = {field: case[field] for field in ("id", "method", "variant", "net", "params")}
        return Case(**as_stored, inputs=inputs, outputs=outputs)

    return tuple(resolve(case) for case in json.loads((DATA / f"cases_{group}.json").read_text())["cases"])


@functools.cache
def arrays(file: str) -> dict[str, np.ndarray]:
    with np.load(DATA / file) as opened:
        return dict(opened)


@functools.cache
def networks() -> dict[str, Any]:
    return json.loads((DATA / "nets.json").read_text())


def within(prefix: str) -> dict[str, np.ndarray]:
    """The networks' arrays whose name starts with a prefix, by the rest of the name."""
    named = arrays("nets.npz").items()
    return {name.removeprefix(prefix): array for name, array in named if name.startswith(prefix)}


def data(net: str) -> dict[str, np.ndarray]:
    """The inputs stored for a network, and `logits`, its outputs on `x`."""
    return within(f"{net}/d/")


@functools.cache
def weights(net: str) -> dict[str, np.ndarray]:
    """The parameters of a network, by layer and name: "fc1.kernel"."""
    return within(f"{net}/p/")


@functools.cache
def network(net: str, *, after: str | None = None, upto: str | None = None) -> Callable[[Array], Array]:
    """A network as a function of one example, in the example's own precision.

    Args:
        net: its name.
        after: start behind this top-level layer: the argument is then that layer's output.
        upto: stop with this top-level layer.
    """
    layers = networks()[net]["layers"]
    names = [layer["name"] for layer in layers]
    first = names.index(after) + 1 if after else 0
    last = names.index(upto) + 1 if upto else None

    def logits(x):
        return run(layers[first:last], weights(net), jnp.asarray(x))

    logits.__name__ = net
    return logits


def run(layers: list[Layer], parameters: dict[str, np.ndarray], x: jax.Array) -> jax.Array:
    """The layers one after another, each output tagged."""
    for layer in layers:
        # The weights come in the type of x: in float64 nothing is rounded, in float32 nothing is promoted.
        own = {
            name.removeprefix(layer["name"] + "."): jnp.asarray(weight, x.dtype)
            for name, weight in parameters.items()
            if name.startswith(layer["name"] + ".")
        }
        if layer["op"] == "residual":
            y = run(layer["body"], parameters, x) + run(layer["shortcut"], parameters, x)
        else:
            y = OPERATIONS[layer["op"]](layer, own, x)
        x = jxp.tag(y, layer["name"])
    return x


def per_channel(weight: jax.Array, x: jax.Array) -> jax.Array:
    """A vector over channels with axes of size 1 in front, as many as `x` has."""
    return jax.lax.expand_dims(weight, range(x.ndim - 1))


def dense(layer, w, x):
    y = x @ w["kernel"]
    return y + per_channel(w["bias"], y) if layer["bias"] else y


def conv(layer, w, x):
    y = jax.lax.conv_general_dilated(
        x[None],
        w["kernel"],
        window_strides=layer["stride"],
        padding=[tuple(pair) for pair in layer["padding"]],
        rhs_dilation=layer["dilation"],
        feature_group_count=layer["groups"],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]
    return y + per_channel(w["bias"], y) if layer["bias"] else y


def windows(layer, x, start, combine, padding):
    sizes = (*layer["window"], 1)
    strides = (*layer["stride"], 1)
    return jax.lax.reduce_window(x, start, combine, sizes, strides, (*map(tuple, padding), (0, 0)))


def maxpool(layer, _, x):
    return windows(layer, x, -jnp.inf, jax.lax.max, layer["padding"])


def avgpool(layer, _, x):
    height, width = layer["window"]
    return windows(layer, x, 0.0, jax.lax.add, ((0, 0), (0, 0))) / (height * width)


def scaled(layer, w, x, mean, var):
    standard = (x - mean) / jnp.sqrt(var + layer["eps"])
    return standard * per_channel(w["scale"], x) + per_channel(w["bias"], x)


def batchnorm(layer, w, x):
    return scaled(layer, w, x, per_channel(w["mean"], x), per_channel(w["var"], x))


def layernorm(layer, w, x):
    return scaled(layer, w, x, x.mean(-1, keepdims=True), x.var(-1, keepdims=True))


def attention(_, w, x):
    query, key, value = (x @ w[f"w{n}"] + per_channel(w[f"b{n}"], x) for n in "qkv")
    shares = jax.nn.softmax(query @ key.T / key.shape[-1] ** 0.5)
    return shares @ value @ w["wo"] + per_channel(w["bo"], x)


def lstm(layer, w, x):
    def step(state, token):
        hidden, cell = state
        gates = token @ w["kernel_ih"] + w["bias_ih"] + hidden @ w["kernel_hh"] + w["bias_hh"]
        enter, keep, new, show = jnp.split(gates, 4)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return (jax.nn.sigmoid(show) * jnp.tanh(cell), cell), None

    zero = jnp.zeros(layer["hidden"], x.dtype)
    (hidden, _), _ = jax.lax.scan(step, (zero, zero), x)
    return hidden


OPERATIONS = {
    "dense": dense,
    "conv": conv,
    "maxpool": maxpool,
    "avgpool": avgpool,
    "batchnorm": batchnorm,
    "layernorm": layernorm,
    "attention": attention,
    "lstm": lstm,
    "relu": lambda _layer, _w, x: jax.nn.relu(x),
    "softmax": lambda _layer, _w, x: jax.nn.softmax(x),
    "gap": lambda _layer, _w, x: x.mean((0, 1)),
    "mean_tokens": lambda _layer, _w, x: x.mean(0),
    "flatten": lambda _layer, _w, x: x.ravel(),
}
