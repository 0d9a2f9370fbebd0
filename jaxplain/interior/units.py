"""Which units matter, and the function with some of them only."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._tree import check_argnums, named_after
from jaxplain.engine.interventions import mix
from jaxplain.engine.sites import At

Reduce = Literal["mean", "max", "sum"]


def rank_units(influence: Any, *, channel_axis: int = -1, reduce: Reduce = "mean") -> jax.Array:
    """The channels of a site in the order of their influence, the largest first.

    Args:
        influence: an array of the shape of the site.
        channel_axis: the axis of the channels.
        reduce: what is made of the other axes: "mean", "max" or "sum".

    Returns:
        Indices (num_channels,), int32; equal ones in the order of their numbers. NaN comes last.

    Raises:
        ValueError: there is no such axis or reduction.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> print(jxp.interior.rank_units(jnp.array([[1.0, 5.0, -2.0], [1.0, -4.0, 0.0]])))
        [0 1 2]
        >>> print(jxp.interior.rank_units(jnp.array([[1.0, 5.0, -2.0], [1.0, -4.0, 0.0]]), reduce="max"))
        [1 0 2]

    When not to trust it: a mean or sum over places lets what speaks for and against cancel; units that stand in
    for one another each rank low.

    Source: Leino et al. 2018, section 4.2.
    """
    return jnp.argsort(-by_channel(jnp.asarray(influence), channel_axis, reduce)).astype(jnp.int32)


def by_channel(values: jax.Array, channel_axis: int, reduce: Reduce, name: str = "influence") -> jax.Array:
    """One number a channel: the mean, maximum or sum over all other axes."""
    if reduce not in ("mean", "max", "sum"):
        raise ValueError(f"reduce must be 'mean', 'max' or 'sum', not {reduce!r}")
    axis = check_axis(channel_axis, values.shape, name)
    others = tuple(k for k in range(values.ndim) if k != axis)
    return getattr(jnp, reduce)(values, axis=others)


def keep_units(
    f: Callable[..., Any],
    at: At,
    units: Any,
    *,
    baseline: Any = 0.0,
    channel_axis: int = -1,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    """`f` with all other channels of a site put at a baseline.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        units: the numbers of the channels to keep, negative from the end; may be traced, and then one that is not
            there makes the site NaN.
        baseline: what the others become: a number, or an array that broadcasts to the site.
        channel_axis: the axis of the site's channels.
        argnums: which positional argument(s) the site depends on.
        params: the parameters that `f` closes over, to name layers by their paths in it.

    Returns:
        A function of the same arguments as `f`.

    Raises:
        SiteError: the site is missing or ambiguous.
        ValueError: the site has no such axis, or the baseline does not fit.
        IndexError: there is no such channel.
        TypeError: units are no whole numbers.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> print(jxp.interior.keep_units(f, "squares", [1])(jnp.array([1.0, 2.0, 3.0])))
        4.0

    When not to trust it: the layers behind the site may never have seen so many units off.

    Source: Leino et al. 2018, section 4.2 (the compressed class expert).
    """
    return _with_units(f, at, units, baseline, channel_axis, argnums, params, kept=True)


def drop_units(
    f: Callable[..., Any],
    at: At,
    units: Any,
    *,
    baseline: Any = 0.0,
    channel_axis: int = -1,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    """`f` with some channels of a site put at a baseline.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        units: the numbers of the channels to drop; as in `keep_units`.
        baseline: as in `keep_units`.
        channel_axis: as in `keep_units`.
        argnums: as in `keep_units`.
        params: as in `keep_units`.

    Returns:
        A function of the same arguments as `f`.

    Raises:
        SiteError: the site is missing or ambiguous.
        ValueError: the site has no such axis, or the baseline does not fit.
        IndexError: there is no such channel.
        TypeError: units are no whole numbers.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> print(jxp.interior.drop_units(f, "squares", [1])(jnp.array([1.0, 2.0, 3.0])))
        10.0

    When not to trust it: as `keep_units`; units that stand in for one another each look dispensable.

    Source: Leino et al. 2018, section 4.2.
    """
    return _with_units(f, at, units, baseline, channel_axis, argnums, params, kept=False)


def _with_units(
    f: Callable[..., Any],
    at: At,
    units: Any,
    baseline: Any,
    channel_axis: int,
    argnums: int | Sequence[int],
    params: Any,
    *,
    kept: bool,
) -> Callable[..., Any]:
    numbers = jnp.asarray(units, int) if np.size(units) == 0 else jnp.asarray(units)
    if not jnp.issubdtype(numbers.dtype, jnp.integer):
        raise TypeError(f"units are whole numbers, not {numbers.dtype}; of flags: jnp.where(flags)[0]")

    def replaced(site):
        axis = check_axis(channel_axis, site.shape, f"site {at!r}")
        count = site.shape[axis]
        check_units(numbers, count, at)
        place = jnp.asarray(numbers, jnp.int32)  # in a short type the numbers of many channels would wrap round
        chosen = jnp.isin(jnp.arange(count, dtype=jnp.int32), jnp.where(place < 0, place + count, place))
        known = ((-count <= place) & (place < count)).all()
        away = jnp.where(known, ~chosen if kept else chosen, True)
        away = jax.lax.expand_dims(away, [k for k in range(len(site.shape)) if k != axis])
        try:
            instead = jnp.broadcast_to(jnp.asarray(baseline, site.value.dtype), site.shape)
        except ValueError as error:
            raise ValueError(f"baseline {jnp.shape(baseline)} does not fit site {at!r}, {site.shape}") from error
        return jnp.broadcast_to(away, site.shape), jnp.where(known, instead, jnp.nan)

    changed = mix(f, at, replaced, argnums=check_argnums(argnums), params=params)
    return named_after(f, "keep_units" if kept else "drop_units")(changed)


def check_units(numbers: Any, count: int, at: At) -> None:
    """An error for channels that are not there, where the numbers are known."""
    if _jax.is_tracer(numbers):
        return
    if wrong := [int(i) for i in np.ravel(numbers) if not -count <= i < count]:
        raise IndexError(f"site {at!r} has {count} channels, numbered from 0, and no channel {wrong[0]}")


def channel_of(z: jax.Array, unit: Any, channel_axis: int, at: At) -> jax.Array:
    """The values of one channel of a site; its number may be traced."""
    number = unit if _jax.is_tracer(unit) else operator.index(unit)
    axis = check_axis(channel_axis, z.shape, f"site {at!r}")
    check_units(number, z.shape[axis], at)
    return jnp.take(z, jnp.asarray(number, jnp.int32), axis=axis, mode="fill")  # NaN if there is none


def check_axis(axis: int, shape: tuple[int, ...], name: str = "influence") -> int:
    """An axis counted from 0."""
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"{name} has shape {shape}, and no axis {axis} for its channels")
    return axis % len(shape)
