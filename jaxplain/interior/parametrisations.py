r"""Coordinates in which an input is climbed: the same inputs, other directions of steepest ascent.

The Fourier coordinates of Olah, Mordvintsev and Schubert 2017 divide each frequency by its length, as the spectra
of photos fall. Here they are those of the Hartley transform, $H = \mathrm{Re} F - \mathrm{Im} F$ of the unitary
Fourier transform F: real, as many as there are pixels for odd and even sizes alike, and its own inverse.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.attribution.scale_space import blur_axes


class Parametrisation(NamedTuple):
    """A bijection of inputs: `encode(x)` gives coordinates, `decode(coordinates)` the input again."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


def pixels() -> Parametrisation:
    """The input's own coordinates."""
    return Parametrisation(lambda x: x, lambda x: x)


def fourier(*, axes: Sequence[int] | None = None, decay: float = 1.0) -> Parametrisation:
    r"""Fourier coordinates of an input, low frequencies first: $x = H (s \odot c)$, $s_k \propto |k|^{-decay}$.

    |k| is the frequency in cycles a grid step, for the mean that of one cycle over the longest axis, and s has a
    mean square of 1: a step of an optimizer that scales its steps, as Adam does, is as long as in pixels.

    Args:
        axes: the axes of the grid; None means every axis but the last (of a vector: its only one).
        decay: the power by which frequencies are divided; 0 for none.

    Returns:
        A `Parametrisation` for `activation_maximization`.

    Raises:
        ValueError: `decay` is negative or NaN, or (when called) there is no such axis.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> waves = jxp.interior.fourier()
        >>> x = jnp.arange(15.0).reshape(5, 3, 1)
        >>> print(bool(jnp.allclose(waves.decode(waves.encode(x)), x, atol=1e-4)))
        True

    When not to trust it: it is a preference for smooth inputs, of the path rather than of the optimum: with
    enough steps of plain gradient ascent on a concave f both coordinates end at the same input.

    Source: Olah, Mordvintsev and Schubert 2017, "Preconditioning and parameterization"; Bracewell 1983.
    """
    if not decay >= 0:
        raise ValueError(f"decay is the power by which frequencies are divided and cannot be {decay}")

    def scale(leaf, where):
        squares = np.zeros([leaf.shape[k] if k in where else 1 for k in range(leaf.ndim)])
        for axis in where:
            others = [k for k in range(leaf.ndim) if k != axis]
            squares = squares + np.expand_dims(np.fft.fftfreq(leaf.shape[axis]) ** 2, others)
        longest = max(leaf.shape[axis] for axis in where)
        scales = np.maximum(np.sqrt(squares), 1 / longest) ** -decay
        return jnp.asarray(scales / np.sqrt(np.square(scales).mean()), leaf.dtype)

    def encode(x):
        def one(leaf):
            where = blur_axes(leaf, axes)
            return hartley(leaf, where) / scale(leaf, where) if where else leaf

        return jax.tree.map(one, x)

    def decode(coordinates):
        def one(leaf):
            where = blur_axes(leaf, axes)
            return hartley(leaf * scale(leaf, where), where) if where else leaf

        return jax.tree.map(one, coordinates)

    return Parametrisation(encode, decode)


def hartley(x: jax.Array, axes: Sequence[int]) -> jax.Array:
    """The orthonormal Hartley transform, its own inverse."""
    waves = jnp.fft.fftn(x, axes=axes, norm="ortho")
    return waves.real - waves.imag
