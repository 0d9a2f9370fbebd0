r"""Influence of internal values on a quantity of interest, over a distribution of inputs.

A function is cut at a site, f = g after h, and z = h(x). What a unit of z did for the output is the derivative of
g by it, averaged over inputs that matter: one, those of a class, the line from a baseline. The quantity of
interest is any scalar f: a class score, a contrast of two, a unit further on (`unit_activation`).
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import cast_like, to_accumulator, weighted_sum
from jaxplain._tree import Scalar, check_argnums, count, named_after, positions, reference_like
from jaxplain.attribution import paths
from jaxplain.attribution.gradients import gradient
from jaxplain.attribution.paths import Nodes, path_dtype
from jaxplain.engine.interventions import capture
from jaxplain.engine.sites import At
from jaxplain.interior.sliced import Sliced, slice_for

Explainer = Callable[..., Any]


def internal_influence(
    f: Scalar,
    at: At,
    *,
    weights: Any = None,
    times_activation: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Internal influence: $\chi = \sum_k w_k \frac{\partial g}{\partial z}(h(x_k))$, the mean slope by the units.

    Args:
        f: the quantity of interest, `f(x, *args)` returns a float scalar.
        at: the site z, as in `slice_at`; for f = g after h.
        weights: the distribution of interest: one number of at least 0 an input, divided by their sum; None for
            all alike. They may be traced, and are then not checked: what is no distribution gives NaN.
        times_activation: whether every slope is multiplied by the activation it was taken at.
        chunk_size: how many inputs run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) hold the inputs; the others are shared by all of them.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(xs, *args)`: an array of the shape of the site, in units of `f` over those of the site (or of
        `f`). `xs` is like `x` with a leading axis of inputs.

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it.
        ValueError: there are no inputs, weights of another number, negative, or all 0; `f` returns no scalar.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: (jxp.tag(x**2, "squares") * jnp.array([1.0, 3.0])).sum() ** 2
        >>> print(jxp.interior.internal_influence(f, "squares")(jnp.array([[1.0, 0.0], [1.0, 1.0]])))
        [ 5. 15.]

    When not to trust it: a mean over many inputs hides units that help on some and hurt on others; the slope says
    nothing of what happens when a unit is switched off altogether (`drop_units` does). At a site inside a scan the
    slope by each round is with the values of the other rounds held.

    Source: Leino et al. 2018, definition 1.
    """
    argnums = check_argnums(argnums)

    @named_after(f, "internal_influence")
    def explain(*args, **kwargs):
        where = positions(argnums, len(args))
        xs = tuple(args[i] for i in where)
        shares = shares_of(weights, xs)

        def one(x):
            given = list(args)
            for i, value in zip(where, x, strict=True):
                given[i] = value
            sliced = slice_for(f, at, tuple(given), kwargs, argnums=argnums, params=params, tokens=True)
            z, rest = sliced.cut()
            slope = sliced.slope(z, rest)
            types.append(slope.dtype)
            return slope * z if times_activation else slope

        types: list[Any] = []
        mean = weighted_sum(one, xs, shares, chunk_size=chunk_size)
        return mean.astype(types[0])

    return explain


def shares_of(weights: Any, xs: Any) -> jax.Array:
    """The distribution over inputs: weights that sum to 1."""
    total = count("xs", xs, "inputs")
    if weights is None:
        return jnp.full(total, 1 / total)
    if np.shape(weights) != (total,):
        raise ValueError(f"there are {total} inputs, but weights has shape {np.shape(weights)}")
    if not _jax.is_tracer(weights):
        weights = np.asarray(weights, float)
        if not ((weights >= 0) & (weights < np.inf)).all() or not weights.any():
            raise ValueError("weights are those of a distribution: none negative, NaN or infinite, and not all 0")
        weights = weights / weights.max()
    given = jnp.asarray(weights).astype(jnp.result_type(float))
    given = given / jax.lax.stop_gradient(given.max())  # so that the sum does not overflow
    return jnp.where((given >= 0).all(), given / given.sum(), jnp.nan)


def internal_integrated_gradients(
    f: Scalar,
    at: At,
    baseline: Any = 0.0,
    *,
    num_steps: int = 32,
    nodes: Nodes = "gauss_legendre",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Integrated gradients inside: $(z-z') \int_0^1 \frac{\partial g}{\partial z}(z' + \alpha(z - z')) d\alpha$.

    The path is straight in the space of the site, from $z' = h(x')$ to $z = h(x)$; what bypasses the site stays as
    it is for x. The sum is g(z) - g(z'): f(x) - f(x') where everything flows through the site.

    Args:
        f: `f(x, *args)` returns a float scalar.
        at: the site, as in `slice_at`.
        baseline: x': a number, an array, a pytree like `x`, or a callable `x -> baseline`.
        num_steps: the number of gradients evaluated.
        nodes: the quadrature, as in `integrated_gradients`.
        chunk_size: how many gradients run at once (None: all).
        argnums: which positional argument(s) the site depends on.
        params: the parameters that `f` closes over, to name layers by their paths in it.

    Returns:
        `explain(x, *args)`: an array of the shape of the site, in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it.
        ValueError: `f` returns no scalar, `num_steps` is below 1, the rule is unknown, the baseline does not fit.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(3 * x, "tripled").prod()
        >>> print(jxp.interior.internal_integrated_gradients(f, "tripled")(jnp.array([1.0, 2.0])).round(4))
        [9. 9.]

    When not to trust it: points between two activations need not be activations of any input.

    Source: Sundararajan et al. 2017, of g; Leino et al. 2018, section 2 (with a line for the distribution).
    """
    argnums = check_argnums(argnums)
    alphas, weights = paths.quadrature(nodes, num_steps)

    @named_after(f, "internal_integrated_gradients")
    def explain(*args, **kwargs):
        sliced = slice_for(f, at, args, kwargs, argnums=argnums, params=params)
        (z, rest), z0 = sliced.cut(), sliced.at(reference_of(baseline, sliced)).site()
        start, step = to_accumulator(z0), to_accumulator(z) - to_accumulator(z0)

        def slope(alpha):
            return sliced.slope((start + alpha * step).astype(z.dtype), rest)

        points, shares = (jnp.asarray(v, step.dtype) for v in (alphas, weights))
        return (step * weighted_sum(slope, points, shares, chunk_size=chunk_size)).astype(z.dtype)

    return explain


def conductance(
    f: Scalar,
    at: At,
    baseline: Any = 0.0,
    *,
    num_steps: int = 32,
    nodes: Nodes = "gauss_legendre",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Conductance: how much of $f(x) - f(x')$ flows through each unit, along the straight path of inputs.

    $\int_0^1 \frac{\partial g}{\partial z} \frac{d z}{d\alpha} \, d\alpha$ with $z = h(x' + \alpha (x - x'))$. The
    sum is f(x) - f(x') where everything flows through the site; what bypasses it is not counted.

    Args:
        f: `f(x, *args)` returns a float scalar.
        at: the site, as in `slice_at`.
        baseline: x', as in `internal_integrated_gradients`.
        num_steps: likewise.
        nodes: likewise.
        chunk_size: likewise.
        argnums: which positional argument(s) the path is one of.
        params: as in `internal_integrated_gradients`.

    Returns:
        `explain(x, *args)`: an array of the shape of the site, in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it.
        ValueError: `f` returns no scalar, `num_steps` is below 1, the rule is unknown, the baseline does not fit.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").prod()
        >>> print(jxp.interior.conductance(f, "squares")(jnp.array([1.0, 2.0])).round(4))  # sums to f(x) = 4
        [2. 2.]

    When not to trust it: kinks slow the quadrature (compare the sum); the path leaves the data.

    Source: Dhamdhere, Sundararajan and Yan 2019, eq. (3).
    """
    argnums = check_argnums(argnums)
    alphas, weights = paths.quadrature(nodes, num_steps)

    @named_after(f, "conductance")
    def explain(*args, **kwargs):
        sliced = slice_for(f, at, args, kwargs, argnums=argnums, params=params)
        x = sliced.leaves
        start = to_accumulator(reference_of(baseline, sliced))
        step = jax.tree.map(jnp.subtract, to_accumulator(x), start)

        def through(alpha):
            def there(alpha):
                point = [b + alpha.astype(b.dtype) * d for b, d in zip(start, step, strict=True)]
                return sliced.at(cast_like(point, x))

            z, flow, rest = jax.jvp(lambda a: there(a).cut(), (alpha,), (jnp.ones_like(alpha),), has_aux=True)
            types.append(z.dtype)
            return to_accumulator(sliced.slope(z, rest)) * to_accumulator(flow)

        types: list[Any] = []
        dtype = path_dtype(x)
        points, shares = jnp.asarray(alphas, dtype), jnp.asarray(weights, dtype)
        return weighted_sum(through, points, shares, chunk_size=chunk_size).astype(types[0])

    return explain


def reference_of(baseline: Any, sliced: Sliced) -> list[Any]:
    """The baseline of the explained inputs."""
    return jax.tree.leaves(reference_like("baseline", baseline, sliced.traced.like_explained(sliced.leaves)))


def unit_activation(
    f: Callable[..., Any],
    at: At,
    index: int | Sequence[int],
    *,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., jax.Array]:
    """The activation of one unit, a quantity of interest to be explained like a class score.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        index: the unit's place in the site, leading axes of size 1 not counted; negative from the end.
        argnums: which positional argument(s) the site depends on.
        params: the parameters that `f` closes over, to name layers by their paths in it.

    Returns:
        `unit(x, *args)`, a scalar.

    Raises:
        SiteError: the site is missing or ambiguous.
        IndexError: there is no such unit.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> print(jxp.interior.unit_activation(f, "squares", 1)(jnp.array([1.0, 3.0])))
        9.0

    When not to trust it: one unit is seldom one concept; directions of many may be (`concept_vector`).

    Source: Erhan et al. 2009, section 3.
    """
    place = tuple(operator.index(i) for i in (index if isinstance(index, Sequence) else (index,)))
    read = capture(f, at, argnums=argnums, params=params)

    @named_after(f, "unit_activation")
    def unit(*args, **kwargs):
        z = read(*args, **kwargs)[1][at]
        whole = z.shape
        while z.ndim > len(place) and z.shape[0] == 1:
            z = z[0]
        if z.ndim != len(place) or any(not -n <= i < n for i, n in zip(place, z.shape, strict=True)):
            raise IndexError(
                f"site {at!r} has shape {whole}, and no unit {place}: give one number an axis (leading axes of "
                "size 1 apart), within its length"
            )
        return z[place]

    return unit


def neuron_gradient(
    f: Callable[..., Any],
    at: At,
    index: int | Sequence[int],
    *,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""The gradient of one unit's activation by the input: $\partial h_u / \partial x$.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        index: the unit's place in the site, leading axes of size 1 not counted.
        argnums: which positional argument(s) to explain.
        params: the parameters that `f` closes over, to name layers by their paths in it.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of the site over those of `x`.

    Raises:
        SiteError: the site is missing or ambiguous.
        IndexError: there is no such unit.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> print(jxp.interior.neuron_gradient(f, "squares", 1)(jnp.array([1.0, 3.0])))
        [0. 6.]

    When not to trust it: a unit that is off behind a ReLU has gradient 0, whatever it looks for.

    Source: Simonyan, Vedaldi and Zisserman 2014, of a unit.
    """
    return gradient(unit_activation(f, at, index, argnums=argnums, params=params), argnums=argnums)
