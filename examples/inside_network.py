"""Why this class and not that one, by which channels, and what are they? Looks inside two networks.

Usage:
    python examples/inside_network.py --out out

EfficientNet-Lite0 first: which channels of a layer in its middle speak for one class of a photo rather than for
another, what of the photo drives them, and to which patches of other photos they answer most. Then a small network
for digits: what a tenth of its units knows of each digit, and what is left without them. Writes three pictures.
"""

import argparse
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import zoo
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from sklearn.metrics import roc_auc_score
from zoo import digits_cnn, lite0_linen

import jaxplain as jxp
from jaxplain import interior, plot

PHOTO, LABEL, OTHER = "chelsea", "tiger cat", "Egyptian cat"
# Where the units are: behind the depthwise convolution of block 5, 14 x 14 units of 240 channels, each of which
# sees 83 pixels of the photo's 224. Deeper ones see all of it.
SITE = jxp.nth("activation", 11)
BUNDLED = ("coffee", "chelsea", "astronaut", "rocket")
NUM_CHANNELS, NUM_PATCHES = 5, 6
SHARE = 0.1  # of a layer's units


class Channels(NamedTuple):
    """The channels that matter most to a contrast of two classes.

    Attributes:
        contrast: how far the logit of the one class is above the other's.
        numbers: of the channels, (NUM_CHANNELS,), the most influential first.
        influence: what each adds to the contrast, slope times activation summed over places, (NUM_CHANNELS,).
        left: the contrast without these channels.
        pixels: the photo, and for each channel the photo scaled by what drives it, (224, 224, 3) in [0, 1].
        patches: what the channels answered to most, of all photos: lists of images.
        values: their activations.
    """

    contrast: float
    numbers: np.ndarray
    influence: np.ndarray
    left: float
    pixels: list[np.ndarray]
    patches: list[list[np.ndarray]]
    values: np.ndarray


class Essence(NamedTuple):
    """What a share of the units knows of a class.

    Attributes:
        units: the most influential ones.
        auc: of its expert's score, on test digits.
        found: the share of the class that its expert says yes to.
        false: the share of all others that it says yes to.
        left: the mean probability of the class without these units, and without as many at random.
        images: test digits that the first unit answers to most.
    """

    units: np.ndarray
    auc: float
    found: float
    false: float
    left: tuple[float, float]
    images: np.ndarray


def photos() -> np.ndarray:
    """All photos that come with packages, as inputs of the network (n, 224, 224, 3)."""
    images = [zoo.bundled(name) for name in BUNDLED] + [photo.image for photo in zoo.imagenet_photos()]
    return np.stack([zoo.preprocess(image) for image in images])


def shown(x: Any) -> np.ndarray:
    """Inputs of the network as colours in [0, 1]."""
    return zoo.deprocess(x) / np.float32(255)


def look_into_lite0(logits: Callable[[Any], jax.Array], dataset: np.ndarray) -> Channels:
    """Explains the contrast of two classes by channels, and the channels by pixels and patches."""
    label, other = (zoo.find_class(name) for name in (LABEL, OTHER))
    contrast = jxp.class_contrast(logits)
    x = jnp.asarray(zoo.preprocess(zoo.bundled(PHOTO)))

    @jax.jit
    def rank(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        slope = interior.internal_influence(contrast, SITE, times_activation=True)(x[None], label, other)
        order = interior.rank_units(slope, reduce="sum")[:NUM_CHANNELS]
        left = interior.drop_units(contrast, SITE, order)(x, label, other)
        return order, slope.sum((0, 1, 2))[order], left

    @jax.jit
    def drives(unit: jax.Array) -> jax.Array:
        # Guided, as the plain gradient of a unit in the middle of a network is mostly noise; of the channel's
        # mean, as its largest value may be the most that a ReLU6 gives, and have no gradient. Blurred to be seen.
        explain = interior.visualise_unit(logits, SITE, unit, method=jxp.guided_backprop, reduce="mean")
        return jxp.blur(3.0)(jax.nn.relu(explain(x)))

    numbers, influence, left = jax.device_get(rank(x))
    picture = shown(x)
    pixels = [np.asarray(interior.scaled_pixels(picture, drives(unit))) for unit in numbers]
    h, _ = jxp.slice_at(logits, SITE)
    # One run of the photos for all channels.
    find = jax.vmap(lambda unit: interior.top_activations(h, dataset, unit, NUM_PATCHES, chunk_size=1))
    top = jax.device_get(find(jnp.asarray(numbers)))
    cut = []
    for k, unit in enumerate(numbers):
        of_unit = interior.TopActivations(*(field[k] for field in top))
        cut.append([shown(patch) for patch in interior.patches(h, dataset, of_unit, int(unit))])
    return Channels(
        float(contrast(x, label, other)), numbers, influence, float(left), [picture, *pixels], cut, top.values
    )


def look_into_digits(seed: int = 0) -> tuple[list[Essence], np.ndarray]:
    """(the essence of each class, the last hidden layer's values of test digits) of a network for digits."""
    params = digits_cnn.train(seed, epochs=15)
    known, new = digits_cnn.digits()
    at, draw = "dense", np.random.default_rng(seed)

    def logits(x: jax.Array) -> jax.Array:
        return digits_cnn.logits(params, x)

    h, _ = jxp.slice_at(logits, at)
    hidden = jax.jit(jax.vmap(h))
    # Units that an expert lacks stay at their mean: at 0, all other classes would be silent, and it would say yes
    # to nearly everything.
    usual = hidden(known.images).mean(0)

    # The digits are arguments: XLA would fold what is computed from constants, which takes longer than to run it.
    @jax.jit
    def without(units: jax.Array, xs: jax.Array) -> jax.Array:
        return jax.nn.softmax(jax.vmap(interior.drop_units(logits, at, units))(xs))

    @jax.jit
    def expert(label: jax.Array, units: jax.Array, xs: jax.Array) -> jax.Array:
        return jax.vmap(interior.class_expert(logits, at, label, units, baseline=usual))(xs)

    # A class is a distribution of interest: equal weights on its digits, none on others.
    @jax.jit
    def rank(label: jax.Array, digits: digits_cnn.Examples) -> jax.Array:
        weights = (digits.labels == label).astype(jnp.float32)
        f = jxp.class_score(logits)
        explain = interior.internal_influence(f, at, weights=weights, times_activation=True)
        return interior.rank_units(explain(digits.images, label))

    best = jax.jit(lambda unit, xs: interior.top_activations(h, xs, unit, 8).examples)
    found = []
    for label in range(digits_cnn.NUM_CLASSES):
        order = np.asarray(rank(jnp.int32(label), known))
        units = order[: round(SHARE * len(order))]
        member = new.labels == label
        score = np.asarray(expert(jnp.int32(label), jnp.asarray(units), new.images))
        chance = [draw.permutation(len(order))[: len(units)] for _ in range(5)]
        left, by_chance = (
            float(np.mean([without(jnp.asarray(some), new.images)[member, label] for some in sets]))
            for sets in ([units], chance)
        )
        found.append(
            Essence(
                units,
                float(roc_auc_score(member, score)),
                float((score > 0)[member].mean()),
                float((score > 0)[~member].mean()),
                (left, by_chance),
                new.images[np.asarray(best(jnp.int32(units[0]), new.images))],
            )
        )
    return found, np.asarray(hidden(new.images))


def draw_channels(channels: Channels) -> Image.Image:
    """The photo by channel above, the patches of each channel below."""
    numbers = [f"channel {n}" for n in channels.numbers]
    gap = f"{channels.contrast:+.2f} logits; without these five {channels.left:+.2f}"
    above = plot.patches(
        [channels.pixels], [[channels.contrast, *channels.influence]],
        names=["photo"], title=f"{LABEL}, not {OTHER}: {gap}",
        label=f"the contrast, and what channels {', '.join(map(str, channels.numbers))} add to it",
    )  # fmt: skip
    below = plot.patches(
        channels.patches, list(channels.values), names=numbers, title="What each answers to most, among 24 photos"
    )
    return stacked([above, below], width=900)


def stacked(figures: Sequence[Figure], width: int) -> Image.Image:
    """Figures below one another, each as wide."""
    pages = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=width / figure.get_figwidth(), facecolor="white")
        pages.append(Image.open(buffer).convert("RGB"))
    whole = Image.new("RGB", (max(p.width for p in pages), sum(p.height for p in pages)), "white")
    for i, page in enumerate(pages):
        whole.paste(page, (0, sum(p.height for p in pages[:i])))
    return whole


def show_essence(essence: Sequence[Essence], console: Console) -> None:
    """Prints what a tenth of the units knows of each digit, and what is left without it."""
    title = f"{SHARE:.0%} of the last hidden layer's units, those most influential on each digit (597 test digits)"
    table = Table(title=title, title_justify="left", title_style="bold")
    columns = ("digit", "AUC", "found", "false positives", "p without them", "p without random ones")
    for column in columns:
        table.add_column(column, justify="left" if column == "digit" else "right")
    for label, one in enumerate(essence):
        shares = (f"{one.found:.0%}", f"{one.false:.1%}", f"{one.left[0]:.2f}", f"{one.left[1]:.2f}")
        table.add_row(str(label), f"{one.auc:.3f}", *shares)
    console.print(table)


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Looks into both networks; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)
    console = Console()

    channels = look_into_lite0(jax.jit(lite0_linen.load().logits), photos())
    print(f"{PHOTO}: {LABEL} rather than {OTHER}, {channels.contrast:+.2f} logits")
    for number, value in zip(channels.numbers, channels.influence, strict=True):
        print(f"  channel {number:3d} adds {value:+.2f}")
    print(f"without them: {channels.left:+.2f}")

    essence, features = look_into_digits()
    show_essence(essence, console)
    names = [f"{label}: unit {one.units[0]}" for label, one in enumerate(essence)]
    figures = {
        "inside_essence.png": plot.patches(
            [list(1 - one.images) for one in essence], names=names, title="The most influential unit of each digit"
        ),
        "inside_features.png": plot.thumbnails(
            interior.embed(features[:300]),
            1 - digits_cnn.digits()[1].images[:300],
            list(digits_cnn.digits()[1].labels[:300]),
            title="Test digits by the last hidden layer (t-SNE)",
        ),
    }
    written = [out / "inside_channels.png", *(out / name for name in figures)]
    draw_channels(channels).save(written[0])
    for path, figure in zip(written[1:], figures.values(), strict=True):
        figure.savefig(path, dpi=110, facecolor="white")
    print("wrote:")
    for path in written:
        print(path)
    return written


if __name__ == "__main__":
    main()
