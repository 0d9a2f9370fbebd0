"""Charts of explained rows of a table: how one row's output comes about, and what each column does to many."""

from collections.abc import Sequence

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from jaxplain.plot._scale import _SEQUENTIAL, FADED, INK, NEGATIVE, POSITIVE, real
from jaxplain.plot.charts import _RULE, _finish, _signed, _vector

# From low to high; without the brightest yellows, which are lost on white.
_LEVELS = ListedColormap(_SEQUENTIAL(np.linspace(0.0, 0.92, 256)))
_UNKNOWN = "#bdbdbd"
_ROW = 0.42  # height of a row of points, inches
_POINT = 4.0  # diameter of a point, in points of 1/72 inch


def waterfall(
    values: ArrayLike,
    names: Sequence[str],
    *,
    base: float,
    std_error: ArrayLike | None = None,
    top: int | None = None,
    title: str | None = None,
    label: str = "output",
) -> Figure:
    """Draws how named values lead from a base to an output, step by step from top to bottom.

    Each bar begins where the one above it ends, the largest magnitude first, blue to the left where a value
    lowers the output and orange to the right where it raises it. The dashed lines are at the base and at the
    base plus all values, which for Shapley values are the mean over the background and f(x).

    **When it misleads.** The steps are drawn in order of size, but nothing happens in that order: bars are
    shares, and the positions between the two lines are the output of no input. Values that do not add up to
    f(x) - base, as those of a gradient, end at a number that is not the output. A step shorter than its error
    is noise.

    Args:
      values: (M,), in units of the output.
      names: M names; write the row's own values into them, as "age = 59".
      base: the output that the values start from.
      std_error: (M,) standard errors in the same unit, drawn as whiskers of one standard error each way.
      top: how many bars to draw one by one; those that are left out become one bar, without an error. None
        draws all.
      title: text above the figure.
      label: text below the axis: name the output and its unit here.

    Returns:
      A figure.

    Raises:
      ValueError: if ``values`` is not a non-empty vector, has NaN or infinite values, does not match
        ``names`` or ``std_error`` in length, an error is negative, ``base`` is not a finite number, or ``top``
        is less than 1.

    >>> import numpy as np
    >>> figure = waterfall(np.array([0.1, -0.7, 0.3]), ["age", "income", "tenure"], base=2.0)
    >>> [round(float(bar.get_x() + bar.get_width()), 1) for bar in figure.axes[0].patches]
    [1.3, 1.6, 1.7]
    """
    values = _vector(values, "values")
    names = list(names)
    if len(names) != len(values):
        raise ValueError(f"{len(values)} values but {len(names)} names; each value needs one name.")
    _check_top(top)
    start = real(base, "base")
    if start.ndim:
        raise ValueError(f"base must be one number, got shape {start.shape}; explain one row at a time.")
    errors = np.full(len(values), np.nan) if std_error is None else _vector(std_error, "std_error")
    if errors.shape != values.shape or errors.min() < 0:
        raise ValueError(f"std_error must hold {len(values)} non-negative numbers, one for each value.")

    order = np.argsort(-np.abs(values), kind="stable")
    rest = order[top:] if top is not None and len(order) - top > 1 else order[:0]
    order = order[: len(order) - len(rest)]
    steps, labels, errors = values[order], [names[i] for i in order], errors[order]
    if len(rest):
        steps = np.append(steps, values[rest].sum())
        labels, errors = [*labels, f"{len(rest)} smaller ones together"], np.append(errors, np.nan)
    ends = start + np.cumsum(steps)
    starts = ends - steps

    figure = Figure(figsize=(6.4, 0.32 * len(steps) + (1.7 if title else 1.3)), layout="constrained")
    ax = figure.add_subplot()
    rows = np.arange(len(steps))
    ax.barh(rows, steps, left=starts, height=0.7, color=[NEGATIVE if step < 0 else POSITIVE for step in steps])
    known = np.isfinite(errors)
    if known.any():
        ax.errorbar(
            ends[known], rows[known], xerr=errors[known], fmt="none", ecolor=INK, elinewidth=1.0, capsize=2.5
        )
    ax.vlines(ends[:-1], rows[:-1] + 0.35, rows[1:] - 0.35, color=FADED, linewidth=0.8)
    for row, (step, end, error) in enumerate(zip(steps, ends, np.nan_to_num(errors), strict=True)):
        away = 1 if step >= 0 else -1
        ax.annotate(
            _signed(step),
            (end + away * error, row),
            (4 * away, 0),
            textcoords="offset points",
            ha="left" if step >= 0 else "right",
            va="center",
            fontsize=8,
            color=FADED,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # over the dashed lines
        )
    above, below = -0.75, len(steps) - 0.25
    for x, row, word, at in ((start, above, "base", "bottom"), (ends[-1], below + 0.15, "output", "top")):
        ax.vlines(float(x), above, below, color=FADED, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
        text = f"{word} {float(x):.4g}".replace("-", "−")
        ax.annotate(text, (float(x), row), ha="center", va=at, fontsize=8, color=INK)
    reach = np.nan_to_num(errors)
    low, high = min(starts.min(), (ends - reach).min()), max(starts.max(), (ends + reach).max())
    room = 0.16 * (high - low) or 1.0
    ax.set_xlim(low - room, high + room)
    ax.set_ylim(len(steps) + 0.6, -1.6)
    ax.set_yticks(rows, labels, fontsize=9, color=INK, parse_math=False)
    _finish(figure, title, label, "")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return figure


def beeswarm(
    values: ArrayLike,
    features: ArrayLike,
    names: Sequence[str],
    *,
    top: int | None = None,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draws the values of many rows, a line of points for each column, coloured by the column's own numbers.

    The columns are ordered by the mean of the absolute value, the largest on top. A point's place says what
    the column did to the output of one row; its colour, from purple to yellow, where that row's number ranks in
    the column, from the lowest to the highest. A column whose colours run from one side to the other acts in
    one direction; one that is mixed acts together with others. Points that would lie on each other are moved
    up or down, so the thickness shows how many there are.

    **When it misleads.** Colours are ranks: they say nothing of how far apart numbers are, and equal numbers
    share their mean rank. Where a column is crowded, points overlap and the thickness stops growing. With
    ``top``, many columns left out can matter more together than those shown.

    Args:
      values: (N, M), attributions of N rows in units of the output.
      features: (N, M), the rows themselves, in any unit; NaN, a missing number, is drawn in grey.
      names: M names of the columns.
      top: how many columns to draw; None draws all.
      title: text above the figure.
      label: text below the axis: name the unit here.

    Returns:
      A figure.

    Raises:
      ValueError: if ``values`` is not a non-empty table or has NaN or infinite values, ``features`` has another
        shape, there is not one name a column, or ``top`` is less than 1.

    >>> import numpy as np
    >>> rows = np.array([[0.0, 1.0], [1.0, 5.0], [2.0, 3.0]])
    >>> figure = beeswarm(rows * np.array([1.0, -2.0]), rows, ["age", "income"])
    >>> [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    ['income', 'age']
    """
    values = real(values, "values")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"values must be a table, (rows, columns), with no empty axis, got {values.shape}.")
    table = np.asarray(features, np.float64)
    if table.shape != values.shape:
        raise ValueError(f"features has shape {table.shape} but values {values.shape}; they must be the same.")
    names = list(names)
    if len(names) != values.shape[1]:
        raise ValueError(f"{values.shape[1]} columns but {len(names)} names; each column needs one name.")
    _check_top(top)

    order = np.argsort(-np.abs(values).mean(0), kind="stable")
    shown, hidden = order[:top], order[len(order) if top is None else top :]
    width = 6.4
    figure = Figure(figsize=(width, _ROW * len(shown) + (1.2 if title else 0.8)), layout="constrained")
    ax = figure.add_subplot()
    low, high = min(values[:, shown].min(), 0.0), max(values[:, shown].max(), 0.0)
    if low == high:
        low, high = -1.0, 1.0
    # A point's size in units of the axes, for a plot about two thirds as wide as the figure.
    size = _POINT / 72 * (high - low) / (0.65 * width), _POINT / 72 / _ROW
    for row, column in enumerate(shown):
        levels = _ranks(table[:, column])
        ax.scatter(
            values[:, column],
            row + _offsets(values[:, column], *size),
            s=_POINT**2,
            c=np.where(np.isfinite(levels)[:, None], _LEVELS(np.nan_to_num(levels)), _rgba(_UNKNOWN)),
            linewidths=0,
        )
    ax.axvline(0.0, color=FADED, linewidth=0.8, zorder=0)
    ax.hlines(np.arange(len(shown)), 0, 1, transform=ax.get_yaxis_transform(), color=_RULE, lw=0.6, zorder=-1)
    ax.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.set_yticks(np.arange(len(shown)), [names[i] for i in shown], fontsize=9, color=INK, parse_math=False)
    note = f"\n{len(hidden)} columns of smaller mean magnitude not shown"
    _finish(figure, title, label + note if len(hidden) else label, "")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    bar = figure.colorbar(ScalarMappable(Normalize(0.0, 1.0), _LEVELS), ax=ax, aspect=30, pad=0.02)
    bar.set_ticks([0.0, 1.0], labels=["lowest", "highest"])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FADED)
    bar.set_label("the column's number in that row", fontsize=8, color=FADED, labelpad=-20)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    return figure


def _check_top(top: int | None) -> None:
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")


def _rgba(color: str) -> NDArray[np.float64]:
    return np.array([*(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0])


def _ranks(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks among the known numbers, from 0 to 1; 1/2 where all are the same, NaN where unknown."""
    known = ~np.isnan(numbers)
    ranks = np.full(len(numbers), np.nan)
    if known.any():
        _, place, count = np.unique(numbers[known], return_inverse=True, return_counts=True)
        middle = np.cumsum(count) - (count + 1) / 2
        span = middle[-1] - middle[0]
        ranks[known] = (middle[place] - middle[0]) / span if span else 0.5
    return ranks


def _offsets(x: NDArray[np.float64], width: float, height: float) -> NDArray[np.float64]:
    """How far to move points off their line: those within one width of x are stacked around it."""
    bins = np.floor((x - x.min()) / width).astype(int)
    offsets = np.zeros(len(x))
    for number in np.unique(bins):
        (members,) = np.nonzero(bins == number)
        place = np.arange(len(members))
        # 0, 1, -1, 2, -2, ...
        offsets[members] = np.where(place % 2, (place + 1) // 2, -(place // 2))
    return offsets * min(height, 0.42 / max(np.abs(offsets).max(), 1.0))
