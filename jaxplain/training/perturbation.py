r"""Influence of changing a training example instead of weighing it: of its input, or of all of it.

Moving mass $\epsilon$ from z to z' moves the minimiser by $-\epsilon H^{-1} (\nabla L(z') - \nabla L(z))$; for a
small change of a float input that is a mixed derivative, which is taken along $H^{-1} \nabla L(z_t)$ so that no
Jacobian is ever formed.
"""

from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._tree import count, float_leaves
from jaxplain.training import _scores
from jaxplain.training._scores import cast, returned, scores, setting
from jaxplain.training._vectors import Loss, Tree
from jaxplain.training.influence import Answer
from jaxplain.training.operators import Curvature
from jaxplain.training.solve import SolveInfo, cg


def influence_of_perturbation(
    loss_fn: Loss,
    *,
    test_fn: Loss | None = None,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    chunk_size: int | None = None,
) -> Answer:
    r"""How a test loss changes with a training input: $-\nabla L(z_t)^T H^{-1} \nabla_x \nabla_\theta L(z)$.

    Moving the input x of one training example by $\delta$ and retraining changes the test loss by about
    $I \cdot \delta / n$. Float labels are part of the example and get theirs, too.

    Args:
        loss_fn: as in `influence`.
        test_fn: as in `influence`.
        curvature: as in `influence`.
        solve: as in `influence`.
        chunk_size: as in `influence`.

    Returns:
        `explain(params, train, example, test_example) -> (values, info)`, values like `example`, None where a leaf
        is no float. Positive means that raising the number raises the test loss.

    Raises:
        ValueError: the data set is empty or ragged.
        TypeError: the example has no float leaves, the loss is no float scalar, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> explain = training.influence_of_perturbation(loss)
        >>> explain(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array(1.0), jnp.array(5.0))[0]
        Array(-3., dtype=float32)

    When not to trust it: as `influence`; and beyond small changes: take several steps, and retrain to check.

    Source: Koh and Liang 2017, eq. 5.
    """
    chosen = setting(loss_fn, test_fn, curvature, solve, False, chunk_size)

    def compute(key: Any, params: Tree, train: Tree, example: Tree, test_example: Tree) -> tuple[Tree, SolveInfo]:
        operator = chosen.curvature(params, train)
        free = operator.split
        direction, info = chosen.prepare(key, operator)(_scores.gradient(chosen.test, free, test_example))
        direction = cast(direction, free.free)
        x = float_leaves(example)

        def slope_along(x: Tree) -> jax.Array:
            whole = jax.tree.map(lambda old, new: old if new is None else new, example, x)
            return jax.jvp(lambda theta: chosen.loss(free.merge(theta), whole), (free.free,), (direction,))[1]

        return jax.tree.map(jnp.negative, jax.grad(slope_along)(x)), info

    return returned("influence_of_perturbation", loss_fn, solve, compute)


def influence_of_replacement(
    loss_fn: Loss,
    *,
    test_fn: Loss | None = None,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    chunk_size: int | None = None,
) -> Answer:
    r"""Influence of examples replaced by others, such as relabelled ones.

    $-\nabla L(z_t)^T H^{-1} (\nabla L(z') - \nabla L(z))$ for z replaced by z'. Replacing one training example and
    retraining changes the test loss by about I / n.

    Args:
        loss_fn: as in `influence`.
        test_fn: as in `influence`.
        curvature: as in `influence`.
        solve: as in `influence`.
        chunk_size: as in `influence`.

    Returns:
        `explain(params, train, old, new, test) -> (values (num_test, num_old), info)`: `old` are training
        examples, `new` what each is replaced by.

    Raises:
        ValueError: a data set is empty or ragged, or `old` and `new` differ in length.
        TypeError: the loss is no float scalar, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> train = jnp.array([1.0, 3.0])
        >>> explain = training.influence_of_replacement(loss)
        >>> explain(jnp.array(2.0), train, train[:1], jnp.array([2.0]), jnp.array([5.0]))[0]
        Array([[-3.]], dtype=float32)

    When not to trust it: as `influence`.

    Source: Koh and Liang 2017, section 2.2.
    """
    chosen = setting(loss_fn, test_fn, curvature, solve, False, chunk_size)

    def compute(key: Any, params: Tree, train: Tree, old: Tree, new: Tree, test: Tree) -> tuple[Any, SolveInfo]:
        operator = chosen.curvature(params, train)
        if count("old", old) != count("new", new):
            raise ValueError(
                f"old holds {count('old', old)} examples, new {count('new', new)}: one for each is needed"
            )
        count("test", test)
        slopes = _scores.gradients(chosen.test, operator.split, test, chunk_size)
        directions, info = jax.vmap(chosen.prepare(key, operator))(slopes)
        after, before = (scores(chosen.loss, operator.split, some, directions, chunk_size) for some in (new, old))
        return before - after, info

    return returned("influence_of_replacement", loss_fn, solve, compute)
