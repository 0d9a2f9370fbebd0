"""What units mean, in pictures: their activations, the patches they respond to, and maps of feature space."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from jaxplain.plot._scale import FADED, INK, color_bar, photo_of, ratio, real, scale_of

# Of ten classes, told apart by the common colour-vision deficiencies too (Petroff 2021).
_CLASSES = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
_CELL, _PATCH, _MAP = 0.9, 0.95, 8.0  # widths: of a channel's map, of a patch, of an embedding; inches


def activation_grid(
    activation: ArrayLike,
    *,
    columns: int | None = None,
    signed: bool | None = None,
    percentile: float = 99.5,
    title: str | None = None,
    label: str = "activation",
) -> Figure:
    """Draws all channels of a site for one example, each a small map with its number, on one scale.

    **When it misleads.** One scale for all: a channel that looks empty may only be weaker than the strongest, and
    a channel's units need not be another's. What a map's bright part means is not in it: ``plot.patches`` shows
    what the channel answers to elsewhere.

    Args:
      activation: (H, W, C), or (1, H, W, C); ``numpy.moveaxis(a, 0, -1)`` moves channels last.
      columns: maps in a row; None makes the grid about square.
      signed: diverging (True) or sequential (False) scale; None takes the diverging one if any value is negative.
      percentile: the scale ends at the largest of the channels' percentiles of absolute values.
      title: text above the figure.
      label: text beside the colour bar: name the unit here.

    Returns:
      A figure.

    Raises:
      ValueError: for another shape, NaN or infinite values, fewer than one column, a percentile out of range, or
        ``signed=False`` with negative values.

    >>> import numpy as np
    >>> figure = activation_grid(np.arange(24.0).reshape(2, 3, 4))
    >>> [axes.get_title() for axes in figure.axes[:4]]
    ['0', '1', '2', '3']
    """
    values = np.asarray(activation)
    values = values[0] if values.ndim == 4 and len(values) == 1 else values
    if values.ndim != 3 or values.size == 0:
        raise ValueError(
            f"activation must have shape (H, W, C) with no empty axis, got {np.shape(activation)}; pass one."
        )
    maps = list(np.moveaxis(real(values, "activation"), -1, 0))
    columns = int(np.ceil(np.sqrt(len(maps)))) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    columns = min(columns, len(maps))
    scale = scale_of(maps, percentile=percentile, signed=signed)
    rows = -(-len(maps) // columns)
    height = _CELL * ratio(maps[0].shape)
    figure = Figure(
        (columns * _CELL + 1.0, rows * (height + 0.2) + (0.5 if title else 0.15)), layout="constrained"
    )
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(len(maps))]
    for i, (ax, one) in enumerate(zip(axes, maps, strict=True)):
        ax.imshow(one, cmap=scale.colors(), norm=scale.norm())
        _bare(ax, "#bbbbbb")
        ax.set_title(str(i), fontsize=7, color=FADED, pad=2)
    color_bar(figure, axes, scale, label=label)
    _head(figure, title)
    return figure


def patches(
    rows: Sequence[Sequence[ArrayLike]],
    values: Sequence[ArrayLike] | None = None,
    *,
    names: Sequence[str] | None = None,
    title: str | None = None,
    label: str = "activation",
) -> Figure:
    """Draws, for each unit, the patches that it responds to most in a row, all at one size of pixel.

    A patch that was cut at the border of its image is smaller than the others, and is drawn in the middle of an
    empty frame of their size.

    **When it misleads.** These are the extremes: what they share is easily read as what the unit is for, although
    it may answer as well to much else. A patch is all the unit could see; it may have heeded a corner of it.

    Args:
      rows: for each unit a list of patches, as ``interior.patches`` returns; each (H, W), (H, W, 1) or (H, W, 3),
        integers in [0, 255] or floats in [0, 1].
      values: numbers below the patches, as many a row as patches.
      names: a text for each row.
      title: text above the figure.
      label: what the values are.

    Returns:
      A figure.

    Raises:
      ValueError: if there are no patches, numbers of rows, patches, values and names differ, a value is NaN or
        infinite, or a patch is empty or out of range.

    >>> import numpy as np
    >>> figure = patches([[np.zeros((3, 3)), np.ones((2, 3))]], [[2.5, 1.0]], names=["unit 7"])
    >>> [axes.get_xlabel() for axes in figure.axes]
    ['2.5', '1']
    """
    photos = [[photo_of(patch) for patch in row] for row in rows]
    if not photos or not all(photos):
        raise ValueError("rows is empty, or one of them is; pass at least one patch a unit, [[patch, ...], ...].")
    if values is not None and [len(np.atleast_1d(row)) for row in values] != [len(row) for row in photos]:
        raise ValueError("values must have as many numbers in each row as there are patches.")
    texts = [""] * len(photos) if names is None else [str(name) for name in names]
    if len(texts) != len(photos):
        raise ValueError(f"{len(photos)} rows but {len(texts)} names; each row needs one name.")
    height, width = (max(photo.shape[k] for row in photos for photo in row) for k in (0, 1))
    columns, cell = max(map(len, photos)), _PATCH * ratio((height, width))
    below = 0.08 if values is None else 0.25
    figure = Figure(
        (
            columns * (_PATCH + 0.05) + (0.4 if names else 0.1),
            len(photos) * (cell + below) + (0.8 if title else 0.4),
        ),
        layout="constrained",
    )
    grid = figure.add_gridspec(len(photos), columns)
    for i, row in enumerate(photos):
        for j, photo in enumerate(row):
            ax = figure.add_subplot(grid[i, j])
            _bare(ax, "#bbbbbb")
            ax.set_facecolor("#cddcee")  # no grey that a pixel could have
            ax.imshow(photo, cmap="gray", vmin=0.0, vmax=1.0)
            _centre(ax, photo, height, width)
            if values is not None:
                number = float(real(np.asarray(values[i]), "values")[j])
                ax.set_xlabel(f"{number:.3g}".replace("-", "−"), fontsize=8, color=FADED, labelpad=2)
            if j == 0:
                ax.set_ylabel(texts[i], fontsize=9, color=INK, parse_math=False)
    if values is not None:
        figure.supxlabel(f"below the patches: {label}", fontsize=8, color=FADED, parse_math=False)
    _head(figure, title)
    return figure


def thumbnails(
    points: ArrayLike,
    images: ArrayLike,
    labels: Sequence[object] | None = None,
    *,
    size: float = 0.03,
    title: str | None = None,
) -> Figure:
    """Draws images at their places in a plane, such as those of ``interior.embed``, framed by class.

    **When it misleads.** An embedding's axes, distances between clusters and their sizes mean nothing; only who is
    near whom does, and not always. Later images cover earlier ones.

    Args:
      points: (n, 2).
      images: (n, H, W), (n, H, W, 1) or (n, H, W, 3); integers in [0, 255] or floats in [0, 1].
      labels: n classes, at most ten different ones, each a colour.
      size: width of an image as a fraction of the longer side of the map.
      title: text above the figure.

    Returns:
      A figure.

    Raises:
      ValueError: if there are no points, numbers of points, images and labels differ, a point is NaN or infinite,
        an image is out of range, there are more than ten classes, or ``size`` is not in (0, 1].

    >>> import numpy as np
    >>> figure = thumbnails(np.array([[0.0, 1.0], [2.0, 0.5]]), np.zeros((2, 8, 8)), ["zero", "one"])
    >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    ['one', 'zero']
    """
    places = real(points, "points")
    pictures = np.asarray(images)
    if places.ndim != 2 or places.shape[1] != 2 or len(places) == 0:
        raise ValueError(f"points must have shape (n, 2) with n of at least 1, got {places.shape}.")
    if pictures.ndim not in (3, 4) or len(pictures) != len(places):
        raise ValueError(f"{len(places)} points need images ({len(places)}, H, W[, C]), got {pictures.shape}.")
    if not 0.0 < size <= 1.0:
        raise ValueError(f"size must lie in (0, 1], got {size}; it is a fraction of the map's longer side.")
    colors = _colors(labels, len(places))
    low, high = places.min(0), places.max(0)
    width = size * (float((high - low).max()) or 1.0)
    height = width * ratio(pictures.shape[1:3])
    middle, half = (low + high) / 2, (high - low) / 2 + np.array([width, height])
    figure = Figure((_MAP, _MAP * min(max(float(half[1] / half[0]), 0.4), 1.6)), layout="constrained")
    ax = figure.add_subplot()
    _bare(ax, "#dddddd")
    for place, picture, color in zip(places, pictures, colors, strict=True):
        left, bottom = place - np.array([width, height]) / 2
        extent = (left, left + width, bottom, bottom + height)
        ax.imshow(photo_of(picture), cmap="gray", vmin=0.0, vmax=1.0, extent=extent, zorder=2)
        frame = Rectangle((left, bottom), width, height, fill=False, edgecolor=color, linewidth=1.2, zorder=2)
        ax.add_patch(frame)
    ax.set(
        xlim=middle[0] + np.array([-1, 1]) * half[0], ylim=middle[1] + np.array([-1, 1]) * half[1], aspect="equal"
    )
    if labels is not None:
        known = dict(sorted(zip(map(str, labels), colors, strict=True)))
        marks = [
            Line2D([], [], marker="s", linestyle="", color=color, label=name) for name, color in known.items()
        ]
        ax.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)
    _head(figure, title)
    return figure


def _colors(labels: Sequence[object] | None, count: int) -> list[str]:
    """Returns a colour for each of ``count`` images."""
    if labels is None:
        return ["#bbbbbb"] * count
    names = [str(label) for label in labels]
    classes = sorted(set(names))
    if len(names) != count:
        raise ValueError(f"{count} points but {len(names)} labels; each point needs one.")
    if len(classes) > len(_CLASSES):
        raise ValueError(
            f"labels name {len(classes)} classes, and no more than {len(_CLASSES)} colours can be told apart; "
            "leave some out, or leave labels out."
        )
    color = dict(zip(classes, _CLASSES, strict=False))
    return [color[name] for name in names]


def _centre(ax: Axes, photo: NDArray, height: int, width: int) -> None:
    """Shows a patch in the middle of a frame of the largest patch's size."""
    row, column = (photo.shape[0] - 1) / 2, (photo.shape[1] - 1) / 2
    ax.set(xlim=(column - width / 2, column + width / 2), ylim=(row + height / 2, row - height / 2))


def _bare(ax: Axes, color: str) -> None:
    """Takes away ticks and leaves a thin frame."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(color=color, linewidth=0.6)


def _head(figure: Figure, title: str | None) -> None:
    """Writes the title above a figure."""
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", color=INK, parse_math=False)
