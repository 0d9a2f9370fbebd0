"""Does influence work for a support vector machine? Its loss has a kink, so the kink is smoothed.

Usage:
    python examples/training/smooth_hinge.py --out out

A linear machine tells 1 from 7. It is trained on the hinge loss, max(0, 1 - s) of the margin s. Influence at
these parameters is computed with t log(1 + exp((1 - s) / t)), and compared with really leaving examples out. With
t = 0 the Hessian sees the regulariser alone. Source: Koh and Liang 2017, section 4.2.

Printed for every width t: Pearson's R, which is blind to size, and the slope, which is 1 for the right size. An
example exactly on the margin stays hard: influence holds the margin fixed there, and retraining lets it go. The
strengths of the regulariser shown were chosen among six: with less than .1 R is lower still (.2 to .75 at .01).
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kit
import numpy as np
from matplotlib.figure import Figure

import jaxplain as jxp

WIDTHS = (0.0, 0.001, 0.1)
STRENGTHS = (0.1, 0.5)  # of the regulariser; the second is drawn
STAGES = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 1e-4, 1e-5)  # the hinge is approached through smoothed ones
HARD = 5  # how many test digits, those of largest loss


class Result(NamedTuple):
    """Changes of test losses, (seeds, tests, train), and how far they can be trusted."""

    predicted: dict[float, np.ndarray]  # by the width t
    actual: np.ndarray
    gap: float  # between the objective reached and a bound from below, relative
    residual: float

    def agreement(self, t: float) -> np.ndarray:
        """R and slope of every seed and test digit, (seeds x tests, 2)."""
        pairs = zip(*(a.reshape(-1, a.shape[-1]) for a in (self.predicted[t], self.actual)), strict=True)
        return np.array([kit.agreement(p, a) for p, a in pairs])


def hinge(t: float) -> Any:
    """The hinge loss of one example, smoothed over a width t."""

    def loss(w: jax.Array, example: kit.Data) -> jax.Array:
        gap = 1 - example.y * (w @ example.x)
        return t * jax.nn.softplus(gap / t) if t else jax.nn.relu(gap)

    return loss


def with_signs(data: kit.Data) -> kit.Data:
    """Digits as vectors with a 1 for the bias, labels as -1 and 1."""
    x = np.pad(data.x.reshape(len(data.y), -1), [(0, 0), (0, 1)], constant_values=1.0)
    return kit.Data(jnp.asarray(x), jnp.asarray(2.0 * data.y - 1))


def trained(l2: float, train: kit.Data, weights: jax.Array) -> jax.Array:
    """The minimum for the hinge itself, to a smoothing of the last stage."""
    w = jnp.zeros(train.x.shape[1])
    for t in STAGES:
        w = kit.newton(kit.objective(hinge(t), l2, train, weights), w, max_steps=12).params
    return w


def duality_gap(l2: float, train: kit.Data, w: jax.Array) -> jax.Array:
    """How far the objective can be from its minimum, relative to it."""
    n, t = len(train.y), STAGES[-1]
    alpha = jax.nn.sigmoid((1 - train.y * (train.x @ w)) / t) / n
    pulled = (alpha * train.y) @ train.x
    dual = alpha.sum() - pulled @ pulled / (2 * l2)
    return 1 - dual / kit.objective(hinge(0), l2, train, jnp.ones(n))(w)


def compute(
    num_train: int = 240, seeds: int = 5, l2: float = STRENGTHS[-1], widths: Sequence[float] = WIDTHS
) -> Result:
    """Trains, predicts, and leaves each example out, once a seed."""

    @jax.jit
    def run(train: kit.Data, test: kit.Data) -> Any:
        everything = jnp.ones(num_train)
        w = trained(l2, train, everything)
        losses = jax.vmap(hinge(0), (None, 0))(w, test)
        hard = test.take(jnp.argsort(-losses)[:HARD])
        # Whoever is beyond the margin pulls at nothing: to leave it out changes nothing, and needs no training.
        near = jnp.argsort(train.y * (train.x @ w))[: num_train * 2 // 3]

        def train_fn(_: Any, weights: jax.Array) -> jax.Array:
            return jax.vmap(hinge(0), (None, 0))(trained(l2, train, weights), hard)

        whole, without = jxp.training.leave_one_out(train_fn)(jax.random.key(0), num_train, near)
        actual = jnp.zeros((HARD, num_train)).at[:, near].set((without - whole).T)
        predicted, residuals = [], []
        for t in widths:
            curvature = jxp.training.hessian(hinge(t), regularizer=kit.regularizer(l2))
            explain = jxp.influence(hinge(t), test_fn=hinge(0), curvature=curvature, solve=jxp.training.dense())
            values, info = explain(w, train, hard)
            predicted.append(jxp.removal_effect(values, num_train))
            residuals.append(info.residual.max())
        beyond = (train.y * (train.x @ w))[near[-1]]
        return predicted, actual, duality_gap(l2, train, w), jnp.stack(residuals).max(), beyond

    runs, data = [], kit.digits(1, 7)
    with jax.enable_x64(True):
        for seed in range(seeds):
            train, test = kit.split(data, num_train, len(data.y) - num_train, seed)
            runs.append(jax.device_get(run(with_signs(train), with_signs(test))))
            if runs[-1][-1] < 1.01:
                raise RuntimeError("too few examples were left out: some beyond the margin must be among them")
    predicted = {t: np.stack([r[0][i] for r in runs]) for i, t in enumerate(widths)}
    actual = np.stack([r[1] for r in runs])
    return Result(predicted, actual, max(float(r[2]) for r in runs), max(float(r[3]) for r in runs))


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Compares the widths; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    figure, rows = Figure((3.4 * len(WIDTHS), 3.6), layout="constrained"), []
    results = {l2: compute(l2=l2) for l2 in STRENGTHS}
    for l2, result in results.items():
        for t in WIDTHS:
            (r, slope), (least, _), (most, _) = (f(result.agreement(t), 0) for f in (np.median, np.min, np.max))
            row = [f"{l2:g}", f"{t:g}", f"{r:.2f}", f"{least:.2f} to {most:.2f}", f"{slope:.2f}"]
            rows.append([*row, f"{result.gap:.0e}", f"{result.residual:.0e}"])
    result = results[STRENGTHS[-1]]
    figure.suptitle("Leaving an example out of a support vector machine", fontsize=12, fontweight="bold")
    for i, t in enumerate(WIDTHS):
        r, slope = np.median(result.agreement(t), 0)
        ax = figure.add_subplot(1, len(WIDTHS), i + 1)
        ax.axline((0, 0), slope=1, color="#bbbbbb", linewidth=0.8)
        ax.plot(result.actual.ravel(), result.predicted[t].ravel(), ".", color="#0072b2", markersize=3, alpha=0.5)
        ax.set_title(f"t = {t:g}: R {r:.2f}, slope {slope:.2f}", fontsize=10)
        ax.set_xlabel("retrained: change of a test loss", fontsize=9)
        ax.locator_params(nbins=5)
        ax.tick_params(labelsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("predicted by influence", fontsize=9)
    seeds, tests, num_train = result.actual.shape
    title = f"Influence against {num_train} removals, medians over {seeds} seeds and {tests} test digits each"
    kit.show(title, ["l2", "width t", "R", "least to most", "slope", "duality gap", "residual"], rows)
    return kit.write(figure, out / "training_smooth_hinge.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
