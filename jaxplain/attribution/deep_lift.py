"""DeepLIFT and Deep SHAP: differences from a reference, handed down unit by unit."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxplain._tree import Scalar, check_argnums, named_after, reference_like
from jaxplain.attribution.augment import average_over
from jaxplain.engine import flow
from jaxplain.engine.plan import depending, make_plan
from jaxplain.engine.trace import trace
from jaxplain.rules.differences import Differences, Pair

Explainer = Callable[..., Any]
Rule = Literal["rescale", "reveal_cancel"]


def deep_lift(
    f: Scalar, baseline: Any = 0.0, *, rule: Rule = "rescale", argnums: int | Sequence[int] = 0
) -> Explainer:
    r"""DeepLIFT: what each input's difference from a baseline contributes to the output's difference.

    $R_i = (x_i - x'_i)\, m_i$, with multipliers by the chain rule: $\Delta y / \Delta x$ through a nonlinearity
    (Rescale), the weights through layers, and two-player shares through products. $\sum_i R_i = f(x) - f(x')$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        baseline: the reference: a number, an array, a pytree like `x`, or a callable of `x`.
        rule: "rescale", or "reveal_cancel", which treats positive and negative contributions to a nonlinearity
            apart where an affine unit leads to it (it sees an AND, a min, where Rescale sees nothing).
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`.

    Raises:
        UnsupportedOperation: no rule covers an operation, or a choice by the input (an index, a branch) lies
            between it and the output.
        ValueError: the baseline does not fit `x`, `rule` is unknown, `f` returns something other than a scalar,
            `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(x[0] - x[1])
        >>> x = jnp.array([3.0, 1.0])
        >>> jxp.deep_lift(f)(x), jxp.deep_lift(f, rule="reveal_cancel")(x)
        (Array([ 3., -1.], dtype=float32), Array([ 2.5, -0.5], dtype=float32))

    When not to trust it: the baseline decides; it is no function of f alone but of how f is put together. At
    a reference where a normalisation has no variance (a constant image before a LayerNorm) multipliers grow
    without bound and the sum is lost to rounding: check it with `metrics.completeness_gap`.

    Source: Shrikumar et al. 2017, sections 3.3 to 3.5; products and softmax as two-player Shapley values.
    """
    if rule not in ("rescale", "reveal_cancel"):
        raise ValueError(f"rule={rule!r}: it is 'rescale' or 'reveal_cancel'")
    argnums = check_argnums(argnums)

    @named_after(f, "deep_lift")
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, scalar=True)
        program = traced.program
        plan, policy = make_plan(program, traced.live, depending), Differences(rule)
        live = [program.inputs.index(v) for v in traced.live]
        leaves = [traced.args[k] for k in live]
        x = traced.like_explained(leaves)
        # The barrier: XLA would otherwise run the whole network at a constant baseline while it compiles.
        refs = jax.lax.optimization_barrier(jax.tree.leaves(reference_like("baseline", baseline, x)))

        def upwards(leaves):
            inputs = list(traced.args)
            for k, leaf, ref in zip(live, leaves, refs, strict=True):
                inputs[k] = Pair(leaf, ref)
            y = flow.run(plan, policy, inputs)[0]
            return y.x if isinstance(y, Pair) else y

        y, back = jax.vjp(upwards, leaves)
        (multipliers,) = back(jnp.ones_like(y))
        whole = [(a - b) * m for a, b, m in zip(leaves, refs, multipliers, strict=True)]
        return traced.like_explained([jnp.where(jnp.isnan(y), jnp.nan, part) for part in whole])

    explain.argnums = argnums
    return explain


def deep_shap(
    f: Scalar,
    background: Any,
    *,
    rule: Rule = "rescale",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Deep SHAP: DeepLIFT averaged over references, a quick approximation of Shapley values.

    $R = \frac1K \sum_k \mathrm{DeepLIFT}(f, x'_k)(x)$; its sum is $f(x) - \frac1K \sum_k f(x'_k)$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references: a pytree like `x` with a leading axis.
        rule: "rescale" or "reveal_cancel".
        chunk_size: how many references run at once; None for all. The result does not depend on it.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`.

    Raises:
        UnsupportedOperation: no rule covers an operation between the input and the output.
        ValueError: the background does not fit `x`, `rule` is unknown, `f` returns something other than a scalar,
            `x` has an empty array, `argnums` or `chunk_size` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(x).sum()
        >>> jxp.deep_shap(f, jnp.array([[0.0, 0.0], [-1.0, 2.0]]))(jnp.array([1.0, -1.0]))
        Array([ 1., -1.], dtype=float32)

    When not to trust it: it equals the Shapley values only where units add up independently; correlated inputs
    and products of many units part them.

    Source: Lundberg and Lee 2017, section 4.2.
    """
    deep_lift(f, rule=rule)  # checks the rule

    def one(reference):
        return deep_lift(f, reference, rule=rule, argnums=argnums)

    return average_over(one, background, chunk_size=chunk_size)
