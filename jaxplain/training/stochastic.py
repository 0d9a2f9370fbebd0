r"""Solvers by fixed-point iteration: the Neumann series on all data, and LiSSA on drawn batches.

Both repeat $u \leftarrow u + (b - A u) / s$, whose fixed point is $A^{-1} b$ whatever the scale s. The damping
is inside A, so that the scale decides how fast the answer comes and not which answer it is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import check_count
from jaxplain.training._vectors import Tree, add, dot, gaussian, norm, times
from jaxplain.training.operators import Operator
from jaxplain.training.solve import SolveInfo, Solver, normalized, rounding, share_of

POWER_STEPS = 20


def neumann(*, num_steps: int, scale: Any = None, tol: float = 1e-3) -> Solver:
    r"""The Neumann series on all examples: $A^{-1} b \approx \frac1s \sum_{k<n} (I - A/s)^k b$.

    Args:
        num_steps: the number of terms.
        scale: s, at least half the largest eigenvalue, or the series diverges; None for 1.1 times an estimate of
            the largest one by 20 power iterations from b. It may be traced.
        tol: the relative residual up to which the answer counts as solved, if the iteration has settled.

    Returns:
        A solver. The answer is NaN if the series diverged; `ritz_values` holds the estimated largest eigenvalue,
        NaN if `scale` is given.

    Raises:
        ValueError: `num_steps` is no positive number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.hessian(lambda w, x: (w @ x) ** 2, damping=1.0)(jnp.ones(2), jnp.eye(2))
        >>> x, info = training.neumann(num_steps=50)(A, jnp.array([2.0, 4.0]))
        >>> print(x.round(3))
        [1. 2.]
    """
    check_count("num_steps", num_steps)

    def solve(_: Any, operator: Operator, b: Tree) -> tuple[Tree, SolveInfo]:
        b, size = normalized(b)

        def grow(_: Any, state: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
            v, _ = state
            product = operator.matvec(v)
            return unit(product), dot(v, product)

        unknown = norm(b) * jnp.nan
        largest = jax.lax.fori_loop(0, POWER_STEPS, grow, (unit(b), unknown))[1] if scale is None else unknown
        s = jnp.where(largest > 0, 1.1 * largest, 1) if scale is None else scale  # nothing grows from b = 0

        def step(u: Tree, _: Any) -> tuple[Tree, None]:
            return add(u, add(b, operator.matvec(u), -1.0), 1 / s), None

        u, _ = jax.lax.scan(step, times(b, 0.0), length=num_steps)
        return finished(operator, b, u, size, (num_steps, num_steps), s, tol, largest)

    return Solver(lambda key, operator: partial(solve, key, operator), needs_key=False)


def lissa(*, num_steps: int, batch_size: int, repeats: int = 1, scale: Any = None, tol: float = 0.1) -> Solver:
    r"""LiSSA: the Neumann series with a drawn batch in every step, the last half of its iterates averaged.

    $u_{t+1} = u_t + (b - A_t u_t)/s$ with $A_t$ the curvature of `batch_size` examples. This is stochastic
    gradient descent on $\frac12 u^T A u - b^T u$; averaging its tail takes out most of the noise that its last
    iterate has.

    Args:
        num_steps: how many batches; several times s over the smallest eigenvalue.
        batch_size: how many examples a batch draws, with replacement.
        repeats: how many independent runs are averaged.
        scale: s, above the largest eigenvalue of the batches' curvature, or it diverges; None for an estimate
            from 20 power iterations with batches. The answer does not depend on it, once converged. It may be
            traced.
        tol: the relative residual up to which the answer counts as solved, if the iteration has settled.

    Returns:
        A solver that takes a key first. The answer is NaN if it diverged; `ritz_values` holds the estimated
        largest eigenvalue, NaN if `scale` is given.

    Raises:
        ValueError: a count is no positive number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.hessian(lambda w, x: (w @ x) ** 2, damping=1.0)(jnp.ones(2), jnp.eye(2))
        >>> solve = training.lissa(num_steps=2000, batch_size=2)
        >>> x, info = solve(jax.random.key(0), A, jnp.array([2.0, 4.0]))
        >>> print(bool(info.converged), bool(jnp.abs(x - jnp.array([1.0, 2.0])).max() < 0.1))
        True True

    When not to trust it: read the residual. With a small damping it takes very many steps, and scores then
    correlate well with the right ones while being far from them.

    Source: Agarwal et al. 2017; Koh and Liang 2017, section 3; averaging: Polyak and Juditsky 1992.
    """
    for name, value in {"num_steps": num_steps, "batch_size": batch_size, "repeats": repeats}.items():
        check_count(name, value)

    def prepare(key: jax.Array, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        keys = jax.random.split(key, repeats + 1)
        largest = jnp.asarray(jnp.nan) if scale is not None else largest_of_batches(keys[0], operator, batch_size)
        s = jnp.where(largest > 0, 1.5 * largest, 1) if scale is None else scale
        tail = num_steps - num_steps // 2

        def apply(b: Tree) -> tuple[Tree, SolveInfo]:
            b, size = normalized(b)

            def one(key: jax.Array) -> Tree:
                def step(state: tuple[Tree, Tree], item: Any) -> tuple[tuple[Tree, Tree], None]:
                    (u, mean), (key, counts) = state, item
                    u = add(u, add(b, operator.sampled(key, u, batch_size), -1.0), 1 / s)
                    return (u, add(mean, u, counts / tail)), None

                counts = (jnp.arange(num_steps) >= num_steps // 2).astype(norm(b).dtype)
                zero = times(b, 0.0)
                return jax.lax.scan(step, (zero, zero), (jax.random.split(key, num_steps), counts))[0][1]

            u = jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.map(one, keys[1:]))
            return finished(operator, b, u, size, (num_steps, num_steps // 2), s, tol, largest)

        return apply

    return Solver(prepare, needs_key=True)


def largest_of_batches(key: jax.Array, operator: Operator, batch_size: int) -> jax.Array:
    """The largest growth met in power iterations with a drawn batch in every step."""

    def grow(state: tuple[Tree, jax.Array], key: jax.Array) -> tuple[tuple[Tree, jax.Array], None]:
        v, largest = state
        product = operator.sampled(key, v, batch_size)
        # The norm, not the Rayleigh quotient: a batch's own largest eigenvalue is what must be bounded.
        return (unit(product), jnp.maximum(largest, norm(product))), None

    start = unit(gaussian(key, operator.split.free))
    return jax.lax.scan(grow, (start, 0 * norm(start)), jax.random.split(key, POWER_STEPS))[0][1]


def unit(v: Tree) -> Tree:
    """A tree scaled to norm 1."""
    return times(v, 1 / jnp.maximum(norm(v), jnp.finfo(norm(v).dtype).tiny))


def finished(
    operator: Operator,
    b: Tree,
    u: Tree,
    size: jax.Array,
    steps: tuple[int, int],
    scale: Any,
    tol: float,
    largest: jax.Array,
) -> tuple[Tree, SolveInfo]:
    r"""The answer, times `size`, and what is known of it after `steps` (all, those before the first that counts).

    An iteration that diverged answers NaN. A small residual may hide a large error in directions of little
    curvature c, which come last: after k steps a share $(1 - c/s)^k \approx e^{-ck/s}$ of them is missing. With
    the answer's own $c = u^T A u / u^T u$ that share has to be small, too.
    """
    product = operator.matvec(u)
    residual = share_of(norm(add(b, product, -1.0)), norm(b))
    diverged = ~(residual < 1)
    least = share_of(dot(u, product), dot(u, u))
    missing = jnp.where(dot(u, u) > 0, jnp.exp(-least * steps[1] / scale), 0)
    answer = times(jax.tree.map(lambda leaf: jnp.where(diverged, jnp.nan, leaf), u), size)
    good = (residual <= max(tol, 4 * rounding(b))) & (missing <= tol / 2)
    return answer, SolveInfo(residual, jnp.asarray(steps[0]), good, least, largest[None])
