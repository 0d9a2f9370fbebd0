r"""Shapley values by Gaussian-process regression on the game.

Half the difference of v at a coalition and at its complement, $g(\sigma) = (v(\sigma) - v(-\sigma)) / 2$ with
$\sigma = 2 z - 1$, is all that Shapley values depend on: written in products $\sigma_A = \prod_{j \in A}
\sigma_j$, $g = \sum_{|A| odd} \hat g_A \sigma_A$ and $\phi_i = \sum_{A \ni i} 2 \hat g_A / |A|$. Kernel SHAP in
pairs fits the part of degree 1. Here all odd degrees are fitted at once, with the prior variance $\prod_{j \in
A} \rho_j$ for $\hat g_A$ (up to a common factor). Its covariance is the odd part of $\prod_j (1 + \rho_j
\sigma_j \sigma'_j)$, and with $l_j = 2 artanh \rho_j$ that is

    k(sigma, sigma') = sinh(q / 2) / sinh(l / 2),  q = sum_j l_j sigma_j sigma'_j,  l = sum_j l_j,

scaled to k = 1 at equal arguments. Interactions of more players are expected to be smaller, and those of players
that matter much to be larger: $\rho_j = r (|\phi_j| / \max_k |\phi_k|)^{1/2}$ from the Kernel SHAP estimate of
the same evaluations, at least r / 10, and r is that of largest likelihood. Since $1/|A| = \int_0^1 t^{|A| - 1}
dt$, Shapley values of products of this form are one-dimensional integrals of polynomials, for which a quadrature
is exact.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count
from jaxplain._estimate import Estimate
from jaxplain._tree import check_key
from jaxplain.shapley.coalitions import Sampling, draw, plan
from jaxplain.shapley.exact import MOST_PLAYERS, exact
from jaxplain.shapley.games import Game, at_once, check_players
from jaxplain.shapley.kernel import alone, collect, fit, product

MOST_EVALUATIONS = 8192  # a covariance of half as many rows: 64 MiB in float32
SCALES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95)
MOST_NODES = 32


def gaussian_process(
    v: Game,
    num_players: int,
    *,
    budget: int,
    sampling: Sampling = "leverage",
    chunk_size: int | None = None,
) -> Callable[[jax.Array], Estimate]:
    r"""Shapley values of the Gaussian process that fits the sampled coalitions: the most from few evaluations.

    Kernel SHAP fits a linear game; what is not linear is noise to it. Here the interactions of 3, 5, ... players
    are fitted too, with a prior that expects them to be small and among the players that matter; even ones have
    no part in Shapley values and cancel in pairs of a coalition and its complement. The evaluations are fitted
    exactly, so the estimate converges to the Shapley values like the game itself is learned. Efficiency is exact.

    Args:
        v: the game, `v(mask) -> scalar`; the mask is a float array (num_players,) of zeros and ones.
        num_players: M.
        budget: the number of evaluations of `v`, at least 2 M + 2 (or 2^M) and, short of 2^M, at most 8192: the
            fit costs some budget^3 operations. With 2^M (up to 20 players) the result is that of `exact`.
        sampling: how coalitions are drawn, as in `kernel`.
        chunk_size: how many coalitions are evaluated at once (None: as the game asks); memory grows with it, the
            result does not change.

    Returns:
        `estimate(key) -> Estimate(value, std_error)`, both (num_players,), in units of `v`. The standard error is
        the posterior standard deviation, with the variance of the game as fitted.

    Raises:
        ValueError: the budget is too small or too large, an option is unknown, `v` returns something other than a
            scalar.
        TypeError: `key` is not a key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = lambda mask: mask[0] * mask[1] * mask[2] - mask[3] * mask[4]
        >>> estimate = shapley.gaussian_process(v, 5, budget=24)(jax.random.key(0))
        >>> print(estimate.value.round(1), bool((estimate.std_error < 0.06).all()))
        [ 0.3  0.3  0.3 -0.5 -0.5] True

    When not to trust it: it is not linear in the game, since the prior is chosen by it, and it is not unbiased.
    A game that contradicts the prior (a parity of many players) has an error beyond the standard error; `kernel`
    and `permutation` know no prior.

    Source: pairs and odd interactions: Fumagalli, Witter and Musco 2026 (PolySHAP); a regression's own Shapley
    values: Witter, Liu and Musco 2025; the process and its fit: as above.
    """
    players, budget = check_players(num_players), check_count("budget", budget)
    if players == 1:
        return alone(v)
    if players <= MOST_PLAYERS and budget >= 2**players:

        def enumerate_all(key):
            check_key(key, "gaussian_process")
            value = exact(v, players, chunk_size=chunk_size if chunk_size else at_once(v, None))
            return Estimate(value, jnp.zeros_like(value))

        return enumerate_all
    if budget > MOST_EVALUATIONS:
        raise ValueError(
            f"a budget of {budget} makes a dense fit of {budget // 2} rows, more than {MOST_EVALUATIONS // 2}: "
            f"use jaxplain.shapley.kernel(v, {players}, budget={budget})"
        )
    made = plan(players, budget, paired=True, sampling=sampling)

    def estimate(key):
        check_key(key, "gaussian_process")
        asked = collect(v, made, draw(key, made), chunk_size)
        first = fit(made, asked).value
        size = asked.masks.sum(1, dtype=jnp.int32).astype(first.dtype)
        halves = asked.wanted + (size / players - 0.5) * asked.total  # half the differences themselves
        signs = 2 * asked.masks.astype(first.dtype) - 1
        signs = jnp.concatenate([signs, jnp.ones((1, players), signs.dtype)])
        halves = jnp.append(halves, asked.total / 2)
        return posterior(signs, halves, relevance(first), asked.total)

    return estimate


def relevance(first: jax.Array) -> jax.Array:
    """(M,): how much interaction to expect of each player, of 1 for the most important one."""
    size = jnp.abs(first)
    top = size.max()
    share = jnp.where(top > 0, size / jnp.where(top > 0, top, 1), 1)
    # A root has no slope at 0: below the floor it is not taken at all.
    rooted = jnp.sqrt(jnp.maximum(share, 0.01))
    return jnp.where(jnp.isnan(top), jnp.nan, rooted)


def posterior(signs: jax.Array, halves: jax.Array, relative: jax.Array, total: jax.Array) -> Estimate:
    """Shapley values given g at the rows of `signs`, and their posterior standard deviation."""
    scales = jnp.asarray(SCALES, signs.dtype)
    fixed = jax.lax.stop_gradient((halves, relative))
    surprises = jax.lax.map(lambda scale: fitted(signs, fixed[0], scale * fixed[1]).surprise, scales)
    surprises = jnp.where(jnp.isnan(surprises), jnp.inf, surprises)  # no Cholesky root: no such scale
    rho = scales[jnp.argmin(surprises)] * relative
    best = fitted(signs, halves, rho)
    shares, prior = shapley_of_process(signs, rho)
    value = product(best.coefficients, shares)
    value = value + (total - value.sum()) / len(rho)  # rounding, and the little noise that steadies the fit
    known = jax.scipy.linalg.solve_triangular(best.root, shares, lower=True)
    variance = best.variance * jnp.maximum(prior - jnp.square(known).sum(0), 0)
    return Estimate(value, jnp.sqrt(variance))


class Fit(NamedTuple):
    """A Cholesky root of the covariance, its solution, the scale of the game, -2 log likelihood + constant."""

    root: jax.Array
    coefficients: jax.Array
    variance: jax.Array
    surprise: jax.Array


def fitted(signs: jax.Array, halves: jax.Array, rho: jax.Array) -> Fit:
    """The process with these relevances, given the evaluations."""
    count, dtype = len(halves), signs.dtype
    lengths = 2 * jnp.arctanh(rho)
    alike = product(signs * lengths[None], signs.T)
    whole = lengths.sum()
    # sinh(q / 2) / sinh(l / 2) without large numbers.
    covariance = (jnp.exp((alike - whole) / 2) - jnp.exp(-(alike + whole) / 2)) / -jnp.expm1(-whole)
    noise = 10 * count * jnp.finfo(dtype).eps
    root = jnp.linalg.cholesky(covariance + noise * jnp.eye(count, dtype=dtype))
    coefficients = jax.scipy.linalg.cho_solve((root, True), halves)
    variance = (halves * coefficients).sum() / count
    surprise = count * jnp.log(jnp.maximum(variance, jnp.finfo(dtype).tiny)) + 2 * jnp.log(jnp.diag(root)).sum()
    return Fit(root, coefficients, variance, surprise)


def shapley_of_process(signs: jax.Array, rho: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""(Shapley values (rows, M) of k(., sigma) for each row, prior variances (M,) of Shapley values).

    With $u_j = \rho_j \sigma_j$: $2 \int_0^1 u_i [\prod_{j \ne i} (1 + t u_j)]_{even} dt$ over the scale of k,
    and for the variances the same with $\sigma = 1$ and $t \to t t'$, twice integrated.
    """
    players, dtype = len(rho), signs.dtype
    nodes, shares = np.polynomial.legendre.leggauss(min(players // 2 + 1, MOST_NODES))
    nodes, shares = jnp.asarray((nodes + 1) / 2, dtype), jnp.asarray(shares / 2, dtype)
    top = jnp.log1p(rho).sum()
    scale = -jnp.expm1((jnp.log1p(-rho) - jnp.log1p(rho)).sum()) / 2  # sinh(l / 2) in units of exp(top)

    def even_part(rows, t):
        """Of the product over the others, (rows, M), in units of exp(top)."""
        level, tilt = (jnp.log1p(t * rho) + jnp.log1p(-t * rho)) / 2, jnp.arctanh(t * rho)
        turned = rows * tilt[None]
        others = turned.sum(1, keepdims=True) - turned
        common = (level.sum() - level - top)[None]
        return (jnp.exp(common + others) + jnp.exp(common - others)) / 2

    def add(total, node):
        t, share = node
        return total + share * even_part(signs, t), None

    first = shares[0] * even_part(signs, nodes[0])
    mean, _ = jax.lax.scan(add, first, (nodes[1:], shares[1:]))
    both = (nodes[:, None] * nodes[None]).ravel(), (shares[:, None] * shares[None]).ravel()
    ones = jnp.ones((1, players), dtype)
    inner = jax.vmap(lambda t, share: share * even_part(ones, t)[0])(*both).sum(0)
    return 2 * (rho[None] * signs) * mean / scale, 4 * rho * inner / scale
