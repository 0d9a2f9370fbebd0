"""Training images that helped or harmed a prediction, with their influence."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from jaxplain.plot._scale import FADED, INK, NEGATIVE, POSITIVE, photo_of, real

_SIZE = 1.15  # of a picture, inches


def influence_table(
    images: ArrayLike,
    values: ArrayLike,
    *,
    test_image: ArrayLike | None = None,
    names: Sequence[str] | None = None,
    test_name: str = "",
    top: int = 6,
    title: str | None = None,
    label: str = "influence",
) -> Figure:
    """Draws the training images of most negative and most positive influence on a test loss, in two rows.

    The sign is that of ``influence``: a negative value is help, since more weight on that image lowers the test
    loss, a positive one is harm. Each row runs from the strongest on; a row shows no image of the other sign and
    may be short.

    **When it misleads.** The rows show extremes: the many images left out can outweigh them, and the note below
    says how much they do. Two rows of equal length do not say that help and harm are equal: read the numbers. An
    image may help because it resembles the test image, or because it holds a class boundary elsewhere.

    Args:
      images: (N, H, W), (N, H, W, 1) or (N, H, W, 3); integers in [0, 255] or floats in [0, 1].
      values: (N,) influence on one test loss, or anything with that sign.
      test_image: the image whose loss is explained, drawn at the left.
      names: N texts, such as labels, above the images.
      test_name: text above the test image.
      top: how many images a row holds at most.
      title: text above the figure.
      label: what the values are: name the unit here.

    Returns:
      A figure.

    Raises:
      ValueError: if there are no images, numbers of images, values and names differ, a value is NaN or infinite,
        an image is out of range, or ``top`` is less than 1.

    >>> import numpy as np
    >>> figure = influence_table(np.zeros((3, 8, 8)), np.array([-2.0, 0.5, 1.0]), names=["a", "b", "c"])
    >>> [axes.get_title() for axes in figure.axes]
    ['a', 'c', 'b']
    """
    values = real(values, "values")
    pictures = np.asarray(images)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"values must be a vector with at least one entry, got shape {values.shape}.")
    if pictures.ndim not in (3, 4) or len(pictures) != len(values):
        raise ValueError(f"{len(values)} values need images ({len(values)}, H, W[, C]), got {pictures.shape}.")
    names = [""] * len(values) if names is None else [str(name) for name in names]
    if len(names) != len(values):
        raise ValueError(f"{len(values)} values but {len(names)} names; each image needs one name.")
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}.")

    order = np.argsort(values, kind="stable")
    helpful = [i for i in order if values[i] < 0][:top]
    harmful = [i for i in order[::-1] if values[i] > 0][:top]
    first = 0 if test_image is None else 2
    columns = first + max(len(helpful), len(harmful), 1)
    figure = Figure((columns * _SIZE + 1.4, 2 * (_SIZE + 0.55) + (0.9 if title else 0.5)), layout="constrained")
    grid = figure.add_gridspec(2, columns)
    if test_image is not None:
        _draw(figure.add_subplot(grid[:, :2]), photo_of(test_image), test_name, "", FADED)
    rows = (("most helpful", helpful, NEGATIVE, values < 0), ("most harmful", harmful, POSITIVE, values > 0))
    notes = []
    for row, (side, shown, color, all_of_side) in enumerate(rows):
        for column, i in enumerate(shown):
            ax = figure.add_subplot(grid[row, first + column])
            _draw(ax, photo_of(pictures[i]), names[i], _signed(float(values[i])), color)
            if column == 0:
                ax.set_ylabel(side, fontsize=10, color=color, fontweight="bold")
        left = np.setdiff1d(np.flatnonzero(all_of_side), shown)
        if len(left):
            notes.append(
                f"{len(left)} less {side.removeprefix('most ')}, sum {_signed(float(values[left].sum()))}"
            )
    note = f"below the images: {label}" + (f"; not shown: {', '.join(notes)}" if notes else "")
    figure.supxlabel(note, fontsize=8, color=FADED, parse_math=False)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", color=INK, parse_math=False)
    return figure


def _draw(ax: Axes, photo: np.ndarray, name: str, caption: str, color: str) -> None:
    ax.imshow(photo, cmap="gray", vmin=0.0, vmax=1.0)
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(color=color, linewidth=2.0)
    ax.set_title(name, fontsize=9, color=INK, pad=4, parse_math=False)
    ax.set_xlabel(caption, fontsize=8, color=color, labelpad=3, parse_math=False)


def _signed(value: float) -> str:
    return (f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.2g}").replace("-", "−")
