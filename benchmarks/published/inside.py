"""What units, classes and concepts are worth: `python -m benchmarks.published.inside [study ...]`.

Over five digit networks (examples/zoo/digits_cnn.py), each from its own seed: what is left of a class without its
most influential units (Leino et al. 2018, section 4.2), what a few of them know, whether influence tells
misclassified digits, how often concepts made of chance are rejected (Kim et al. 2018), and what GrabCut makes of a
saliency map (Simonyan et al. 2014, section 3.2). Every network is asked about digits that it was not trained on;
units are ranked on digits that it was. Prints the median over seeds, and the range.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter
from scipy.stats import ttest_ind
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import jaxplain as jxp
from jaxplain import interior
from jaxplain.interior.concepts import pairwise

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

from zoo import digits_cnn, mnist_cnn

SEEDS = range(5)
Line = tuple[str, list[float], str]


def network(seed: int, num_train: int = 1200, epochs: int = 15) -> tuple[Any, Any, Any]:
    """(logits of one image, the digits it was trained on, others)."""
    params = digits_cnn.train(seed, num_train, epochs)
    train, test = digits_cnn.digits()
    rest = train.take(slice(num_train, None))
    new = digits_cnn.Examples(*(np.concatenate(pair) for pair in zip(rest, test, strict=True)))
    return lambda x: digits_cnn.logits(params, x), train.take(slice(num_train)), new


def ranking(logits: Any, at: str, known: Any) -> Callable[[int], np.ndarray]:
    """`units(label)`: units in the order of their influence on a class's logit, over the class's digits."""

    @jax.jit
    def rank(label: jax.Array, digits: Any) -> jax.Array:
        weights = (digits.labels == label).astype(jnp.float32)
        f = jxp.class_score(logits)
        explain = interior.internal_influence(f, at, weights=weights, times_activation=True)
        return interior.rank_units(explain(digits.images, label))

    return lambda label: np.asarray(rank(jnp.int32(label), known))


def by_activation(logits: Any, at: str, label: int, known: Any) -> np.ndarray:
    """Units in the order of their mean activation over the class's digits."""
    h, _ = jxp.slice_at(logits, at)
    z = np.asarray(jax.jit(jax.vmap(h))(known.images[known.labels == label]))
    return np.argsort(-z.reshape(-1, z.shape[-1]).mean(0))


def knock_out(seed: int, at: str, share: float = 0.1, draws: int = 10) -> dict[str, float]:
    """Mean probability of the class without some units, over that without random ones; mean over classes."""
    logits, known, new = network(seed)
    after = jax.jit(lambda units, images: jax.vmap(interior.drop_units(logits, at, units))(images))
    rank = ranking(logits, at, known)
    rng, left = np.random.default_rng(seed), {"influence": [], "activation": [], "random": []}
    for label in range(10):
        images = new.images[new.labels == label]
        influential = rank(label)
        count = round(share * len(influential))

        def remains(units: Any, images: Any = images, label: int = label) -> float:
            return float(jax.nn.softmax(after(jnp.asarray(units), images))[:, label].mean())

        left["influence"].append(remains(influential[:count]))
        left["activation"].append(remains(by_activation(logits, at, label, known)[:count]))
        chance = [rng.permutation(len(influential))[:count] for _ in range(draws)]
        left["random"].append(np.mean([remains(units) for units in chance]))
    means = {name: float(np.mean(values)) for name, values in left.items()}
    return {name: means[name] / means["random"] for name in ("influence", "activation")} | {
        "random": means["random"]
    }


def experts(seed: int, share: float, mean: bool, at: str = "dense") -> dict[str, float]:
    """Experts of a share of the units, on new digits; means over classes. The cut is at a score of 0.

    The other units are at 0, or at their mean over the training digits.
    """
    logits, known, new = network(seed)
    rows, rank = [], ranking(logits, at, known)
    usual = jax.jit(jax.vmap(jxp.slice_at(logits, at).h))(known.images).mean(0) if mean else 0.0
    expert = jax.jit(
        lambda label, units, xs: jax.vmap(interior.class_expert(logits, at, label, units, baseline=usual))(xs)
    )
    for label in range(10):
        influential = rank(label)
        units = influential[: max(1, round(share * len(influential)))]
        scores = np.asarray(expert(jnp.int32(label), jnp.asarray(units), new.images))
        member, yes = new.labels == label, scores > 0
        rows.append(
            (
                roc_auc_score(member, scores),
                balanced_accuracy_score(member, yes),
                yes[member].mean(),
                yes[~member].mean(),
            )
        )
    names = ("AUC", "balanced accuracy", "recall", "false positives")
    return dict(zip(names, map(float, np.mean(rows, 0)), strict=True))


def deviations(seed: int, at: str, num_train: int = 150) -> dict[str, float]:
    """AUC of telling misclassified digits, for a network that errs: by its profiles, and by its own confidence."""
    logits, known, new = network(seed, num_train, epochs=30)
    profiles = jax.jit(interior.class_profiles(logits, at))(known.images, known.labels)
    deviation = np.asarray(jax.jit(jax.vmap(interior.profile_deviation(logits, at, profiles)))(new.images))
    answers = np.asarray(jax.jit(jax.vmap(logits))(new.images))
    wrong = answers.argmax(-1) != new.labels
    confidence = np.asarray(jax.nn.softmax(answers)).max(-1)
    return {
        "profile": float(roc_auc_score(wrong, deviation)),
        "confidence": float(roc_auc_score(wrong, -confidence)),
        "errors": float(wrong.mean()),
    }


def chance_concepts(seed: int, trials: int = 100, sets: int = 20, size: int = 20) -> dict[str, float]:
    """How often a concept that is one more random set is rejected at .05, by our test and by the paper's."""
    logits, known, new = network(seed, 600, epochs=8)
    h, g = jxp.slice_at(logits, "dense")
    rng = np.random.default_rng(seed)
    pool = np.asarray(jax.jit(jax.vmap(h))(known.images))
    ours, theirs = [], []
    run = jax.jit(lambda z, slopes: pairwise(z - z.mean(0), slopes, size, 0.01)[:2])
    for trial in range(trials):
        label = trial % 10
        inputs = new.images[new.labels == label][:40]
        slopes = jax.vmap(lambda x, c=label: jax.grad(lambda z: g(z, x)[c])(h(x)))(inputs)
        drawn = rng.permutation(len(pool))[: (sets + 1) * size]
        score, sensitivity = map(np.asarray, run(pool[drawn], slopes))
        mean = abs(sensitivity.sum(1))
        ours.append((mean >= mean[0]).sum() / (sets + 1) < 0.05)
        result: Any = ttest_ind(score[0, 2:], score[1, 2:])
        theirs.append(result.pvalue < 0.05)
    return {"exact test": float(np.mean(ours)), "t-test": float(np.mean(theirs))}


HEIGHT, WIDTH, SIDE = 40, 72, mnist_cnn.IMAGE_SIZE


def composite(
    rng: np.random.Generator, left: np.ndarray, right: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Two coloured digits on a coloured ground, (40, 72, 3) in [0, 1], and where each of them is."""
    ground = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH, 3)), (3, 3, 0))
    canvas, places = rng.uniform(0, 0.25, 3) + 0.04 * ground / ground.std(), []
    for k, digit in enumerate((left, right)):
        row, column = rng.integers(0, HEIGHT - SIDE + 1), rng.integers(0, WIDTH // 2 - SIDE + 1)
        opacity = np.zeros((HEIGHT, WIDTH))
        column += k * WIDTH // 2
        opacity[row : row + SIDE, column : column + SIDE] = digit / 255
        colour = rng.uniform(0.6, 1, 3)
        colour[rng.integers(3)] *= 0.3
        canvas = canvas + opacity[..., None] * (colour - canvas)
        places.append(opacity > 0.5)
    return np.clip(canvas + rng.normal(size=canvas.shape) * 0.02, 0, 1).astype(np.float32), places


def segmentation(seed: int, pairs: int = 20) -> dict[str, float]:
    """Mean intersection over union with one digit of two, of GrabCut from its saliency and of thresholds."""
    logits, digits = mnist_cnn.load().logits, mnist_cnn.digits()

    def score(canvas: jax.Array, label: int) -> jax.Array:
        grey = canvas.max(-1)
        corners = [(i, j) for i in range(0, HEIGHT - SIDE + 1, 4) for j in range(0, WIDTH - SIDE + 1, 4)]
        crops = jnp.stack([grey[i : i + SIDE, j : j + SIDE] for i, j in corners])[..., None]
        answers = jax.vmap(logits)((crops - 0.1307) / 0.3081)
        return jax.nn.logsumexp(jax.nn.log_softmax(answers)[:, label])

    slope = jax.jit(jxp.smooth(jxp.gradient(score), num_samples=8, sigma=0.1))
    rng, found = np.random.default_rng(seed), []
    quantiles = (0.8, 0.85, 0.9, 0.95, 0.98)
    while len(found) < 2 * pairs:
        one, two = (digits[i] for i in rng.choice(len(digits), 2, replace=False))
        if one.label == two.label:
            continue
        canvas, places = composite(rng, one.pixels, two.pixels)
        for digit, place in zip((one, two), places, strict=True):
            value = np.asarray(slope(jax.random.key(seed), canvas, digit.label).value)
            saliency = gaussian_filter(abs(value).max(-1), 1.0)
            masks = [interior.segment(canvas, saliency)]
            masks += [saliency >= np.quantile(saliency, q) for q in quantiles]
            found.append([(m & place).sum() / (m | place).sum() for m in masks])
    mean = np.mean(found, 0)
    return {"GrabCut": float(mean[0]), "threshold at .95": float(mean[4]), "best threshold": float(mean[1:].max())}


def lines(name: str, run: Callable[[int], dict[str, float]], claims: dict[str, str]) -> Iterator[Line]:
    """A study's figures by name, over seeds."""
    rows = [run(seed) for seed in SEEDS]
    for key in rows[0]:
        yield f"{name}: {key}", [row[key] for row in rows], claims.get(key, "")


def knock_outs() -> Iterator[Line]:
    for at in ("conv1", "conv2", "dense"):
        claim = {"influence": "<= .3 at dense"} if at == "dense" else {}
        yield from lines(f"10 % of {at} off, share left", lambda seed, at=at: knock_out(seed, at), claim)


def all_experts() -> Iterator[Line]:
    for share in (0.01, 0.05, 0.1):
        for mean in (False, True):
            name = f"experts of {share:.0%} of dense, others at {'their mean' if mean else '0'}"
            yield from lines(name, lambda seed, share=share, mean=mean: experts(seed, share, mean), {})


def all_deviations() -> Iterator[Line]:
    for at in ("conv1", "conv2", "dense"):
        yield from lines(f"misclassified, {at}", lambda seed, at=at: deviations(seed, at), {"profile": ">= .8"})


def concepts() -> Iterator[Line]:
    yield from lines("chance concepts rejected at .05", chance_concepts, {"exact test": ".05"})


def segments() -> Iterator[Line]:
    yield from lines("IoU of one digit of two", segmentation, {"GrabCut": ">= best threshold + .05"})


STUDIES = {
    "knock_out": knock_outs,
    "experts": all_experts,
    "deviation": all_deviations,
    "concepts": concepts,
    "segmentation": segments,
}


def main(*names: str) -> None:
    """Print the table."""
    table = Table("what", "median", "least to most", "claim")
    for name in names or STUDIES:
        begin = time.perf_counter()
        for what, values, claim in STUDIES[name]():
            v = np.asarray(values)
            table.add_row(what, f"{np.median(v):.3g}", f"{v.min():.3g} to {v.max():.3g}", claim)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    Console(width=130).print(table)


if __name__ == "__main__":
    main(*sys.argv[1:])
