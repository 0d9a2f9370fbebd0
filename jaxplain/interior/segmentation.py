"""The object that a map is about, cut out of its image."""

from typing import Any

import jax
import numpy as np

from jaxplain._chunk import check_count


def segment(
    image: Any,
    saliency: Any,
    *,
    foreground: float = 0.95,
    background: float = 0.30,
    num_iterations: int = 5,
) -> np.ndarray:
    """Segmentation from saliency: GrabCut by colour, started where the map is high and where it is low.

    The colours of pixels from the `foreground` quantile of the map on are the object's, those of pixels up to the
    `background` quantile the background's, where these stay; all others go where their colour and their neighbours
    do. Of the connected pieces found, the one that holds most saliency is kept.

    Args:
        image: (height, width, 3), or grey, (height, width) or (height, width, 1); of any range.
        saliency: (height, width), at least 0: how much each pixel matters, such as the absolute gradient. Smooth a
            speckled map first.
        foreground: a quantile, from 0 to 1.
        background: a lower one.
        num_iterations: of GrabCut.

    Returns:
        Bools (height, width), True on the object, nowhere if GrabCut keeps nothing (one colour all over, or the
        object among the low pixels); the same each time, as OpenCV's random numbers are seeded.

    Raises:
        ValueError: image and map do not fit, are not finite, or the map is negative somewhere; the quantiles are
            out of order, or the map has the same value at both.
        TypeError: either is traced: GrabCut runs outside of JAX.
        ImportError: OpenCV is not installed.

    Example:
        >>> import numpy as np, jaxplain as jxp
        >>> image = np.random.default_rng(0).uniform(0.0, 0.1, (20, 20, 3))
        >>> image[5:15, 5:15] += 0.8
        >>> row, column = np.mgrid[:20, :20]
        >>> saliency = np.exp(-((row - 9) ** 2 + (column - 11) ** 2) / 20)  # a map that found some of it
        >>> found = jxp.interior.segment(image, saliency)
        >>> print(found.sum(), found[5:15, 5:15].all())
        100 True

    When not to trust it: it knows colours, not objects. What shares a colour with the salient pixels and touches
    them is taken in, and a striped object comes in pieces.

    Source: Simonyan, Vedaldi and Zisserman 2014, section 3.2 (where the largest piece is kept); Rother, Kolmogorov
    and Blake 2004.
    """
    try:
        pixels, values = np.asarray(image, np.float64), np.asarray(saliency, np.float64)
    except jax.errors.TracerArrayConversionError as error:
        raise TypeError("segment runs outside of JAX: call it outside of jit and vmap") from error
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3) or not pixels.size:
        raise ValueError(
            f"image must be (height, width, 3), or grey, (height, width); its shape is {np.shape(image)}"
        )
    if values.shape != pixels.shape[:2]:
        raise ValueError(
            f"saliency has shape {values.shape}, but the image has {pixels.shape[:2]} pixels: reduce it over "
            "colours, as in abs(saliency).max(-1)"
        )
    if not (np.isfinite(pixels).all() and np.isfinite(values).all()):
        raise ValueError("image and saliency must be finite")
    if values.min() < 0:
        raise ValueError("saliency must be at least 0: take its absolute or its positive part")
    if not 0 <= background < foreground <= 1:
        raise ValueError(f"quantiles must be 0 <= background < foreground <= 1, not {background} and {foreground}")
    check_count("num_iterations", num_iterations)
    try:
        import cv2
    except ImportError as error:
        raise ImportError("segment needs OpenCV: pip install 'jaxplain[segment]'") from error
    high, low = np.quantile(values, (foreground, background))
    if not low < high:
        raise ValueError(
            f"saliency is {low:g} at both quantiles, {background} and {foreground}: a map that is 0 nearly "
            "everywhere must be smoothed first"
        )
    sure, other = values >= high, values <= low
    span = pixels.max() - pixels.min()
    colours = np.uint8(np.round((pixels - pixels.min()) / (span or 1) * 255))
    colours = np.ascontiguousarray(np.broadcast_to(colours, (*values.shape, 3)))

    def cut(image, labels, mode, rounds):
        return cv2.grabCut(image, labels, (0, 0, 0, 0), *models, rounds, mode)[0]  # the rectangle is not used

    cv2.setRNGSeed(0)  # its k-means draws
    models = np.zeros((1, 65)), np.zeros((1, 65))  # of the background's colours and the object's, filled in place
    # The models come from the two kinds of pixels alone, as a strip: OpenCV would count all others as background.
    seeds = np.concatenate([colours[sure], colours[other]])[None]
    kinds = np.repeat([cv2.GC_FGD, cv2.GC_BGD], [sure.sum(), other.sum()])[None].astype(np.uint8)
    cut(seeds, kinds, cv2.GC_INIT_WITH_MASK, 1)
    labels = np.where(other, cv2.GC_BGD, cv2.GC_PR_FGD).astype(np.uint8)
    labels = cut(colours, labels, cv2.GC_EVAL_FREEZE_MODEL, 1)
    found = cut(colours, labels, cv2.GC_EVAL, num_iterations)
    chosen = (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)
    number, pieces = cv2.connectedComponents(chosen.astype(np.uint8))  # the background is piece 0
    if number < 2:
        return chosen
    held = [values[pieces == k].sum() for k in range(1, number)]
    return pieces == 1 + int(np.argmax(held))
