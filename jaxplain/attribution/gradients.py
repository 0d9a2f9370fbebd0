"""Explanations by one gradient: gradient, gradient times input, sensitivity, saliency, Taylor.

All ask how the output would change if the input changed a little, at one point. They cost one gradient, equal
`jax.grad` where they should, and share its blind spots: a gradient sees the slope, not the distance already
travelled, so a saturated unit that decided everything has a gradient of zero; and at depth it is noisy
(Balduzzi et al. 2017). Average it (`smooth`) or integrate it (`integrated_gradients`) before reading much into
single pixels. Where the
output is NaN, so is the whole gradient: a ReLU's own derivative would pass 0 instead.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import to_accumulator
from jaxplain._tree import Scalar, explainer, reference_like, slope_of, total

Explainer = Callable[..., Any]


def gradient(f: Scalar, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""The gradient of the output by the input: $R_i = \partial f / \partial x_i$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`; in units of `f` per unit of `x`. Leaves of `x` that are
        not floats are held constant and come back as None.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> jxp.gradient(f)(jnp.array([3.0, 2.0]))
        Array([12.,  9.], dtype=float32)

    When not to trust it: it shows what would change the output, not what the output is made of.

    Source: Baehrens et al. 2010, eq. (2); Simonyan et al. 2014, section 3.
    """
    return explainer(f, argnums, "gradient", lambda fx, x: slope_of(fx)(x))


def gradient_times_input(f: Scalar, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""The gradient times the input: $R_i = x_i \, \partial f / \partial x_i$.

    For a bias-free piecewise-linear network it sums to `f(x)`, and equals LRP-0.

    Args:
        f: `f(x, *args)` returns a float scalar.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> jxp.gradient_times_input(f)(jnp.array([3.0, 2.0]))
        Array([36., 18.], dtype=float32)

    When not to trust it: an input of zero gets zero whatever the network makes of it (a black pixel is never
    shown), and the result changes when the input is shifted by a constant.

    Source: Shrikumar et al. 2016, section 2.
    """

    def attribute(fx, x):
        return jax.tree.map(jnp.multiply, x, slope_of(fx)(x))

    return explainer(f, argnums, "gradient_times_input", attribute)


def sensitivity(f: Scalar, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""The squared gradient: $R_i = (\partial f / \partial x_i)^2$.

    It sums to the squared norm of the gradient: a decomposition of the local slope, not of the output.

    Args:
        f: `f(x, *args)` returns a float scalar.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, not negative.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] ** 2 * x[1]
        >>> jxp.sensitivity(f)(jnp.array([3.0, 2.0]))
        Array([144.,  81.], dtype=float32)

    When not to trust it: it hides whether an input speaks for the output or against it.

    Source: Gevrey et al. 2003; Montavon et al. 2018, section 4.1.
    """
    return explainer(f, argnums, "sensitivity", lambda fx, x: jax.tree.map(jnp.square, slope_of(fx)(x)))


def saliency(f: Scalar, *, channel_axis: int | None = None, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""The magnitude of the gradient: $R_i = |\partial f / \partial x_i|$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        channel_axis: an axis of `x` to reduce by the maximum, as the paper does for colour channels; that axis
            is then missing from the result. None keeps every element.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, not negative.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array or no such channel axis,
            `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: (jnp.array([[1.0, -3.0], [0.0, 2.0]]) * x).sum()
        >>> jxp.saliency(f, channel_axis=-1)(jnp.ones((2, 2)))
        Array([3., 2.], dtype=float32)

    When not to trust it: it is as noisy as the gradient, and hides its sign.

    Source: Simonyan et al. 2014, section 3.1.
    """

    def magnitude(leaf):
        if channel_axis is None:
            return jnp.abs(leaf)
        if not -leaf.ndim <= channel_axis < leaf.ndim:
            raise ValueError(f"channel_axis={channel_axis} but the explained argument has shape {leaf.shape}")
        return jnp.abs(leaf).max(channel_axis)

    return explainer(f, argnums, "saliency", lambda fx, x: jax.tree.map(magnitude, slope_of(fx)(x)))


def taylor(f: Scalar, root: Any = 0.0, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""The first-order Taylor terms around a root: $R_i = (x_i - r_i) \, \partial f / \partial x_i |_{x=r}$.

    The gradient is taken at the **root**, so the terms sum to $f(x) - f(r)$ up to the remainder that
    `taylor_remainder` returns. A good root is near `x` and has $f(r) = 0$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        root: a number, an array, a pytree like `x`, or a callable `x -> root`.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `root` has another shape,
            `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1]
        >>> jxp.taylor(f, root=1.0)(jnp.array([3.0, 2.0]))
        Array([2., 1.], dtype=float32)
        >>> print(jxp.taylor_remainder(f, root=1.0)(jnp.array([3.0, 2.0])))  # 3 explained of 6 - 1
        -2.0

    When not to trust it: whenever the remainder is not small beside $f(x) - f(r)$. At a root of zero a ReLU
    network's gradient is that of an untypical input, or of a kink.

    Source: Montavon et al. 2017, section 3; Bach et al. 2015.
    """

    def attribute(fx, x):
        point = reference_like("root", root, x)
        return jax.tree.map(lambda leaf, at, slope: (leaf - at) * slope, x, point, slope_of(fx)(point))

    return explainer(f, argnums, "taylor", attribute)


def taylor_remainder(f: Scalar, root: Any = 0.0, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""What `taylor` misses: $\sum_i R_i - (f(x) - f(r))$, the attribution total minus the explained amount.

    Args:
        f: `f(x, *args)` returns a float scalar.
        root: a number, an array, a pytree like `x`, or a callable `x -> root`.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `remainder(x, *args)`, a scalar in units of `f`: 0 where `f` is linear between root and `x`.

    Raises:
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `root` has another shape,
            `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.taylor_remainder(lambda x: (2 * x + 1).sum())(jnp.array([3.0, 2.0])))
        0.0

    When not to trust it: a small remainder says that the terms add up, not that they are fair.

    Source: Montavon et al. 2017, section 3.
    """

    def attribute(fx, x):
        point = reference_like("root", root, x)
        value, slope = jax.value_and_grad(fx)(point)
        wide = map(to_accumulator, (x, point, slope))
        terms = total(jax.tree.map(lambda leaf, at, s: (leaf - at) * s, *wide))
        return terms - (fx(x).astype(terms.dtype) - value.astype(terms.dtype))

    return explainer(f, argnums, "taylor_remainder", attribute)
