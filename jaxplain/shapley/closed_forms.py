"""Shapley values of games of a known form, without sampling."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count, fold
from jaxplain._tree import describe
from jaxplain.shapley.coalitions import subsets
from jaxplain.shapley.exact import AT_ONCE, exact
from jaxplain.shapley.games import Game, at_once, check_players, conditioned, evaluate, floats, traced_once
from jaxplain.shapley.kernel import product


def low_order(v: Game, num_players: int, *, order: int, chunk_size: int | None = None) -> jax.Array:
    r"""Shapley values from small coalitions alone, for games without interactions of many players.

    $\phi_i = \sum_{T \ni i, |T| \le q} \frac{m(T)}{|T|}$ with the dividends
    $m(T) = \sum_{S \subseteq T} (-1)^{|T| - |S|} v(S)$, q the order. It takes all coalitions of up to q players,
    $\sum_{k \le q} \binom{M}{k}$ evaluations, and is exact when no more than q players interact.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M.
        order: the largest coalition looked at, from 1 to M. 1 gives v(i) - v(none).
        chunk_size: how many coalitions are evaluated at once (None: as the game asks, at most 4096); the result
            does not depend on it.

    Returns:
        An array (num_players,) in units of `v`. By how much its sum misses v(all) - v(none) is what interactions
        of more players add.

    Raises:
        ValueError: `order` is not from 1 to M, `v` returns something other than a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: mask[0] * mask[1] + 2 * mask[2]
        >>> shapley.low_order(v, 3, order=2)
        Array([0.5, 0.5, 2. ], dtype=float32)

    When not to trust it: compare its sum with v(all) - v(none). In float32 the alternating sums of order 4 and
    more lose digits.

    Source: Harsanyi 1963 (dividends); the low-order approximation of Lundberg and Lee 2017, section 4.
    """
    players = check_players(num_players)
    if check_count("order", order) > players:
        raise ValueError(f"order must be at most the number of players, {players}, not {order}")
    masks = np.concatenate([subsets(players, size) for size in range(1, order + 1)])
    inside, outside = dividend_weights(players, order)
    size = masks.sum(1)
    value = traced_once(v)
    nobody = value(jnp.zeros(players))

    def run(chunk):
        some, a, b = chunk
        # The factors of a constant cancel, but not in rounding.
        worth = evaluate(value, some, None) - nobody
        on = some.astype(worth.dtype)
        return product(worth * a.astype(worth.dtype), on) + product(worth * b.astype(worth.dtype), 1 - on)

    points = jax.tree.map(jnp.asarray, (masks, inside[size], outside[size]))
    limit = at_once(v, chunk_size) or AT_ONCE
    return fold(run, jnp.add, points, chunk_size=limit)


def dividend_weights(players: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The factor of v(S) in a player's value, by |S|: where the player is in S, and where not."""

    def weight(size, inside):
        free, start = (players - size, size) if inside else (players - size - 1, size + 1)
        if start == 0 or free < 0:
            return 0.0
        terms = range(start, order + 1)
        return float(sum((-1) ** (t - size) * math.comb(free, t - start) / t for t in terms))

    table = [[weight(size, inside) for size in range(order + 1)] for inside in (True, False)]
    return np.array(table[0]), np.array(table[1])


def max_shap(values: Any, reference: Any = 0.0) -> jax.Array:
    r"""Shapley values of a maximum, by sorting: $v(S) = \max(\max_{i \in S} x_i, \max_{i \notin S} r_i)$.

    Between two neighbouring numbers of x and r, whether the maximum exceeds a threshold depends on two sets of
    players alone: those below it only while present (a of them), and those below it only while absent (b). It
    stays below when all of the first and none of the second are there, whose Shapley values are $\frac{(a - 1)!
    \, b!}{(a + b)!}$ for each of the first and $-\frac{a! (b - 1)!}{(a + b)!}$ for each of the second. That
    makes $O(M^2)$ operations instead of $2^M$ evaluations.

    Args:
        values: the numbers x (M,) of the players when they are there.
        reference: the numbers r (M,) when they are not, or one for all.

    Returns:
        An array (M,), which sums to max(values) - max(reference).

    Raises:
        ValueError: `values` is not a vector of at least one number, or `reference` has another shape.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> print(shapley.max_shap(jnp.array([5.0, 4.0, 0.0])))  # of three men the best one counts
        [3. 2. 0.]

    When not to trust it: it explains the maximum of these numbers, not what they were computed from.

    Source: Lundberg and Lee 2017, section 4 (Max SHAP) and figure 4B; with references for every player, derived
    here.
    """
    x = floats(values)
    r = jnp.asarray(reference, x.dtype)
    if x.ndim != 1 or x.size == 0 or r.shape not in ((), x.shape):
        raise ValueError(f"max_shap takes a vector and a reference like it, not {describe(x)} and {describe(r)}")
    r = jnp.broadcast_to(r, x.shape)
    players = len(x)
    edges = jnp.sort(jnp.concatenate([x, r]))
    low, width = edges[:-1, None], jnp.diff(edges)
    when_present, when_absent = x[None] <= low, r[None] <= low  # below the threshold, just above `low`
    first, second = when_present & ~when_absent, when_absent & ~when_present
    open_ = (when_present | when_absent).all(1)  # else one player is above in any case
    a, b = first.sum(1, dtype=jnp.int32), second.sum(1, dtype=jnp.int32)
    table = jnp.asarray(unanimity_weights(players), x.dtype)
    present = jnp.where(first, table[b, jnp.maximum(a - 1, 0)][:, None], 0)
    absent = jnp.where(second, table[a, jnp.maximum(b - 1, 0)][:, None], 0)
    return (jnp.where(open_, width, 0)[:, None] * (absent - present)).sum(0)


def unanimity_weights(players: int) -> np.ndarray:
    """T[p, q] = p! q! / (p + q + 1)!, 0 where there are not so many players."""
    table = np.zeros((players + 1, players + 1))
    for p in range(players + 1):
        for q in range(players - p):
            table[p, q] = 1 / ((p + q + 1) * math.comb(p + q, p))
    return table


def linear_shap(
    weights: Any, mean: Any, covariance: Any = None, *, chunk_size: int | None = None
) -> Callable[[Any], jax.Array]:
    r"""Shapley values of a linear function $w^T x$ whose features are independent, or jointly Gaussian.

    Independent: $\phi_i = w_i (x_i - \mu_i)$. Gaussian: those of
    $v(S) = w^T E[X \mid X_S = x_S]$, by enumeration.

    Args:
        weights: w (M,).
        mean: the mean of the features, (M,) or one for all.
        covariance: their covariance (M, M), whose diagonal blocks must be invertible; None takes features as
            independent.
        chunk_size: with a covariance, how many coalitions are evaluated at once (None: at most 4096).

    Returns:
        `explain(x)`, an array (M,) which sums to w x - w mean.

    Raises:
        ValueError: a shape does not fit, or there are more than 20 features with a covariance.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> x = jnp.array([2.0, 1.0])
        >>> shapley.linear_shap(jnp.array([1.0, 0.0]), jnp.zeros(2))(x)
        Array([2., 0.], dtype=float32)
        >>> shapley.linear_shap(jnp.array([1.0, 0.0]), jnp.zeros(2), jnp.array([[1.0, 0.5], [0.5, 1.0]]))(x)
        Array([1.75, 0.25], dtype=float32)

    When not to trust it: with a covariance, a feature of weight 0 gets credit for what it says of the others.
    Covariances that are nearly singular make the conditional means, and so the answer, unstable; where a
    feature is, to rounding, a combination of others, the answer is NaN.

    Source: Lundberg and Lee 2017, corollary 1; Aas, Jullum and Loland 2021.
    """
    w = floats(weights)  # all else takes its type
    mu = jnp.asarray(mean, w.dtype)
    if w.ndim != 1 or w.size == 0 or mu.shape not in ((), w.shape):
        raise ValueError(f"weights must be a vector and mean one like it, not {describe(w)} and {describe(mu)}")
    mu = jnp.broadcast_to(mu, w.shape)
    sigma = None if covariance is None else jnp.asarray(covariance, w.dtype)
    if sigma is not None and sigma.shape != w.shape * 2:
        raise ValueError(f"covariance must be a square matrix of size {w.size}, not {describe(sigma)}")

    def explain(x):
        point = jnp.asarray(x, w.dtype)
        if point.shape != w.shape:
            raise ValueError(f"x must have the shape of weights, {w.shape}, not {point.shape}")
        deviation = point - mu
        if sigma is None:
            return w * deviation
        known: jax.Array = sigma

        def value(mask):
            likely = conditioned(known, mask.astype(w.dtype), deviation[:, None])[:, 0]
            return (w * likely).sum()

        return exact(value, w.size, chunk_size=chunk_size)

    return explain
