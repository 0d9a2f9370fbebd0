"""Which training images cost most over all? Sums influence over misread digits to find labels of one bad batch.

Usage:
    python examples/training/harmful_images.py --out out

In one batch of the training digits every 8 was entered as a 3. Influence is summed over the misread digits of a
validation set; the most harmful images are looked at, and left out; what that gains is measured on other digits.

This is an easy bug to find. Another that was tried, a batch of images turned on their side, was not found (18 % of
the most harmful, 10 % by chance), and leaving those out did not help.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import kit
import numpy as np

import jaxplain as jxp
from jaxplain import plot

L2 = 0.003


class Result(NamedTuple):
    """What was found."""

    train: kit.Data
    classes: Sequence[int]
    bad: np.ndarray  # (train,)
    values: np.ndarray  # (train,) influence summed over the misread digits
    num_misread: int
    losses: np.ndarray  # mean test losses: with all, without the most harmful, random ones, the bad batch
    errors: np.ndarray  # misread test digits, likewise
    predicted: np.ndarray  # change of the misread digits' loss: without the most harmful, without random ones
    actual: np.ndarray
    residual: float

    def met(self) -> float:
        """How many of the most harmful images, as many as the batch has, are of the batch: a share."""
        order = np.argsort(-self.values)[: self.bad.sum()]
        return float(self.bad[order].mean())


def compute(
    num_train: int = 250, num_valid: int = 300, classes: Sequence[int] = (1, 3, 5, 8, 9), num_random: int = 8
) -> Result:
    """Enters wrong labels, trains, explains, and trains again."""
    data = kit.digits(*classes)
    train, rest = kit.split(data, num_train, len(data.y) - num_train)
    rng = np.random.default_rng(0)
    three, eight = classes.index(3), classes.index(8)
    bad = (train.y == eight) & (np.arange(num_train) < num_train // 2)
    train, count = train._replace(y=np.where(bad, three, train.y).astype(np.int32)), int(bad.sum())
    loss = lambda params, example: kit.cross_entropy(kit.linear(params, example.x), example)  # noqa: E731
    curvature = jxp.training.hessian(loss, regularizer=kit.regularizer(L2))
    explain = jxp.influence(loss, curvature=curvature, solve=jxp.training.dense())
    with jax.enable_x64(True):
        train, rest = jax.tree.map(jnp.asarray, (train, rest))
        valid, test = rest.take(slice(num_valid)), rest.take(slice(num_valid, None))
        predict_all = jax.vmap(kit.linear, (None, 0))

        def fit(weights: jax.Array, start: object) -> object:
            return kit.newton(kit.objective(loss, L2, train, weights), start, max_steps=20).params

        params = jax.jit(fit)(jnp.ones(num_train), kit.linear_params(64, len(classes)))
        misread = valid.take(np.flatnonzero(predict_all(params, valid.x).argmax(-1) != valid.y))
        each, info = explain(params, train, misread)
        values = np.asarray(each).sum(0)
        groups = [np.argsort(-values)[:count]]
        groups += [rng.choice(num_train, count, replace=False) for _ in range(num_random)] + [bad]
        masks = np.ones((1 + len(groups), num_train))
        for mask, group in zip(masks[1:], groups, strict=True):
            mask[group] = 0

        def retrained(_: object, weights: jax.Array) -> tuple[jax.Array, ...]:
            again = fit(weights, params)
            wrong = (predict_all(again, test.x).argmax(-1) != test.y).sum()
            losses = jax.vmap(loss, (None, 0))
            return losses(again, test).mean(), wrong, losses(again, misread).sum()

        run = jax.jit(jxp.training.subset_retraining(retrained, chunk_size=1))
        effect = (1 - masks[1:]) @ np.asarray(jxp.removal_effect(values, num_train))
        residual = float(info.residual.max())
        losses, errors, own = jax.device_get(run(jax.random.key(0), masks))
    pick = lambda v: np.array([v[0], v[1], v[2 : 2 + num_random].mean(), v[-1]])  # noqa: E731
    return Result(
        jax.device_get(train),
        classes,
        bad,
        values,
        len(misread.y),
        pick(losses),
        pick(errors),
        effect[:-1],
        (own[1:] - own[0])[:-1],
        residual,
    )


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Finds the harmful images; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    result = compute()
    count, num_train = int(result.bad.sum()), len(result.bad)
    names = ("with all", *(f"without {w}" for w in ("the most harmful", "as many random ones", "the bad batch")))
    rows = [[n, f"{v:.3f}", f"{e:.0f}"] for n, v, e in zip(names, result.losses, result.errors, strict=True)]
    kit.show("Other digits, after training again", ["training images", "mean loss", "misread"], rows)
    r, slope = kit.agreement(result.predicted, result.actual)
    print(
        f"of the {count} most harmful images {100 * result.met():.0f} % are of the bad batch "
        f"({100 * count / num_train:.0f} % by chance)\nloss of the {result.num_misread} misread digits, predicted "
        f"against retrained: R {r:.3f}, slope {slope:.2f}, residual {result.residual:.0e}"
    )
    figure = plot.influence_table(
        result.train.x,
        result.values,
        names=[
            f"as a {result.classes[y]}" + ("*" if bad else "")
            for y, bad in zip(result.train.y, result.bad, strict=True)
        ],
        top=9,
        title="Which training images help and harm most, over all misread digits?",
        label="influence on the sum of their losses; * an 8 entered as a 3",
    )
    return kit.write(figure, out / "training_harmful.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
