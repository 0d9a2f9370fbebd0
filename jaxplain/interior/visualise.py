"""What drives a unit: attributions of its activation, and the input's pixels scaled by them."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxplain._tree import check_argnums, named_after
from jaxplain.attribution.gradients import gradient
from jaxplain.engine.interventions import capture
from jaxplain.engine.sites import At
from jaxplain.interior.influence import unit_activation
from jaxplain.interior.units import channel_of, check_axis

ChannelValue = Literal["max", "mean"]


def visualise_unit(
    f: Callable[..., Any],
    at: At,
    unit: int | Sequence[int] | jax.Array,
    *,
    method: Callable[..., Any] = gradient,
    reduce: ChannelValue = "max",
    channel_axis: int = -1,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    r"""What of the input drives a unit: an attribution of its activation, of a channel's $\max_p h(x)_{p,u}$.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        unit: the number of a channel, which may be traced, or the place of one unit, as in `unit_activation`.
        method: how the activation is explained: `gradient`, `guided_backprop`, `integrated_gradients`, or any
            transform of a scalar function, such as `functools.partial(integrated_gradients, num_steps=64)`.
        reduce: what is explained of a channel: its largest value, "max", or "mean".
        channel_axis: the axis of the site that holds the channels.
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        What `method` makes: of a deterministic one `explain(x, *args)` with the structure of `x`, of `gradient` in
        units of the site over those of `x`.

    Raises:
        SiteError: the site is missing or ambiguous.
        IndexError: there is no such channel or unit.
        ValueError: the site has no such axis, or `reduce` is unknown.
        TypeError: `x` has no float leaves, `method` is no function, or the unit is no whole number.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(jnp.stack([x, x**2], -1), "features").sum()
        >>> print(jxp.interior.visualise_unit(f, "features", 1)(jnp.array([1.0, -3.0, 2.0])))
        [ 0. -6.  0.]

    When not to trust it: as the method. The largest value of a channel changes place with the input; guided
    backpropagation draws much the same edges for many units.

    Source: Leino et al. 2018 (the largest value of a channel); Springenberg et al. 2015, section 3.4 (guided).
    """
    argnums = check_argnums(argnums)
    if not callable(method):
        raise TypeError(f"method is a transform, such as jaxplain.gradient, not {method!r}")
    if reduce not in get_args(ChannelValue):
        raise ValueError(f"reduce must be 'max' or 'mean', not {reduce!r}")
    if isinstance(unit, Sequence):
        quantity = unit_activation(f, at, unit, argnums=argnums, params=params)
    else:
        quantity = channel_value(f, at, unit, reduce, channel_axis, argnums, params)
    # The default is not passed on, so that a transform of one's own need not take it.
    return method(quantity) if argnums == 0 else method(quantity, argnums=argnums)


def channel_value(
    f: Callable[..., Any],
    at: At,
    unit: Any,
    reduce: ChannelValue,
    channel_axis: int,
    argnums: int | tuple[int, ...],
    params: Any,
) -> Callable[..., jax.Array]:
    """The largest, or the mean, value of a channel."""
    read = capture(f, at, argnums=argnums, params=params)

    @named_after(f, "channel_value")
    def quantity(*args, **kwargs):
        z = read(*args, **kwargs)[1][at]
        values = channel_of(z, unit, channel_axis, at)
        return values.max() if reduce == "max" else values.mean()

    return quantity


def scaled_pixels(
    x: Any, attribution: Any, *, percentile: float = 99.0, channel_axis: int | None = -1
) -> jax.Array:
    r"""The input itself, each pixel scaled by its positive influence: $x \min(1, A^+ / A^+_{q})$.

    $A^+$ is the positive part of the attribution summed over colours, $A^+_q$ its percentile over the pixels (its
    maximum where that is 0). What does not speak for the unit turns to 0, black.

    Args:
        x: an image (H, W, C), or any array.
        attribution: of the same shape.
        percentile: the influence from which on a pixel is shown in full, in (0, 100].
        channel_axis: the axis of the colours; None where there is none.

    Returns:
        Floats of the shape of `x`, in its units; 0 everywhere if no influence is positive, NaN if one is NaN.

    Raises:
        ValueError: the shapes differ or are empty, there is no such axis, or the percentile is out of range.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> x = jnp.array([[1.0, 1.0], [0.5, 0.5], [1.0, 0.5]])  # three pixels, two colours
        >>> a = jnp.array([[2.0, 2.0], [1.0, 0.0], [-3.0, 1.0]])
        >>> print(jxp.interior.scaled_pixels(x, a, percentile=100.0))
        [[1.    1.   ]
         [0.125 0.125]
         [0.    0.   ]]

    When not to trust it: a dark pixel stays dark however much it matters, and what speaks against is not shown;
    `plot.overlay` shows both.

    Source: Leino et al. 2018.
    """
    image, influence = jnp.asarray(x), jnp.asarray(attribution)
    if image.shape != influence.shape or image.size == 0:
        raise ValueError(
            f"x has shape {image.shape} and the attribution {influence.shape}; they need the same one, not empty"
        )
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must lie in (0, 100], not {percentile}")
    if not jnp.issubdtype(image.dtype, jnp.floating):
        image = image.astype(jnp.result_type(float))
    if channel_axis is not None:
        influence = influence.sum(check_axis(channel_axis, influence.shape, "x"), keepdims=True)
    influence = jnp.maximum(influence, 0)
    limit = jnp.percentile(influence, percentile)
    limit = jnp.where(limit == 0, influence.max(), limit)
    share = jnp.minimum(influence / jnp.where(limit == 0, 1, limit), 1)
    return image * share.astype(image.dtype)
