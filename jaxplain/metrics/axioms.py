"""Do the numbers obey what the method promises? Residuals are always attribution total minus explained amount."""

from typing import Any

import jax

from jaxplain._tree import Scalar, problem, reference_like, total


def completeness_gap(f: Scalar, attribution: Any, x: Any, baseline: Any = 0.0, *args: Any) -> jax.Array:
    r"""By how much an attribution misses the difference it should sum to: $\sum_i R_i - (f(x) - f(x'))$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        attribution: a pytree like `x`.
        x: the explained input.
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline`.
        *args: the further arguments of `f`.

    Returns:
        A scalar in units of `f`; positive when the attribution claims too much.

    Raises:
        ValueError: `f` returns something other than a scalar, or the baseline has another shape.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> from jaxplain.metrics import completeness_gap
        >>> f, x = lambda x: (x**2).sum(), jnp.array([1.0, 2.0])
        >>> print(completeness_gap(f, jxp.gradient_times_input(f)(x), x))  # 10 claimed of 5
        5.0

    When not to trust it: a gap of 0 says that the shares add up, not that they are fair.

    Source: Sundararajan et al. 2017, proposition 1.
    """
    fx, leaves = problem(f, 0, (x, *args), {})
    claimed = total(attribution)
    here, there = fx(leaves), fx(reference_like("baseline", baseline, leaves))
    return claimed - (here.astype(claimed.dtype) - there.astype(claimed.dtype))
