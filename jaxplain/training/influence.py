r"""Influence functions: what a training example did to a test loss, to first order.

Of the minimiser $\hat\theta$ of $F(\theta) = \frac1n \sum_i L(z_i, \theta) + R(\theta)$, adding $\epsilon L(z)$
moves it by $\hat\theta_\epsilon - \hat\theta \approx -\epsilon H^{-1} \nabla L(z)$, since the gradient $\nabla F
+ \epsilon \nabla L(z)$ stays 0. One sign everywhere: positive influence on a test loss means that up-weighting
the example **raises** it. Removing the example is $\epsilon = -1/n$, so the predicted change is $-I/n$
(`removal_effect`).

Two objectives are meant when an example is left out. With n and R as they are, the sum over the kept examples is
still divided by n. With the **mean over the kept** examples and R fixed, its share of R goes with the example:
`include_regularizer=True`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import check_count, stack
from jaxplain._tree import count
from jaxplain.training import _scores
from jaxplain.training._scores import returned, scores, setting
from jaxplain.training._vectors import Loss, Tree, dot, times
from jaxplain.training.operators import Curvature
from jaxplain.training.solve import SolveInfo, cg

Answer = Callable[..., tuple[Any, SolveInfo]]


def influence(
    loss_fn: Loss,
    *,
    test_fn: Loss | None = None,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    include_regularizer: bool = False,
    chunk_size: int | None = None,
) -> Answer:
    r"""Influence of every training example on every test loss: $I(z, z_t) = -\nabla L(z_t)^T H^{-1} \nabla L(z)$.

    One system is solved for each test example; the training set is then scanned once, by forward derivatives for
    few test examples, and by one gradient an example for many.

    Args:
        loss_fn: `loss_fn(params, example)` returns the loss of one example, without regulariser.
        test_fn: `test_fn(params, example)`, any scalar instead of the test loss: a logit, a margin.
        curvature: H, as `hessian(loss_fn, regularizer=..., damping=...)` or `gauss_newton(predict, output_loss)`;
            None for the Hessian of the mean loss.
        solve: a solver, as `cg()` or `dense()`. With `lissa(...)` and others that draw, a key comes first.
        include_regularizer: whether a training example carries its share of the regulariser: for the mean over the
            kept examples with a fixed regulariser.
        chunk_size: how many examples run at once; None for all.

    Returns:
        `explain(params, train, test) -> (values, info)`, or `explain(key, params, train, test)`. Values have shape
        (num_test, num_train); positive means that up-weighting the training example raises the test loss.
        `info` is of the num_test systems. Outside of `jit` a `SolveWarning` tells what was not solved.

    Raises:
        ValueError: a data set is empty or ragged, or `include_regularizer` is asked for without a curvature.
        TypeError: a loss is no float scalar, a parameter no float, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2  # minimised by the mean
        >>> values, info = jxp.influence(loss)(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array([5.0]))
        >>> values
        Array([[ 3., -3.]], dtype=float32)

    When not to trust it: parameters away from a minimum, an indefinite Hessian or an unsolved system (read
    `info`); and large effects: it is a tangent, too small by tens of percent for examples with much leverage. A
    correlation with the truth hides errors of scale.

    Source: Koh and Liang 2017, eq. 2.
    """
    chosen = setting(loss_fn, test_fn, curvature, solve, include_regularizer, chunk_size)

    def compute(key: Any, params: Tree, train: Tree, test: Tree) -> tuple[jax.Array, SolveInfo]:
        operator = chosen.curvature(params, train)
        count("test", test)
        slopes = _scores.gradients(chosen.test, operator.split, test, chunk_size)
        directions, info = jax.vmap(chosen.prepare(key, operator))(slopes)
        values = scores(chosen.loss, operator.split, train, directions, chunk_size)
        if include_regularizer:
            values = values + jax.vmap(dot, (0, None))(directions, operator.regularizer_gradient())[:, None]
        return -values, info

    return returned("influence", loss_fn, solve, compute)


def influence_on_params(
    loss_fn: Loss,
    *,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    include_regularizer: bool = False,
    chunk_size: int | None = None,
) -> Answer:
    r"""How the parameters move when an example is up-weighted: $-H^{-1} \nabla L(z)$.

    Args:
        loss_fn: as in `influence`.
        curvature: as in `influence`.
        solve: as in `influence`.
        include_regularizer: as in `influence`.
        chunk_size: as in `influence`.

    Returns:
        `explain(params, train, example) -> (change, info)`, the change like `params`, None where a parameter was
        not chosen. Removal moves the parameters by minus a num_train-th of it.

    Raises:
        ValueError: the data set is empty or ragged.
        TypeError: the loss is no float scalar, a parameter no float, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> training.influence_on_params(loss)(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array(3.0))[0]
        Array(1., dtype=float32)

    When not to trust it: as `influence`.

    Source: Koh and Liang 2017, eq. 1.
    """
    chosen = setting(loss_fn, None, curvature, solve, include_regularizer, chunk_size)

    def compute(key: Any, params: Tree, train: Tree, example: Tree) -> tuple[Tree, SolveInfo]:
        operator = chosen.curvature(params, train)
        x, info = chosen.prepare(key, operator)(chosen.train_gradient(operator, example))
        return times(x, -1.0), info

    return returned("influence_on_params", loss_fn, solve, compute)


def self_influence(
    loss_fn: Loss,
    *,
    curvature: Curvature | None = None,
    solve: Any = cg(),  # noqa: B008
    include_regularizer: bool = False,
    chunk_size: int | None = None,
) -> Answer:
    r"""How much every training example lowered its own loss: $\nabla L(z)^T H^{-1} \nabla L(z) \ge 0$.

    One system is solved for each example: best with a solver that does most of its work once, such as `dense()`.
    Large values mark what the model had to memorise: mislabelled and unusual examples.

    Args:
        loss_fn: as in `influence`.
        curvature: as in `influence`.
        solve: as in `influence`.
        include_regularizer: whether the example carries its share of the regulariser.
        chunk_size: how many examples run, and are solved for, at once; None for all.

    Returns:
        `explain(params, train) -> (values (num_train,), info)`. It is minus the influence of an example on itself.

    Raises:
        ValueError: the data set is empty or ragged.
        TypeError: the loss is no float scalar, a parameter no float, or `solve` no solver.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> training.self_influence(loss)(jnp.array(2.0), jnp.array([1.0, 5.0, 0.0]))[0]
        Array([1., 9., 4.], dtype=float32)

    When not to trust it: as `influence`. With few parameters a plain look at the losses finds mislabelled examples
    as well.

    Source: Koh and Liang 2017, section 5.4.
    """
    chosen = setting(loss_fn, None, curvature, solve, include_regularizer, chunk_size)

    def compute(key: Any, params: Tree, train: Tree) -> tuple[jax.Array, SolveInfo]:
        operator = chosen.curvature(params, train)
        solved = chosen.prepare(key, operator)

        def one(example: Tree) -> tuple[jax.Array, SolveInfo]:
            slope = chosen.train_gradient(operator, example)
            x, info = solved(slope)
            return dot(slope, x), info

        return stack(one, train, chunk_size=chunk_size)

    return returned("self_influence", loss_fn, solve, compute)


def removal_effect(values: Any, num_train: int) -> Any:
    r"""The predicted change when a training example is removed and the model retrained: $-I / n$.

    Args:
        values: influence, an array or a tree.
        num_train: n, the number of training examples.

    Returns:
        The effects, like `values`.

    Raises:
        ValueError: `num_train` is no positive number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> training.removal_effect(jnp.array([4.0, -2.0]), 100)
        Array([-0.04,  0.02], dtype=float32)

    Source: Koh and Liang 2017, section 2.1.
    """
    total = check_count("num_train", num_train)
    return jax.tree.map(lambda leaf: -jnp.asarray(leaf) / total, values)
