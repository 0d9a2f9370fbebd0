"""What of the input a unit can see at all."""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._tree import check_argnums, describe, named_after
from jaxplain.engine import dependence, sites
from jaxplain.engine.interventions import seen_through
from jaxplain.engine.sites import At
from jaxplain.engine.trace import trace
from jaxplain.engine.walk import made_by


class Box(NamedTuple):
    """A box of elements: from `start` (ndim,) to before `stop` (ndim,), one number an axis."""

    start: jax.Array
    stop: jax.Array


def receptive_field(
    f: Callable[..., Any],
    at: At,
    index: int | Sequence[int] | jax.Array,
    *,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    """The input elements that a unit's activation can depend on, by the operations between them.

    Told from the program and not from numbers: a ReLU that is off hides nothing, and every weight and factor
    counts as a connection, one that is 0 too (what causal attention masks with -inf is such a factor). Exact for
    convolutions of any stride, padding, dilation and grouping, dense layers, pooling, elementwise functions,
    reductions, moves, choices by a constant mask, scan, cond and remat. Where the input itself says what is read
    (indices, branches), everything that could be read counts.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        index: the unit's place in the site, as in `unit_activation`: one number an axis, leading axes of size 1
            not counted. It may be traced: `vmap` finds the fields of many units in one go (a traced place outside
            of the site sees nothing).
        argnums: which positional argument(s) to look at.
        params: the parameters that `f` closes over, to name layers by their paths in it.

    Returns:
        `find(x, *args)`: booleans with the structure of `x`. They depend on the shape of `x` alone. Under
        `jax.jit` a deep network takes seconds, without it a while at the first call.

    Raises:
        SiteError: the site is missing or ambiguous.
        IndexError: there is no such unit.
        UnsupportedOperation: an operation on the way is not known, such as `while` or an opaque kernel.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(jnp.convolve(x, jnp.array([1.0, 0.0, 1.0]), "same"), "conv").sum()
        >>> print(jxp.interior.receptive_field(f, "conv", 3)(jnp.zeros(6)).astype(int))
        [0 0 1 1 1 0]

    When not to trust it: what a unit can see is more than what it heeds: the middle counts for most, often like
    a Gaussian that covers a small part of the field. A layer that normalises over space widens the field to all.

    Source: Luo et al. 2016, section 2, for the theoretical and the effective field; Araujo, Norris and Sim 2019.
    """
    argnums = check_argnums(argnums)
    several: Any = index if isinstance(index, Sequence) or jnp.ndim(index) == 1 else (index,)
    place = tuple(several)

    @named_after(f, "receptive_field")
    def find(*args, **kwargs):
        traced = seen_through(trace(f, args, kwargs, argnums=argnums, params=params), [at])
        program, live = traced.program, traced.live
        site = sites.resolve(traced, at)
        unit = {site.value: one_unit(site.shape, place, at)}
        own = site.value in made_by(program)
        given = {v: array for v, array in zip(program.inputs, traced.args, strict=True) if v not in live}
        masks = dependence.sources(program, live, given, unit if own else {}, {} if own else unit)
        return traced.like_explained([masks.of(v) for v in live])

    return find


def one_unit(shape: tuple[int, ...], place: tuple[Any, ...], at: At) -> jax.Array:
    """True at one place of a site, leading axes of size 1 not counted."""
    whole = shape
    while len(shape) > len(place) and shape[0] == 1:
        shape = shape[1:]
    outside = [not (_jax.is_tracer(i) or -n <= operator.index(i) < n) for i, n in zip(place, shape, strict=False)]
    if len(shape) != len(place) or any(outside):
        raise IndexError(
            f"site {at!r} has shape {whole}, and no unit {place}: give one number an axis (leading axes of size 1 "
            "apart), within its length"
        )
    mask = jnp.ones(shape, bool)
    for axis, (i, n) in enumerate(zip(place, shape, strict=True)):
        i = jnp.asarray(i, jnp.int32)
        here = jnp.arange(n, dtype=jnp.int32) == jnp.where(i < 0, i + n, i)
        mask &= jnp.expand_dims(here, [k for k in range(len(shape)) if k != axis])
    return mask.reshape(whole)


def bounding_box(field: Any) -> Box:
    """The smallest box of elements that holds all of a receptive field, or of any booleans.

    A field that ends at the border of an image is a field that was cut there: what lies beyond is padding.

    Args:
        field: booleans, one array.

    Returns:
        `Box(start, stop)`: two int32 arrays (ndim,), so that the box is `x[start[0]:stop[0], ...]`; both 0 where
        nothing is True.

    Raises:
        TypeError: the field is no array of booleans.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> box = jxp.interior.bounding_box(jnp.array([[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]) > 0)
        >>> print(box.start, box.stop)
        [0 1] [1 4]

    When not to trust it: of a field with holes or of another shape than a box it says only the borders.

    Source: Araujo, Norris and Sim 2019 (fields as intervals).
    """
    if getattr(field, "dtype", None) != jnp.dtype(bool):
        raise TypeError(f"a receptive field is one array of booleans, not {describe(field)}")
    field = jnp.asarray(field)
    starts, stops = [], []
    for axis, n in enumerate(field.shape):
        met = field.any([k for k in range(field.ndim) if k != axis])
        starts.append(jnp.argmax(met))
        stops.append(jnp.where(met.any(), n - jnp.argmax(met[::-1]), 0))
    empty = (jnp.zeros(0, jnp.int32),) * 2
    start, stop = (jnp.stack(starts), jnp.stack(stops)) if starts else empty
    return Box(start.astype(jnp.int32), stop.astype(jnp.int32))
