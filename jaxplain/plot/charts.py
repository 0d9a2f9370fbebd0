"""Charts of numbers: signed bars for named features, and curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxplain.plot._scale import FADED, INK, NEGATIVE, POSITIVE, real

_RULE = "#dddddd"
# The palette of Okabe and Ito (2008), made for colour-vision deficiency, without its black and its yellow.
_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
_DASHES = ("-", "--", "-.", ":")


def bars(
    values: ArrayLike,
    names: Sequence[str],
    *,
    std_error: ArrayLike | None = None,
    top: int | None = None,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draws named values as horizontal bars, the largest magnitude on top, blue below zero and orange above.

    **When it misleads.** With ``top``, many small values left out can outweigh those shown: the note below
    the axis gives their sum. A bar shorter than its error is noise. Features that move together share or
    trade their credit: a short bar does not mean that the model ignores the feature.

    Args:
      values: (M,), in units of the explained output.
      names: M names.
      std_error: (M,) standard errors in the same unit, drawn as whiskers of one standard error each way.
      top: how many bars to draw; None draws all.
      title: text above the figure.
      label: text below the axis: name the unit here.

    Returns:
      A figure.

    Raises:
      ValueError: if ``values`` is not a non-empty vector, has NaN or infinite values, does not match
        ``names`` or ``std_error`` in length, an error is negative, or ``top`` is less than 1.

    >>> import numpy as np
    >>> figure = bars(np.array([0.1, -0.7, 0.3]), ["age", "income", "tenure"])
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['income', 'tenure', 'age']
    """
    values = _vector(values, "values")
    names = list(names)
    if len(names) != len(values):
        raise ValueError(f"{len(values)} values but {len(names)} names; each value needs one name.")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")
    errors = None if std_error is None else _vector(std_error, "std_error")
    if errors is not None and (errors.shape != values.shape or errors.min() < 0):
        raise ValueError(f"std_error must hold {len(values)} non-negative numbers, one for each value.")

    order = np.argsort(-np.abs(values), kind="stable")
    shown, hidden = order[:top], order[len(order) if top is None else top :]
    figure = Figure(figsize=(6.4, 0.32 * len(shown) + (1.2 if title else 0.8)), layout="constrained")
    ax = figure.add_subplot()
    drawn = ax.barh(
        np.arange(len(shown)),
        values[shown],
        height=0.7,
        color=[NEGATIVE if value < 0 else POSITIVE for value in values[shown]],
        xerr=None if errors is None else errors[shown],
        error_kw={"ecolor": INK, "elinewidth": 1.0, "capsize": 2.5},
    )
    ax.bar_label(drawn, [_signed(value) for value in values[shown]], padding=4, fontsize=8, color=FADED)
    ax.axvline(0.0, color=FADED, linewidth=0.8)
    ax.margins(x=0.16)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_yticks(np.arange(len(shown)), [names[i] for i in shown], fontsize=9, color=INK, parse_math=False)
    if not np.any(values[shown]):
        ax.set_xlim(-1.0, 1.0)
    note = f"\n{len(hidden)} smaller values not shown, sum {_signed(values[hidden].sum())}"
    _finish(figure, title, label + note if len(hidden) else label, "")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def curve(
    x: ArrayLike,
    ys: Mapping[str, ArrayLike],
    *,
    title: str | None = None,
    x_label: str = "",
    y_label: str = "",
) -> Figure:
    """Draws one line for each name over a common x, told apart by colour and by dash.

    **When it misleads.** Straight segments join the points: nothing is known between them, and a single run
    shows no spread. The y axis does not start at zero unless the values do.

    Args:
      x: (N,), increasing for a readable line; any unit, named by ``x_label``.
      ys: name to values (N,), all in one unit, named by ``y_label``.
      title: text above the figure; a single line gives its name if there is no title.
      x_label: text below the axis.
      y_label: text beside the axis.

    Returns:
      A figure.

    Raises:
      ValueError: if ``ys`` is empty, an array is not a non-empty vector, lengths differ, or values are NaN or
        infinite.

    >>> import numpy as np
    >>> figure = curve(np.arange(3), {"deletion": [1.0, 0.4, 0.1], "insertion": [0.0, 0.7, 1.0]})
    >>> len(figure.axes[0].lines)
    2
    """
    x = _vector(x, "x")
    if not ys:
        raise ValueError("ys is empty; pass at least one line, {name: values}.")
    lines = {name: _vector(y, repr(name)) for name, y in ys.items()}
    for name, y in lines.items():
        if y.shape != x.shape:
            raise ValueError(f"{name!r} has {len(y)} values but x has {len(x)}; they must be as many.")

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.add_subplot()
    for i, (name, y) in enumerate(lines.items()):
        ax.plot(
            x,
            y,
            label=name,
            color=_PALETTE[i % len(_PALETTE)],
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=1.8,
            marker="o" if len(x) <= 24 else "",
            markersize=3.5,
        )
    ax.grid(axis="y", color=_RULE, linewidth=0.7)
    ax.set_axisbelow(True)
    if len(lines) > 1:
        legend = figure.legend(loc="outside right upper", frameon=False, fontsize=9, handlelength=2.6)
        for text in legend.get_texts():
            text.set_parse_math(False)
    _finish(figure, title or (next(iter(lines)) if len(lines) == 1 else None), x_label, y_label)
    return figure


def _vector(values: ArrayLike, name: str) -> np.ndarray:
    values = real(values, name)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"{name} must be a vector with at least one entry, got shape {values.shape}.")
    return values


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def _finish(figure: Figure, title: str | None, x_label: str, y_label: str) -> None:
    """Sets the texts and drops the frame, keeping the two axes."""
    (ax,) = figure.axes
    ax.set_xlabel(x_label, fontsize=9, color=FADED, parse_math=False)
    ax.set_ylabel(y_label, fontsize=9, color=FADED, parse_math=False)
    ax.tick_params(labelsize=9, color=_RULE)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(_RULE)
    if title:
        ax.set_title(title, fontsize=12, fontweight="bold", color=INK, loc="left", pad=10, parse_math=False)
