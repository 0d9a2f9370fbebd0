r"""Curvature of a training objective as a matrix-vector product: Hessian, Gauss-Newton, Fisher.

Each function here returns `curvature(params, data) -> Operator`, the matrix

$A = \frac1n \sum_i C(z_i) + \nabla^2 R(\theta) + \lambda I$

with $C$ the curvature of one example's loss, $R$ the regulariser and $\lambda$ the damping. The mean is over
examples, whatever the chunks. Of a chosen subset of the parameters, only that block of the matrix is meant.

All but the Hessian have the form $C(z) = J^T B J$, $J$ the derivative of some outputs by the parameters and $B$ a
small matrix in the space of outputs (Schraudolph 2002): one forward and one backward derivative a product.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import accumulator_dtype
from jaxplain._tree import check_key, count
from jaxplain.training._vectors import Loss, Predicate, Split, Tree, checked
from jaxplain.training.operators import Curvature, Operator, Product, make_curvature, sandwich


def hessian(
    loss_fn: Loss,
    *,
    regularizer: Callable[[Tree], jax.Array] | None = None,
    damping: Any = 0.0,
    only: Predicate | None = None,
    chunk_size: int | None = None,
) -> Curvature:
    r"""The Hessian of the mean loss: $\frac1n \sum_i \nabla^2 L(z_i, \theta) + \nabla^2 R(\theta) + \lambda I$.

    Forward over reverse. With all examples at once the gradient is linearised once, and every product reuses what
    the forward pass left, in memory that grows with the data; in chunks it is computed anew for each.

    Args:
        loss_fn: `loss_fn(params, example)` returns the loss of one example, a float scalar. Whatever is random or
            depends on a batch (dropout, BatchNorm in training mode) must be fixed.
        regularizer: `regularizer(params)`, added to the mean loss.
        damping: $\lambda$, a number (it may be traced), or `relative(share, key=key)`.
        only: which parameters count: a predicate on paths such as `dense1/kernel`; None for all.
        chunk_size: how many examples run at once; None for all.

    Returns:
        `curvature(params, data) -> Operator`.

    Raises:
        ValueError: the data set is empty or ragged, or `only` accepts nothing.
        TypeError: a parameter is no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.hessian(lambda w, x: (w @ x) ** 2, damping=0.5)(jnp.ones(2), jnp.eye(2))
        >>> A.matvec(jnp.array([1.0, 2.0]))
        Array([1.5, 3. ], dtype=float32)

    When not to trust it: away from a minimum it has negative eigenvalues, and influence by it is then no
    approximation of anything; use a damping, or `gauss_newton`.

    Source: Pearlmutter 1994 (the product).
    """
    loss = checked(loss_fn)

    def prepare(free: Split) -> tuple[Product, Callable[..., Callable[[Tree], Tree]]]:
        def gradient(theta: Tree, examples: Tree, weights: jax.Array) -> Tree:
            def objective(theta: Tree) -> jax.Array:
                values = jax.vmap(lambda z: loss(free.merge(theta), z))(examples)
                values = values.astype(accumulator_dtype(values.dtype))
                return jnp.sum(values * weights.astype(values.dtype))

            return jax.grad(objective)(theta)

        def product(theta: Tree, examples: Tree, weights: jax.Array, v: Tree) -> Tree:
            return jax.jvp(lambda theta: gradient(theta, examples, weights), (theta,), (v,))[1]

        def linearized(theta: Tree, examples: Tree, weights: jax.Array) -> Callable[[Tree], Tree]:
            return jax.linearize(lambda theta: gradient(theta, examples, weights), theta)[1]

        return product, linearized

    return make_curvature(prepare, regularizer, damping, only, chunk_size)


def gauss_newton(
    predict: Callable[[Tree, Any], Any],
    output_loss: Callable[[Any, Any], jax.Array],
    *,
    regularizer: Callable[[Tree], jax.Array] | None = None,
    damping: Any = 0.0,
    only: Predicate | None = None,
    chunk_size: int | None = None,
) -> Curvature:
    r"""The generalised Gauss-Newton matrix: $\frac1n \sum_i J_i^T (\nabla^2_o L) J_i$.

    $J_i$ is the derivative of the outputs o by the parameters. This is the Hessian without the curvature of the
    network itself: never indefinite where the loss is convex in the outputs, and equal to the Fisher matrix for
    softmax cross-entropy and squared error.

    Args:
        predict: `predict(params, example)` returns the outputs, best logits.
        output_loss: `output_loss(outputs, example)` returns the loss, convex in the outputs.
        regularizer: `regularizer(params)`, added to the mean loss; its own Hessian counts in full.
        damping: as in `hessian`.
        only: as in `hessian`.
        chunk_size: as in `hessian`.

    Returns:
        `curvature(params, data) -> Operator`.

    Raises:
        ValueError: the data set is empty or ragged, or `only` accepts nothing.
        TypeError: a parameter is no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> curvature = training.gauss_newton(lambda w, z: w @ z, lambda out, z: out**2)
        >>> curvature(jnp.ones(2), jnp.eye(2)).matvec(jnp.array([1.0, 2.0]))
        Array([1., 2.], dtype=float32)

    When not to trust it: with large residuals the part it drops is not small.

    Source: Schraudolph 2002; Martens 2020.
    """

    def middle(outputs: Any, example: Any, u: Any) -> Any:
        slope = jax.grad(lambda o: checked(output_loss, "output_loss")(o, example))
        return jax.jvp(slope, (outputs,), (u,))[1]

    return make_curvature(sandwich(predict, middle), regularizer, damping, only, chunk_size)


def fisher(
    logits_fn: Callable[[Tree, Any], jax.Array],
    *,
    key: jax.Array | None = None,
    regularizer: Callable[[Tree], jax.Array] | None = None,
    damping: Any = 0.0,
    only: Predicate | None = None,
    chunk_size: int | None = None,
) -> Curvature:
    r"""The Fisher matrix of a classifier: $\frac1n \sum_i \mathrm E_{y \sim p_i} [g_{iy} g_{iy}^T]$.

    The labels are the model's own. The expectation is exact, $J^T (\mathrm{diag}\, p - p p^T) J$; with a key, one
    label is drawn for each example instead.

    Args:
        logits_fn: `logits_fn(params, example)` returns logits, classes last; of further axes each is one decision.
        key: for labels drawn at random, once for an operator; None for the exact expectation.
        regularizer: as in `hessian`.
        damping: as in `hessian`.
        only: as in `hessian`.
        chunk_size: as in `hessian`.

    Returns:
        `curvature(params, data) -> Operator`.

    Raises:
        ValueError: the data set is empty or ragged, or `only` accepts nothing.
        TypeError: a parameter is no float, or `key` is no key.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.fisher(lambda w, z: w * z)(jnp.zeros(2), jnp.ones((1, 2)))
        >>> A.matvec(jnp.array([1.0, 0.0]))
        Array([ 0.25, -0.25], dtype=float32)

    When not to trust it: it is the curvature at the optimum of a model that fits; drawn labels are noisy.

    Source: Amari 1998; Martens 2020, section 5.
    """
    if key is None:

        def exact(logits: jax.Array, example: Any, u: jax.Array) -> jax.Array:
            p = jax.nn.softmax(logits)
            return p * (u - jnp.sum(p * u, -1, keepdims=True))

        return make_curvature(sandwich(logits_fn, exact), regularizer, damping, only, chunk_size)
    check_key(key, "fisher")

    def drawn(logits: jax.Array, example: Any, u: jax.Array) -> jax.Array:
        label = jax.random.categorical(jax.random.key(example[1]), logits)
        slope = jax.nn.softmax(logits) - jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
        return slope * jnp.sum(slope * u, -1, keepdims=True)

    prepare = sandwich(lambda params, example: logits_fn(params, example[0]), drawn)

    def curvature(params: Tree, data: Tree) -> Operator:
        # A seed stays with its example, so that its label is the same in every product and every chunk.
        seeds = jax.random.bits(key, (count("data", data),))
        return make_curvature(prepare, regularizer, damping, only, chunk_size)(params, (data, seeds))

    return curvature


def empirical_fisher(
    loss_fn: Loss,
    *,
    regularizer: Callable[[Tree], jax.Array] | None = None,
    damping: Any = 0.0,
    only: Predicate | None = None,
    chunk_size: int | None = None,
) -> Curvature:
    r"""The mean outer product of gradients with the true labels: $\frac1n \sum_i g_i g_i^T$. It is no curvature.

    Elsewhere it is sold as Gauss-Newton or Fisher; it is neither.

    Args:
        loss_fn: as in `hessian`.
        regularizer: as in `hessian`.
        damping: as in `hessian`.
        only: as in `hessian`.
        chunk_size: as in `hessian`.

    Returns:
        `curvature(params, data) -> Operator`.

    Raises:
        ValueError: the data set is empty or ragged, or `only` accepts nothing.
        TypeError: a parameter is no float.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import training
        >>> A = training.empirical_fisher(lambda w, z: w @ z)(jnp.ones(2), 2 * jnp.eye(2))
        >>> A.matvec(jnp.array([1.0, 0.5]))
        Array([2., 1.], dtype=float32)

    When not to trust it: it vanishes where the training loss does, and its directions are those of noise and of
    outliers as much as of curvature.

    Source: Kunstner et al. 2019, on what it is not.
    """
    return make_curvature(sandwich(checked(loss_fn), lambda out, z, u: u), regularizer, damping, only, chunk_size)


def hvp(loss_fn: Loss, *, chunk_size: int | None = None) -> Callable[[Tree, Tree, Tree], Tree]:
    r"""The product of a vector with the Hessian of the mean loss, $\frac1n \sum_i \nabla^2 L(z_i, \theta)\, v$.

    Args:
        loss_fn: `loss_fn(params, example)` returns the loss of one example.
        chunk_size: how many examples run at once; None for all.

    Returns:
        `product(params, data, v)`, a tree like `params`.

    Raises:
        ValueError: the data set is empty or ragged.
        TypeError: a parameter is no float.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> jxp.hvp(lambda w, x: (w @ x) ** 2)(jnp.ones(2), jnp.eye(2), jnp.array([1.0, 2.0]))
        Array([1., 2.], dtype=float32)

    Source: Pearlmutter 1994.
    """
    curvature = hessian(loss_fn, chunk_size=chunk_size)

    def product(params: Tree, data: Tree, v: Tree) -> Tree:
        operator = curvature(params, data)
        return operator.of_examples(None, jnp.full(operator.num_examples, 1 / operator.num_examples), v)

    return product
