r"""Shapley values by weighted regression: Kernel SHAP.

With $w_s = 1 / (\binom{M}{s} s (M - s))$, the Shapley values are the $\phi$ that minimise

    sum over S, 0 < |S| < M, of w_|S| (v(S) - v(nobody) - sum_{i in S} phi_i)^2

subject to $\sum_i \phi_i = v(N) - v(\emptyset)$. With $\phi = \frac{v(N) - v(\emptyset)}{M} + \beta$ and
$\tilde z = z - |S|/M$, the constraint becomes $\sum_i \beta_i = 0$, and a coalition and its complement ask the
same of $\beta$: together they are one equation, whose right side is half the difference of theirs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain._estimate import Estimate
from jaxplain._tree import check_key
from jaxplain.shapley.coalitions import Plan, Sampling, draw, plan
from jaxplain.shapley.games import Game, at_once, check_players, evaluate, traced_once


def kernel(
    v: Game,
    num_players: int,
    *,
    budget: int,
    paired: bool = True,
    sampling: Sampling = "kernel",
    chunk_size: int | None = None,
) -> Callable[[jax.Array], Estimate]:
    r"""Kernel SHAP: Shapley values as a regression of the game on its players, over sampled coalitions.

    $\min_\phi \sum_S w_{|S|} (v(S) - v(\emptyset) - \sum_{i \in S} \phi_i)^2$ with
    $w_s \propto 1 / (\binom{M}{s} s (M - s))$ and $\sum_i \phi_i = v(N) - v(\emptyset)$ exactly.

    The budget is divided among sizes of coalitions beforehand and drawn without replacement. Sizes 1 and M - 1 are
    enumerated always, further ones while the budget lasts; with a budget of $2^M$ the result is that of `exact`.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M.
        budget: the number of evaluations of `v`, nobody and everybody included; at least 2 M + 2 (or 2^M).
        paired: whether a coalition is drawn together with its complement, which cancels all interactions of two
            players out of the error, and more.
        sampling: how the budget is divided: "kernel" as the weights of the regression, which prefers small and
            large coalitions, "leverage" evenly among sizes (Leverage SHAP).
        chunk_size: how many coalitions are evaluated at once (None: as the game asks); memory grows with it, the
            result does not change.

    Returns:
        `estimate(key) -> Estimate(value, std_error)`, both (num_players,), in units of `v`. The standard error is
        that of a stratified sample, from the residuals of the regression. It is 0 when all is enumerated, and NaN
        when the budget leaves out some sizes altogether.

    Raises:
        ValueError: the budget is too small, an option is unknown, `v` returns something other than a scalar.
        TypeError: `key` is not a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: mask[0] * mask[1] + 2 * mask[2] - mask[3]
        >>> shapley.kernel(v, 4, budget=12)(jax.random.key(0)).value.round(3)
        Array([ 0.5,  0.5,  2. , -1. ], dtype=float32)

    When not to trust it: while `std_error` is not small beside the differences you read. The estimate has a bias
    of the order of the squared standard error, and near the least budget, with few residuals, the error itself is
    only roughly known. `gaussian_process` is nearer with the same budget on most models.

    Source: Lundberg and Lee 2017, theorem 2; pairs: Covert and Lee 2021; leverage: Musco and Witter 2025.
    """
    players = check_players(num_players)
    if players == 1:
        return alone(v)
    made = plan(players, budget, paired=paired, sampling=sampling)

    def estimate(key):
        check_key(key, "kernel")
        return fit(made, collect(v, made, draw(key, made), chunk_size))

    return estimate


def alone(v: Game) -> Callable[[jax.Array], Estimate]:
    """The estimate of a game with one player, who gets everything."""

    def estimate(key):
        check_key(key, "an estimate")
        none, everybody = evaluate(traced_once(v), jnp.array([[0.0], [1.0]]), None)
        return Estimate((everybody - none)[None], jnp.zeros_like(none)[None])

    return estimate


class Equations(NamedTuple):
    """What is asked of beta, a row a unit: `centred @ beta = wanted`, beside the total to be shared."""

    masks: jax.Array
    centred: jax.Array
    wanted: jax.Array
    total: jax.Array


def collect(v: Game, made: Plan, masks: jax.Array, chunk_size: int | None) -> Equations:
    """Evaluate the units of a plan, and nobody and everybody, in one go."""
    ends = jnp.zeros((2, made.players), bool).at[1].set(True)
    asked = [ends, masks, ~masks] if made.paired else [ends, masks]
    values = evaluate(traced_once(v), jnp.concatenate(asked), at_once(v, chunk_size))
    total = values[1] - values[0]
    dtype = values.dtype
    size = masks.sum(1, dtype=jnp.int32).astype(dtype)
    centred = masks.astype(dtype) - (size / made.players)[:, None]
    if made.paired:
        own, complement = jnp.split(values[2:], 2)
        wanted = (own - complement - (2 * size / made.players - 1) * total) / 2
    else:
        wanted = values[2:] - values[0] - size / made.players * total
    return Equations(masks, centred, wanted, total)


def fit(made: Plan, asked: Equations) -> Estimate:
    r"""The weighted least-squares solution and its standard error.

    The error of beta is, to first order, $\sum_u w_u G^{-1} \tilde z_u e_u$ over the drawn units, G the Gram
    matrix and e the residuals: a weighted total of a stratified sample without replacement. Residuals of a fit
    are too small; each is divided by 1 - its own weight in the fit.
    """
    players, rows = made.players, asked.centred
    dtype = rows.dtype
    weights = jnp.asarray(made.weights, dtype)
    gram = product(rows.T * weights[None], rows)
    # Along (1, ..., 1), where G is 0 and beta too, any positive number will do.
    gram = gram + jnp.trace(gram) / players**2
    pulls = jnp.linalg.solve(gram, rows.T * weights[None])  # (M, units)
    beta = product(pulls, asked.wanted)
    value = asked.total / players + beta
    residual = asked.wanted - product(rows, beta)
    own = jnp.clip((rows * pulls.T).sum(1), 0, 1 - jnp.sqrt(jnp.finfo(dtype).eps))
    moves = pulls * (residual / (1 - own))[None]
    error = jnp.sqrt(stratified_variance(made, moves))
    return Estimate(value, error if made.covers else jnp.full_like(error, jnp.nan))


def stratified_variance(made: Plan, moves: jax.Array) -> jax.Array:
    """The variance (M,) of a sum over units (M, units), those of each stratum drawn without replacement."""
    number, count = jnp.asarray(made.stratum), len(made.strata)

    def per_stratum(values):
        return jax.ops.segment_sum(values.T, number, count).T

    def scaled(values, factors):
        return values * jnp.asarray(factors, moves.dtype)[None]

    mean = scaled(per_stratum(moves), [1 / s.drawn if s.drawn > 1 else 0.0 for s in made.strata])
    spread = per_stratum(jnp.square(moves - mean[:, number]))
    return scaled(spread, [(1 - s.drawn / s.total) * s.drawn / max(s.drawn - 1, 1) for s in made.strata]).sum(1)


def product(a: Any, b: Any) -> jax.Array:
    """A matrix product in full precision, on accelerators too."""
    return jnp.matmul(a, b, precision="highest")
