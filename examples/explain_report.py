"""What `explain_image` shows of its results: tables in the terminal, a gallery, and a report."""

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import zoo
from explain_methods import Explanation, Method
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console
from rich.table import Table
from zoo.efficientnet_lite import IMAGE_SIZE

from jaxplain import plot

PATCH = 4  # pixels; the side of the squares over which maps of single pixels are summed to be drawn
HOW_TO_READ = (
    "Orange speaks for the class, blue against it; maps without a sign run from green to yellow. "
    "Every map has its own scale. "
    f"Maps of single pixels are drawn as sums over colours and over squares of {PATCH} by {PATCH} pixels."
)
TIMES = "Compiling happens once, and is kept between runs where JAX has a compilation cache."


class Subject(NamedTuple):
    """A photo, what the network makes of it, and the class to explain."""

    name: str
    x: np.ndarray
    label: int
    top: list[tuple[str, float]]

    @property
    def picture(self) -> np.ndarray:
        """The photo as the network sees it, uint8."""
        return zoo.deprocess(self.x)


class Run(NamedTuple):
    """A method applied to all photos, with its times in seconds."""

    method: Method
    compile_time: float
    run_time: float
    explanations: list[Explanation]


def percent(part: Any, whole: Any = 1.0) -> str:
    """A signed share as a percentage with two significant digits, never in powers of ten."""
    if float(whole) == 0:
        return "of nothing"
    value = 100 * float(part) / float(whole)
    if abs(value) < 0.01:
        return "0.00 %"
    return f"{value:+.0f} %" if abs(value) >= 10 else f"{value:+.2g} %"


def accuracy(explanation: Explanation) -> str:
    """The numbers that say how far to trust a map, in a few words."""
    if explanation.error is not None:
        return f"standard error {percent(explanation.error).lstrip('+')} of the largest value"
    if explanation.gap is None or explanation.explained is None:
        return "no total promised"
    gap, explained = float(explanation.gap), float(explanation.explained)
    return f"gap {gap:+.2g} of {explained:.3g} logits ({percent(gap, explained)})"


def show_top(subjects: Sequence[Subject], console: Console) -> None:
    for subject in subjects:
        table = Table(title=subject.name, title_justify="left", title_style="bold")
        table.add_column("class", min_width=28)
        table.add_column("probability", justify="right")
        for name, probability in subject.top:
            table.add_row(name, f"{100 * probability:.1f} %")
        console.print(table)
        console.print(f"explained: {zoo.class_names()[subject.label]}\n", highlight=False)


def show_runs(runs: Sequence[Run], subjects: Sequence[Subject], console: Console) -> None:
    times = Table(title="Time", title_justify="left", title_style="bold")
    times.add_column("method", no_wrap=True)
    for name in ("compile, s", "run, s", "run per photo, s"):
        times.add_column(name, justify="right")
    checks = Table(title="Does the map's total keep its promise?", title_justify="left", title_style="bold")
    checks.add_column("method", no_wrap=True)
    checks.add_column("photo")
    checks.add_column("gap, logits", justify="right", no_wrap=True)
    checks.add_column("share", justify="right", no_wrap=True)
    for run in runs:
        each = run.run_time / len(subjects)
        times.add_row(run.method.name, f"{run.compile_time:.1f}", f"{run.run_time:.1f}", f"{each:.2f}")
        for subject, (_, gap, explained, error) in zip(subjects, run.explanations, strict=True):
            if error is not None:
                checks.add_row(run.method.name, subject.name, "standard error", percent(error).lstrip("+"))
            elif gap is not None and explained is not None:
                numbers = (f"{gap:+.2g} of {explained:.2f}", percent(gap, explained))
                checks.add_row(run.method.name, subject.name, *numbers)
        checks.add_section()
    console.print(times)
    console.print(checks)


def heading(subject: Subject) -> str:
    return f"{subject.name}: why {zoo.class_names()[subject.label]}?"


def caption(explanation: Explanation) -> str:
    """Shorter than `accuracy`, for below a small picture."""
    if explanation.error is not None:
        return f"standard error {percent(explanation.error).lstrip('+')}"
    if explanation.gap is None or explanation.explained is None:
        return ""
    return f"gap {percent(explanation.gap, explanation.explained)}"


def patches(value: jax.Array, side: int = PATCH) -> np.ndarray:
    """A map of pixels, summed over colours and square patches, so that it can be seen; the total stays.

    Coarser maps, those of class activation, are left as they are.
    """
    values = np.asarray(value)
    if values.ndim == 3:
        values = values.sum(axis=-1)
    if values.shape[0] < IMAGE_SIZE:
        return values
    rows, columns = (n // side for n in values.shape)
    return values.reshape(rows, side, columns, side).sum(axis=(1, 3))


def draw_gallery(runs: Sequence[Run], subjects: Sequence[Subject]) -> Image.Image:
    """One picture: all methods on all photos, one block for each photo."""
    blocks = []
    for i, subject in enumerate(subjects):
        figure = plot.gallery(
            {run.method.name: patches(run.explanations[i].value) for run in runs},
            subject.picture,
            columns=8,
            captions={run.method.name: caption(run.explanations[i]) for run in runs},
            title=heading(subject),
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90, facecolor="white")
        blocks.append(Image.open(buffer))
    page = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), "white")
    top = 0
    for block in blocks:
        page.paste(block, (0, top))
        top += block.height
    return page


def write_report(runs: Sequence[Run], subjects: Sequence[Subject], framework: str) -> str:
    """The HTML page: a section for each photo with a card for each method, and a table of times."""
    sections = []
    for i, subject in enumerate(subjects):
        cards = [photo_card(subject)]
        for run in runs:
            explanation = run.explanations[i]
            figure = plot.overlay(patches(explanation.value), subject.picture, label=run.method.unit)
            facts = [("check", accuracy(explanation)), ("time", f"{run.run_time / len(subjects):.2f} s")]
            cards.append(plot.Card(run.method.name, figure, run.method.shows, run.method.caution, facts))
        sections.append(plot.Section(heading(subject), [HOW_TO_READ], cards))
    rows = [[r.method.name, round(r.compile_time, 2), round(r.run_time, 2)] for r in runs]
    times = plot.Table(["method", "compile, s", f"run on {len(subjects)} photos, s"], rows)
    sections.append(plot.Section("Time", [TIMES], (), [times]))
    return plot.report(f"What EfficientNet-Lite0 ({framework}) saw", sections, image_format="jpeg", dpi=110)


def text_page(title: str, notes: Mapping[str, str], texts: Sequence[str]) -> str:
    """An HTML page of texts drawn by `plot.text`, under a line on each method."""
    lines = "".join(f"<p><b>{html.escape(name)}</b>: {html.escape(note)}</p>" for name, note in notes.items())
    style = "max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>body {{ {style}; background: #fff; color: #1d1d1f }} "
        "figure + figure { margin-top: 1.5rem !important }</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{lines}{''.join(texts)}</body></html>\n"
    )


def photo_card(subject: Subject) -> plot.Card:
    """The photo as the network sees it, with the five first choices."""
    figure = Figure(figsize=(3.7, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(subject.picture)
    axes.set_axis_off()
    return plot.Card(
        "photo",
        figure,
        "The photo as the network sees it, 224 by 224 pixels, and its five first choices.",
        "A probability of a class says nothing of things that are not among the 1000 classes.",
        [(name, f"{100 * probability:.1f} %") for name, probability in subject.top],
    )
