"""Excitation backprop: the probability that a top-down random walk through positive weights ends at an input."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from jaxplain._errors import SiteError, UnsupportedOperation
from jaxplain._tree import Scalar, check_argnums, named_after
from jaxplain.attribution.lrp import descend, lrp, readable
from jaxplain.engine import flow, sites
from jaxplain.engine.plan import Plan, make_plan
from jaxplain.engine.sites import At
from jaxplain.engine.trace import Trace, Value, trace
from jaxplain.engine.units import bottlenecks
from jaxplain.rules.constructors import z_plus
from jaxplain.rules.messages import Opposed
from jaxplain.rules.propagation import Propagation
from jaxplain.rules.tables import EXCITATION, last

Explainer = Callable[..., Any]


def excitation_backprop(
    f: Scalar,
    *,
    at: At | None = None,
    init: Any = 1.0,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Excitation backprop: the marginal winning probability of each input, from 1 at the output.

    $P(a_i) = \sum_j \frac{a_i w_{ij}^+}{\sum_i a_i w_{ij}^+} P(a_j)$; biases are left out. For inputs of both
    signs $a_i^- w_{ij}^-$ counts too, so that this is the z+ rule without bias.

    Args:
        f: `f(x, *args)` returns a float scalar.
        at: where the map is read, a site; None for the input.
        init: what to start from.
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`, with the structure of `x`, or the shape of the site.

    Raises:
        UnsupportedOperation: no rule covers an operation between the input and the output.
        SiteError: the site is missing, ambiguous, or inside a unit.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([3.0, 1.0, -2.0]) @ x)
        >>> print(jxp.excitation_backprop(f)(jnp.ones(3)).round(2))
        [0.75 0.25 0.  ]

    When not to trust it: it sees excitation only; every class that shares a part lights up at it. The contrastive
    form tells classes apart.

    Source: Zhang et al. 2016, eq. 8.
    """
    return lrp(f, EXCITATION, init=init, at=at, argnums=argnums, params=params)


def contrastive_excitation_backprop(
    f: Scalar,
    *,
    at: At | None = None,
    contrast_at: At | None = None,
    init: Any = 1.0,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Contrastive excitation backprop: what excites this output, less what excites its opposite.

    The dual output has the last affine unit's weights negated. Its map is subtracted at the contrast site, and the
    difference goes on to the input: $P_c = P(w) - P(-w)$. Nothing is truncated.

    Args:
        f: `f(x, *args)` returns a float scalar, with one last affine unit.
        at: where the map is read, a site below the contrast; None for the input.
        contrast_at: the site at which the dual map is subtracted; None for the input of the last affine unit.
            Everything must flow through it.
        init: what both start from.
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`, with the structure of `x`, or the shape of the site.

    Raises:
        UnsupportedOperation: no rule covers an operation, or there is not one last affine unit.
        SiteError: a site is missing, ambiguous, inside a unit, or not all flows through the contrast.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.array([1.0, -1.0]) @ jax.nn.relu(jnp.array([[1.0, 0.0], [1.0, 1.0]]) @ x)
        >>> jxp.contrastive_excitation_backprop(f)(jnp.array([1.0, 1.0])).round(3)
        Array([ 0.5, -0.5], dtype=float32)

    When not to trust it: only the last layer is opposed; what speaks against a class in lower layers is not seen.

    Source: Zhang et al. 2016, section 3.3.
    """
    argnums = check_argnums(argnums)

    @named_after(f, "contrastive_excitation_backprop")
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True)
        plan, names = make_plan(traced.program, traced.live), sites.survey(traced).names()
        value = contrast_value(traced, plan, contrast_at)
        dual = dataclasses.replace(EXCITATION, entries=((last, Opposed(z_plus(bias="ignore"))),))

        contrast = sites.Site(value, (), "", plan.program.ops[0])
        excited, opposed = (
            descend(traced, plan, Propagation(table, names), init, contrast)[1] for table in (EXCITATION, dual)
        )
        difference = excited - opposed
        site = None if at is None else readable(traced, plan, at)
        if site is not None and site.value is value:
            return difference
        lower = make_plan(dataclasses.replace(plan.program, outputs=(value,)), traced.live)
        if site is not None and site.value not in flow.values_of(lower):
            raise SiteError(f"site {at!r} is above the contrast, where there is no difference yet")
        leaves, there = descend(traced, lower, Propagation(EXCITATION, names), difference, site)
        return there if site is not None else traced.like_explained(leaves)

    explain.argnums = argnums
    return explain


def contrast_value(traced: Trace, plan: Plan, contrast_at: At | None) -> Value:
    """The value at which the dual run is subtracted."""
    if len(plan.last) != 1 or not any(unit in plan.last for unit in plan.steps):
        raise UnsupportedOperation(
            f"contrastive excitation backprop negates the last affine unit, but there are {len(plan.last)} "
            "outside of scans; explain one logit of one dense head"
        )
    (unit,) = plan.last
    value = unit.inputs[0] if contrast_at is None else readable(traced, plan, contrast_at).value
    if value not in bottlenecks(plan.program, set(traced.live)) and value not in traced.live:
        what = "the last affine unit's input" if contrast_at is None else f"site {contrast_at!r}"
        raise SiteError(f"what depends on the input bypasses {what}; choose contrast_at= where everything flows")
    return value
