"""Why does the model fail on a group that training hardly saw? Influence points at the few who were seen.

Usage:
    python examples/training/domain_mismatch.py --out out

A table of 442 patients with diabetes: does it progress faster than in the median patient? Among those under 30 it
mostly does not. All but seven of them are taken out of the training set, and six of the seven are ones in whom it
did, so that the model errs on the young. On each misjudged young patient the seven should have most influence.
How many are kept was chosen among twelve settings so that there is a mismatch: with three and one there was none.
Source of the set-up, on hospital readmission of children: Koh and Liang 2017, section 5.1.
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

L2, YOUNG, KEPT = 0.003, 30, (6, 1)  # of the young how many are kept in whom it did progress, and did not


class Result(NamedTuple):
    """Influence on each misjudged young patient, and how the models judge the young."""

    values: np.ndarray  # (misjudged, train)
    rare: np.ndarray  # (train,) whether it is one of the few young
    label: np.ndarray  # (train,) whether it progressed
    wrong: tuple[int, int]  # young misjudged by a model that saw the others too, and by the one that did not
    num_young: int
    residual: float

    def ranks(self) -> np.ndarray:
        """The places of the few when ordered by |influence|, 1 for the strongest: (misjudged, few)."""
        order = np.argsort(np.argsort(-np.abs(self.values), 1), 1) + 1
        return order[:, self.rare]

    def ratio(self) -> np.ndarray:
        """Their mean |influence| over that of the others, of each misjudged patient."""
        size = np.abs(self.values)
        return size[:, self.rare].mean(1) / size[:, ~self.rare].mean(1)


def patients() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised features with the decade of age as flags, whether it progressed, and who is young."""
    table = np.loadtxt(kit.folder() / "diabetes_data_raw.csv.gz")
    target = np.loadtxt(kit.folder() / "diabetes_target.csv.gz")
    age, rest = table[:, 0], table[:, 1:]
    decade = np.digitize(age, [YOUNG, 40, 50, 60, 70])
    features = np.concatenate([(rest - rest.mean(0)) / rest.std(0), np.eye(6)[decade]], 1)
    return features, (target > np.median(target)).astype(np.int32), age < YOUNG


def compute() -> Result:
    """Trains with few of the young, and explains the errors on the others."""
    x, y, young = patients()
    kept = [i for label, n in zip((1, 0), KEPT, strict=True) for i in np.flatnonzero(young & (y == label))[:n]]
    tested = np.setdiff1d(np.flatnonzero(young), kept)
    rows = np.setdiff1d(np.arange(len(y)), tested)
    loss = lambda params, example: kit.cross_entropy(kit.linear(params, example.x), example)  # noqa: E731
    curvature = jxp.training.hessian(loss, regularizer=kit.regularizer(L2))
    explain = jxp.influence(loss, curvature=curvature, solve=jxp.training.dense())

    @jax.jit
    def fit(data: kit.Data) -> Any:
        f = kit.objective(loss, L2, data, jnp.ones(len(data.y)))
        return kit.newton(f, kit.linear_params(x.shape[1], 2)).params

    with jax.enable_x64(True):
        everyone = kit.Data(jnp.asarray(x), jnp.asarray(y))
        train, test = everyone.take(rows), everyone.take(tested)
        # Each young patient judged by a model that saw all the others, that patient apart.
        fair = [
            bool(kit.linear(fit(everyone.take(np.delete(np.arange(len(y)), i))), everyone.x[i]).argmax() != y[i])
            for i in tested
        ]
        params = fit(train)
        wrong = np.flatnonzero(jax.vmap(kit.linear, (None, 0))(params, test.x).argmax(-1) != test.y)
        values, info = jax.device_get(explain(params, train, test.take(wrong)))
    rare, residual = np.isin(rows, kept), float(info.residual.max())
    return Result(values, rare, y[rows], (sum(fair), len(wrong)), len(tested), residual)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains the errors on the young; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    result = compute()
    ranks, few = result.ranks(), sum(KEPT)
    rows = [
        ["young patients judged", str(result.num_young)],
        ["misjudged by a model that saw the other young ones", str(result.wrong[0])],
        ["misjudged by the model that saw seven of them", str(result.wrong[1])],
        [f"of the {few} most influential rows, young ones (mean)", f"{(ranks <= few).sum(1).mean():.1f}"],
        ["mean |influence| of the young over the others'", f"{np.median(result.ratio()):.0f} x"],
    ]
    kit.show(f"{result.values.shape[1]} patients in training, {few} of them young", ["", ""], rows)
    print(f"residual of the systems at most {result.residual:.0e}")
    ages, outcomes = ("older", "young"), ("did not", "progressed")
    names = [f"{ages[int(rare)]}, {outcomes[y]}" for rare, y in zip(result.rare, result.label, strict=True)]
    title = "Who made the model misjudge a young patient?"
    figure = plot.bars(result.values[0], names, top=12, title=title, label="influence on the loss")
    return kit.write(figure, out / "training_domain.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
