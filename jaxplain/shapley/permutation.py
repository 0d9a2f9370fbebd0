r"""Shapley values by random orders of arrival: each player gets what it adds when it comes.

Over all $M!$ orders the mean is the Shapley value. An order and its reverse are a pair: in the one a player comes
before whom it follows in the other, so that interactions of two players cancel out of the error.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxplain._chunk import check_count, moments
from jaxplain._estimate import Estimate
from jaxplain._tree import check_key
from jaxplain.shapley.games import Game, at_once, check_players, evaluate, traced_once


def permutation(
    v: Game, num_players: int, *, num_permutations: int, antithetic: bool = True, chunk_size: int | None = None
) -> Callable[[jax.Array], Estimate]:
    r"""Shapley values by sampled orders: $\phi_i = E_\pi [v(P_i^\pi \cup i) - v(P_i^\pi)]$, P who came before.

    Each order sums to v(all) - v(none), so efficiency is exact, and the estimate is unbiased. It costs
    num_permutations (M - 1) + 2 evaluations.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M.
        num_permutations: the number of orders, reversed ones included; even when `antithetic`.
        antithetic: whether each order is followed by its reverse. For games whose interactions are of two
            players only, a pair is then exact.
        chunk_size: how many coalitions are evaluated at once (None: as the game asks); memory grows with it, the
            result does not change.

    Returns:
        `estimate(key) -> Estimate(value, std_error)`, both (num_players,), in units of `v`. With one pair (or one
        order, if not `antithetic`) the standard error is NaN.

    Raises:
        ValueError: `num_permutations` is below 1, or odd with `antithetic`; `v` returns something other than a
            scalar.
        TypeError: `key` is not a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: mask[0] * mask[1] + 2 * mask[2]
        >>> shapley.permutation(v, 3, num_permutations=4)(jax.random.key(0)).value
        Array([0.5, 0.5, 2. ], dtype=float32)

    When not to trust it: while `std_error` is not small beside the differences you read. With few pairs the
    standard error is itself uncertain. `kernel` and `gaussian_process` need fewer evaluations.

    Source: Castro, Gomez and Tejada 2009; reversed orders: Mitchell et al. 2022.
    """
    players = check_players(num_players)
    check_count("num_permutations", num_permutations, least=2 if antithetic else 1)
    if antithetic and num_permutations % 2:
        raise ValueError(
            f"num_permutations counts reversed orders too and must be even, not {num_permutations}; "
            f"antithetic=False draws single orders"
        )
    rounds = num_permutations // 2 if antithetic else num_permutations

    def estimate(key):
        check_key(key, "permutation")
        value, limit = traced_once(v), at_once(v, chunk_size)
        ends = evaluate(value, jnp.array([[False], [True]]).repeat(players, axis=1), limit)

        def gains(rank):
            """What each player adds when they come in the order of `rank`: (M,), and for pairs the mean of two."""
            orders = [rank, players - 1 - rank] if antithetic else [rank]
            count = jnp.arange(1, players)
            masks = [order[None] < count[:, None] for order in orders]
            if players > 1:
                found = evaluate(value, jnp.concatenate(masks), limit).reshape(len(orders), -1)
            else:
                found = jnp.zeros((len(orders), 0), ends.dtype)
            steps = [jnp.diff(row, prepend=ends[:1], append=ends[1:]) for row in found]
            each = [step[order] for step, order in zip(steps, orders, strict=True)]
            return sum(each[1:], start=each[0]) / len(each)

        ranks = jax.vmap(lambda k: jax.random.permutation(k, players))(jax.random.split(key, rounds))
        cost = max(1, (players - 1) * num_permutations // rounds)
        mean, variance = moments(gains, ranks, chunk_size=None if limit is None else max(1, limit // cost))
        # Who always came before the trouble would get a number.
        mean = jnp.where(jnp.isnan(mean).any(), jnp.nan, mean)
        return Estimate(mean, jnp.sqrt(variance / rounds))

    return estimate
