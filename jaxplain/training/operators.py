"""What a curvature is made of: an operator, its damping, and sums of products over examples."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._chunk import check_count, fold
from jaxplain._tree import check_key, count
from jaxplain.training._vectors import Split, Tree, add, checked, dot, split

Product = Callable[[Tree, Tree, jax.Array, Tree], Tree]  # (free, examples, weights, v) -> sum_i w_i C(z_i) v


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    r"""A symmetric matrix over parameters, known by its products.

    `matvec(v)` is A v for a tree `v` like `split.free`. `sampled(key, v, batch_size)` is an unbiased estimate of
    it from examples drawn with replacement. `of_examples(indices, weights, v)` is $\sum_i w_i C(z_i) v$ over these
    examples (None: all of them), without regulariser and damping; `regularizer_product(v)` and
    `regularizer_gradient()` are those of R.
    """

    matvec: Callable[[Tree], Tree]
    sampled: Callable[[jax.Array, Tree, int], Tree]
    of_examples: Callable[[jax.Array | None, jax.Array, Tree], Tree]
    regularizer_product: Callable[[Tree], Tree]
    regularizer_gradient: Callable[[], Tree]
    split: Split
    damping: Any
    num_examples: int


Curvature = Callable[[Tree, Tree], Operator]


@dataclasses.dataclass(frozen=True)
class RelativeDamping:
    """A damping as a share of the mean eigenvalue; made by `relative`."""

    share: Any
    key: Any
    num_samples: int


def relative(share: Any, *, key: jax.Array, num_samples: int = 16) -> RelativeDamping:
    r"""A damping relative to the mean eigenvalue: $\lambda = \text{share} \cdot \mathrm{tr}(A) / p$.

    The trace is that of the undamped curvature of p parameters, estimated by `mean_eigenvalue`.

    Args:
        share: what to multiply the mean eigenvalue by.
        key: for the random probes.
        num_samples: how many probes.

    Returns:
        What a curvature takes as `damping`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import training
        >>> half = training.relative(0.5, key=jax.random.key(0))
        >>> curvature = training.hessian(lambda w, x: (w * x) ** 2, damping=half)
        >>> print(curvature(jnp.array(1.0), jnp.array([1.0, 3.0])).damping)
        5.0
    """
    check_key(key, "relative")
    return RelativeDamping(share, key, check_count("num_samples", num_samples))


def mean_eigenvalue(
    matvec: Callable[[Tree], Tree], like: Tree, key: jax.Array, *, num_samples: int = 16
) -> jax.Array:
    r"""The mean eigenvalue of a matrix, tr(A) / p, as the mean of $v^T A v / p$ over random signs v.

    Args:
        matvec: the product with a tree like `like`.
        like: a tree of arrays.
        key: for the probes.
        num_samples: how many probes.

    Returns:
        An estimate, exact for a diagonal matrix.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import training
        >>> d = jnp.array([1.0, 3.0])
        >>> print(training.mean_eigenvalue(lambda v: d * v, d, jax.random.key(0)))
        2.0

    Source: Hutchinson 1990.
    """
    leaves, structure = jax.tree.flatten(like)
    size = sum(leaf.size for leaf in leaves)

    def one(key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, len(leaves))
        signs = [jax.random.rademacher(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        v = jax.tree.unflatten(structure, signs)
        return dot(v, matvec(v)) / size

    return jax.lax.map(one, jax.random.split(key, num_samples)).mean()


def sandwich(outputs_fn: Callable[[Tree, Any], Any], middle: Callable[..., Any]) -> Any:
    r"""The products of $\sum_i w_i J_i^T B_i J_i$; `middle(outputs, example, u)` is B u for one example."""

    def prepare(free: Split):
        def linearized(theta: Tree, examples: Tree, weights: jax.Array):
            def all_outputs(theta: Tree) -> Any:
                return jax.vmap(lambda z: outputs_fn(free.merge(theta), z))(examples)

            outputs, forward = jax.linearize(all_outputs, theta)
            backward = jax.linear_transpose(forward, theta)

            def apply(v: Tree) -> Tree:
                inner = jax.vmap(middle)(outputs, examples, forward(v))
                return backward(jax.tree.map(lambda leaf: leaf * spread(weights, leaf), inner))[0]

            return apply

        return (lambda theta, examples, weights, v: linearized(theta, examples, weights)(v)), linearized

    return prepare


def spread(weights: jax.Array, leaf: jax.Array) -> jax.Array:
    """One weight an example, in the shape and type of a stack."""
    return weights.reshape(-1, *[1] * (leaf.ndim - 1)).astype(leaf.dtype)


def tangent(v: Tree, theta: Tree) -> Tree:
    """`v` in the types of `theta`, varying over a mesh as it does."""
    return _jax.vary_together(jax.tree.map(lambda x, t: x.astype(t.dtype), v, theta), theta)


def make_curvature(prepare: Any, regularizer: Any, damping: Any, only: Any, chunk_size: int | None) -> Curvature:
    """The curvature whose sums over examples `prepare(split)` computes."""
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)

    def curvature(params: Tree, data: Tree) -> Operator:
        total = count("data", data)
        free = split(_jax.vary_together(params, data), only)
        product, linearized = prepare(free)
        theta = free.free
        once = jax.jit(product)

        def of_examples(indices: jax.Array | None, weights: jax.Array, v: Tree) -> Tree:
            v = tangent(v, theta)
            some = data if indices is None else jax.tree.map(lambda leaf: jnp.asarray(leaf)[indices], data)
            return fold(lambda chunk: once(theta, *chunk, v), add, (some, weights), chunk_size=chunk_size)

        def penalty(theta: Tree) -> jax.Array:
            return checked(lambda p, _: regularizer(p), "regularizer")(free.merge(theta), None)

        def regularizer_gradient() -> Tree:
            return jax.tree.map(jnp.zeros_like, theta) if regularizer is None else jax.grad(penalty)(theta)

        def regularizer_product(v: Tree) -> Tree:
            if regularizer is None:
                return jax.tree.map(jnp.zeros_like, theta)
            v = tangent(v, theta)
            return jax.jvp(jax.grad(penalty), (theta,), (v,))[1]

        weights = jnp.full(total, 1 / total)
        if chunk_size is None or chunk_size >= total:
            whole = linearized(theta, data, weights)
        else:
            whole = partial(of_examples, None, weights)

        def undamped(v: Tree) -> Tree:
            v = tangent(v, theta)
            return add(whole(v), regularizer_product(v))

        strength = damping
        if isinstance(damping, RelativeDamping):
            strength = damping.share * mean_eigenvalue(
                undamped, theta, damping.key, num_samples=damping.num_samples
            )

        def matvec(v: Tree) -> Tree:
            return add(undamped(v), v, strength)

        def sampled(key: jax.Array, v: Tree, batch_size: int) -> Tree:
            picked = jax.random.randint(key, (batch_size,), 0, total)
            estimate = of_examples(picked, jnp.full(batch_size, 1 / batch_size), v)
            return add(add(estimate, regularizer_product(v)), v, strength)

        return Operator(
            matvec, sampled, of_examples, regularizer_product, regularizer_gradient, free, strength, total
        )

    return curvature
