"""The one stabiliser of all denominators."""

import jax
import jax.numpy as jnp


def stabilize(z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Z pushed away from 0 by eps, with sign(0) = +1."""
    eps = jnp.asarray(eps, z.dtype)
    return z + jnp.where(z >= 0, eps, -eps)


def shared_out(relevance: jax.Array, z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Relevance over z, the stabilised sum of contributions of one sign: z = 0 leaves nobody to receive any."""
    bottom = stabilize(z, eps)
    return jnp.where(bottom == 0, 0, relevance / jnp.where(bottom == 0, 1, bottom))


def divided(relevance: jax.Array, z: jax.Array, eps: jax.Array | float) -> jax.Array:
    """Relevance over the stabilised z; 0 / 0, which only eps = 0 allows, is 0."""
    bottom = stabilize(z, eps)
    nothing = (bottom == 0) & (relevance == 0)
    return jnp.where(nothing, 0, relevance / jnp.where(nothing, 1, bottom))
