"""The one stabiliser of all denominators."""

import jax
import jax.numpy as jnp


def stabilize(z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Z pushed away from 0 by eps, with sign(0) = +1."""
    eps = jnp.asarray(eps, z.dtype)
    return z + jnp.where(z >= 0, eps, -eps)


def divided(relevance: jax.Array, z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Relevance over the stabilised z; 0 / 0, which only eps = 0 allows, is 0."""
    bottom = stabilize(z, eps)
    nothing = (bottom == 0) & (relevance == 0)
    return jnp.where(nothing, 0, relevance / jnp.where(nothing, 1, bottom))
