r"""Relatives of influence without curvature: gradient similarity, TracIn, representer points.

They cost one scan and no solve, and answer a cruder question. Their sign is that of the published methods:
positive means that the training example **helps** the test example, the opposite of influence.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._chunk import check_count, stack
from jaxplain._tree import count, named_after
from jaxplain.training import _scores
from jaxplain.training._vectors import Loss, Predicate, Tree, checked, norm, split

Scores = Callable[..., jax.Array]


def grad_dot(loss_fn: Loss, *, only: Predicate | None = None, chunk_size: int | None = None) -> Scores:
    r"""Inner products of gradients, $\nabla L(z_t)^T \nabla L(z)$: influence with the identity for curvature.

    Args:
        loss_fn: `loss_fn(params, example)` returns the loss of one example.
        only: which parameters count: a predicate on paths such as `dense1/kernel`; None for all.
        chunk_size: how many training examples run at once; None for all.

    Returns:
        `explain(params, train, test)`, of shape (num_test, num_train). Positive: a step on the training example
        lowers the test loss.

    Raises:
        ValueError: a data set is empty or ragged, or `only` accepts nothing.
        TypeError: the loss is no float scalar, or a parameter no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> training.grad_dot(loss)(jnp.array(2.0), jnp.array([1.0, 3.0]), jnp.array([5.0]))
        Array([[-3.,  3.]], dtype=float32)

    When not to trust it: without curvature, directions in which the loss is steep for every example dominate.

    Source: Charpiat et al. 2019.
    """
    return _similarity("grad_dot", loss_fn, only, chunk_size, normalised=False)


def grad_cos(loss_fn: Loss, *, only: Predicate | None = None, chunk_size: int | None = None) -> Scores:
    r"""Cosines between gradients; 0 where there is none.

    Args:
        loss_fn: as in `grad_dot`.
        only: as in `grad_dot`.
        chunk_size: as in `grad_dot`.

    Returns:
        `explain(params, train, test)`, of shape (num_test, num_train), between -1 and 1.

    Raises:
        ValueError: a data set is empty or ragged, or `only` accepts nothing.
        TypeError: the loss is no float scalar, or a parameter no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * ((w - z) ** 2).sum()
        >>> train, test = jnp.array([[1.0, 0.0], [0.0, 2.0]]), jnp.array([[3.0, 0.0]])
        >>> training.grad_cos(loss)(jnp.zeros(2), train, test)
        Array([[1., 0.]], dtype=float32)

    When not to trust it: examples fitted perfectly have gradients of rounding, whose directions still count.

    Source: Hanawa et al. 2021 compare it with others.
    """
    return _similarity("grad_cos", loss_fn, only, chunk_size, normalised=True)


def _similarity(name: str, loss_fn: Loss, only: Any, chunk_size: int | None, *, normalised: bool) -> Scores:
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    loss = checked(loss_fn)

    @named_after(loss_fn, name)
    def explain(params: Tree, train: Tree, test: Tree) -> jax.Array:
        for name, data in {"train": train, "test": test}.items():
            count(name, data)
        free = split(_jax.vary_together(params, train, test), only)
        queries = _scores.gradients(loss, free, test, chunk_size)
        values = _scores.scores(loss, free, train, queries, chunk_size)
        if not normalised:
            return values
        rows = jax.vmap(norm)(queries)
        columns = stack(lambda z: norm(_scores.gradient(loss, free, z)), train, chunk_size=chunk_size)
        sizes = rows[:, None] * columns[None, :]
        return jnp.where(sizes > 0, values / jnp.where(sizes > 0, sizes, 1), 0)

    return explain


def tracin(loss_fn: Loss, *, only: Predicate | None = None, chunk_size: int | None = None) -> Scores:
    r"""TracIn over checkpoints: $\sum_t \eta_t \nabla L(z_t; \theta_t)^T \nabla L(z; \theta_t)$.

    Args:
        loss_fn: as in `grad_dot`.
        only: as in `grad_dot`; the last layer is a common choice.
        chunk_size: as in `grad_dot`.

    Returns:
        `explain(checkpoints, learning_rates, train, test)`, of shape (num_test, num_train). `checkpoints` are
        parameters with a leading axis, `learning_rates` one number each.

    Raises:
        ValueError: there are no checkpoints, not one rate for each, or a data set is empty or ragged.
        TypeError: the loss is no float scalar, or a parameter no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> loss = lambda w, z: 0.5 * (w - z) ** 2
        >>> checkpoints, rates = jnp.array([0.0, 2.0]), jnp.array([0.5, 0.5])
        >>> training.tracin(loss)(checkpoints, rates, jnp.array([1.0, 4.0]), jnp.array([5.0]))
        Array([[ 1., 13.]], dtype=float32)

    When not to trust it: it sums first-order steps as if each had been taken on the example alone; few
    checkpoints, momentum and decay are all approximated.

    Source: Pruthi et al. 2020, section 3.3.
    """
    one = grad_dot(loss_fn, only=only, chunk_size=chunk_size)

    @named_after(loss_fn, "tracin")
    def explain(checkpoints: Tree, learning_rates: Any, train: Tree, test: Tree) -> jax.Array:
        total = count("checkpoints", checkpoints, "checkpoints")
        rates = jnp.asarray(learning_rates)
        if rates.shape != (total,):
            raise ValueError(f"there are {total} checkpoints, but learning_rates has shape {rates.shape}")

        def step(_: None, item: Any) -> tuple[None, jax.Array]:
            params, rate = item
            values = one(params, train, test)
            return None, values * rate.astype(values.dtype)

        return jax.lax.scan(step, None, (checkpoints, rates))[1].sum(0)

    return explain


def representer_points(
    features: Callable[[Any], jax.Array], output_loss: Callable[[jax.Array, Any], jax.Array], *, l2: Any
) -> Scores:
    r"""Representer points: test logits as a sum over training examples.

    The sum is $\sum_i \alpha_i \, \phi(z_i)^T \phi(z_t)$. For a linear head trained to a minimum of
    $\frac1n \sum_i \ell(W^T \phi_i) + \frac{l_2}{2} |W|^2$, $W = \sum_i \phi_i \alpha_i^T$ with
    $\alpha_i = -\frac{1}{l_2 n} \nabla_o \ell_i$.

    Args:
        features: `features(example)` returns what the head reads, of shape (d,), a constant 1 among it for a bias.
        output_loss: `output_loss(logits, example)` returns the loss.
        l2: the strength of the regulariser.

    Returns:
        `explain(kernel (d, c), train, test)`, of shape (num_test, num_train, c): what each training example adds
        to each logit. The sum over training examples is the logit, as far as the head is trained to the minimum.

    Raises:
        ValueError: a data set is empty or ragged, or the kernel does not fit the features.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> z = {"x": jnp.array([[1.0], [1.0]]), "y": jnp.array([1.0, 3.0])}
        >>> squares = lambda o, z: 0.5 * (o[0] - z["y"]) ** 2
        >>> explain = training.representer_points(lambda z: z["x"], squares, l2=1.0)
        >>> print(explain(jnp.array([[1.0]]), z, z)[0, :, 0])  # the minimum is at w = 1
        [-0.  1.]

    When not to trust it: short of the minimum the sum is not the logit; and only the head is explained.

    Source: Yeh et al. 2018, theorem 3.1.
    """

    def explain(kernel: jax.Array, train: Tree, test: Tree) -> jax.Array:
        total = count("train", train)
        count("test", test)
        train, test, kernel = _jax.vary_together((train, test, kernel))
        near, far = jax.vmap(features)(train), jax.vmap(features)(test)
        if near.ndim != 2 or kernel.ndim != 2 or near.shape[1] != kernel.shape[0]:
            raise ValueError(
                f"features(example) has shape {near.shape[1:]} and the kernel {kernel.shape}; "
                "they must be (d,) and (d, c)"
            )
        slopes = jax.vmap(jax.grad(checked(output_loss, "output_loss")))(near @ kernel, train)
        alphas = -slopes / (l2 * total)
        return (far @ near.T)[:, :, None] * alphas[None]

    return explain
