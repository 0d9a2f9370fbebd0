"""What these scripts share: real digits, small models, training to a minimum, and how results are shown.

Influence speaks of a minimum: convex models are trained to theirs by Newton's method, networks by Adam on all
examples until little gradient is left, which is printed. Every example has a weight, 0 for one left out, and the
weighted sum is divided by the number of all examples: that is the objective which `removal_effect` is about.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table


class Data(NamedTuple):
    """Examples and their labels, stacked."""

    x: Any
    y: Any

    def take(self, indices: Any) -> "Data":
        """Some of the examples."""
        return Data(self.x[indices], self.y[indices])


class Fit(NamedTuple):
    """A trained model, and the norm of the gradient that is left."""

    params: Any
    gradient: jax.Array


# Data


def folder() -> Path:
    """Where scikit-learn keeps the tables that come with it; its code is not imported."""
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise ImportError("the data of this example come with scikit-learn: pip install scikit-learn")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data"


def digits(*classes: int) -> Data:
    """1797 handwritten digits (n, 8, 8) in [0, 1], those of some classes; labels count within `classes`."""
    table = np.loadtxt(folder() / "digits.csv.gz", delimiter=",")
    images, labels = table[:, :-1].reshape(-1, 8, 8) / 16, table[:, -1].astype(np.int32)
    if not classes:
        return Data(images, labels)
    kept = np.isin(labels, classes)
    return Data(images[kept], np.searchsorted(classes, labels[kept]).astype(np.int32))


def split(data: Data, num_train: int, num_test: int, seed: int = 0) -> tuple[Data, Data]:
    """Training and test examples, drawn without replacement."""
    order = np.random.default_rng(seed).permutation(len(data.y))[: num_train + num_test]
    return data.take(order[:num_train]), data.take(order[num_train:])


# Models: `logits(params, x)` of one example


def linear(params: Any, x: jax.Array) -> jax.Array:
    """Softmax regression."""
    return params["kernel"].T @ x.ravel() + params["bias"]


def linear_params(features: int, classes: int) -> Any:
    """Where its training starts."""
    return {"kernel": jnp.zeros((features, classes)), "bias": jnp.zeros(classes)}


def cnn(params: Any, x: jax.Array) -> jax.Array:
    """Two convolutions and a dense layer, smooth so that the loss has a curvature everywhere."""
    h = x[:, :, None]
    for layer, stride in zip(params["conv"], (2, 1), strict=True):
        side = len(h)
        # A product with patches: fast in float64, and with one kernel a model under vmap.
        h = jnp.pad(h, ((1, 1), (1, 1), (0, 0)))
        patches = [h[i : i + side : stride, j : j + side : stride] for i in range(3) for j in range(3)]
        h = jax.nn.squareplus(jnp.concatenate(patches, -1) @ layer["kernel"] + layer["bias"], 0.1)
    h = h.reshape(2, 2, 2, 2, -1).mean((1, 3))
    return h.ravel() @ params["dense"]["kernel"] + params["dense"]["bias"]


def cnn_params(key: jax.Array, classes: int = 10, features: tuple[int, int] = (4, 8)) -> Any:
    """Where its training starts, for images of 8x8."""

    def layer(key: jax.Array, rows: int, columns: int) -> Any:
        kernel = jax.random.normal(key, (rows, columns)) * np.sqrt(2 / rows)
        return {"kernel": kernel, "bias": jnp.zeros(columns)}

    (first, second), keys = features, jax.random.split(key, 3)
    convolutions = [layer(keys[0], 9, first), layer(keys[1], 9 * first, second)]
    return {"conv": convolutions, "dense": layer(keys[2], 4 * second, classes)}


def cross_entropy(logits: jax.Array, example: Data) -> jax.Array:
    """The loss of one example."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, example.y)


# Training


def objective(loss: Any, l2: Any, data: Data, weights: jax.Array) -> Callable[[Any], jax.Array]:
    """`f(params)`: the weighted losses over the number of examples, plus half of l2 times the squared norm."""

    def value(params: Any) -> jax.Array:
        return jax.vmap(loss, (None, 0))(params, data) @ weights / len(data.y) + regularizer(l2)(params)

    return value


def regularizer(l2: Any) -> Callable[[Any], jax.Array]:
    """Half of l2 times the squared norm of all parameters."""
    return lambda params: l2 / 2 * optax.tree.norm(params, squared=True)


def newton(f: Callable[[Any], jax.Array], start: Any, *, max_steps: int = 40, tol: float = 1e-10) -> Fit:
    """The minimum of a smooth and convex function of few parameters, by Newton steps, halved where they miss."""
    flat, unravel = ravel_pytree(start)
    value = lambda v: f(unravel(v))  # noqa: E731
    scales = 0.5 ** jnp.arange(10)

    def step(state: Any) -> Any:
        v, slope, k = state
        direction = jax.scipy.linalg.solve(jax.hessian(value)(v), slope, assume_a="pos")
        found = jax.vmap(lambda scale: value(v - scale * direction))(scales)
        # The full step, unless a shorter one is lower by more than rounding.
        best = jnp.where(found[0] <= found.min() + 1e-13, 0, jnp.argmin(found))
        v = v - scales[best] * direction
        return v, jax.grad(value)(v), k + 1

    go_on = lambda state: (jnp.linalg.norm(state[1]) > tol) & (state[2] < max_steps)  # noqa: E731
    v, slope, _ = jax.lax.while_loop(go_on, step, (flat, jax.grad(value)(flat), 0))
    return Fit(unravel(v), jnp.linalg.norm(slope))


def adam(f: Callable[[Any], jax.Array], start: Any, *, steps: int, rate: float) -> Fit:
    """A point near a minimum of a smooth function, by Adam with a rate that falls to 0."""
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def step(_: Any, state: Any) -> Any:
        params, memory = state
        change, memory = optimizer.update(jax.grad(f)(params), memory, params)
        return optax.apply_updates(params, change), memory

    params, _ = jax.lax.fori_loop(0, steps, step, (start, optimizer.init(start)))
    return Fit(params, optax.tree.norm(jax.grad(f)(params)))


# Results


def agreement(predicted: Any, actual: Any) -> tuple[float, float]:
    """Pearson's R, and the slope of the predicted on the actual values, 1 if they have the right size."""
    p, a = (np.ravel(v) - np.mean(v) for v in (predicted, actual))
    return float(p @ a / np.sqrt((p @ p) * (a @ a))), float(p @ a / (a @ a))


def out_folder(doc: str | None, argv: Sequence[str] | None) -> Path:
    """The folder that `--out` names, made."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    return out


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, its first column to the left and numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def write(figure: Figure, path: Path, seconds: float) -> list[Path]:
    """Saves a figure and says so."""
    figure.savefig(path, dpi=110, facecolor="white")
    print(f"{seconds:.0f} s; wrote:\n{path}")
    return [path]
