"""What every map shares: checked inputs, one value per pixel, colours and their limits.

Both colour maps are safe for the common colour-vision deficiencies. The diverging one runs from blue
(negative) through near-white (zero) to orange (positive): blue and orange stay apart for protan, deutan and
tritan viewers, and lightness falls alike on both sides, so that magnitude survives a grey print. The
sequential one is matplotlib's viridis, whose lightness rises evenly and whose hue never turns the grey of the
photo below it.

Both have an odd number of colours, so that the middle of the diverging map is one colour: that of exactly
zero.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

Reduction = Literal["sum", "norm", "max_abs"]

INK, FADED = "#222222", "#5f5f5f"  # of texts
BAR_WIDTH = 0.1  # of a colour bar, inches
NUM_COLORS = 257
NEGATIVE, POSITIVE = "#2b7bcb", "#e2700f"
_DIVERGING = LinearSegmentedColormap.from_list(
    "jaxplain_diverging",
    ["#0a3f87", NEGATIVE, "#94c1e8", "#f7f7f7", "#f8b97c", POSITIVE, "#963c00"],
    N=NUM_COLORS,
)
_SEQUENTIAL = matplotlib.colormaps["viridis"].resampled(NUM_COLORS)


class Scale(NamedTuple):
    """How values become colours: ``[-limit, limit]`` if signed, ``[0, limit]`` if not."""

    signed: bool
    limit: float
    clipped: bool  # some values lie beyond the limit

    def norm(self) -> Normalize:
        """Returns the linear map of values to [0, 1]; zero goes to exactly 1/2 (signed) or 0."""
        return Normalize(-self.limit if self.signed else 0.0, self.limit)

    def colors(self, alpha: float | None = None) -> ListedColormap:
        """Returns the colour map; with ``alpha``, one whose opacity grows from 0 at zero to ``alpha``.

        Opacity then tells the magnitude, so the pale colours near zero, which would fade small values a
        second time, give way to stronger ones.
        """
        position = np.linspace(-1.0 if self.signed else 0.0, 1.0, NUM_COLORS)
        strength = position if alpha is None else np.sign(position) * (0.4 + 0.6 * np.abs(position))
        rgba = _DIVERGING((strength + 1.0) / 2.0) if self.signed else _SEQUENTIAL(strength)
        if alpha is not None:
            rgba[:, 3] = alpha * np.abs(position)
        return ListedColormap(rgba)


def scale_of(maps: Iterable[NDArray], *, percentile: float, signed: bool | None) -> Scale:
    """Returns one scale that serves all of ``maps``: the largest of their own limits.

    A map's limit is the percentile of its absolute values; where that is 0 (nearly all values are zero) it is
    the maximum, and where that is 0 too, 1.
    """
    if not 0.0 < percentile <= 100.0:
        raise ValueError(f"percentile must lie in (0, 100], got {percentile}; 100 keeps every value in range.")
    magnitudes = [np.abs(values) for values in maps]
    negative = any(np.any(values < 0) for values in maps)
    if negative and signed is False:
        raise ValueError(
            "signed=False, but the attribution has negative values, which a sequential scale cannot show; "
            "leave signed out, pass the absolute value, or choose reduction='norm' or 'max_abs'."
        )
    largest = max(m.max() for m in magnitudes)
    limit = max(np.percentile(m, percentile) or m.max() for m in magnitudes) or 1.0
    return Scale(negative if signed is None else signed, float(limit), bool(largest > limit))


def map_of(attribution: ArrayLike, reduction: Reduction = "sum", *, name: str = "attribution") -> NDArray:
    """Returns ``attribution``, (H, W) or (H, W, C), as a float64 map (H, W) after checking it."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"unknown reduction {reduction!r}; choose one of {', '.join(get_args(Reduction))}.")
    if isinstance(attribution, tuple):
        raise ValueError(f"{name} is a tuple; of an Estimate(value, std_error), pass estimate.value.")
    values = np.asarray(attribution)
    if values.ndim not in (2, 3) or values.size == 0:
        raise ValueError(
            f"{name} must have shape (H, W) or (H, W, C) with no empty axis, got {values.shape}; "
            "pass one example at a time (attribution[0] drops a batch axis)."
        )
    values = real(values, name)
    if values.ndim == 2:
        return values
    match reduction:
        case "sum":
            return values.sum(axis=-1)
        case "norm":
            return np.linalg.norm(values, axis=-1)
        case "max_abs":
            return np.abs(values).max(axis=-1)


def real(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Returns ``values`` as float64; refuses complex, NaN and infinite ones."""
    values = np.asarray(values)
    if np.iscomplexobj(values):
        raise ValueError(f"{name} is complex; plot its real part or its absolute value.")
    values = values.astype(np.float64)
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(
            f"{name} has {bad} NaN or infinite value{'s' if bad > 1 else ''} out of {values.size}; find "
            "their source (jax.config.update('jax_debug_nans', True) stops at the first), or, if they mark what "
            "is to be left out, set them to 0: numpy.nan_to_num(values, posinf=0, neginf=0)."
        )
    return values


def photo_of(image: ArrayLike) -> NDArray[np.float64]:
    """Returns ``image``, (H, W), (H, W, 1) or (H, W, 3), as floats (H, W) or (H, W, 3) in [0, 1]."""
    array = np.asarray(image)
    if array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[-1] not in (1, 3)):
        raise ValueError(
            f"image must have shape (H, W), (H, W, 1) or (H, W, 3), got {array.shape}; drop a batch axis "
            "with image[0] and an alpha channel with image[..., :3]; numpy.moveaxis(image, 0, -1) moves channels "
            "last."
        )
    pixels = real(array, "image") / (255.0 if np.issubdtype(array.dtype, np.integer) else 1.0)
    low, high = pixels.min(), pixels.max()
    if low < -1e-3 or high > 1.0 + 1e-3:  # the tolerance is for resampling that overshoots
        raise ValueError(
            f"image must hold integers in [0, 255] or floats in [0, 1]; {array.dtype} values scaled to "
            f"[{low:.3g}, {high:.3g}] are neither. Pass the photo as it was before the model's preprocessing."
        )
    pixels = np.clip(pixels, 0.0, 1.0)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def grey(photo: NDArray) -> NDArray:
    """Returns the luminance (H, W) of a photo from ``photo_of`` (Rec. 709 weights)."""
    return photo @ np.array([0.2126, 0.7152, 0.0722]) if photo.ndim == 3 else photo


def check_same_frame(values: NDArray, photo: NDArray, name: str = "attribution") -> None:
    """Raises unless the map is no larger than the photo and has its aspect ratio, up to one cell of the map."""
    (h, w), (H, W) = values.shape, photo.shape[:2]
    if h > H or w > W:
        raise ValueError(f"{name}, {h} x {w}, is larger than the image, {H} x {W}; pass the image it explains.")
    if abs(h * W - w * H) > max(H, W):
        raise ValueError(
            f"{name}, {h} x {w}, and the image, {H} x {W}, differ in aspect ratio, so one cannot lie over the "
            "other; pass the image as the model saw it, resized and cropped."
        )


def enlarge(values: NDArray, shape: tuple[int, int]) -> NDArray:
    """Returns a map bilinearly resampled to ``shape``, with pixel centres at half-integers and flat borders."""
    rows, columns = (_interpolation(n, m) for n, m in zip(shape, values.shape, strict=True))
    return rows @ values @ columns.T


def _interpolation(n: int, m: int) -> NDArray:
    """Returns the (n, m) matrix of hat functions that resamples m cells to n."""
    position = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    return np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(m)))


def ratio(shape: tuple[int, ...]) -> float:
    """Returns height over width of a frame; a picture taller than 2 to 1 leaves room at its sides."""
    return min(shape[0] / shape[1], 2.0)


def geometry(ax: Axes) -> tuple[int, int]:
    """Returns how many rows and columns of pictures the figure has."""
    spec = ax.get_subplotspec()
    return spec.get_gridspec().get_geometry() if spec else (1, 1)


def color_bar(
    figure: Figure,
    axes: Sequence[Axes],
    scale: Scale,
    *,
    label: str = "",
    alpha: float | None = None,
    location: Literal["right", "bottom"] = "right",
) -> None:
    """Adds a colour bar with ticks at the ends and at zero, and an arrow where values lie beyond an end."""
    extend = "neither" if not scale.clipped else "both" if scale.signed else "max"
    mappable = ScalarMappable(scale.norm(), scale.colors(alpha))
    rows, columns = geometry(axes[0])
    width = figure.get_figwidth() / columns - 0.3
    length = max(width if location == "bottom" else rows * width * ratio(axes[0].images[0].get_size()), 1.0)
    bar = figure.colorbar(
        mappable,
        ax=list(axes),
        location=location,
        extend=extend,
        extendfrac=BAR_WIDTH / length,
        aspect=length / BAR_WIDTH,
        pad=0.02,
        panchor=False,
    )
    ticks = [-scale.limit, 0.0, scale.limit] if scale.signed else [0.0, scale.limit]
    bar.set_ticks(ticks, labels=[f"{tick:.2g}".replace("-", "−") for tick in ticks])
    bar.ax.tick_params(length=0, labelsize=8, labelcolor=FADED)
    if location == "bottom":  # the numbers at the ends stay within the bar, clear of the neighbours'
        texts = bar.ax.get_xticklabels()
        texts[0].set_horizontalalignment("left")
        texts[-1].set_horizontalalignment("right")
    bar.set_label(label, fontsize=9, color=FADED, parse_math=False)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
