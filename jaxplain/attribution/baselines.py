"""Baselines: callables `x -> baseline`, for methods that compare the input with a reference.

What counts as "nothing there" is a choice of the question, and every choice is blind to something: a constant
to objects of that colour, a blur to what is smooth, noise to its own draw.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import accumulator_dtype
from jaxplain.attribution.scale_space import blurred


def blur(sigma: float, *, axes: Sequence[int] | None = None) -> Callable[[Any], Any]:
    """A baseline: the input, blurred with a Gaussian of standard deviation `sigma` grid steps.

    Args:
        sigma: in pixels or time steps, positive.
        axes: the axes to blur; None means every axis but the last (of a vector: its only one).

    Returns:
        A callable `x -> baseline`.

    Raises:
        ValueError: `sigma` is not positive, or no such axis.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> jxp.blur(100.0)(jnp.array([0.0, 1.0, 5.0])).round(2)  # strongly blurred: the mean
        Array([2., 2., 2.], dtype=float32)

    Source: Fong and Vedaldi 2017; Sturmfels et al. 2020.
    """
    if isinstance(sigma, int | float) and not sigma > 0:
        raise ValueError(f"sigma must be positive, in grid steps, not {sigma}")

    def baseline(x):
        def soften(leaf):
            exact = leaf.astype(accumulator_dtype(leaf.dtype))
            return blurred(exact, jnp.asarray(sigma, exact.dtype), axes).astype(leaf.dtype)

        return jax.tree.map(soften, x)

    return baseline


def constant(value: Any) -> Callable[[Any], Any]:
    """A baseline: the same number everywhere, or one number a channel (the last axis).

    Args:
        value: a number, or an array that broadcasts against `x`.

    Returns:
        A callable `x -> baseline`.

    Raises:
        ValueError: when called, if `value` does not broadcast to the shape of `x`.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.constant([0.25, 0.5])(jnp.zeros((2, 2))))
        [[0.25 0.5 ]
         [0.25 0.5 ]]
    """

    def fill(leaf):
        filler = jnp.asarray(value, leaf.dtype)
        try:
            # Explicit axes, for those who run with rank promotion forbidden.
            return jnp.broadcast_to(filler.reshape((1,) * (leaf.ndim - filler.ndim) + filler.shape), leaf.shape)
        except ValueError as error:
            raise ValueError(f"constant of shape {filler.shape} does not broadcast to {leaf.shape}") from error

    return lambda x: jax.tree.map(fill, x)


def noise(key: jax.Array, sigma: float) -> Callable[[Any], Any]:
    """A baseline: the input plus Gaussian noise of standard deviation `sigma`, in units of the input.

    One draw is one baseline; average over keys (`average_over`) to be rid of the choice.

    Args:
        key: a PRNG key; each leaf of `x` draws with its own.
        sigma: in units of the input.

    Returns:
        A callable `x -> baseline`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.noise(jax.random.key(0), 2.0)(jnp.zeros(1000)).std().round(1))
        2.0

    Source: Sturmfels et al. 2020 (Gaussian baseline).
    """

    def disturb(x):
        leaves, structure = jax.tree.flatten(x)
        keys = jax.random.split(key, len(leaves))
        noisy = [
            v + jnp.asarray(sigma, v.dtype) * jax.random.normal(k, v.shape, v.dtype)
            for v, k in zip(leaves, keys, strict=True)
        ]
        return jax.tree.unflatten(structure, noisy)

    return disturb
