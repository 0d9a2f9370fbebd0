r"""Solvers from a few eigenpairs, $A \approx U \Lambda U^T + \tau (I - U U^T)$, and a preconditioner made of them.

The part of the space that the eigenpairs leave out keeps the curvature $\tau$; cutting it off instead answers as
if b had nothing there. One decomposition serves all right-hand sides.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxplain._chunk import accumulator_dtype, check_count, stack
from jaxplain.training._vectors import Tree, gaussian
from jaxplain.training.operators import Operator
from jaxplain.training.solve import Apply, Preconditioner, SolveInfo, Solver, share_of


def lanczos(rank: int, *, tail: bool = True, num_steps: int | None = None, tol: float = 0.1) -> Solver:
    r"""The eigenpairs of largest magnitude by Lanczos' process; the rest has the damping for its curvature.

    $x = U \Lambda^{-1} U^T b + \frac1\tau (b - U U^T b)$ with $\tau$ the damping, or, without one, the smallest
    positive eigenvalue found.

    Args:
        rank: how many eigenpairs.
        tail: whether the rest counts; without it the second term is dropped.
        num_steps: products of the process, with full orthogonalisation; None for 2 rank + 10.
        tol: the relative residual up to which the answer counts as solved.

    Returns:
        A solver that takes a key first, for the start. `ritz_values` are the eigenvalues found.

    Raises:
        ValueError: a count is no positive number, or `num_steps` is less than `rank`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, x: (w @ x) ** 2
        >>> A = training.hessian(loss, damping=1.0)(jnp.ones(3), jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        >>> x, info = training.lanczos(2)(jax.random.key(0), A, jnp.array([5.0, 2.0, 3.0]))
        >>> print(x.round(2))
        [1. 1. 3.]

    When not to trust it: eigenvalues between the kept ones and the damping are taken for the damping.

    Source: Schioppa et al. 2022 (without the tail); Lanczos 1950.
    """
    check_count("rank", rank)
    if num_steps is not None and check_count("num_steps", num_steps) < rank:
        raise ValueError(f"num_steps={num_steps} products cannot give rank={rank} eigenpairs")

    def prepare(key: jax.Array, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        flat, unravel = ravel_pytree(operator.split.free)
        size = flat.size
        steps = min(size, 2 * rank + 10 if num_steps is None else num_steps)
        kind = accumulator_dtype(flat.dtype)
        start = ravel_pytree(gaussian(key, operator.split.free))[0].astype(kind)
        undamped = shifted(operator, unravel)

        def step(state: tuple[jax.Array, jax.Array], k: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
            basis, products = state
            w = undamped(basis[k])
            products = products.at[k].set(w)
            for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
                w = w - basis.T @ (basis @ w)
            length = jnp.linalg.norm(w)
            scale = jnp.linalg.norm(products[k])
            # Where the space that the start spans is used up, what is left of w is rounding: none is kept.
            w = jnp.where(length > 1e3 * jnp.finfo(w.dtype).eps * scale, w / jnp.where(length == 0, 1, length), 0)
            return (basis.at[k + 1].set(w), products), None

        basis = jnp.zeros((steps + 1, size), kind).at[0].set(start / jnp.linalg.norm(start))
        (basis, products), _ = jax.lax.scan(step, (basis, jnp.zeros((steps, size), kind)), jnp.arange(steps))
        basis = basis[:steps]
        small = basis @ products.T
        values, turn = jnp.linalg.eigh((small + small.T) / 2)
        order = jnp.argsort(-jnp.abs(values))[: min(rank, steps)]
        vectors = turn.T[order] @ basis
        return inverse(operator, values[order] + operator.damping, vectors, tail=tail, steps=steps, tol=tol)

    return Solver(prepare, needs_key=True)


def nystrom(rank: int, *, tol: float = 0.1) -> Solver:
    r"""The randomised Nyström approximation, with the damping on the rest.

    $A - \lambda I \approx Y (\Omega^T Y)^{-1} Y^T$ with $Y = (A - \lambda I) \Omega$ and $\Omega$ random with
    `rank` columns.

    Args:
        rank: how many columns, each one product.
        tol: the relative residual up to which the answer counts as solved.

    Returns:
        A solver that takes a key first. `ritz_values` are the eigenvalues of the approximation.

    Raises:
        ValueError: `rank` is no positive number.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, x: (w @ x) ** 2
        >>> A = training.hessian(loss, damping=1.0)(jnp.ones(3), jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
        >>> x, info = training.nystrom(2)(jax.random.key(0), A, jnp.array([5.0, 2.0, 3.0]))
        >>> print(x.round(2))
        [1. 1. 3.]

    When not to trust it: for positive semi-definite curvature only; eigenvalues beyond the rank are lost.

    Source: Frangella, Tropp and Udell 2023, algorithm 2.1.
    """
    check_count("rank", rank)

    def prepare(key: jax.Array, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        values, vectors, least = sketched(key, operator, rank)
        solved = inverse(operator, values + operator.damping, vectors, tail=True, steps=rank, tol=tol)

        def apply(b: Tree) -> tuple[Tree, SolveInfo]:
            x, info = solved(b)
            # An indefinite matrix has no such root: x is NaN, and this says why.
            return x, info._replace(min_curvature=jnp.fmin(info.min_curvature, least + operator.damping))

        return apply

    return Solver(prepare, needs_key=True)


def nystrom_preconditioner(rank: int) -> Preconditioner:
    r"""A preconditioner for `cg` from a random sketch.

    $P^{-1} = (\lambda_r + \mu) U (\Lambda + \mu)^{-1} U^T + I - U U^T$ with $\mu$ the damping.

    With a rank around the number of eigenvalues above the damping, conjugate gradients need a handful of steps.
    The sketch is shared by all right-hand sides.

    Args:
        rank: how many products the sketch takes.

    Returns:
        What `cg` takes as `preconditioner`; the solver then takes a key first.

    Raises:
        ValueError: `rank` is no positive number.

    Example:
        >>> from jaxplain import training
        >>> training.cg(preconditioner=training.nystrom_preconditioner(20)).needs_key
        True

    Source: Frangella, Tropp and Udell 2023, eq. 1.3.
    """
    check_count("rank", rank)

    def make(key: jax.Array, operator: Operator) -> Apply:
        values, vectors, _ = sketched(key, operator, rank)
        damped = values + operator.damping
        # The smallest kept eigenvalue stands for the rest, but not one that is rounding: of a singular matrix.
        floor = jnp.sqrt(jnp.finfo(damped.dtype).eps) * damped[0]
        damped = jnp.maximum(damped, floor)
        weights = jnp.where(damped > 0, damped[-1] / jnp.where(damped > 0, damped, 1), 1) - 1
        # An indefinite matrix has no such sketch. Without, conjugate gradients meet what is negative, and say so.
        vectors = jnp.where(jnp.isfinite(vectors).all(), vectors, 0)

        def apply(v: Tree) -> Tree:
            given, unravel = ravel_pytree(v)
            flat = given.astype(vectors.dtype)
            return unravel((flat + vectors.T @ (weights * (vectors @ flat))).astype(given.dtype))

        return apply

    return Preconditioner(make, needs_key=True)


def shifted(operator: Operator, unravel: Any) -> Any:
    """The product with A - damping I on flat vectors."""
    kind = ravel_pytree(operator.split.free)[0].dtype

    def product(v: jax.Array) -> jax.Array:
        whole = ravel_pytree(operator.matvec(unravel(v.astype(kind))))[0].astype(v.dtype)
        return whole - jnp.asarray(operator.damping, v.dtype) * v

    return product


def sketched(key: jax.Array, operator: Operator, rank: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    r"""The Nyström approximation of A - damping I, and the least curvature that the sketch met.

    Eigenvalues descending, eigenvectors as rows, and the smallest eigenvalue of $\Omega^T (A - \lambda I) \Omega$.
    """
    flat, unravel = ravel_pytree(operator.split.free)
    rank = min(rank, flat.size)
    omega = jnp.linalg.qr(jax.random.normal(key, (flat.size, rank), accumulator_dtype(flat.dtype)))[0]
    y = stack(shifted(operator, unravel), omega.T, chunk_size=64).T
    least = jnp.linalg.eigvalsh((omega.T @ y + y.T @ omega) / 2)[0]
    # A little of the identity is added before the root is taken, and taken away after.
    nu = jnp.sqrt(jnp.asarray(flat.size, y.dtype)) * jnp.finfo(y.dtype).eps * jnp.linalg.norm(y)
    y = y + nu * omega
    core = omega.T @ y
    root = jnp.linalg.cholesky((core + core.T) / 2)
    b = jax.scipy.linalg.solve_triangular(root, y.T, lower=True).T
    vectors, sizes, _ = jnp.linalg.svd(b, full_matrices=False)
    return jnp.maximum(sizes**2 - nu, 0), vectors.T, least


def inverse(
    operator: Operator, values: jax.Array, vectors: jax.Array, *, tail: bool, steps: int, tol: float
) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
    """The solver by eigenpairs of A (eigenvectors as rows)."""
    # A vector that the process had not to give is 0, its value no eigenvalue.
    real = jnp.linalg.norm(vectors, axis=1) > 0.5
    known = jnp.sort(jnp.where(real, values, jnp.nan))
    smallest = jnp.min(jnp.where(real & (values > 0), values, jnp.inf))
    rest = jnp.where(jnp.asarray(operator.damping) > 0, operator.damping, smallest).astype(values.dtype)

    def apply(b: Tree) -> tuple[Tree, SolveInfo]:
        given, unravel = ravel_pytree(b)
        flat = given.astype(vectors.dtype)
        along = vectors @ flat
        x = vectors.T @ jnp.where(real, along / jnp.where(values == 0, 1, values), 0)
        if tail:
            x = x + (flat - vectors.T @ along) / rest
        x = unravel(x.astype(given.dtype))
        product = ravel_pytree(operator.matvec(x))[0].astype(flat.dtype)
        residual = share_of(jnp.linalg.norm(flat - product), jnp.linalg.norm(flat))
        return x, SolveInfo(residual, jnp.asarray(steps), residual <= tol, known[0], known)

    return apply
