"""Does LIME find what a model uses, and find it again? `python -m benchmarks.published.lime`.

Recall (Ribeiro et al. 2016, section 5.2): models known to use at most ten words of any text;
which share of the used words is among the ten largest weights? Among as many as are used?
Stability (Tan et al. 2023): over keys, the mean Jaccard index of the ten largest weights, and the spread of the
weights over their size; drawing from the kernel at a quarter of the samples against drawing without regard to it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import jaxplain as jxp

WORDS, LENGTH, TEXTS, SAMPLES, BEST = 300, 25, 100, 1000, 10
Model = Callable[[jax.Array], jax.Array]


def corpus(rng: np.random.Generator, total: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """(bags of words, labels): word frequencies fall like 1 / rank; ten words of middle rank praise or blame."""
    chances = 1 / (5 + np.arange(WORDS))
    bags = np.zeros((total, WORDS), np.float32)
    for bag in bags:
        bag[rng.choice(WORDS, LENGTH, replace=False, p=chances / chances.sum())] = 1
    weights = np.zeros(WORDS)
    weights[5:25] = rng.choice([-1, 1], 20) * rng.uniform(1, 2, 20)
    return bags, (bags @ weights + rng.normal(size=total) / 2 > 0).astype(int)


def sparse_logistic(bags: np.ndarray, labels: np.ndarray) -> tuple[Model, Callable[[np.ndarray], set[int]]]:
    """(probability of a bag, the words of a bag that it uses): at most ten words have weights."""
    for strength in np.geomspace(1, 0.001, 60):
        fitted: Any = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear").fit(bags, labels)
        if 0 < np.count_nonzero(fitted.coef_) <= 10:
            break
    weights, intercept = jnp.asarray(fitted.coef_[0]), float(fitted.intercept_[0])

    def used(bag: np.ndarray) -> set[int]:
        return {int(i) for i in np.flatnonzero(bag * fitted.coef_[0])}

    return lambda bag: jax.nn.sigmoid(bag @ weights + intercept), used


def small_tree(bags: np.ndarray, labels: np.ndarray) -> tuple[Model, Callable[[np.ndarray], set[int]]]:
    """(share of label 1 in the bag's leaf, the words of a bag on its way there)."""
    fitted: Any = DecisionTreeClassifier(max_leaf_nodes=10, random_state=0).fit(bags, labels)
    tree = fitted.tree_
    feature, left, right = (np.asarray(v) for v in (tree.feature, tree.children_left, tree.children_right))
    share = jnp.asarray(tree.value[:, 0, 1] / tree.value[:, 0].sum(1))

    def probability(bag: jax.Array) -> jax.Array:
        node = jnp.zeros((), int)
        for _ in range(tree.max_depth):
            inner = jnp.asarray(left)[node] >= 0
            present = bag[jnp.asarray(feature)[node]] > 0.5
            below = jnp.where(present, jnp.asarray(right)[node], jnp.asarray(left)[node])
            node = jnp.where(inner, below, node)
        return share[node]

    def used(bag: np.ndarray) -> set[int]:
        nodes = fitted.decision_path(bag[None]).indices
        return {int(feature[n]) for n in nodes if left[n] >= 0 and bag[feature[n]] > 0}

    return probability, used


def recalls(
    make: Any,
    seed: int,
    *,
    best: int | None = BEST,
    texts: int = TEXTS,
    num_samples: int = SAMPLES,
    **options: Any,
) -> Iterator[float]:
    """Of each text, the share of used words among the `best` largest weights (None: as many as are used)."""
    rng = np.random.default_rng(seed)
    bags, labels = corpus(rng)
    model, used = make(bags, labels)
    explain = jax.jit(jxp.lime(lambda z, counts: model(z @ counts), num_samples=num_samples, **options))
    asked = [bag for bag in bags if used(bag)][:texts]
    for k, bag in enumerate(asked):
        found = jxp.words(" ".join(f"w{i}" for i in np.flatnonzero(bag)))
        counts = found.counts({f"w{i}": i for i in range(WORDS)})
        counts = np.pad(counts, ((0, 0), (0, WORDS - counts.shape[1])))
        value = explain(jax.random.key(k), jnp.ones(len(found.names)), counts).value
        gold = used(bag)
        order = np.argsort(-np.abs(np.asarray(value)), kind="stable")
        top = order[: len(gold) if best is None else best]
        yield len({int(found.names[i][1:]) for i in top} & gold) / len(gold)


def stability(
    f: Model, x: jax.Array, *, keys: int = 30, best: int = 10, **options: Any
) -> tuple[float, float, float]:
    """(mean Jaccard index of the largest weights of two keys, spread over size of the weights, mean score)."""
    explain = jax.jit(lambda key: jxp.lime(f, chunk_size=50, **options)(key, x))
    fits = jax.lax.map(explain, jax.random.split(jax.random.key(0), keys))
    value = np.asarray(fits.value).reshape(keys, -1)
    tops = [set(row) for row in np.argsort(-np.abs(value), axis=1)[:, :best]]
    indices = [len(a & b) / len(a | b) for i, a in enumerate(tops) for b in tops[:i]]
    spread = np.sqrt(value.var(0, ddof=1).sum()) / np.linalg.norm(value.mean(0))
    return float(np.mean(indices)), float(spread), float(fits.score.mean())


def rough(parts: int = 40) -> tuple[Model, jax.Array]:
    """A random network of parts that act together, and the input with all of them on."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(parts, 32)) / np.sqrt(parts), rng.normal(size=32) / np.sqrt(32)
    mix, out = jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32)
    return lambda z: jax.nn.sigmoid(4 * jnp.tanh(2 * (z @ mix)) @ out), jnp.ones(parts)


def main() -> None:
    """Print both tables."""
    console = Console(width=120)
    table = Table(
        "model", "drawn", "samples", "among", "recall, mean", "lowest of 5 corpora", title="Recall of used words"
    )
    for make in (sparse_logistic, small_tree):
        settings: list[dict[str, Any]] = [{}, {"sampling": "uniform"}, {"num_samples": 250}, {"best": None}]
        for options in settings:
            figures = [np.mean(list(recalls(make, seed, **options))) for seed in range(5)]
            drawn, samples = options.get("sampling", "kernel"), options.get("num_samples", SAMPLES)
            among = "as many as used" if "best" in options else str(BEST)
            table.add_row(
                make.__name__, drawn, str(samples), among, f"{np.mean(figures):.3f}", f"{min(figures):.3f}"
            )
    console.print(table)
    columns = ("kernel", "drawn", "samples", "Jaccard of 10", "spread", "score")
    table = Table(*columns, title="Stability on a random network of 40 parts, 30 keys")
    f, x = rough()
    kernels: dict[str, dict[str, Any]] = {"cosine, .25 (default)": {}, "cosine, .1": {"kernel_width": 0.1}}
    for width in (1.0, 0.7, 0.5):
        kernels[f"Euclidean, {width}"] = {"distance": "euclidean", "kernel_width": width}
    for name, options in kernels.items():
        for drawn, samples in (("uniform", 1000), ("uniform", 250), ("kernel", 250)):
            figures = stability(f, x, sampling=drawn, num_samples=samples, **options)
            table.add_row(name, drawn, str(samples), *(f"{v:.3f}" for v in figures))
    console.print(table)


if __name__ == "__main__":
    main()
