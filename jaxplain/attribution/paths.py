"""Path methods: gradients integrated from a baseline to the input.

By the gradient theorem, for any path from a baseline x' to x, the integral of the gradient along it is
f(x) - f(x'); split by coordinate, it is a complete attribution. The methods differ in the path: straight
(`integrated_gradients`), straight from a random reference (`expected_gradients`), through ever less blurred
copies of the input (`blur_integrated_gradients`), or along the features that matter least first
(`guided_integrated_gradients`).

Of a quadrature only one thing is asked: that its weights sum to exactly 1, so that a function with constant
gradient g gets exactly (x - x') g. Nodes and weights take the type of the input, 16-bit inputs are summed in
float32. How far the sum misses f(x) - f(x') is `jaxplain.metrics.completeness_gap`: look at it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxplain._chunk import accumulator_dtype, cast_like, check_count, moments, to_accumulator, weighted_sum
from jaxplain._estimate import Estimate
from jaxplain._tree import Scalar, background_like, explainer, reference_like, sampler, slope_of
from jaxplain.attribution.scale_space import blurred

Explainer = Callable[..., Any]
Nodes = Literal["gauss_legendre", "midpoint", "trapezoid", "left", "right"]


def quadrature(nodes: Nodes, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights that sum to 1, in float64.

    Gauss-Legendre with n nodes is exact for polynomials of degree 2n - 1; midpoint and trapezoid for degree 1;
    left and right for constants.

    Args:
        nodes: the rule.
        num_steps: the number of nodes; the trapezoid rule needs 2.

    Returns:
        Two arrays of shape (num_steps,).

    Raises:
        ValueError: the rule is unknown, or has too few nodes.

    Example:
        >>> from jaxplain.attribution.paths import quadrature
        >>> alphas, weights = quadrature("trapezoid", 3)
        >>> print(alphas, weights)
        [0.  0.5 1. ] [0.25 0.5  0.25]
    """
    rules = ("gauss_legendre", "midpoint", "trapezoid", "left", "right")
    if nodes not in rules:
        raise ValueError(f"nodes must be one of {', '.join(map(repr, rules))}, not {nodes!r}")
    n = check_count("num_steps", num_steps, least=2 if nodes == "trapezoid" else 1)
    grid, even = np.arange(n, dtype=np.float64), np.full(n, 1.0 / n)
    if nodes == "midpoint":
        return (grid + 0.5) / n, even
    if nodes == "left":
        return grid / n, even
    if nodes == "right":
        return (grid + 1) / n, even
    if nodes == "trapezoid":
        weights = np.full(n, 1.0 / (n - 1))
        weights[[0, -1]] /= 2
        return grid / (n - 1), weights
    return gauss_legendre(n)


@functools.cache
def gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and weights of Gauss and Legendre on [0, 1]: kept, since they take seconds for thousands."""
    roots, weights = np.polynomial.legendre.leggauss(n)
    return (roots + 1) / 2, weights / weights.sum()


def integrated_gradients(
    f: Scalar,
    baseline: Any = 0.0,
    *,
    num_steps: int = 32,
    nodes: Nodes = "gauss_legendre",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Integrated gradients: $R_i = (x_i - x'_i) \int_0^1 \partial_i f(x' + \alpha (x - x')) \, d\alpha$.

    The straight path gives each coordinate the mean slope between baseline and input, times its difference.
    $\sum_i R_i = f(x) - f(x')$, up to the error of the quadrature.

    Args:
        f: `f(x, *args)` returns a float scalar.
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline` (`blur(sigma)`,
            `constant(v)`, `noise(key, sigma)`). What counts as "nothing there" is a choice, and it shows.
        num_steps: the number of gradients evaluated.
        nodes: the quadrature. Gauss-Legendre is exact for polynomials of degree 2 num_steps - 1.
        chunk_size: how many gradients run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, `num_steps` is below 1, the rule is unknown, the
            baseline has another shape, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> jxp.integrated_gradients(f)(jnp.array([3.0, 2.0])).round(4)  # sums to f(x) = 18
        Array([12.,  6.], dtype=float32)

    When not to trust it: features equal to their baseline get zero (black objects before a black baseline); the
    path leaves the data, and gradients there weigh as much as near `x`; kinks slow the quadrature, so check the
    gap before comparing small values.

    Source: Sundararajan et al. 2017, eqs. (1) and (3).
    """
    alphas, weights = quadrature(nodes, num_steps)

    def attribute(fx, x):
        start = to_accumulator(reference_like("baseline", baseline, x))
        step = jax.tree.map(jnp.subtract, to_accumulator(x), start)

        def slope(alpha):
            point = jax.tree.map(lambda b, d: b + alpha.astype(b.dtype) * d, start, step)
            return slope_of(fx)(cast_like(point, x))

        dtype = path_dtype(x)
        points, shares = jnp.asarray(alphas, dtype), jnp.asarray(weights, dtype)
        mean_slope = weighted_sum(slope, points, shares, chunk_size=chunk_size)
        return cast_like(jax.tree.map(jnp.multiply, step, mean_slope), x)

    return explainer(f, argnums, "integrated_gradients", attribute)


def expected_gradients(
    f: Scalar,
    background: Any,
    *,
    num_samples: int = 64,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Expected gradients (GradientSHAP): integrated gradients averaged over references, by sampling.

    $R_i = E_{x', \alpha} [(x_i - x'_i) \, \partial_i f(x' + \alpha (x - x'))]$.

    Each sample draws a reference $x'$ from the background and
    $\alpha$ uniformly from [0, 1], and costs one gradient. The expectation sums to $f(x) - E f(x')$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis.
        num_samples: the number of gradients evaluated.
        chunk_size: how many gradients run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(key, x, *args) -> Estimate(value, std_error)`, both with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, the background has another shape or is empty,
            `num_samples` is below 1, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> explain = jxp.expected_gradients(lambda x: 3 * x[0] - x[1], jnp.zeros((1, 2)))
        >>> explain(jax.random.key(0), jnp.array([1.0, 2.0])).value
        Array([ 3., -2.], dtype=float32)

    When not to trust it: while `std_error` is not small beside the differences you read; and as for integrated
    gradients, it explains the difference from this background, not from nothing.

    Source: Erion et al. 2021; Lundberg and Lee 2017 (GradientSHAP in shap and captum).
    """
    check_count("num_samples", num_samples)

    def attribute(key, fx, x):
        references, count = background_like(background, x)
        dtype = path_dtype(x)
        which, where = jax.random.split(key)
        rows = jax.random.randint(which, (num_samples,), 0, count)
        alphas = jax.random.uniform(where, (num_samples,), dtype)

        def sample(point):
            row, alpha = point
            start = to_accumulator(jax.tree.map(lambda leaf: leaf[row], references))
            step = jax.tree.map(jnp.subtract, to_accumulator(x), start)
            along = jax.tree.map(lambda b, d: b + alpha.astype(b.dtype) * d, start, step)
            slope = slope_of(fx)(cast_like(along, x))
            return jax.tree.map(lambda d, s: d * s.astype(d.dtype), step, slope)

        mean, variance = moments(sample, (rows, alphas), chunk_size=chunk_size)
        error = jax.tree.map(lambda v: jnp.sqrt(v / num_samples), variance)
        return Estimate(cast_like(mean, x), cast_like(error, x))

    return sampler(f, argnums, "expected_gradients", attribute)


def blur_integrated_gradients(
    f: Scalar,
    *,
    max_sigma: float = 50.0,
    num_steps: int = 32,
    axes: Sequence[int] | None = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Blur integrated gradients: the path runs through ever less blurred copies of the input.

    $R_i = -\int_0^{\sigma_{max}} \partial_i f(L_\sigma) \, \partial_\sigma L_{\sigma,i} \, d\sigma$.

    The copies $L_\sigma$ are Gaussian-blurred, and the path goes from blurred to sharp: no baseline
    colour is chosen and no new features are made on the way. $\sum_i R_i = f(x) - f(L_{\sigma_{max}})$, up to
    the error of the quadrature: Gauss-Legendre in $u$ with $\sigma = \sigma_{max} u^2$, since most of the
    detail goes at small $\sigma$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        max_sigma: standard deviation of the strongest blur, in grid steps (pixels); may be traced.
        num_steps: the number of gradients evaluated.
        axes: the axes to blur; None means every axis but the last (of a vector: its only one).
        chunk_size: how many gradients run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, `num_steps` is below 1, `max_sigma` is not
            positive, no such axis, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[2, 2, 0]
        >>> x = jnp.zeros((5, 5, 1)).at[2, 2, 0].set(1.0)
        >>> print(jxp.blur_integrated_gradients(f)(x).sum().round(2))  # f(x) - f(blurred) = 1 - 1/25
        0.96

    When not to trust it: what a blur leaves unchanged (large even areas, overall colour) is never credited.

    Source: Xu et al. 2020, with the discrete scale space of Lindeberg 1990 (see `scale_space`).
    """
    if isinstance(max_sigma, int | float) and not 0 < max_sigma < float("inf"):
        raise ValueError(f"max_sigma must be positive and finite, in grid steps, not {max_sigma}")
    roots, weights = quadrature("gauss_legendre", num_steps)

    def attribute(fx, x):
        exact = to_accumulator(x)

        def slice_of_integral(u):
            def path(u):
                sigma = max_sigma * jnp.square(u)
                return jax.tree.map(lambda leaf: blurred(leaf, sigma.astype(leaf.dtype), axes), exact)

            point, velocity = jax.jvp(path, (u,), (jnp.ones_like(u),))
            slope = slope_of(fx)(cast_like(point, x))
            return jax.tree.map(lambda v, s: -v * s.astype(v.dtype), velocity, slope)

        dtype = path_dtype(x)
        points, shares = jnp.asarray(roots, dtype), jnp.asarray(weights, dtype)
        return cast_like(weighted_sum(slice_of_integral, points, shares, chunk_size=chunk_size), x)

    return explainer(f, argnums, "blur_integrated_gradients", attribute)


def guided_integrated_gradients(
    f: Scalar,
    baseline: Any = 0.0,
    *,
    num_steps: int = 64,
    fraction: float = 0.1,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Guided integrated gradients: the path moves first the features with the smallest gradients.

    From the baseline, each of `num_steps` steps shortens the L1 distance to `x` by an equal amount. It takes the
    `fraction` of features with the smallest $|\partial_i f|$ that have not yet arrived and moves them towards
    `x`, wholly if that is not enough, and then the next fraction; every move $\Delta x$ is credited with
    $\Delta x_i \, \partial_i f$. Noise from steep places off the path is avoided. It sums to $f(x) - f(x')$ up to
    the error of that Riemann sum, which can be most of it.

    Args:
        f: `f(x, *args)` returns a float scalar.
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline`.
        num_steps: the number of gradients evaluated, one after another.
        fraction: the share of all features that moves together, above 0 and at most 1; 1 is the straight path.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, `num_steps` is below 1, `fraction` is not in
            (0, 1], the baseline has another shape, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> jxp.guided_integrated_gradients(f, num_steps=2000)(jnp.array([3.0, 2.0])).sum().round(1)
        Array(18., dtype=float32)

    When not to trust it: the path depends on the network, so two networks that agree everywhere near `x` may
    differ, and implementation invariance and linearity are given up. What moves is chosen for having a small
    gradient where it starts, so its credit is biased towards 0: of EfficientNet-Lite0's score some 90 % is missed
    at 64 steps, and more steps hardly help. Look at `completeness_gap`.

    Source: Kapishnikov et al. 2021, algorithm 1, without the optional bound on the path's distance from the
    straight line.
    """
    check_count("num_steps", num_steps)
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}")

    def attribute(fx, x):
        start = to_accumulator(reference_like("baseline", baseline, x))
        flat_start, unflatten = ravel_pytree(start)
        flat_end, _ = ravel_pytree(to_accumulator(x))

        def slope(point):
            grads = slope_of(fx)(cast_like(unflatten(point), x))
            return ravel_pytree(to_accumulator(grads))[0]

        path = lowest_slopes_first(slope, flat_start, flat_end, num_steps=num_steps, fraction=fraction)
        return cast_like(unflatten(path), x)

    return explainer(f, argnums, "guided_integrated_gradients", attribute)


def lowest_slopes_first(
    slope: Callable[[jax.Array], jax.Array],
    start: jax.Array,
    end: jax.Array,
    *,
    num_steps: int,
    fraction: float,
) -> jax.Array:
    """The attribution along the guided path between two vectors.

    Within a step the gradient is fixed, so the order in which features move is too: sort by its magnitude, cut
    the features that have not arrived into groups of `fraction` of all (a group takes in all that tie with its
    last, as a quantile does), and let groups move until the L1 distance of the step is used up: all of it for
    the groups before, a share of it in the group where it ends.
    """
    size = start.shape[0]
    group = int(np.floor(fraction * (size - 1))) + 1  # as many as a lower quantile at `fraction` includes
    num_groups = -(-size // group)
    whole = jnp.abs(end - start).sum()
    still_to_go = 1 - (jnp.arange(num_steps, dtype=end.dtype) + 1) / num_steps

    def step(state, left_after):
        point, credit = state
        grads = slope(point)
        distance = jnp.abs(end - point)
        # Towards what is to be left, not by equal amounts: what rounding held back is caught up, and all arrives.
        reach = jnp.maximum(0, distance.sum() - left_after * whole)
        # Features that have arrived sort behind all others, and have no distance left to give.
        cost = jnp.where(distance > 0, jnp.abs(grads), jnp.inf)
        order = jnp.argsort(cost, stable=True)
        ranked = cost[order]

        def next_bound(first, _):
            last = ranked[jnp.minimum(first + group - 1, size - 1)]
            bound = jnp.searchsorted(ranked, last, side="right").astype(first.dtype)
            return bound, bound

        nothing = (cost[0] < 0).astype(jnp.int32)  # 0, and varying over a mesh as the data do
        _, bounds = jax.lax.scan(next_bound, nothing, None, length=num_groups)
        groups = jnp.searchsorted(bounds, jnp.arange(size, dtype=bounds.dtype), side="right")
        per_group = jax.ops.segment_sum(distance[order], groups, num_segments=num_groups)
        before = jnp.cumsum(per_group) - per_group
        room = jnp.where(per_group > 0, per_group, 1)
        share = jnp.zeros_like(point).at[order].set(jnp.clip((reach - before) / room, 0, 1)[groups])
        share = jnp.where(left_after == 0, 1, share)
        # A feature that arrives does so exactly, or rounding would keep it among those that can still move.
        moved = jnp.where(share == 1, end, point + share * (end - point))
        return (moved, credit + (moved - point) * grads), None

    # Zeros that vary over a mesh as the data do, as a scan's carry must.
    zero = jnp.zeros_like(end) * end
    (_, credit), _ = jax.lax.scan(step, (start + zero, zero), still_to_go)
    return credit


def path_dtype(x: Any) -> Any:
    """The type of nodes and weights: the widest accumulator type among the leaves of `x`."""
    return max((accumulator_dtype(leaf.dtype) for leaf in jax.tree.leaves(x)), key=lambda d: jnp.finfo(d).bits)
