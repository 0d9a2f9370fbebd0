r"""Solvers of $A x = b$ for a curvature A known by its products: `solve(operator, b) -> (x, SolveInfo)`.

The right-hand side and the solution are trees like the parameters. Everything runs inside one program, the loops
included; many right-hand sides are a `jax.vmap` away, and what does not depend on them (a factorisation, a
sketch, a drawn batch) is then computed once. A solver with `needs_key` takes a key first: `solve(key, operator,
b)`.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxplain import _jax
from jaxplain._chunk import accumulator_dtype, check_count, stack
from jaxplain.training._vectors import Tree, add, dot, norm, times
from jaxplain.training.operators import Operator

Apply = Callable[[Tree], Tree]


class SolveInfo(NamedTuple):
    """How a solve went, as arrays; of many right-hand sides with a leading axis.

    `residual` is $|b - A x| / |b|$, computed from x and not from a recurrence. `converged` tells whether it is as
    small as was asked for. `min_curvature` is the smallest $v^T A v / v^T v$ met, damping included: negative means
    that A is indefinite, and that influence by it is not meaningful. `ritz_values` are estimates of eigenvalues
    of A, ascending, NaN where there are fewer: a damping well below most of them leaves influence as it is.
    """

    residual: jax.Array
    num_steps: jax.Array
    converged: jax.Array
    min_curvature: jax.Array
    ritz_values: jax.Array


class SolveWarning(UserWarning):
    """A linear system was not solved as asked."""


class Solver(NamedTuple):
    """A solver in two steps.

    `prepare(key, operator)` does what all right-hand sides share, and returns `apply(b) -> (x, SolveInfo)`.
    `needs_key` tells whether it draws random numbers.
    """

    prepare: Callable[[Any, Operator], Callable[[Tree], tuple[Tree, SolveInfo]]]
    needs_key: bool

    def __call__(self, *args: Any) -> tuple[Tree, SolveInfo]:
        """`solve(operator, b)`, or `solve(key, operator, b)`."""
        wanted = ["key", "operator", "b"] if self.needs_key else ["operator", "b"]
        if len(args) != len(wanted):
            call = f"solve({', '.join(wanted)})"
            raise TypeError(f"this solver is called as {call}, but it got {len(args)} argument(s)")
        key, operator, b = args if self.needs_key else (None, *args)
        return self.prepare(key, operator)(b)


class Preconditioner(NamedTuple):
    """`make(key, operator)` returns an approximate inverse, a function of trees."""

    make: Callable[..., Apply]
    needs_key: bool


def warn_about(info: SolveInfo) -> None:
    """Warn, when the numbers are known, of systems that were not solved; silent while tracing.

    Args:
        info: of one or many right-hand sides.

    Returns:
        Nothing.

    Example:
        >>> from jaxplain import training
        >>> import jax.numpy as jnp
        >>> good = training.SolveInfo(*map(jnp.asarray, (1e-8, 3, True, 0.1)), jnp.ones(1))
        >>> training.warn_about(good)
    """
    if any(_jax.is_tracer(field) for field in info):
        return
    least, unsolved = float(info.min_curvature.min()), int((~info.converged).sum())
    known = jnp.abs(jnp.where(jnp.isnan(info.ritz_values), 0, info.ritz_values))
    rounding = 100 * float(jnp.finfo(known.dtype).eps) * float(known.max(initial=0))
    if least < -rounding:
        message = (
            f"the curvature is indefinite (a direction with {least:.3g} was met), so influence is not meaningful: "
            "use curvature=gauss_newton(predict, output_loss), or a larger damping, or train to a minimum"
        )
    elif unsolved:
        worst = float(jnp.where(jnp.isnan(info.residual), jnp.inf, info.residual).max())
        message = (
            f"{unsolved} of {info.converged.size} systems were not solved: relative residual up to {worst:.3g} "
            f"after {int(info.num_steps.max())} steps; allow more steps, or damp more"
        )
    else:
        return
    warnings.warn(message, SolveWarning, stacklevel=3)


def dense(*, chunk_size: int = 64, max_parameters: int = 20_000) -> Solver:
    r"""The exact inverse, by the eigendecomposition $A = V \Lambda V^T$: $x = V \Lambda^{-1} V^T b$.

    Takes p products, $p^2$ memory and about $10 p^3$ operations for p parameters, once for all right-hand sides.

    Args:
        chunk_size: how many columns of A are computed at once.
        max_parameters: an error above, instead of running out of memory.

    Returns:
        A solver. `ritz_values` are all eigenvalues.

    Raises:
        ValueError: there are more parameters than that.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.hessian(lambda w, x: (w @ x) ** 2, damping=1.0)(jnp.ones(2), jnp.eye(2))
        >>> x, info = training.dense()(A, jnp.array([2.0, 4.0]))
        >>> print(x, bool(info.converged))
        [1. 2.] True
    """
    check_count("chunk_size", chunk_size)

    def prepare(_: Any, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        matrix = as_matrix(operator, chunk_size, max_parameters, who="dense()", instead="use cg()")
        values, vectors = jnp.linalg.eigh(matrix)

        def apply(b: Tree) -> tuple[Tree, SolveInfo]:
            given, unravel = ravel_pytree(b)
            flat = given.astype(matrix.dtype)
            x = vectors @ ((vectors.T @ flat) / values)
            x = x + vectors @ ((vectors.T @ (flat - matrix @ x)) / values)  # one step of refinement
            residual = share_of(jnp.linalg.norm(flat - matrix @ x), jnp.linalg.norm(flat))
            good = residual < jnp.sqrt(jnp.finfo(flat.dtype).eps)
            return unravel(x.astype(given.dtype)), SolveInfo(residual, jnp.asarray(1), good, values[0], values)

        return differentiable(operator, apply)

    return Solver(prepare, needs_key=False)


def differentiable(
    operator: Operator, apply: Callable[[Tree], tuple[Tree, SolveInfo]]
) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
    r"""A solver whose derivatives, forward and reverse, are those of the solution and not of the way to it.

    From $A x = b$ follows $\dot x = A^{-1} (\dot b - \dot A x)$: one more system, solved the same way. A loop has
    no reverse derivative, and eigenvectors have none where two eigenvalues are equal.
    """

    def solved(b: Tree) -> tuple[Tree, SolveInfo]:
        if _jax.varies(b):  # JAX has no such solve inside of shard_map: there derivatives go through `apply`
            return apply(b)
        return jax.lax.custom_linear_solve(
            operator.matvec, b, lambda _, right: apply(right), symmetric=True, has_aux=True
        )

    return solved


def as_matrix(operator: Operator, chunk_size: int, max_parameters: int, *, who: str, instead: str) -> jax.Array:
    """An operator as a symmetric matrix, in the accumulator's type."""
    flat, unravel = ravel_pytree(operator.split.free)
    size = flat.size
    if size > max_parameters:
        raise ValueError(
            f"{who} would form a matrix of {size} x {size} numbers; {instead}, choose fewer parameters with "
            f"only=, or raise max_parameters={max_parameters}"
        )
    columns = stack(
        lambda v: ravel_pytree(operator.matvec(unravel(v)))[0],
        jnp.eye(size, dtype=flat.dtype),
        chunk_size=chunk_size,
    )
    columns = columns.astype(accumulator_dtype(flat.dtype))
    return (columns + columns.T) / 2


def share_of(size: jax.Array, whole: jax.Array) -> jax.Array:
    """A size as a share; 0 where both are."""
    return jnp.where(size == 0, 0.0, size / jnp.where(whole == 0, 1, whole)).astype(size.dtype)


class _State(NamedTuple):
    x: Tree
    r: Tree
    p: Tree
    rz: jax.Array
    steps: jax.Array
    least: jax.Array
    done: jax.Array
    broken: jax.Array
    alphas: jax.Array
    betas: jax.Array


CHECK = 25  # how often the residual is computed from x, so that rounding does not build up


def cg(*, max_steps: int = 100, tol: float = 1e-6, preconditioner: Preconditioner | None = None) -> Solver:
    r"""Conjugate gradients, for $A$ positive definite.

    Every right-hand side stops by itself: when $|b - A x| \le \text{tol}\, |b|$, when a direction of no or
    negative curvature is met (x stays what it was; NaN if that was the first), or after `max_steps`.

    Args:
        max_steps: how many products at most, those that check the residual apart.
        tol: the relative residual asked for, at least four times the rounding of the parameters' type.
        preconditioner: `nystrom_preconditioner(rank)`; the solver then needs a key.

    Returns:
        A solver. `ritz_values` are those of Lanczos' process, NaN with a preconditioner.

    Raises:
        ValueError: `max_steps` is no positive number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.hessian(lambda w, x: (w @ x) ** 2, damping=1.0)(jnp.ones(2), jnp.eye(2))
        >>> x, info = training.cg()(A, jnp.array([2.0, 4.0]))
        >>> print(x, int(info.num_steps))
        [1. 2.] 1

    Source: Hestenes and Stiefel 1952; Martens 2010, on deep networks.
    """
    check_count("max_steps", max_steps)

    def prepare(key: Any, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        precondition = (lambda v: v) if preconditioner is None else preconditioner.make(key, operator)
        plain = preconditioner is None
        run = lambda b: conjugate_gradients(operator.matvec, b, precondition, max_steps, tol, plain=plain)  # noqa: E731
        return differentiable(operator, run)

    return Solver(prepare, needs_key=preconditioner is not None and preconditioner.needs_key)


def conjugate_gradients(
    matvec: Apply, b: Tree, precondition: Apply, max_steps: int, tol: float, *, plain: bool
) -> tuple[Tree, SolveInfo]:
    """Preconditioned conjugate gradients from 0; with a plain inner product the Ritz values are those of A."""
    b, unit = normalized(b)
    enough = jnp.maximum(tol, 4 * rounding(b))
    size = norm(b)
    kind = size.dtype

    def unfinished(s: _State) -> jax.Array:
        return (s.steps < max_steps) & ~s.done & ~s.broken

    def step(s: _State) -> _State:
        product = matvec(s.p)
        bent = dot(s.p, product)
        least = jnp.minimum(s.least, bent / jnp.maximum(dot(s.p, s.p), jnp.finfo(kind).tiny))
        broken = ~(bent > 0)  # negative, none, or not a number
        alpha = jnp.where(broken, 0, dot(s.r, s.p) / jnp.where(broken, 1, bent))
        x = add(s.x, s.p, alpha)
        r = add(s.r, product, -alpha)
        z = precondition(r)
        rz = dot(r, z)
        beta = jnp.where(broken, 0, rz / jnp.where(s.rz == 0, 1, s.rz))
        steps = s.steps + jnp.where(broken, 0, 1)
        alphas = s.alphas.at[s.steps].set(jnp.where(broken, jnp.nan, alpha))
        betas = s.betas.at[s.steps].set(jnp.where(broken, jnp.nan, beta))
        done = norm(r) <= enough * size
        return _State(x, r, add(z, s.p, beta), rz, steps, least, done, broken, alphas, betas)

    def some_steps(s: _State) -> _State:
        # The recurrence for the residual drifts with rounding: where it has, the process starts anew from x.
        # Nested loops, since a condition inside one would compute both of its branches under vmap.
        end = s.steps + CHECK
        s = jax.lax.while_loop(lambda s: unfinished(s) & (s.steps < end), step, s)
        true = add(b, matvec(s.x), -1.0)
        drifted = norm(add(true, s.r, -1.0)) > 0.1 * norm(true)
        z = precondition(true)
        chosen = lambda new, old: jax.tree.map(lambda a, b: jnp.where(drifted, a, b), new, old)  # noqa: E731
        return s._replace(
            r=chosen(true, s.r),
            p=chosen(z, s.p),
            rz=jnp.where(drifted, dot(true, z), s.rz),
            done=s.done & (~drifted | (norm(true) <= enough * size)),
            betas=s.betas.at[s.steps - 1].set(jnp.where(drifted, 0, s.betas[s.steps - 1])),
        )

    zero = times(b, 0.0)
    z = precondition(b)
    unknown = jnp.full(max_steps, jnp.nan, kind) + 0 * size
    none = (0 * jnp.nan_to_num(size)).astype(jnp.int32)
    never = ~(size >= 0) & (size >= 0)
    far = jnp.inf + 0 * size
    start = _State(zero, b, z, dot(b, z), none, far, ~(size > 0), never, unknown, unknown)
    end = jax.lax.while_loop(unfinished, some_steps, start)
    residual = share_of(norm(add(b, matvec(end.x), -1.0)), size)
    ritz = ritz_values(end.alphas, end.betas) if plain else unknown
    # Where b or A is not finite, or the first direction already has no positive curvature, there is no answer:
    # x = 0 would read as "no influence".
    finite = jnp.isfinite(size) & jnp.isfinite(residual) & ~jnp.isnan(end.least)
    known = finite & ~(end.broken & (end.steps == 0))
    x = jax.tree.map(lambda leaf: (jnp.where(known, leaf.astype(kind), jnp.nan) * unit).astype(leaf.dtype), end.x)
    residual = jnp.where(finite, residual, jnp.nan)
    return x, SolveInfo(residual, end.steps, residual <= 2 * enough, end.least, ritz)


def normalized(b: Tree) -> tuple[Tree, jax.Array]:
    """(b over its largest element, that element): squares of very small or large ones leave float32's range."""
    kind = norm(b).dtype
    most = jnp.stack([jnp.abs(leaf).max().astype(kind) for leaf in jax.tree.leaves(b)]).max()
    unit = jnp.where((most > 0) & jnp.isfinite(most), most, 1)
    return jax.tree.map(lambda leaf: (leaf.astype(kind) / unit).astype(leaf.dtype), b), unit


def rounding(b: Tree) -> float:
    """The coarsest rounding among the leaves' types: of a residual no less than a few of it can be asked."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(b))


def ritz_values(alphas: jax.Array, betas: jax.Array) -> jax.Array:
    r"""Eigenvalues of Lanczos' tridiagonal matrix, from the coefficients of conjugate gradients.

    $T_{kk} = 1/\alpha_k + \beta_{k-1}/\alpha_{k-1}$ and $T_{k,k+1} = \sqrt{\beta_k}/\alpha_k$ (Saad 2003, eq.
    6.103).
    """
    known = jnp.isfinite(alphas) & jnp.isfinite(betas)
    a, beta = jnp.where(known, alphas, 1), jnp.where(known, betas, 0)
    before = jnp.concatenate([jnp.zeros(1, a.dtype), beta[:-1] / a[:-1]])
    diagonal = 1 / a + before
    joined = known[:-1] & known[1:]
    side = jnp.where(joined, jnp.sqrt(jnp.maximum(beta[:-1], 0)) / a[:-1], 0)
    # What was not computed stands apart, above all the others (Gershgorin), and is cut off.
    bound = jnp.max(jnp.where(known, diagonal, 0)) + 2 * jnp.max(side, initial=0) + 1
    # By bisection: cheaper than as a dense matrix, and no batched LAPACK call, which has hung on a mesh of CPUs.
    values = jax.scipy.linalg.eigh_tridiagonal(jnp.where(known, diagonal, bound), side, eigvals_only=True)
    return jnp.where(jnp.arange(len(a)) < known.sum(), values, jnp.nan)
