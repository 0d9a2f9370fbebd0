r"""Interactions of players: what they are worth together beyond what they are worth apart.

The discrete derivative $\Delta_T v(S) = \sum_{L \subseteq T} (-1)^{|T| - |L|} v(S \cup L)$ is averaged over
coalitions S of the others; indices differ in the average. If each of the others is in S with probability p, a
product $\sigma_R = \prod_{j \in R} (2 z_j - 1)$ with $R \supseteq T$ has the mean derivative $2^{|T|} (2 p -
1)^{|R| - |T|}$. So with the transform $v(S) = \sum_R \hat v_R \sigma_R$ every index is $2^{|T|} \sum_{R
\supseteq T} c_{|R| - |T|} \hat v_R$:

- "banzhaf": p = 1/2, so $c_r = [r = 0]$;
- "sii": p uniform on [0, 1], $c_r = 1 / (r + 1)$ for even r, else 0. Of one player: the Shapley value;
- "stii": of the highest order k, p with density $k (1 - p)^{k - 1}$; of lower orders p = 0, $c_r = (-1)^r$.
"""

import itertools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count, fold, moments
from jaxplain._estimate import Estimate
from jaxplain._tree import check_key
from jaxplain.shapley.exact import AT_ONCE, all_values
from jaxplain.shapley.games import Game, at_once, check_players, evaluate, traced_once
from jaxplain.shapley.kernel import product

Index = Literal["sii", "stii", "banzhaf"]


def interactions(
    v: Game, num_players: int, *, order: int = 2, index: Index = "sii", chunk_size: int | None = None
) -> jax.Array:
    r"""Interaction indices of all sets of up to `order` players, by enumeration of all coalitions.

    "sii": $I(T) = \sum_{S \cap T = \emptyset} \frac{|S|! (M - |S| - |T|)!}{(M - |T| + 1)!} \Delta_T v(S)$.
    "banzhaf": the plain mean of $\Delta_T v(S)$. "stii" of order k: $\Delta_T v(\emptyset)$ for fewer than k
    players and $\frac{k}{M} \sum_S \binom{M - 1}{|S|}^{-1} \Delta_T v(S)$ for k, which sums to v(all) - v(none).

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M, at most 20.
        order: the largest set of players.
        index: which average: "sii" (Shapley interaction index), "stii" (Shapley-Taylor) or "banzhaf".
        chunk_size: how many coalitions are evaluated at once (None: as the game asks, at most 4096); the result
            does not depend on it.

    Returns:
        An array (num_players,) * order in units of `v`. The entry at (i, j, ...) is the index of the set {i, j,
        ...}: the array is symmetric and has single players on its diagonal (for "sii" their Shapley values, for
        "banzhaf" their Banzhaf values).

    Raises:
        ValueError: more than 20 players, the order is not from 1 to M, the index is unknown.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: 3 * mask[0] * mask[1] + mask[2]
        >>> print(shapley.interactions(v, 3).round(2))
        [[1.5 3.  0. ]
         [3.  1.5 0. ]
         [0.  0.  1. ]]

    When not to trust it: the indices of pairs and of single players overlap in "sii" and "banzhaf" and do not add
    up to the explained amount.

    Source: Grabisch and Roubens 1999; Sundararajan, Dhamdhere and Agarwal 2020 (Shapley-Taylor).
    """
    players = check_players(num_players)
    check_options(players, order, index)
    spectrum = walsh(all_values(v, players, chunk_size), players)
    positions = jnp.arange(players)
    columns = sets_by_size(players, order)
    tables = [coefficients(players, order, size, index) for size in range(1, order + 1)]

    def run(indices):
        members = ((indices[:, None] >> positions[None]) & 1).astype(spectrum.dtype)
        part = spectrum[indices]
        size = members.sum(1).astype(jnp.int32)
        sums = []
        for sets, table in zip(columns, tables, strict=True):
            extra = jnp.maximum(size - sets.shape[1], 0)
            inside = members[:, sets].prod(-1)  # whether a set lies in R
            sums.append(product(part * jnp.asarray(table, part.dtype)[extra], inside))
        return jnp.concatenate(sums)

    limit = min(at_once(v, chunk_size) or AT_ONCE, AT_ONCE)
    found = fold(run, jnp.add, jnp.arange(2**players), chunk_size=limit)
    return found[jnp.asarray(places(players, order))]


def sampled_interactions(
    v: Game,
    num_players: int,
    *,
    num_samples: int,
    order: int = 2,
    index: Index = "sii",
    chunk_size: int | None = None,
) -> Callable[[jax.Array], Estimate]:
    r"""Interaction indices by sampling: $\Delta_T v$ at random coalitions, for all sets T at once.

    A sample draws p as the index asks and lets each player join with probability p. Of the coalition S, all
    coalitions that differ from it in up to `order` players are evaluated, which gives $\Delta_T v(S \setminus
    T)$ for every T of up to `order` players. The estimate is unbiased.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M.
        num_samples: the number of samples, each of $\sum_{k \le order} \binom{M}{k}$ evaluations.
        order: the largest set of players.
        index: which average: "sii", "stii" or "banzhaf", as in `interactions`.
        chunk_size: how many coalitions are evaluated at once (None: as the game asks); memory grows with it, the
            result does not change.

    Returns:
        `estimate(key) -> Estimate(value, std_error)`, both (num_players,) * order, laid out as by `interactions`.

    Raises:
        ValueError: the order is not from 1 to M, the index is unknown, `num_samples` is below 1.
        TypeError: `key` is not a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: 3 * mask[0] * mask[1] + mask[2]
        >>> estimate = shapley.sampled_interactions(v, 3, num_samples=4)(jax.random.key(0))
        >>> print(estimate.value[0, 1].round(2), estimate.std_error[0, 1].round(2))
        3.0 0.0

    When not to trust it: while `std_error` is not small beside the differences you read.

    Source: the indices as in `interactions`; Fumagalli et al. 2023 (SHAP-IQ) on sampling them.
    """
    players = check_players(num_players)
    check_options(players, order, index)
    check_count("num_samples", num_samples)
    columns = sets_by_size(players, order)
    flips, combine = flip_table(players, order)

    def estimate(key):
        check_key(key, "sampled_interactions")
        value, limit = traced_once(v), at_once(v, chunk_size)
        dtype = jnp.result_type(float)

        def around(coalition):
            """The derivatives by all sets, at the coalition without the set's own players."""
            worth = evaluate(value, coalition[None] ^ flips, limit)
            # Of a set, each member that is there now is a derivative taken backwards.
            signs = jnp.where(coalition, -1, 1).astype(worth.dtype)
            backwards = jnp.concatenate([signs[sets].prod(-1) for sets in columns])
            return backwards * product(jnp.asarray(combine, worth.dtype), worth)

        def sample(key):
            for_p, for_s = jax.random.split(key)
            # 1 - u^(1/k) has the density k (1 - p)^(k - 1).
            u = jax.random.uniform(for_p, (), dtype)
            p = {"sii": u, "banzhaf": jnp.full((), 0.5, dtype), "stii": 1 - u ** (1 / order)}[index]
            return around(jax.random.uniform(for_s, (players,), dtype) < p)

        rounds = None if limit is None else max(1, limit // len(flips))
        mean, variance = moments(sample, jax.random.split(key, num_samples), chunk_size=rounds)
        error = jnp.sqrt(variance / num_samples)
        if index == "stii" and order > 1:
            lower = sum(len(sets) for sets in columns[:-1])
            mean = jnp.concatenate([around(jnp.zeros(players, bool))[:lower], mean[lower:]])
            error = jnp.concatenate([jnp.zeros(lower, error.dtype), error[lower:]])
        where = jnp.asarray(places(players, order))
        return Estimate(mean[where], error[where])

    return estimate


def check_options(players: int, order: int, index: str) -> None:
    """Errors for an order that is none of 1 to M and for unknown indices."""
    if check_count("order", order) > players:
        raise ValueError(f"order must be at most the number of players, {players}, not {order}")
    if index not in ("sii", "stii", "banzhaf"):
        raise ValueError(f"index must be 'sii', 'stii' or 'banzhaf', not {index!r}")


def walsh(values: jax.Array, players: int) -> jax.Array:
    """The coefficients of the products over R, at the index of R."""
    for i in range(players):
        parted = values.reshape(-1, 2, 2**i)
        out, into = parted[:, 0], parted[:, 1]
        values = jnp.stack([(into + out) / 2, (into - out) / 2], axis=1).reshape(-1)
    return values


def coefficients(players: int, order: int, size: int, index: Index) -> np.ndarray:
    """(players + 1,): 2^|T| times the factor of a coefficient by how many players it has beyond T."""
    extra = np.arange(players + 1)
    if index == "banzhaf":
        factors = (extra == 0).astype(float)
    elif index == "sii":
        factors = np.where(extra % 2 == 0, 1 / (extra + 1), 0.0)
    elif size < order:
        factors = (-1.0) ** extra
    else:
        nodes, weights = np.polynomial.legendre.leggauss(players + order)
        p = (nodes + 1) / 2
        density = order * (1 - p) ** (order - 1) * weights / 2
        factors = (density * (2 * p - 1) ** extra[:, None]).sum(1)
    return 2.0**size * factors


def sets_by_size(players: int, order: int) -> list[np.ndarray]:
    """The sets of 1, 2, ... players, each an array (sets, size)."""
    return [np.array(list(itertools.combinations(range(players), k))) for k in range(1, order + 1)]


def places(players: int, order: int) -> np.ndarray:
    """(players,) * order: the position of each entry's set among all sets, singles first, then pairs, ..."""
    sets = itertools.chain.from_iterable(itertools.combinations(range(players), k) for k in range(1, order + 1))
    number = {each: position for position, each in enumerate(sets)}
    entries = itertools.product(range(players), repeat=order)
    return np.array([number[tuple(sorted(set(entry)))] for entry in entries]).reshape((players,) * order)


def flip_table(players: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """(the sets (n, M) that are flipped, what each set's derivative takes of them (sets, n))."""
    sets = [each for k in range(order + 1) for each in itertools.combinations(range(players), k)]
    number = {each: position for position, each in enumerate(sets)}
    flips = np.zeros((len(sets), players), bool)
    for position, each in enumerate(sets):
        flips[position, list(each)] = True
    combine = np.zeros((len(sets) - 1, len(sets)))
    for row, each in enumerate(sets[1:]):
        for k in range(len(each) + 1):
            for part in itertools.combinations(each, k):
                combine[row, number[part]] = (-1) ** (len(each) - k)
    return flips, combine
