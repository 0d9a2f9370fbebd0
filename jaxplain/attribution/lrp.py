"""Layer-wise relevance propagation, and the methods that are a table of its rules.

The function is traced, its program grouped into units, and run with every unit's backward pass replaced by a rule:
the cotangent is relevance, and the explanation an ordinary `jax.vjp`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import SiteError
from jaxplain._tree import Scalar, check_argnums, check_scalar, named_after
from jaxplain.engine import flow, sites, walk
from jaxplain.engine.plan import Plan, make_plan
from jaxplain.engine.sites import At
from jaxplain.engine.trace import Trace, trace
from jaxplain.rules.constructors import w_square, z_box, z_plus
from jaxplain.rules.propagation import Propagation
from jaxplain.rules.tables import EPSILON_PLUS, Rules, as_table, first, rules_for

Explainer = Callable[..., Any]


def lrp(
    f: Scalar,
    rules: Any = EPSILON_PLUS,
    *,
    init: Any = None,
    at: At | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Layer-wise relevance propagation: the output is handed down, unit by unit, to the input.

    Relevance starts as $f(x)$; a unit $z_j = \sum_i x_i w_{ij} + b_j$ sends $R_i = \sum_j \frac{x_i w_{ij}}{z_j}
    R_j$ (the epsilon rule; see `jaxplain.rules` for the others), activations pass it on, sums split it in
    proportion, max-pooling gives it to the winner. Units are found in the traced program: the spelling does not
    matter.

    Args:
        f: `f(x, *args)` returns a float scalar, best a logit.
        rules: a rule for every affine unit, or a table: `rules.EPSILON_PLUS`, `rules.ATTENTION`,
            `rules.rules_for(...)`. What does not depend on the explained argument counts as weight.
        init: the relevance to start from, a scalar, in place of f(x).
        at: a site; its relevance is returned in place of the input's.
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`, with the structure of `x`, or the shape of the site.

    Raises:
        UnsupportedOperation: no rule covers an operation between the input and the output.
        SiteError: the site is missing, ambiguous, or inside a unit.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves, or `rules` is no rule.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([[1.0, -2.0], [3.0, 1.0]]) @ x) @ jnp.array([-1.0, 1.0])
        >>> jxp.lrp(f, jxp.rules.epsilon(eps=0.0))(jnp.array([3.0, 1.0]))
        Array([6., 3.], dtype=float32)

    When not to trust it: it is defined by the network's layers and not by its function; epsilon with small eps is
    as noisy as gradient times input, z+ sees little but the image's own parts in deep networks (Sixt et al. 2020).
    Biases absorb relevance: `coverage` shows where.

    Source: Bach et al. 2015; Montavon et al. 2019; Achtibat et al. 2024 for attention.
    """
    table, argnums = as_table(rules), check_argnums(argnums)

    @named_after(f, "lrp")
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True)
        return relevance(traced, table, init=None if init is None else check_scalar(init), at=at)

    explain.argnums = argnums
    return explain


def deep_taylor(
    f: Scalar, *, low: Any = None, high: Any = None, argnums: int | Sequence[int] = 0, params: Any = None
) -> Explainer:
    r"""Deep Taylor decomposition: z+ in every unit, and the rule of the input's domain in the first.

    The first unit is served by the w^2 rule, or, if bounds of the input are given, by z-box; the others by z+
    without biases: $R_i = \sum_j \frac{x_i w_{ij}^+}{\sum_i x_i w_{ij}^+} R_j$.

    Args:
        f: `f(x, *args)` returns a float scalar through ReLUs.
        low: the lower bound of `x`, a number or an array; None for an unbounded input.
        high: the upper bound.
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`, with the structure of `x`. It sums to f(x) when no unit is without positive inputs.

    Raises:
        UnsupportedOperation: no rule covers an operation between the input and the output.
        ValueError: one bound is given without the other, or does not fit; `f` returns something other than a
            scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([[1.0, -2.0], [3.0, 1.0]]) @ x).sum()
        >>> print(jxp.deep_taylor(f)(jnp.array([3.0, 1.0])).round(2))
        [9.2 1.8]

    When not to trust it: it assumes ReLUs, a positive output and no positive biases; it shows what is there, for
    every class alike, more than what decides between classes.

    Source: Montavon et al. 2017, eqs. 12 to 14.
    """
    if (low is None) != (high is None):
        raise ValueError("deep_taylor needs both bounds of the input, low= and high=, or neither")
    start = w_square(bias="ignore") if low is None else z_box(low, high)
    return lrp(f, rules_for(z_plus(bias="ignore"), {first: start}), argnums=argnums, params=params)


def relevance(traced: Trace, table: Rules, *, init: Any = None, at: At | None = None) -> Any:
    """The relevance of the explained argument, or of a site."""
    start = 1.0 if table.tangent and init is None else init
    plan, policy = planned(traced, table)
    if at is not None:
        return descend(traced, plan, policy, start, readable(traced, plan, at))[1]
    return traced.like_explained(descend(traced, plan, policy, start)[0])


def descend(
    traced: Trace, plan: Plan, policy: Propagation, start: Any, site: sites.Site | None = None
) -> tuple[list[jax.Array], Any]:
    """(the relevance of the explained leaves, that of a site) of a plan's output.

    Both are always asked for: a unit that this derivative does not go through would keep its rule for its
    derivative, and a derivative of the explanation would take it for the true one.
    """
    live = [traced.program.inputs.index(v) for v in traced.live]
    zeros = [] if site is None else [jnp.zeros(site.shape, site.value.dtype)]
    probes = [_jax.varying_like(probe, traced.args[live[0]]) for probe in zeros]

    def run(given):
        leaves, probes = given
        inputs = list(traced.args)
        for k, leaf in zip(live, leaves, strict=True):
            inputs[k] = leaf
        if policy.rules.tangent and not probes:  # the function as it is, with its custom derivatives
            return walk.evaluate(traced.program, inputs)[0][0]
        return flow.run(plan, policy, inputs, dict(zip([site.value], probes, strict=True)) if site else None)[0]

    leaves, there = sent_down(run, ([traced.args[k] for k in live], probes), start)
    return leaves, there[0] if there else None


def planned(traced: Trace, table: Rules) -> tuple[Plan, Propagation]:
    """The plan of a traced function, and the policy that runs it under a table."""
    plan = make_plan(traced.program, traced.live)
    return plan, Propagation(table, sites.survey(traced).names())


def readable(traced: Trace, plan: Plan, at: At) -> sites.Site:
    """The site, if relevance can be read there: between units."""
    site = sites.resolve(traced, at)
    inner = {v: unit for _, unit in plan.units() for op in unit.ops for v in op.outputs}
    between = {v for p, unit in plan.units() for v in (*unit.outputs, *p.program.inputs)}
    between |= {v for step in plan.steps for v in step.outputs}
    if site.value not in between:
        unit = inner.get(site.value)
        where = f"the {unit.kind} unit that ends at {unit.ops[-1].place}" if unit else "an operation"
        raise SiteError(
            f"site {at!r} is inside {where}: what follows it was folded into the unit, which has relevance only "
            "at its ends; name what the unit returns"
        )
    return site


def sent_down(run: Callable[[Any], jax.Array], x: Any, start: Any) -> Any:
    """The cotangent of x, from run(x) or from `start`; NaN wherever run(x) is."""
    y, back = jax.vjp(run, x)
    # y * 0: under shard_map what starts must vary over the mesh as y does.
    (sent,) = back(y if start is None else y * 0 + jnp.asarray(start, y.dtype))
    unknown = jnp.isnan(y).any()
    return jax.tree.map(lambda r: jnp.where(unknown, jnp.nan, r), sent)
