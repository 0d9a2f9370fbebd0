"""Games for the tests, as arrays of their values and as functions of a mask."""

import jax.numpy as jnp
import numpy as np


def table(players, seed=0):
    """Random values: interactions of all orders."""
    return np.random.default_rng(seed).normal(size=2**players)


def of(values):
    """The game with these values, bit i of the index being player i."""
    values = jnp.asarray(values)
    powers = 2 ** np.arange(int(np.log2(values.shape[-1])))

    def v(mask):
        return values[(mask.astype(int) * jnp.asarray(powers)).sum()]

    return v


def smooth_table(players, seed=0):
    """A game of products of up to four players, the larger the fewer they are: as models have."""
    rng = np.random.default_rng(seed)
    z = np.arange(2**players)[:, None] >> np.arange(players) & 1
    values = z @ rng.normal(size=players)
    for order in (2, 3, 4):
        for _ in range(2 * players):
            team = rng.choice(players, order, replace=False)
            values = values + rng.normal() * 0.5**order * z[:, team].prod(1)
    return values
