"""What keeps a prototype like data without a model of them: penalties of the input, and transforms of it.

A penalty is a function `R(x)` in units of the explained output, a transform a function `t(key, x)`; any of one's
own will do. Both act on every leaf of a pytree alike.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._chunk import cast_like, check_count, to_accumulator
from jaxplain._tree import total
from jaxplain.attribution.scale_space import blur_axes, blurred

Penalty = Callable[[Any], jax.Array]
Transform = Callable[[jax.Array, Any], Any]


def l2(strength: Any) -> Penalty:
    r"""The penalty $R(x) = \lambda \sum_i x_i^2$.

    Args:
        strength: $\lambda$ >= 0, in units of the explained output over those of x squared; may be traced.

    Returns:
        `R(x)`, a scalar.

    Raises:
        ValueError: the strength is negative or NaN.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.interior.l2(0.5)(jnp.array([1.0, 3.0])))
        5.0

    When not to trust it: it draws to x = 0, which need not be an ordinary input: black, where x is a photo in
    [0, 1]. `lambda x: l2(0.5)(x - mean)` draws to the mean.

    Source: Simonyan, Vedaldi and Zisserman 2014, eq. (1).
    """
    check_strength(strength)

    def penalty(x):
        return weighted(strength, total(jax.tree.map(jnp.square, to_accumulator(x))))

    return penalty


def total_variation(strength: Any, *, axes: Sequence[int] | None = None) -> Penalty:
    r"""The penalty $R(x) = \lambda \sum_{axes} \sum_i |x_{i+1} - x_i|$, anisotropic.

    Args:
        strength: $\lambda$ >= 0, in units of the explained output over those of x; may be traced.
        axes: the axes of the grid; None means every axis but the last (of a vector: its only one).

    Returns:
        `R(x)`, a scalar.

    Raises:
        ValueError: the strength is negative or NaN, or (when called) there is no such axis.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.interior.total_variation(0.5)(jnp.array([[0.0, 1.0], [2.0, 2.0]])))
        1.5

    When not to trust it: it favours edges along the axes, and flat patches whose borders come from the penalty
    rather than from the network. It is not smooth: ascent with steps of one length ends beside the optimum.

    Source: Rudin, Osher and Fatemi 1992, for prototypes Mahendran and Vedaldi 2015, section 3 (there with powers).
    """
    check_strength(strength)

    def penalty(x):
        def jumps(leaf):
            steps = [jnp.abs(jnp.diff(leaf, axis=axis)).sum() for axis in blur_axes(leaf, axes)]
            return sum(steps, start=jnp.zeros((), leaf.dtype))

        return weighted(strength, total(jax.tree.map(jumps, to_accumulator(x))))

    return penalty


def jitter(pixels: int, *, axes: Sequence[int] | None = None) -> Transform:
    """The transform that shifts the input by a random number of pixels, what leaves coming in on the other side.

    Args:
        pixels: the longest shift; each axis is shifted by a whole number from -pixels to pixels, all alike likely.
        axes: the axes to shift; None means every axis but the last (of a vector: its only one).

    Returns:
        `t(key, x)`.

    Raises:
        ValueError: `pixels` is no whole number of at least 0, or (when called) there is no such axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> t = jxp.interior.jitter(2)
        >>> print(jnp.sort(t(jax.random.key(0), jnp.arange(5.0))))
        [0. 1. 2. 3. 4.]

    When not to trust it: it makes the prototype one of a place that may be anywhere; where the place matters to
    the network (digits in a frame) what comes in on the other side is a picture that no data look like.

    Source: Mordvintsev, Olah and Tyka 2015; Olah, Mordvintsev and Schubert 2017.
    """
    check_count("pixels", pixels, least=0)

    def shift(key, x):
        leaves, structure = jax.tree.flatten(x)

        def one(leaf, leaf_key):
            where = blur_axes(leaf, axes)
            return jnp.roll(leaf, jax.random.randint(leaf_key, (len(where),), -pixels, pixels + 1), where)

        # One key for all leaves: those that lie on one grid move together.
        return jax.tree.unflatten(structure, [one(leaf, key) for leaf in leaves])

    return shift


def random_blur(max_sigma: float, *, axes: Sequence[int] | None = None) -> Transform:
    """The transform that blurs the input by a Gaussian of a random width, so that fine noise pays little.

    Args:
        max_sigma: the largest standard deviation, in grid steps; widths from 0 to it are all alike likely.
        axes: the axes to blur; None means every axis but the last (of a vector: its only one).

    Returns:
        `t(key, x)`.

    Raises:
        ValueError: `max_sigma` is not positive, or (when called) there is no such axis.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> t = jxp.interior.random_blur(2.0)
        >>> print(t(jax.random.key(0), jnp.array([0.0, 6.0, 0.0])).sum().round(4))  # the mean is kept
        6.0

    When not to trust it: the prototype itself is not blurred, and may keep noise that only the blur hides.

    Source: Yosinski et al. 2015, section 3 (blurring between steps, here within them).
    """
    if not _jax.is_tracer(max_sigma) and not max_sigma > 0:
        raise ValueError(f"max_sigma must be positive, in grid steps, not {max_sigma}")

    def soften(key, x):
        share = jax.random.uniform(key)

        def one(leaf):
            return blurred(leaf, (share * max_sigma).astype(leaf.dtype), axes)

        return cast_like(jax.tree.map(one, to_accumulator(x)), x)

    return soften


def check_strength(strength: Any) -> None:
    """An error for a known strength that is none."""
    if not _jax.is_tracer(strength) and not strength >= 0:
        raise ValueError(f"strength must be at least 0, not {strength}: a penalty is subtracted")


def weighted(strength: Any, amount: jax.Array) -> jax.Array:
    """Their product in the type of the amount."""
    return jnp.asarray(strength, amount.dtype) * amount
