"""Attribution maps of images: alone, over the photo, or many of them side by side.

All three draw signed maps with a diverging scale centred at exactly zero (blue negative, orange positive) and
non-negative maps with a sequential one; both are colour-blind safe. The scale ends at a percentile of the
absolute values, by default 99.5, because gradient maps have a few extreme pixels that would leave the rest
invisible; an arrow on the colour bar says that values lie beyond its end.
"""

import textwrap
from collections.abc import Mapping
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from jaxplain.plot._scale import (
    FADED,
    INK,
    Reduction,
    Scale,
    check_same_frame,
    color_bar,
    enlarge,
    geometry,
    grey,
    map_of,
    photo_of,
    ratio,
    scale_of,
)

_LARGE, _SMALL = 3.4, 2.7  # width of a picture: one or two in a figure, and many; inches


def heatmap(
    attribution: ArrayLike,
    image: ArrayLike | None = None,
    *,
    reduction: Reduction = "sum",
    signed: bool | None = None,
    percentile: float = 99.5,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draws one attribution map with its colour bar, beside the image if there is one.

    **When it misleads.** Each map has its own scale: two heatmaps of the same colour may differ by orders of
    magnitude (``gallery(..., scale="shared")`` compares them). Summing channels lets opposite signs cancel: a
    pixel can look unimportant because its channels disagree; ``reduction="norm"`` shows it. A map of zeros is
    drawn with the arbitrary limit 1.

    Args:
      attribution: (H, W) or (H, W, C), in units of the explained output. One cell is drawn as one square.
      image: (H, W), (H, W, 1) or (H, W, 3); integers in [0, 255] or floats in [0, 1]. It may be larger than
        the attribution but must have its aspect ratio.
      reduction: how channels become one value. ``"sum"`` keeps signs and the total; ``"norm"`` is the
        Euclidean norm and ``"max_abs"`` the largest absolute value, both unsigned. Without a channel axis it
        does nothing.
      signed: diverging (True) or sequential (False) scale; None takes the diverging one if any value is
        negative.
      percentile: the scale ends at this percentile of the absolute values; 100 is the maximum. Where the
        percentile is 0, as in very sparse maps, the maximum is taken.
      title: text above the figure.
      label: text beside the colour bar: name the unit here.

    Returns:
      A figure.

    Raises:
      ValueError: for a wrong rank, another aspect ratio, an image out of range, NaN or infinite values, an
        unknown reduction, or ``signed=False`` with negative values.

    >>> import numpy as np
    >>> figure = heatmap(np.array([[1.0, -2.0], [0.0, 0.5]]), percentile=100)
    >>> figure.axes[0].images[0].get_clim()
    (-2.0, 2.0)
    """
    values = map_of(attribution, reduction)
    scale = scale_of([values], percentile=percentile, signed=signed)
    photo = None if image is None else photo_of(image)
    if photo is not None:
        check_same_frame(values, photo)
    figure, axes = _grid(1 if photo is None else 2, 2, values if photo is None else photo, title, _LARGE)
    if photo is not None:
        _draw_photo(axes[0], photo)
    _draw_map(axes[-1], values, scale)
    for spine in axes[-1].spines.values():
        spine.set(visible=True, color="#bbbbbb", linewidth=0.6)
    color_bar(figure, axes[-1:], scale, label=label)
    return _trim(figure)


def overlay(
    attribution: ArrayLike,
    image: ArrayLike,
    *,
    alpha: float = 0.9,
    reduction: Reduction = "sum",
    signed: bool | None = None,
    percentile: float = 99.5,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draws one attribution map over the greyscale image; zero is transparent.

    Opacity is proportional to the absolute value, up to ``alpha`` at the end of the scale. A map smaller than
    the image, as class activation maps are, is enlarged bilinearly: cell centres keep their values.

    **When it misleads.** The photo below draws the eye to its own edges, which then seem to belong to the
    map. An enlarged map is no sharper than its cells: its smooth outline says nothing about the object's. As
    in ``heatmap``, the scale is the map's own and summed channels can cancel.

    Args:
      attribution: (H, W) or (H, W, C), in units of the explained output; no larger than the image.
      image: (H, W), (H, W, 1) or (H, W, 3); integers in [0, 255] or floats in [0, 1].
      alpha: opacity at the end of the scale, in (0, 1].
      reduction: how channels become one value; see ``heatmap``.
      signed: diverging or sequential scale; see ``heatmap``.
      percentile: the scale ends at this percentile of the absolute values of the map as given, before
        enlarging.
      title: text above the figure.
      label: text beside the colour bar.

    Returns:
      A figure.

    Raises:
      ValueError: as ``heatmap``, and for ``alpha`` out of range.

    >>> import numpy as np
    >>> photo = np.linspace(0, 1, 64).reshape(8, 8)
    >>> figure = overlay(np.array([[0.0, 1.0], [2.0, 3.0]]), photo)
    >>> figure.axes[0].images[1].get_array().shape
    (8, 8)
    """
    values, photo = map_of(attribution, reduction), photo_of(image)
    check_same_frame(values, photo)
    scale = scale_of([values], percentile=percentile, signed=signed)
    figure, axes = _grid(1, 1, photo, title, _LARGE)
    _draw_overlay(axes[0], values, photo, scale, alpha)
    color_bar(figure, axes, scale, label=label, alpha=alpha)
    return _trim(figure)


def gallery(
    attributions: Mapping[str, ArrayLike],
    image: ArrayLike,
    *,
    scale: Literal["each", "shared"] = "each",
    columns: int = 4,
    captions: Mapping[str, str] | None = None,
    alpha: float = 0.9,
    reduction: Reduction = "sum",
    signed: bool | None = None,
    percentile: float = 99.5,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draws the image and then every attribution over it, in a grid with names.

    With ``scale="shared"`` all maps use one scale, the largest of their own limits, and the figure has one
    colour bar; if any map has negative values, the scale of all is the symmetric diverging one. With
    ``scale="each"`` every map has its own scale and its own colour bar.

    **When it misleads.** ``"each"`` makes every method look equally strong: compare shapes, not colours, and
    read the numbers under the maps. ``"shared"`` compares magnitudes, which means something only if the
    methods have one unit: a gradient per pixel and a share of the logit do not. Agreement between methods is
    no evidence that they are right: several share the same backward pass.

    Args:
      attributions: name to attribution, each (H, W) or (H, W, C), no larger than the image; drawn in this
        order.
      image: (H, W), (H, W, 1) or (H, W, 3); integers in [0, 255] or floats in [0, 1].
      scale: ``"each"`` or ``"shared"``.
      columns: the largest number of pictures in a row, the image included.
      captions: name to one line of text below that map; names may be left out.
      alpha: opacity at the end of the scale, in (0, 1].
      reduction: how channels become one value; see ``heatmap``.
      signed: diverging or sequential scale; see ``heatmap``.
      percentile: the scale ends at this percentile of the absolute values.
      title: text above the figure.
      label: text beside the shared colour bar.

    Returns:
      A figure.

    Raises:
      ValueError: as ``overlay``, naming the map at fault; for no maps at all, an unknown ``scale``, fewer
        than one column, or a caption for a name that is not among the attributions.

    >>> import numpy as np
    >>> photo = np.linspace(0, 1, 16).reshape(4, 4)
    >>> figure = gallery({"gradient": photo - 0.5, "saliency": photo}, photo, scale="shared")
    >>> [axes.get_title() for axes in figure.axes[:3]]
    ['input', 'gradient', 'saliency']
    """
    captions = captions or {}
    if scale not in ("each", "shared"):
        raise ValueError(f"unknown scale {scale!r}; choose 'each' (one per map) or 'shared' (one for all).")
    if not attributions:
        raise ValueError("attributions is empty; pass at least one map, {name: attribution}.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}.")
    if unknown := set(captions) - set(attributions):
        raise ValueError(f"captions name {sorted(unknown)}, which are not among {list(attributions)}.")
    photo = photo_of(image)
    maps = {name: map_of(values, reduction, name=repr(name)) for name, values in attributions.items()}
    for name, values in maps.items():
        check_same_frame(values, photo, repr(name))
    shared = scale_of(maps.values(), percentile=percentile, signed=signed)

    figure, axes = _grid(len(maps) + 1, columns, photo, title, _SMALL)
    _draw_photo(axes[0], photo)
    _label(axes[0], "input")
    for ax, (name, values) in zip(axes[1:], maps.items(), strict=True):
        own = shared if scale == "shared" else scale_of([values], percentile=percentile, signed=signed)
        _draw_overlay(ax, values, photo, own, alpha)
        _label(ax, name, captions.get(name, ""))
        if scale == "each":
            color_bar(figure, [ax], own, alpha=alpha, location="bottom")
    if scale == "shared":
        color_bar(figure, axes, shared, label=label, alpha=alpha)
    return _trim(figure)


def _grid(count: int, columns: int, frame: NDArray, title: str | None, width: float) -> tuple[Figure, list[Axes]]:
    """Returns a figure of ``count`` frames of ``width`` inches for pictures like ``frame``, without ticks."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height = width * ratio(frame.shape)
    gaps = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08, wspace=0.0, hspace=0.0)  # inches
    figure = Figure((columns * (width + 0.1) + 0.8, rows * (height + 1.5) + 0.5), layout=gaps)
    grid = figure.add_gridspec(rows, columns)
    axes = [figure.add_subplot(grid[i // columns, i % columns]) for i in range(count)]
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=12, fontweight="bold", color=INK, parse_math=False)
    return figure, axes


def _trim(figure: Figure) -> Figure:
    """Sets the figure's height so that the pictures, which keep their aspect ratio, fill their frames."""
    ax = figure.axes[0]
    rows, _ = geometry(ax)
    for _ in range(2):  # the space that the texts take depends a little on the height
        figure.get_layout_engine().execute(figure)  # pyright: ignore[reportOptionalMemberAccess]
        frame = ax.get_position(original=True).transformed(figure.transFigure - figure.dpi_scale_trans)
        missing = ratio(ax.images[0].get_size()) * frame.width - frame.height
        figure.set_figheight(figure.get_figheight() + rows * missing)
    return figure


def _draw_photo(ax: Axes, photo: NDArray) -> None:
    ax.imshow(photo, cmap="gray", vmin=0.0, vmax=1.0)


def _draw_map(ax: Axes, values: NDArray, scale: Scale, alpha: float | None = None) -> None:
    ax.imshow(values, cmap=scale.colors(alpha), norm=scale.norm())


def _draw_overlay(ax: Axes, values: NDArray, photo: NDArray, scale: Scale, alpha: float) -> None:
    if not 0.0 < alpha <= 1.0:
        raise ValueError(f"alpha must lie in (0, 1], got {alpha}.")
    _draw_photo(ax, grey(photo))
    _draw_map(ax, enlarge(values, (photo.shape[0], photo.shape[1])), scale, alpha)


def _label(ax: Axes, name: str, caption: str = "") -> None:
    ax.set_title(textwrap.fill(name, 28), fontsize=10, color=INK, pad=4, parse_math=False)
    ax.set_xlabel(textwrap.fill(caption, 40), fontsize=8, color=FADED, labelpad=4, parse_math=False)
