"""What the examples on training data find, one line each: `python -m benchmarks.published.training_examples`.

The scripts of `examples/training` at their own sizes, without pictures: medians, and the range over seeds or test
examples where there are several.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "training"))  # as for a script that is run

import domain_mismatch
import harmful_images
import kit
import mislabelled
import near_and_far
import poisoned_image
import smooth_hinge

Line = tuple[str, Any, str]  # (what, values, claim)


def mislabels() -> Iterator[Line]:
    """Flipped labels met in a tenth of the digits."""
    result = mislabelled.compute()
    for name in mislabelled.RANKINGS:
        claim = "at least 5 x" if name == "self-influence" else ""
        yield f"flipped labels met at 10 % inspected, x random, by {name}", result.early(name) / 0.1, claim


def machine() -> Iterator[Line]:
    """Leaving one out of a support vector machine."""
    for l2 in smooth_hinge.STRENGTHS:
        result = smooth_hinge.compute(l2=l2)
        for t in smooth_hinge.WIDTHS:
            r, slope = result.agreement(t).T
            claim = "R(.001) >= .90 > R(.1) > R(0)" if t == 0.001 else ""
            yield f"hinge smoothed by {t:g}, l2 {l2:g}: R against retraining", r, claim
            yield f"hinge smoothed by {t:g}, l2 {l2:g}: slope", slope, ""


def attack() -> Iterator[Line]:
    """One training image changed."""
    result = poisoned_image.compute()
    for i, size in enumerate(result.sizes):
        yield f"one of 150 images moved by {size:g}: share of digits then misread", [result.flipped[i].mean()], ""
        yield "the same in random signs", [result.flipped_random[i].mean()], ""
        r, slope = kit.agreement(result.predicted[i], result.actual[i])
        yield f"first step, moved by {size:g}, predicted against retrained: R", [r], ""
        yield "the same: slope", [slope], ""


def mismatch() -> Iterator[Line]:
    """Few young patients in training."""
    result = domain_mismatch.compute()
    few = int(result.rare.sum())
    yield f"of the {few} most influential rows, young ones", (result.ranks() <= few).sum(1), f"most of {few}"
    yield "|influence| of the young over the others'", result.ratio(), ""


def models() -> Iterator[Line]:
    """Kernel machine, linear model, network."""
    result = near_and_far.compute()
    for name in result.values:
        yield f"share of |influence| that the nearest tenth has: {name}", result.near(name), ""
        yield f"rank correlation of |influence| and distance: {name}", result.rank_correlation(name), ""


def batch() -> Iterator[Line]:
    """A batch of wrong labels."""
    result = harmful_images.compute()
    yield "share of the bad batch among as many most harmful images", [result.met()], "more than by chance"
    yield "the same by chance", [result.bad.mean()], ""
    names = ("with all images", "without the most harmful", "without random ones", "without the bad batch")
    for name, errors in zip(names, result.errors, strict=True):
        yield f"misread test digits {name}", [errors], ""


STUDIES: dict[str, Callable[[], Iterator[Line]]] = {
    "mislabelled": mislabels,
    "smooth_hinge": machine,
    "poisoned_image": attack,
    "domain_mismatch": mismatch,
    "near_and_far": models,
    "harmful_images": batch,
}


def main() -> None:
    """Print the table."""
    table = Table("example", "what", "median", "least to most", "claim")
    for name, study in STUDIES.items():
        begin = time.perf_counter()
        for what, values, claim in study():
            v = np.asarray(values, float)
            table.add_row(name, what, f"{np.median(v):.3g}", f"{v.min():.3g} to {v.max():.3g}", claim)
        print(f"{name}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
