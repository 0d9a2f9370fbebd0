"""What does a network take for a digit? Climbs the log-probability of each digit, with and without an expert.

Usage:
    python examples/inside_prototypes.py --out out

Networks A and B are trained on halves of the digits that share none, from different seeds. Prototypes of the ten
digits are climbed in A: alone (plain), with a penalty (L2, total variation), or with an expert: the log density of
A's digits, of which nobody told it the labels. Then B says what it reads. Networks may share what they are fooled
by, so the nearest of the test digits is looked up too: is it one of the class, and how far? Writes a picture.

How strong a penalty or an expert is to be is chosen by A alone: the strongest of a few at which A still gives each
of its ten prototypes a probability of 0.99. The number of the expert's components is chosen by the log density of
some of A's digits, held out. B is asked once, at the end.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from zoo import digits_cnn

import jaxplain as jxp
from jaxplain import interior

STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
COMPONENTS = (10, 20, 40, 80)
SHRINKAGE = 0.02
SURE = 0.99
STARTS, STEPS = 6, 256
TERMS = ("plain", "L2", "total variation", "expert")


class Networks(NamedTuple):
    """Two networks, and the images that the first was trained on (n, 8, 8, 1)."""

    a: Any
    b: Any
    images: np.ndarray


class Prototypes(NamedTuple):
    """One image a digit, of one strength of one term.

    Attributes:
        images: (10, 8, 8, 1), in [0, 1].
        strength: what the penalty or the log-prior was multiplied by; NaN where there is none.
        a, b: the probabilities (10, 10) that the networks give: prototypes by classes.
        info: of the climbs, leaves (10, ...).
    """

    images: np.ndarray
    strength: float
    a: np.ndarray
    b: np.ndarray
    info: interior.PrototypeInfo

    @property
    def recognised(self) -> int:
        """By how many of the ten network B reads what they are prototypes of."""
        return int((self.b.argmax(1) == np.arange(10)).sum())


def networks(seed: int) -> Networks:
    """A and B, each from its own seed and its own half of the digits."""
    examples, _ = digits_cnn.digits()
    order = np.random.default_rng(seed).permutation(len(examples.labels))
    mine, other = np.split(order, 2)
    a = digits_cnn.train(seed=2 * seed, examples=examples.take(mine))
    b = digits_cnn.train(seed=2 * seed + 1, examples=examples.take(other))
    return Networks(a, b, examples.images[mine])


def expert(key: jax.Array, images: np.ndarray) -> tuple[Callable[[Any], jax.Array], int]:
    """(the log density of images, its number of components: the one that serves a fifth held out best)."""

    def fit(some: np.ndarray, count: int) -> Callable[[Any], jax.Array]:
        return interior.mixture_prior(key, some, num_components=count, shrinkage=SHRINKAGE)[0]

    held, rest = np.split(images, [len(images) // 5])
    count = max(COMPONENTS, key=lambda k: float(jax.vmap(fit(rest, k))(held).mean()))
    return fit(images, count), count


def climber(term: str, log_prior: Callable[[Any], jax.Array] | None = None) -> Callable[..., Any]:
    """`climb(params, key, starts, strength) -> (images (10, 8, 8, 1), info)`: for each digit, from its best start.

    The best start is the one that ends highest. `term` is one of TERMS.
    """

    @jax.jit
    def climb(params: Any, key: jax.Array, starts: jax.Array, strength: jax.Array) -> Any:
        options: dict[str, Any] = {
            "plain": {},
            "L2": {"regulariser": interior.l2(strength)},
            "total variation": {"regulariser": interior.total_variation(strength)},
            "expert": {"log_prior": lambda x: strength * log_prior(x)},  # pyright: ignore[reportOptionalCall]
        }[term]
        f = jxp.log_probability(lambda x: digits_cnn.logits(params, x))
        maximise = interior.activation_maximization(f, num_steps=STEPS, bounds=(0.0, 1.0), **options)

        def best(label: jax.Array) -> Any:
            keys = jax.random.split(jax.random.fold_in(key, label), len(starts))
            found, info = jax.vmap(maximise, (0, 0, None))(keys, starts, label)
            first = jnp.argmax(info.value + info.log_prior - info.regulariser)
            return jax.tree.map(lambda leaf: leaf[first], (found, info))

        return jax.vmap(best)(jnp.arange(10))

    return climb


def prototypes(both: Networks, term: str, log_prior: Callable[[Any], jax.Array] | None, seed: int) -> Prototypes:
    """The ten prototypes in A with the strongest term that leaves A sure of all of them."""
    climb = climber(term, log_prior)
    draw = np.random.default_rng(seed)
    starts = jnp.asarray(both.images[draw.choice(len(both.images), STARTS, replace=False)])
    read = jax.jit(lambda params, x: jax.nn.softmax(jax.vmap(digits_cnn.logits, (None, 0))(params, x)))
    for strength in STRENGTHS:
        images, info = jax.device_get(climb(both.a, jax.random.key(seed), starts, jnp.float32(strength)))
        if not info.finite.all():
            raise RuntimeError(f"the climb with {term} of strength {strength} met numbers that are not finite")
        a = np.asarray(read(both.a, images))
        if np.diag(a).min() >= SURE or term == "plain":
            strength = np.nan if term == "plain" else strength
            return Prototypes(images, strength, a, np.asarray(read(both.b, images)), info)
    raise RuntimeError(f"network A is sure of its prototypes with {term} at none of {STRENGTHS}")


def compute(seed: int = 0, terms: Sequence[str] = TERMS) -> tuple[dict[str, Prototypes], int]:
    """({term: prototypes}, the number of the expert's components) for a pair of networks."""
    both = networks(seed)
    log_prior, components = expert(jax.random.key(seed), both.images)
    return {term: prototypes(both, term, log_prior, seed) for term in terms}, components


def nearest(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(labels, Euclidean distances) of the test digits nearest to images: how far from data they are, (n,)."""
    _, test = digits_cnn.digits()
    apart = np.sqrt(np.square(images[:, None] - test.images[None]).sum((2, 3, 4)))
    return test.labels[apart.argmin(1)], apart.min(1)


def prototype_gallery(rows: Mapping[str, Any], *, title: str | None = None) -> Figure:
    """A row of prototypes, images (n, H, W) or (n, H, W, 1) in [0, 1], for each name; ink is dark."""
    height, width = np.shape(next(iter(rows.values())))[1:3]
    columns = max(map(len, rows.values()))
    figure = Figure((columns * 0.8 + 2, len(rows) * 0.8 * height / width + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set(xticks=[], yticks=[])
    for line, (name, images) in zip(grid, rows.items(), strict=True):
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        for axes, image in zip(line, images, strict=False):
            axes.imshow(np.reshape(image, (height, width)), cmap="gray_r", vmin=0, vmax=1)
    figure.suptitle(title or "", fontsize=12, fontweight="bold")
    return figure


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Climbs, asks the second network, draws; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    parser.add_argument("--seed", type=int, default=0, help="of the networks and of the climb")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)

    found, components = compute(given.seed)
    title = f"Ten prototypes climbed in network A; an expert of {components} Gaussians"
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = ("term", "strength", "A at least", "B recognises", "B's mean p", "nearest digit is one", "distance")
    for column in columns:
        table.add_column(column, justify="left" if column == "term" else "right")
    for term, some in found.items():
        strength = "-" if np.isnan(some.strength) else f"{some.strength:g}"
        sure, mean = np.diag(some.a).min(), np.diag(some.b).mean()
        labels, apart = nearest(some.images)
        like = f"{(labels == np.arange(10)).sum()} of 10"
        read = f"{some.recognised} of 10"
        table.add_row(term, strength, f"{sure:.3f}", read, f"{mean:.2f}", like, f"{apart.mean():.2f}")
    Console().print(table)

    rows = {f"{term}\nB: {some.recognised} of 10": some.images for term, some in found.items()}
    figure = prototype_gallery(rows, title="What network A takes for each digit")
    path = given.out / "prototypes.png"
    figure.savefig(path, dpi=130, facecolor="white")
    print(f"wrote:\n{path}")
    return [path]


if __name__ == "__main__":
    main()
