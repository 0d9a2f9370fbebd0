"""Which labels are wrong? Ranks training digits by self-influence, and counts the flipped labels met first.

Usage:
    python examples/training/mislabelled.py --out out

A tenth of the labels are flipped. Whoever inspects a tenth of the digits in random order meets a tenth of them.
Self-influence is compared with that, with the size of each gradient, and with plain losses, which need no
influence at all and are hard to beat. Source of the task: Koh and Liang 2017, section 5.4.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kit
import numpy as np

import jaxplain as jxp
from jaxplain import plot

L2 = 0.003
RANKINGS = ("self-influence", "loss", "gradient norm", "random")


class Result(NamedTuple):
    """Shares of the flipped labels met, by ranking: (seeds, train), after 1, 2, ... digits inspected."""

    found: dict[str, np.ndarray]
    gradient: float
    residual: float

    def early(self, name: str, share: float = 0.1) -> np.ndarray:
        """The share met when that share of all digits is inspected; of every seed."""
        met = self.found[name]
        return met[:, round(share * met.shape[1]) - 1]


def compute(num_train: int = 500, seeds: int = 5, classes: Sequence[int] = tuple(range(10))) -> Result:
    """Flips labels, trains and ranks, once a seed."""
    loss = lambda params, example: kit.cross_entropy(kit.linear(params, example.x), example)  # noqa: E731
    curvature = jxp.training.hessian(loss, regularizer=kit.regularizer(L2))
    explain = jxp.self_influence(loss, curvature=curvature, solve=jxp.training.dense())

    @jax.jit
    def rank(train: kit.Data) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        fit = kit.newton(kit.objective(loss, L2, train, jnp.ones(num_train)), kit.linear_params(64, len(classes)))
        values, info = explain(fit.params, train)
        losses, slopes = jax.vmap(jax.value_and_grad(loss), (None, 0))(fit.params, train)
        sizes = sum((leaf**2).reshape(num_train, -1).sum(1) for leaf in jax.tree.leaves(slopes))
        ranked: dict[str, Any] = {**dict(zip(RANKINGS, (values, losses, sizes), strict=False))}
        return ranked, fit.gradient, info.residual.max()

    found: dict[str, list[np.ndarray]] = {name: [] for name in RANKINGS}
    gradients, residuals = [], []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        train, _ = kit.split(kit.digits(*classes), num_train, 0, seed)
        flipped = np.isin(np.arange(num_train), rng.choice(num_train, num_train // 10, replace=False))
        wrong = (train.y + rng.integers(1, len(classes), num_train)) % len(classes)
        train = train._replace(y=np.where(flipped, wrong, train.y).astype(np.int32))
        with jax.enable_x64(True):
            values, gradient, residual = jax.device_get(rank(jax.tree.map(jnp.asarray, train)))
        for name, value in (values | {"random": rng.random(num_train)}).items():
            found[name].append(np.cumsum(flipped[np.argsort(-value)]) / flipped.sum())
        gradients.append(gradient)
        residuals.append(residual)
    stacked = {name: np.stack(rows) for name, rows in found.items()}
    return Result(stacked, float(max(gradients)), float(max(residuals)))


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Audits the labels; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    result = compute()
    rows = []
    for name in RANKINGS:
        met = (100 * result.early(name, share) for share in (0.05, 0.1, 0.2))
        rows.append([name, *(f"{m.mean():.0f} ({m.min():.0f} to {m.max():.0f}) %" for m in met)])
    some, loss = (result.early(name) for name in RANKINGS[:2])
    seeds, num_train = result.found["loss"].shape
    title = f"Flipped labels met, {seeds} seeds of {num_train} digits: mean (least to most)"
    kit.show(title, ["in the order of", "5 % inspected", "10 % inspected", "20 % inspected"], rows)
    print(
        f"self-influence at 10 %: {some.mean() / 0.1:.1f} x random; against plain loss better in "
        f"{(some > loss).sum()} seeds, equal in {(some == loss).sum()}, worse in {(some < loss).sum()}\n"
        f"gradient left at most {result.gradient:.0e}, residual of the systems at most {result.residual:.0e}"
    )
    percent = 100 * np.arange(1, num_train + 1) / num_train
    shown = slice(None, num_train // 2, 5)
    curves = {name: 100 * met.mean(0)[shown] for name, met in result.found.items()}
    figure = plot.curve(
        percent[shown],
        curves,
        title="How soon are flipped labels found?",
        x_label="digits inspected, %",
        y_label="flipped labels met, %",
    )
    return kit.write(figure, out / "training_mislabelled.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
