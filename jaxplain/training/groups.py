r"""Removing groups, and single examples beyond first order: the removed curvature counts.

Leaving out a group U minimises $F(\theta) - \frac1n \sum_U L(z, \theta)$, whose Hessian is $H - H_U$ with $H_U =
\frac1n \sum_U \nabla^2 L(z)$. One Newton step from $\hat\theta$ is $\Delta = (H - H_U)^{-1} G_U$ with $G_U =
\frac1n \sum_U \nabla L(z)$. Its expansion $H^{-1} G_U + H^{-1} H_U H^{-1} G_U + \dots$ gives influence at first
and at second order; the whole of it is `newton_step_removal`. With the mean over the kept examples and a fixed
regulariser, R leaves with the examples: its gradient joins each $\nabla L(z)$, its Hessian each $\nabla^2 L(z)$.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxplain import _jax
from jaxplain._chunk import check_count, fold, stack
from jaxplain._tree import count
from jaxplain.training import _scores
from jaxplain.training._scores import returned, setting
from jaxplain.training._vectors import Loss, Tree, add, times
from jaxplain.training.influence import Answer
from jaxplain.training.operators import Curvature, Operator
from jaxplain.training.solve import SolveInfo, as_matrix, cg, conjugate_gradients


def group_influence(
    loss_fn: Loss,
    *,
    order: int = 1,
    test_fn: Loss | None = None,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    include_regularizer: bool = False,
    chunk_size: int | None = None,
) -> Answer:
    r"""Influence of a group on test losses: at first order the sum, at second with the group's own curvature.

    $-\nabla L(z_t)^T H^{-1} \sum_U \nabla L(z)$, and for order 2 to $H^{-1} \sum_U \nabla L$ is added
    $H^{-1} H_U H^{-1} \sum_U \nabla L$ with $H_U = \frac1n \sum_U \nabla^2 L(z)$: the members of a group answer
    for one another once some are gone. Third derivatives of the loss are left out.

    Args:
        loss_fn: as in `influence`.
        order: 1 or 2.
        test_fn: as in `influence`.
        curvature: as in `influence`. At order 2 the group's curvature is of the same kind.
        solve: as in `influence`.
        include_regularizer: as in `influence`.
        chunk_size: as in `influence`.

    Returns:
        `explain(params, train, group_mask, test) -> (values (num_test,), info)`; `group_mask` has one flag, or
        weight, a training example. The predicted change when the group is removed is `removal_effect(values, n)`.
        `info` is of the `order` systems.

    Raises:
        ValueError: `order` is neither 1 nor 2, the mask does not fit, or a data set is empty or ragged.
        TypeError: a loss is no float scalar, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> explain = training.group_influence(loss, order=2)
        >>> train, removed = jnp.array([1.0, 2.0, 3.0, 2.0]), jnp.array([True, False, False, False])
        >>> values, info = explain(jnp.array(2.0), train, removed, jnp.array([5.0]))
        >>> training.removal_effect(values, 4)
        Array([-0.9375], dtype=float32)

    When not to trust it: as `influence`; for large groups even the second order is only a tangent's correction.

    Source: Koh et al. 2019 (sums); Basu, You and Feizi 2020 (second order).
    """
    if order not in (1, 2):
        raise ValueError(f"order must be 1 or 2, not {order!r}")
    chosen = setting(loss_fn, test_fn, curvature, solve, include_regularizer, chunk_size)

    def compute(key: Any, params: Tree, train: Tree, group_mask: Any, test: Tree) -> tuple[Any, SolveInfo]:
        operator = chosen.curvature(params, train)
        count("test", test)
        free, total = operator.split, operator.num_examples
        weights = jnp.asarray(group_mask)
        if weights.shape != (total,):
            raise ValueError(f"group_mask has shape {weights.shape}, but there are {total} training examples")
        weights = weights.astype(jnp.result_type(float))

        def run(chunk: Any) -> Tree:
            some, share = chunk

            def summed(theta: Tree) -> jax.Array:
                values = jax.vmap(lambda z: chosen.loss(free.merge(theta), z))(some)
                return (values * share.astype(values.dtype)).sum()

            return jax.grad(summed)(free.free)

        removed = fold(run, add, (train, weights), chunk_size=chunk_size)
        share = weights.sum() / total
        if include_regularizer:
            removed = add(removed, operator.regularizer_gradient(), share * total)
        solved = chosen.prepare(key, operator)
        change, info = solved(removed)
        infos = [info]
        if order == 2:
            bent = operator.of_examples(None, weights / total, change)
            if include_regularizer:
                bent = add(bent, operator.regularizer_product(change), share)
            more, info = solved(bent)
            change, infos = add(change, more), [*infos, info]
        direction = jax.tree.map(lambda leaf: leaf[None], change)
        values = _scores.scores(chosen.test, free, test, direction, chunk_size)[0]
        return -values, jax.tree.map(lambda *parts: jnp.stack(parts), *infos)

    return returned("group_influence", loss_fn, solve, compute, check=check_mask)


def newton_step_removal(
    loss_fn: Loss,
    *,
    test_fn: Loss | None = None,
    curvature: Curvature | None = None,
    include_regularizer: bool = False,
    max_steps: int = 50,
    tol: float = 1e-5,
    max_parameters: int = 5_000,
    chunk_size: int | None = None,
) -> Answer:
    r"""The change of test losses when each training example is left out, by one Newton step without it.

    $\theta_{-z} = \hat\theta + (H - \frac1n \nabla^2 L(z))^{-1} \frac1n \nabla L(z)$, and the loss is then
    evaluated there. Influence leaves out the removed example's own curvature, which is what its error mostly is:
    an example with leverage h is off by a factor of about 1 - h.

    H is inverted once, as a dense matrix; every system is then solved by conjugate gradients preconditioned with
    it, in about as many steps as the outputs of the model, since one example's curvature has that rank.

    Args:
        loss_fn: as in `influence`.
        test_fn: as in `influence`.
        curvature: as in `influence`. The removed example's is of the same kind.
        include_regularizer: as in `influence`.
        max_steps: of the conjugate gradients.
        tol: the relative residual asked for.
        max_parameters: an error above, instead of running out of memory.
        chunk_size: how many examples run, and are solved for, at once; None for all.

    Returns:
        `explain(params, train, test) -> (effects (num_test, num_train), info)`: predicted changes of the test
        losses (no further division), and how the num_train systems went.

    Raises:
        ValueError: there are too many parameters, or a data set is empty or ragged.
        TypeError: a loss is no float scalar, or a parameter no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> explain = training.newton_step_removal(loss)
        >>> effects, _ = explain(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array([3.0]))
        >>> print(effects)  # without 1 the mean is 3, without 3 it is 1
        [[-0.5  1.5]]

    When not to trust it: at parameters that are no minimum; and where one Newton step does not lead to the new
    one.

    Source: Pregibon 1981 (logistic regression); Koh et al. 2019, section 2.2.
    """
    check_count("max_steps", max_steps)
    chosen = setting(loss_fn, test_fn, curvature, cg(), include_regularizer, chunk_size)

    def compute(_: Any, params: Tree, train: Tree, test: Tree) -> tuple[jax.Array, SolveInfo]:
        operator = chosen.curvature(params, train)
        count("test", test)
        free, total = operator.split, operator.num_examples
        flat_params, unravel = ravel_pytree(free.free)
        name, instead = "newton_step_removal", "use influence with an iterative solver"
        matrix = as_matrix(operator, 64, max_parameters, who=name, instead=instead)
        values, vectors = jnp.linalg.eigh(matrix)
        # A preconditioner must be positive, and finite, where H is singular or slightly off by rounding.
        sizes = jnp.maximum(jnp.abs(values), values.size * jnp.finfo(values.dtype).eps * jnp.abs(values).max())
        test_losses = jax.vmap(chosen.test, (None, 0))

        def inverse(v: Tree) -> Tree:
            flat = ravel_pytree(v)[0].astype(values.dtype)
            return unravel((vectors @ ((vectors.T @ flat) / sizes)).astype(flat_params.dtype))

        def one(index_and_example: Any) -> tuple[jax.Array, SolveInfo]:
            index, example = index_and_example

            def without(v: Tree) -> Tree:
                left = unravel((matrix @ ravel_pytree(v)[0].astype(values.dtype)).astype(flat_params.dtype))
                left = add(left, own_product(operator, index, v), -1 / total)
                return add(left, operator.regularizer_product(v), -1 / total) if include_regularizer else left

            slope = times(chosen.train_gradient(operator, example), 1 / total)
            step, info = conjugate_gradients(without, slope, inverse, max_steps, tol, plain=False)
            moved = free.merge(add(free.free, step))
            before, after = (test_losses(p, test) for p in (params, moved))
            return after - before, info

        effects, info = stack(one, (jnp.arange(total), train), chunk_size=chunk_size)
        least = jnp.minimum(info.min_curvature, values[0])
        spectrum = jnp.broadcast_to(values, (total, values.size))
        return effects.T, info._replace(min_curvature=least, ritz_values=spectrum)

    return returned("newton_step_removal", loss_fn, None, compute)


def check_mask(_: Tree, __: Tree, group_mask: Any, *___: Any) -> None:
    """An error for whole numbers that are no flags: as many indices as examples would pass for weights."""
    if _jax.is_tracer(group_mask) or not jnp.issubdtype(jnp.asarray(group_mask).dtype, jnp.integer):
        return
    if not np.isin(np.asarray(group_mask), (0, 1)).all():
        raise ValueError(
            "group_mask has one flag a training example, and holds whole numbers other than 0 and 1; if they are "
            "indices, np.isin(np.arange(num_train), indices) makes flags of them; weights are floats"
        )


def own_product(operator: Operator, index: jax.Array, v: Tree) -> Tree:
    """The product with one example's curvature."""
    return operator.of_examples(index[None], jnp.ones(1), v)
