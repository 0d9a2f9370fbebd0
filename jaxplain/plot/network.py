"""The flow of relevance through a network: what reaches each unit, and what it passes on."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from jaxplain.plot._scale import FADED, INK, POSITIVE, real
from jaxplain.plot.charts import _finish, _signed

_NUMBERS = ("relevance_in", "relevance_out", "leak")
_COLORS = ("#b4bac2", "#2f5d8c", POSITIVE)  # apart in lightness, so a grey print tells them
_MEANINGS = ("arrives from above", "is passed on below", "leak: is absorbed")
_SMALL = 5e-3  # of the largest number: a leak below it gets no label


class Row(Protocol):
    """A row of a coverage table, as `network` reads it; a named tuple with these fields is one."""

    @property
    def place(self) -> str:
        """Where in the network the unit is."""
        ...

    @property
    def kind(self) -> str:
        """What the unit computes."""
        ...

    @property
    def rule(self) -> str:
        """The rule by which relevance went through it."""
        ...

    @property
    def relevance_in(self) -> float:
        """Relevance that arrives from above."""
        ...

    @property
    def relevance_out(self) -> float:
        """Relevance that is passed on below."""
        ...

    @property
    def leak(self) -> float:
        """The difference, which the unit absorbed."""
        ...


def network(table: Sequence[Row], *, title: str | None = None) -> Figure:
    """Draws what relevance reaches every unit of a network and what it passes on, output on top.

    A unit has two bars: above, in grey, what arrives; below, in blue, what is passed on. The leak, in orange,
    is drawn at the end of the second, so that the two together are as long as the first.

    **When it misleads.** The bars are sums over a whole layer: relevance of both signs can cancel in one, so a
    short bar may hide much. Where a network branches, each branch shows its own part, so neighbours in
    the list need not fit together. A leak is not an error: biases and stabilizers absorb relevance by design.

    Args:
      table: the units in the order in which relevance flows, from the output to the input; each a row with
        the fields ``place``, ``kind``, ``rule`` (texts), ``relevance_in``, ``relevance_out`` and ``leak``.
      title: text above the figure.

    Returns:
      A figure.

    Raises:
      ValueError: if the table is empty, a row lacks a field, or a number is not a finite scalar.

    >>> from typing import NamedTuple
    >>> class Unit(NamedTuple):
    ...     place: str
    ...     kind: str
    ...     rule: str
    ...     relevance_in: float
    ...     relevance_out: float
    ...     leak: float
    >>> head = Unit("head", "dense", "epsilon", 2.0, 1.5, 0.5)
    >>> stem = Unit("stem", "conv", "gamma", 1.5, 1.5, 0.0)
    >>> figure = network([head, stem])
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['dense head [epsilon]', 'conv stem [gamma]']
    """
    rows = list(table)
    if not rows:
        raise ValueError("table is empty; pass one row for each unit, from the output to the input.")
    labels = [_label(row, i) for i, row in enumerate(rows)]
    numbers = np.array([_numbers(row, label) for row, label in zip(rows, labels, strict=True)])
    arrives, passed, leak = numbers.T

    figure = Figure(figsize=(7.2, 0.4 * len(rows) + (1.6 if title else 1.2)), layout="constrained")
    ax = figure.add_subplot()
    y = np.arange(len(rows))
    grey, blue, orange = _COLORS
    ax.barh(y - 0.17, arrives, height=0.34, color=grey)
    ax.barh(y + 0.17, passed, height=0.34, color=blue)
    ax.barh(y + 0.17, leak, left=passed, height=0.2, color=orange)
    ax.axvline(0.0, color=FADED, linewidth=0.8)
    ends = np.stack([np.zeros_like(passed), arrives, passed, passed + leak])
    largest = np.abs(ends).max()
    for i in np.flatnonzero(np.abs(leak) > _SMALL * largest):
        ax.annotate(
            _signed(leak[i]),
            (ends[:, i].max(), i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=FADED,
        )
    low, high = ends.min(), ends.max()
    margin = 0.14 * (high - low)
    ax.set_xlim((low - margin if low < 0 else low, high + margin) if high > low else (-1.0, 1.0))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(y, labels, fontsize=9, color=INK, parse_math=False)
    figure.legend(
        [Patch(color=color) for color in _COLORS],
        _MEANINGS,
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=8,
        labelcolor=FADED,
    )
    _finish(figure, title, "relevance", "")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def _label(row: Row, i: int) -> str:
    missing = [name for name in ("place", "kind", "rule", *_NUMBERS) if not hasattr(row, name)]
    if missing:
        raise ValueError(
            f"row {i} has no field {', '.join(missing)}; pass the rows of a coverage table as they are."
        )
    return " ".join([row.kind, row.place, f"[{row.rule}]"] if row.place else [row.kind, f"[{row.rule}]"])


def _numbers(row: Row, label: str) -> list[float]:
    numbers = []
    for name in _NUMBERS:
        value = real(getattr(row, name), f"{name} of {label!r}")
        if value.ndim:
            raise ValueError(f"{name} of {label!r} must be one number, got shape {value.shape}; pass its sum.")
        numbers.append(float(value))
    return numbers
