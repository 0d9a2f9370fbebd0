"""Do only near training images matter? Compares a kernel machine with a linear model and a network.

Usage:
    python examples/training/near_and_far.py --out out

All three tell 3 from 5 in the same digits. A support vector machine with a Gaussian kernel listens to its nearest
images, a linear model and a network also to far ones. On these digits an image of the same class mostly helps and
one of the other mostly harms, whatever the model. Source: Koh and Liang 2017, section 4.1, with other data.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kit
import numpy as np
from matplotlib.figure import Figure

import jaxplain as jxp

CLASSES, WIDTH, GAMMA, JITTER = (3, 5), 0.01, 0.5, 1e-6
L2 = {"kernel": 0.001, "linear": 0.003, "network": 0.003}


class Result(NamedTuple):
    """Influence (tests, train) by model, distances, whether classes agree, and how good the models are."""

    values: dict[str, np.ndarray]
    distance: np.ndarray
    same: np.ndarray
    accuracy: dict[str, float]
    gradient: dict[str, float]
    residual: dict[str, float]

    def rank_correlation(self, name: str) -> np.ndarray:
        """Spearman's correlation between |influence| and distance, of every test digit."""
        ranks = lambda a: np.argsort(np.argsort(a)).astype(float)  # noqa: E731
        pairs = zip(np.abs(self.values[name]), self.distance, strict=True)
        return np.array([np.corrcoef(ranks(v), ranks(d))[0, 1] for v, d in pairs])

    def near(self, name: str, share: float = 0.1) -> np.ndarray:
        """Which share of all |influence| the nearest training digits have, of every test digit."""
        order = np.argsort(self.distance, 1)[:, : round(share * self.distance.shape[1])]
        size = np.abs(self.values[name])
        return np.take_along_axis(size, order, 1).sum(1) / size.sum(1)

    def by_class(self, name: str) -> float:
        """Which share of |influence| has the sign that the class says: the same helps, the other harms."""
        size = np.abs(self.values[name])
        return float(size[(self.values[name] < 0) == self.same].sum() / size.sum())


def kernel_features(train: kit.Data, test: kit.Data) -> tuple[jax.Array, jax.Array]:
    """Vectors whose inner products are a Gaussian kernel's: a linear machine on them is a kernel machine."""

    def kernel(a: jax.Array, b: jax.Array) -> jax.Array:
        rows, columns = a.reshape(len(a), 1, -1), b.reshape(1, len(b), -1)
        return jnp.exp(-GAMMA * ((rows - columns) ** 2).sum(-1))

    root = jnp.linalg.cholesky(kernel(train.x, train.x) + JITTER * jnp.eye(len(train.y)))
    return root, jax.scipy.linalg.solve_triangular(root, kernel(train.x, test.x), lower=True).T


def score(params: jax.Array, x: jax.Array) -> jax.Array:
    """The score of a machine on vectors."""
    return params @ x


def smooth_hinge(score: jax.Array, example: kit.Data) -> jax.Array:
    """The loss of a score, its kink smoothed."""
    return WIDTH * jax.nn.softplus((1 - (2 * example.y - 1) * score) / WIDTH)


def compute(
    num_train: int = 160, num_tests: int = 40, steps: int = 800, models: Sequence[str] = tuple(L2)
) -> Result:
    """Trains the models and computes influence on some test digits."""
    data = kit.digits(*CLASSES)

    @partial(jax.jit, static_argnames="name")
    def run(name: str, train: kit.Data, test: kit.Data) -> Any:
        convex = name != "network"
        if name == "kernel":
            features = kernel_features(train, test)
            train, test = train._replace(x=features[0]), test._replace(x=features[1])
            predict, output_loss, start = score, smooth_hinge, jnp.zeros(num_train)
        else:
            predict, output_loss = (kit.linear if convex else kit.cnn), kit.cross_entropy
            start = kit.linear_params(64, 2) if convex else kit.cnn_params(jax.random.key(0), 2)
        loss = lambda params, example: output_loss(predict(params, example.x), example)  # noqa: E731
        f = kit.objective(loss, L2[name], train, jnp.ones(num_train))
        fit = kit.newton(f, start) if convex else kit.adam(f, start, steps=steps, rate=0.02)
        curvature = jxp.training.gauss_newton(
            lambda params, example: predict(params, example.x),
            output_loss,
            regularizer=kit.regularizer(L2[name]),
        )
        explain = jxp.influence(loss, curvature=curvature, solve=jxp.training.dense())
        values, info = explain(fit.params, train, test.take(jnp.arange(num_tests)))
        outputs = jax.vmap(predict, (None, 0))(fit.params, test.x)
        read = outputs > 0 if outputs.ndim == 1 else outputs.argmax(-1)
        return values, (read == test.y).mean(), fit.gradient, info.residual.max()

    with jax.enable_x64(True):
        train, test = jax.tree.map(jnp.asarray, kit.split(data, num_train, len(data.y) - num_train))
        found = {name: jax.device_get(run(name, train, test)) for name in models}
    rows = np.asarray(test.x)[:num_tests, None].reshape(num_tests, 1, -1)
    distance = np.linalg.norm(rows - np.asarray(train.x).reshape(1, num_train, -1), axis=-1)
    same = np.asarray(test.y)[:num_tests, None] == np.asarray(train.y)
    values = {name: f[0] for name, f in found.items()}
    return Result(values, distance, same, *({n: float(f[i]) for n, f in found.items()} for i in (1, 2, 3)))


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Compares the models; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    result, rows = compute(), []
    for name in result.values:
        shares = (np.median(result.near(name)), result.by_class(name), result.accuracy[name])
        numbers = [f"{np.median(result.rank_correlation(name)):+.2f}", *(f"{100 * s:.0f} %" for s in shares)]
        rows.append([name, *numbers, f"{result.gradient[name]:.0e}", f"{result.residual[name]:.0e}"])
    columns = ["model", "rank R", "nearest", "by class", "right", "gradient", "residual"]
    kit.show("How |influence| goes with distance, medians over test digits", columns, rows)
    print(
        "rank R: Spearman's correlation of |influence| with distance; nearest: the share of all |influence| that\n"
        "the nearest 10 % have; by class: the share with which the same class helps and the other harms"
    )

    figure = Figure((3.4 * len(result.values), 3.6), layout="constrained")
    figure.suptitle("Influence on one test digit by distance", fontsize=12, fontweight="bold")
    for i, name in enumerate(result.values):
        ax = figure.add_subplot(1, len(result.values), i + 1)
        values = result.values[name][0] / np.abs(result.values[name][0]).max()
        for same, color, marker in ((True, "#0072b2", "o"), (False, "#d55e00", "^")):
            kept = result.same[0] == same
            label = "same class" if same else "other class"
            ax.plot(result.distance[0][kept], values[kept], marker, color=color, markersize=3.5, label=label)
        ax.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("distance in pixels", fontsize=9)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("influence, by the largest; below 0: helps", fontsize=9)
    figure.axes[0].legend(frameon=False, fontsize=8)
    return kit.write(figure, out / "training_near_and_far.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
