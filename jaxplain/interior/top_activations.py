"""The examples that a unit responds to most, and the part of each that it saw."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count, stack
from jaxplain._tree import count, describe
from jaxplain.engine.interventions import tag
from jaxplain.interior.neighbours import site_of
from jaxplain.interior.receptive_field import bounding_box, receptive_field
from jaxplain.interior.units import channel_of, check_axis, check_units


class TopActivations(NamedTuple):
    """The k largest values (k,), in which examples (k,), and at which positions (k, ndim - 1).

    A position is that of the channel's largest value in the example, on the axes of the site but the channels'.
    """

    values: jax.Array
    examples: jax.Array
    positions: jax.Array


def top_activations(
    h: Callable[[Any], Any],
    dataset: Any,
    unit: int,
    k: int,
    *,
    channel_axis: int = -1,
    chunk_size: int | None = None,
) -> TopActivations:
    r"""The examples of a data set in which a channel reaches its largest values: $\max_p h(x_i)_{p, unit}$.

    Args:
        h: maps one example to the array of a site: the first half of `slice_at(f, at)`, or
            `lambda x: capture(f, at)(x)[1][at]`.
        dataset: an array, or a pytree of arrays, with a leading axis of examples.
        unit: the number of the channel, negative from the end. It may be traced: `vmap` serves many channels in
            one run of the data.
        k: how many.
        channel_axis: the axis of the site that holds the channels.
        chunk_size: how many examples run at once (None: all); memory grows with it, the result does not change.

    Returns:
        `TopActivations(values, examples, positions)`, each example at most once; equal values in the order of
        the examples, NaN first.

    Raises:
        ValueError: the data set is empty, its leaves differ in length, k is above it or below 1, the site has no
            such axis.
        IndexError: there is no such channel.
        TypeError: `h` returns something other than one array, or the unit is no whole number.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> h = lambda x: jnp.stack([x, -x], axis=-1)  # two channels
        >>> data = jnp.array([[0.0, 1.0], [3.0, -4.0], [2.0, 2.0]])
        >>> top = jxp.interior.top_activations(h, data, unit=0, k=2)
        >>> print(top.values, top.examples, top.positions.ravel())
        [3. 2.] [1 2] [0 0]

    When not to trust it: the top is the extreme tail, and units answer to much else in the middle of their range
    (Bolukbasi et al. 2021); look at random examples of the same value too.

    Source: Zeiler and Fergus 2014, section 4; Girshick et al. 2014, section 3.1.
    """
    total = count("dataset", dataset)
    if check_count("k", k) > total:
        raise ValueError(f"k={k}, but the data set has {total} examples")

    @jax.jit
    def run(dataset):
        shapes: list[tuple[int, ...]] = []

        def largest(x):
            values = channel_of(site_of(h, x), unit, channel_axis, "h(x)")
            shapes.append(values.shape)
            where = jnp.argmax(values)
            return values.reshape(-1)[where], where

        values, where = stack(largest, dataset, chunk_size=chunk_size)
        # `lax.top_k` ranks by bits: NaN with a sign, as sqrt(-1) has, would come last, and -0.0 behind 0.0.
        examples = jnp.argsort(values, descending=True)[:k]
        found = where[examples]
        positions = jnp.stack([*jnp.unravel_index(found, shapes[0]), found], -1)[:, :-1]
        return TopActivations(values[examples], examples.astype(jnp.int32), positions.astype(jnp.int32))

    return run(dataset)


def patches(
    h: Callable[[Any], Any], dataset: Any, top: TopActivations, unit: int, *, channel_axis: int = -1
) -> list[np.ndarray]:
    """The parts of the top examples that the channel saw: its receptive field at each position, cut out.

    Args:
        h: as in `top_activations`.
        dataset: the same examples, one array (n, ...).
        top: what `top_activations` found.
        unit: the number of the channel.
        channel_axis: as in `top_activations`.

    Returns:
        k arrays, each with the axes of an example. They are smaller where the field reaches over the border of
        the example into padding: what is there is cut, not filled.

    Raises:
        ValueError: examples are not one array each.
        TypeError: examples are integers; `dataset.astype(float)`.
        IndexError: there is no such channel, or examples or positions are not those of these data and this site.
        UnsupportedOperation, SiteError: as in `receptive_field`.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> h = lambda x: jnp.convolve(x, jnp.ones(3), "same")[:, None]
        >>> data = jnp.array([[0.0, 1.0, 2.0, 1.0], [5.0, 0.0, 0.0, 0.0]])
        >>> top = jxp.interior.top_activations(h, data, unit=0, k=2)
        >>> [print(patch) for patch in jxp.interior.patches(h, data, top, unit=0)][0]
        [5. 0.]
        [1. 2. 1.]

    When not to trust it: the field is what the unit can see, its position that of the one largest value; a deep
    unit's field is the whole image and says nothing of where it looked (`visualise_unit` does).

    Source: Girshick et al. 2014, section 3.1.
    """
    count("dataset", dataset)
    if not hasattr(dataset, "shape"):
        raise ValueError(f"patches are cut from examples that are one array each, not from {describe(dataset)}")

    like = jnp.zeros(dataset.shape[1:], jax.dtypes.canonicalize_dtype(dataset.dtype))
    shape = jax.eval_shape(lambda x: site_of(h, x), like).shape
    axis = check_axis(channel_axis, shape, "site 'h(x)'")
    check_units(np.asarray(unit), shape[axis], "h(x)")
    positions, examples = np.asarray(top.positions), np.asarray(top.examples)
    grid = np.delete(shape, axis)
    if positions.shape[1:] != grid.shape or not ((positions >= 0) & (positions < grid)).all():
        raise IndexError(
            f"positions {positions.shape} are not those of a site of shape {shape}: one number an axis but the "
            "channels', within its length"
        )
    if not ((examples >= 0) & (examples < len(dataset))).all():
        raise IndexError(f"examples are not those of a data set of {len(dataset)}")

    def box(place):
        return bounding_box(receptive_field(lambda x: tag(site_of(h, x), "h(x)"), "h(x)", place)(like))

    # One after another: a field takes the memory of a backward pass. The channel is a number of the call, not of
    # the program, so that a compilation cache knows the program for all channels.
    places = np.insert(positions, axis, unit % shape[axis], axis=1)
    found = jax.tree.map(np.asarray, jax.jit(lambda places: jax.lax.map(box, places))(jnp.asarray(places)))
    return [
        np.asarray(dataset[int(i)])[tuple(map(slice, start, stop))]
        for i, start, stop in zip(np.asarray(top.examples), found.start, found.stop, strict=True)
    ]
