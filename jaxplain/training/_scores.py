"""What influence functions share: settings, gradients, solving for many of them, and scoring examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import accumulator_dtype, check_count, stack
from jaxplain._tree import check_key, named_after
from jaxplain.training._vectors import Loss, Split, Tree, add, checked, gram
from jaxplain.training.curvature import hessian
from jaxplain.training.operators import Curvature, Operator
from jaxplain.training.solve import SolveInfo, warn_about

# From this many queries on, one gradient an example, contracted with all of them, is cheaper than a forward
# derivative for each query: `benchmarks/bench_influence.py` measures both.
MANY_QUERIES = 32


class Setting(NamedTuple):
    """The choices that all influence functions have."""

    loss: Loss
    test: Loss
    curvature: Curvature
    solve: Any
    include_regularizer: bool
    chunk_size: int | None

    def prepare(self, key: Any, operator: Operator) -> Callable[[Tree], tuple[Tree, SolveInfo]]:
        """The solver for an operator, what all right-hand sides share done once."""
        prepare = getattr(self.solve, "prepare", None)
        return prepare(key, operator) if prepare else lambda b: self.solve(operator, b)

    def train_gradient(self, operator: Operator, example: Tree) -> Tree:
        """The gradient of what a training example adds to the objective."""
        own = gradient(self.loss, operator.split, example)
        return add(own, operator.regularizer_gradient()) if self.include_regularizer else own


def setting(
    loss_fn: Loss,
    test_fn: Loss | None,
    curvature: Curvature | None,
    solve: Any,
    include_regularizer: bool,
    chunk_size: int | None,
) -> Setting:
    """The choices, checked."""
    if not callable(solve) or solve.__class__ is type:
        raise TypeError(f"solve must be a solver such as cg(), not {solve!r}")
    if callable(solve) and getattr(solve, "__name__", "") in (
        "cg",
        "dense",
        "lissa",
        "neumann",
        "lanczos",
        "nystrom",
    ):
        raise TypeError(f"solve is {solve.__name__} itself; call it with its options: solve={solve.__name__}(...)")
    if include_regularizer and curvature is None:
        raise ValueError(
            "include_regularizer=True needs to know the regulariser: curvature=hessian(loss_fn, regularizer=...)"
        )
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    loss = checked(loss_fn)
    test = loss if test_fn is None else checked(test_fn, "test_fn")
    known = hessian(loss_fn, chunk_size=chunk_size) if curvature is None else curvature
    return Setting(loss, test, known, solve, include_regularizer, chunk_size)


def gradient(loss: Loss, split: Split, example: Tree) -> Tree:
    """The gradient of one example's loss by the free parameters."""
    return jax.grad(lambda theta: loss(split.merge(theta), example))(split.free)


def gradients(loss: Loss, split: Split, data: Tree, chunk_size: int | None) -> Tree:
    """The gradients of all examples, stacked."""
    return stack(lambda example: gradient(loss, split, example), data, chunk_size=chunk_size)


def scores(loss: Loss, split: Split, data: Tree, directions: Tree, chunk_size: int | None) -> jax.Array:
    """The inner product of every direction (k of them, stacked) with every example's gradient: (k, n)."""
    queries = len(jax.tree.leaves(directions)[0])

    def forward(example: Tree) -> jax.Array:
        def along(direction: Tree) -> jax.Array:
            value = lambda theta: loss(split.merge(theta), example)  # noqa: E731
            return jax.jvp(value, (split.free,), (cast(direction, split.free),))[1]

        return jax.vmap(along)(directions)

    def backward(example: Tree) -> jax.Array:
        slope = gradient(loss, split, example)
        return gram(directions, jax.tree.map(lambda leaf: leaf[None], slope))[:, 0]

    values = stack(backward if queries >= MANY_QUERIES else forward, data, chunk_size=chunk_size).T
    return values.astype(accumulator_dtype(values.dtype))


def cast(tree: Tree, like: Tree) -> Tree:
    """A tree in the types of another."""
    return jax.tree.map(lambda leaf, model: leaf.astype(model.dtype), tree, like)


def returned(
    name: str,
    loss_fn: Loss,
    solve: Any,
    compute: Callable[..., tuple[Any, SolveInfo]],
    check: Callable[..., None] = lambda *_: None,
) -> Any:
    """The function that a transform returns: `compute(key, ...)` in one program, a key first if the solver draws.

    `check(...)` sees the arguments before they are traced. Called outside of a trace it also warns of systems that
    were not solved.
    """
    fast = jax.jit(compute)
    needs_key = getattr(solve, "needs_key", False)

    @named_after(loss_fn, name)
    def explain(*args: Any) -> tuple[Any, SolveInfo]:
        if needs_key:
            check_key(args[0] if args else None, name)
        key, rest = (args[0], args[1:]) if needs_key else (None, args)
        check(*rest)
        rest = _jax.vary_together(rest)
        plain = all(isinstance(leaf, jax.Array | np.ndarray | np.generic) for leaf in jax.tree.leaves(rest))
        value, info = (fast if plain else compute)(key, *rest)
        warn_about(info)
        return value, info

    return explain
