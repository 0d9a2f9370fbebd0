r"""Gaussian blur as a scale space on a grid, differentiable in its width.

A Gaussian blur is the heat equation, and on a grid with reflecting ends that is $\partial_t L = \Delta L / 2$
with the second difference $\Delta$, $t = \sigma^2$ (Lindeberg 1990). The cosine basis diagonalises $\Delta$: its
k-th eigenvalue is $-(2 - 2 \cos(\pi k / n))$. So

    L_sigma = C' exp(-sigma^2 (1 - cos(pi k / n))) C x

along each axis. Unlike a sampled and truncated kernel it is the identity at sigma = 0, keeps the mean exactly,
composes (variances add), never makes a new extremum in one dimension, and has an exact derivative in sigma.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def cosine_basis(length: int) -> np.ndarray:
    """The orthonormal type-II cosine basis, one vector a row, shape (length, length), in float64."""
    position, order = np.arange(length) + 0.5, np.arange(length)[:, None]
    basis = np.cos(np.pi * order * position / length) * np.sqrt(2 / length)
    basis[0] = np.sqrt(1 / length)
    return basis


def blurred(x: jax.Array, sigma: jax.Array, axes: Sequence[int] | None = None) -> jax.Array:
    """`x` blurred along `axes` by a Gaussian of standard deviation `sigma` (a scalar, in grid steps)."""
    for axis in blur_axes(x, axes):
        length = x.shape[axis]
        basis = jnp.asarray(cosine_basis(length), x.dtype)
        rate = jnp.asarray(1 - np.cos(np.pi * np.arange(length) / length), x.dtype)
        kernel = jnp.matmul(basis.T * jnp.exp(-jnp.square(sigma) * rate)[None], basis, precision="highest")
        x = jnp.moveaxis(jnp.tensordot(kernel, x, (1, axis), precision="highest"), 0, axis)
    return x


def blur_axes(x: jax.Array, axes: Sequence[int] | None) -> tuple[int, ...]:
    """The axes to blur, from 0: all but the last unless given."""
    if axes is None:
        return tuple(range(max(1, x.ndim - 1))) if x.ndim else ()
    for axis in axes:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"axes={tuple(axes)} but the explained argument has shape {x.shape}")
    found = tuple(axis % x.ndim for axis in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"axes={tuple(axes)} names an axis twice")
    return found
