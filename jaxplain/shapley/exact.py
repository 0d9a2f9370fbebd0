r"""Shapley values by enumeration of all coalitions.

$\phi_i = \sum_{S \not\ni i} \frac{|S|! (M - |S| - 1)!}{M!} (v(S \cup i) - v(S))$. The values of all $2^M$
coalitions are kept, coalition S at the index $\sum_{i \in S} 2^i$; masks exist only a chunk at a time. A
difference that is 0 is then exactly 0, so a player that changes nothing gets exactly nothing.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain.shapley.games import Game, at_once, check_players, evaluate, traced_once

MOST_PLAYERS = 20
AT_ONCE = 4096  # coalitions, where nothing else is asked for


def exact(v: Game, num_players: int, *, chunk_size: int | None = None) -> jax.Array:
    r"""Shapley values by enumeration, $2^M$ evaluations.

    $\phi_i = \sum_{S \not\ni i} \frac{|S|! (M - |S| - 1)!}{M!} (v(S \cup i) - v(S))$.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M, at most 20.
        chunk_size: how many coalitions are evaluated at once (None: as the game asks, at most 4096); the result
            does not depend on it.

    Returns:
        An array (num_players,) in units of `v`; it sums to v(all) - v(none).

    Raises:
        ValueError: more than 20 players, or `v` returns something other than a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> lines = jnp.array([0.0, 10, 30, 50, 5, 40, 35, 100])  # of nobody, L, M, LM, N, LN, MN, all three
        >>> v = lambda mask: lines[(mask @ jnp.array([1.0, 2.0, 4.0])).astype(int)]
        >>> shapley.exact(v, 3).round(2)
        Array([34.17, 41.67, 24.17], dtype=float32)

    When not to trust it: it is as right as the game; what "missing" means is decided there.

    Source: Shapley 1953.
    """
    players = check_players(num_players)
    values = all_values(v, players, chunk_size)
    weights = jnp.asarray(size_weights(players), values.dtype)
    share = weights[jnp.asarray(sizes(players - 1))]  # of a coalition of the others, in their order
    return jnp.stack([(share * derivative(values, i).ravel()).sum() for i in range(players)])


def all_values(v: Game, players: int, chunk_size: int | None) -> jax.Array:
    """The values (2^M,) of all coalitions."""
    if players > MOST_PLAYERS:
        raise ValueError(
            f"{players} players have 2^{players} = {2**players} coalitions, too many to enumerate (at most "
            f"{MOST_PLAYERS} players); estimate instead: jaxplain.shapley.kernel(v, {players}, budget=2048)(key), "
            f"jaxplain.kernel_shap for exact_shap, or join players by groups="
        )
    limit = at_once(v, chunk_size) or min(AT_ONCE, 2**players)
    value, bits = traced_once(v), jnp.arange(players)

    def of_index(index):
        return value((index >> bits) & 1)

    return evaluate(of_index, jnp.arange(2**players), limit)


def derivative(values: jax.Array, player: int) -> jax.Array:
    """v(S with the player) - v(S), over all S without the player in the order of the others' indices."""
    parted = values.reshape(-1, 2, 2**player)
    return parted[:, 1] - parted[:, 0]


def sizes(players: int) -> np.ndarray:
    """(2^players,): the number of players in the coalition of each index."""
    count = np.zeros(1, np.int32)
    for _ in range(players):
        count = np.concatenate([count, count + 1])
    return count


def size_weights(players: int) -> np.ndarray:
    """|S|! (M - |S| - 1)! / M! for |S| = 0 ... M - 1."""
    return np.array([1 / (players * math.comb(players - 1, size)) for size in range(players)])
