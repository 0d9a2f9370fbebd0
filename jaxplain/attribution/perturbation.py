"""Perturbation methods: take parts of the input away and see what the output loses.

    ablation     one group of elements at a time, each element belonging to one
    occlusion    a window slid over the leading axes; a place gets the mean over the windows that cover it
    rise         random smooth masks over the whole input; a place gets the mean output of the masks that keep it

They evaluate `f` and never differentiate it. What is away is at a `baseline`, whose choice shows in the result.
All evaluations go through one place that runs `chunk_size` of them at once, so memory does not grow with their
number. NaN in the input or in an output gives NaN.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import accumulator_dtype, cast_like, check_count, moments, stack, to_accumulator
from jaxplain._estimate import Estimate
from jaxplain._players import players_of
from jaxplain._tree import Scalar, explainer, reference_like, sampler, shapes

Explainer = Callable[..., Any]


def ablation(
    f: Scalar,
    baseline: Any = 0.0,
    *,
    groups: Any = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Ablation: what the output loses when one group of elements is put at the baseline.

    $\Delta_g = f(x) - f(x \text{ with group } g \text{ at } x')$, and each element of the group gets
    $\Delta_g / |g|$, so that a group's elements sum to its loss. M groups take M + 1 evaluations.

    Args:
        f: `f(x, *args)` returns a float scalar.
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline`.
        groups: numbers from 0 to M - 1 that say which group an element belongs to: a pytree like `x` of integer
            arrays in the shape of each leaf or of its leading axes. None: every element for itself.
        chunk_size: how many evaluations run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`.

    Raises:
        ValueError: `f` returns something other than a scalar, the groups do not cover `x`, the baseline has
            another shape, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves, or the groups are no integers known before tracing.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> print(jxp.ablation(f)(jnp.array([3.0, 2.0, 1.0])))
        [6. 6. 1.]
        >>> print(jxp.ablation(f, groups=jnp.array([0, 0, 1]))(jnp.array([3.0, 2.0, 1.0])))
        [3. 3. 1.]

    When not to trust it: groups that act together are each charged with all of it (above, 6 twice), and groups
    that stand in for one another with nothing: the sum is not f(x) - f(x'). The rest of the input stays, so what
    is evaluated may look like nothing the model has seen.

    Source: Zeiler and Fergus 2014, section 4.2; captum's FeatureAblation, which does not divide by the group's
    size.
    """

    def attribute(fx, x):
        players = players_of(groups, x)
        absent = reference_like("baseline", baseline, x)

        def without(player):  # of player -1 nothing is taken
            def choose(label, leaf, instead):
                return jnp.where(jnp.asarray(label, player.dtype) == player, instead, leaf)

            return fx(jax.tree.map(choose, players.labels, x, absent))

        lost = losses(without, players.count, chunk_size)
        return players.spread(lost, x)

    return explainer(f, argnums, "ablation", attribute)


def occlusion(
    f: Scalar,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    baseline: Any = 0.0,
    chunk_size: int | None = None,
    argnums: int = 0,
) -> Explainer:
    r"""Occlusion: a window at the baseline slides over the input; where the output falls, something mattered.

    $R_i = \frac{1}{|\{w \ni i\}|} \sum_{w \ni i} (f(x) - f(x \text{ with window } w \text{ at } x'))$: the mean,
    not the sum, over the windows that cover element i. Along an axis they start at 0, stride, 2 stride, ... until
    the end is covered; the last is cut at the edge if it does not fit, and counts like any other. One evaluation a
    place, and one for f(x).

    Args:
        f: `f(x, *args)` returns a float scalar.
        window: its size along the leading axes of `x`; trailing axes are covered whole, so (8, 8) slides over an
            image (height, width, channels) and (5,) over a series (time, channels). An integer stands for every
            axis but the last; of a vector, for its only one.
        stride: how far it moves: an integer or one for each axis of the window, at most the window's size. None
            moves it by its own size, so that every element is covered once, as in tf-explain and xplique (captum's
            default is 1).
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline`.
        chunk_size: how many evaluations run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument to explain: one array.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `f`. Elements that are always covered together,
        such as the channels of a pixel, each get the same whole value.

    Raises:
        ValueError: `f` returns something other than a scalar; window or stride has another number of axes, is
            below 1, or leaves gaps; the window is larger than `x`; the baseline has another shape; `x` is not one
            array, or empty.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> print(jxp.occlusion(f, window=2, stride=1)(jnp.array([3.0, 2.0, 1.0])))
        [6.  6.5 7. ]

    When not to trust it: what is larger than the window, or there twice, survives its occlusion and gets nothing;
    the window's edges are a pattern of their own; values depend on its size and do not sum to anything.

    Source: Zeiler and Fergus 2014, section 4.2.
    """
    sizes = axis_counts("window", window)
    strides = sizes if stride is None else axis_counts("stride", stride)

    def attribute(fx, x):
        leaf, only = only_array("occlusion", x)
        sides = per_axis("window", sizes, leaf.shape)
        steps = (strides,) * len(sides) if isinstance(strides, int) else strides
        if len(steps) != len(sides):
            raise ValueError(
                f"stride {strides} needs one number for each of the {len(sides)} axes of the window {sides}"
            )
        if any(step > side for step, side in zip(steps, sides, strict=True)):
            raise ValueError(
                f"stride {steps} is larger than the window {sides}: what lies between is never covered"
            )
        absent = only.take(reference_like("baseline", baseline, x))
        covers = [cover(n, side, step) for n, side, step in zip(leaf.shape, sides, steps, strict=False)]
        places = tuple(len(one) for one in covers)

        def without(place):  # of place -1 nothing is taken
            hidden = place >= 0
            for axis, index in enumerate(jnp.unravel_index(place, places)):
                along = jnp.asarray(covers[axis])[index]
                hidden = hidden & jax.lax.expand_dims(along, [a for a in range(leaf.ndim) if a != axis])
            return fx(only.put(jnp.where(hidden, absent, leaf)))

        lost = losses(without, math.prod(places), chunk_size).reshape(places)
        for one in covers:  # from places to elements, axis by axis: each contraction puts its axis last
            mean = jnp.asarray(one / one.sum(0), lost.dtype)
            lost = jnp.tensordot(lost, mean, (0, 0), precision="highest")
        return only.put(over_trailing(lost, leaf).astype(leaf.dtype))

    return explainer(f, argnums, "occlusion", attribute)


def rise(
    f: Scalar,
    *,
    num_masks: int = 4000,
    grid: int | Sequence[int] = 7,
    keep: float = 0.5,
    baseline: Any = 0.0,
    chunk_size: int | None = None,
    argnums: int = 0,
) -> Explainer:
    r"""RISE: the mean output over random smooth masks, at each place weighted by how far the mask keeps it.

    $R_i = \frac{1}{N p} \sum_k f(x' + m^{(k)} \odot (x - x')) \, m^{(k)}_i$, whose expectation is $E[f m_i] /
    E[m_i]$: about what the model says when place i is kept. A mask is a coarse grid of independent cells, each 1
    with chance p and else 0, enlarged bilinearly and moved by a random part of a cell. As E[m] = p is known, the
    sum is taken of $(f - c) m_i / p + c$ instead, with c the output of the evenly faded input $x' + p (x - x')$:
    the same expectation, with less noise, and exact for a constant model.

    Args:
        f: `f(x, *args)` returns a float scalar; for a classifier, a probability or a logit.
        num_masks: the number N of masks; one more evaluation gives c.
        grid: the number of cells along the leading axes of `x`, trailing axes being masked whole: (7, 7) for an
            image (height, width, channels). An integer stands for every axis but the last; of a vector, for its
            only one.
        keep: the chance p of a cell to be kept, above 0 and below 1; may be traced.
        baseline: a number, an array, a pytree like `x`, or a callable `x -> baseline`; where the mask is 0.
        chunk_size: how many masks are drawn and run at once (None: all); memory grows with it, and not with
            `num_masks`; the result does not change.
        argnums: which positional argument to explain: one array.

    Returns:
        `explain(key, x, *args) -> Estimate(value, std_error)`, in units of `f`; elements that are masked together
        each get the same value.

    Raises:
        ValueError: `f` returns something other than a scalar; `num_masks` or `grid` is below 1; the grid is finer
            than `x` or has more axes; `keep` is not between 0 and 1; `x` is not one array, or empty.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[:4].mean()
        >>> value, std_error = jxp.rise(f, grid=4)(jax.random.key(0), jnp.ones(16))
        >>> print(value[1] > value[14] + 5 * std_error[14])
        True

    When not to trust it: with few masks, noise is as large as what is shown: compare the map's range with
    `std_error`. The map lies around the mean output of half-hidden inputs, not around 0; detail finer than a cell
    of the grid is lost.

    Source: Petsiuk et al. 2018, eq. (6) and section 3.3; the control variate is ours.
    """
    check_count("num_masks", num_masks)
    cells = axis_counts("grid", grid)
    if isinstance(keep, int | float) and not 0 < keep < 1:
        raise ValueError(f"keep is the chance of a cell to be kept, above 0 and below 1, not {keep}")

    def attribute(key, fx, x):
        leaf, only = only_array("rise", x)
        cells_here = per_axis("grid", cells, leaf.shape)
        wide = to_accumulator(leaf)
        absent = to_accumulator(only.take(reference_like("baseline", baseline, x)))
        chance = jnp.asarray(keep, wide.dtype)
        faded = jax.jit(fx)  # traced once, for the one evaluation apart and for all others

        def at_mask(mask):
            mixed = absent + over_trailing(mask, leaf) * (wide - absent)
            y = faded(only.put(mixed.astype(leaf.dtype)))
            return y.astype(accumulator_dtype(y.dtype)).astype(wide.dtype)

        centre = at_mask(jnp.full(leaf.shape[: len(cells_here)], chance))

        def sample(index):
            mask = smooth_mask(jax.random.fold_in(key, index), cells_here, leaf.shape, chance)
            return (at_mask(mask) - centre) * (mask / chance)

        indices = jnp.arange(num_masks, dtype=jnp.uint32)
        mean, variance = moments(sample, indices, chunk_size=chunk_size)
        value, error = mean + centre, jnp.sqrt(variance / num_masks)
        spread = [cast_like(only.put(over_trailing(v, leaf)), x) for v in (value, error)]
        return Estimate(*spread)

    return sampler(f, argnums, "rise", attribute)


def smooth_mask(key: jax.Array, cells: tuple[int, ...], shape: tuple[int, ...], chance: jax.Array) -> jax.Array:
    """One mask of RISE over the leading axes: a random grid, enlarged bilinearly to a cell more, cut at random."""
    cell_key, *shift_keys = jax.random.split(key, 1 + len(cells))
    mask = jax.random.bernoulli(cell_key, chance, cells).astype(chance.dtype)
    for shift_key, count, size in zip(shift_keys, cells, shape, strict=False):
        side = -(-size // count)
        enlarge = jnp.asarray(interpolation(count, (count + 1) * side), chance.dtype)
        start = jax.random.randint(shift_key, (), 0, side)
        rows = jax.lax.dynamic_slice_in_dim(enlarge, start, size)
        mask = jnp.tensordot(mask, rows, (0, 1), precision="highest")  # its axis goes last, the next comes first
    return mask


def interpolation(count: int, length: int) -> np.ndarray:
    """(length, count): the weights of `count` cells at `length` points, linear between their middles."""
    middle = np.clip((np.arange(length) + 0.5) * count / length - 0.5, 0, count - 1)
    return np.maximum(0, 1 - np.abs(middle[:, None] - np.arange(count)[None]))


def losses(without: Callable[[jax.Array], jax.Array], count: int, chunk_size: int | None) -> jax.Array:
    """(count,): what the output loses without each part; `without(-1)` is the output with all of them."""
    outputs = to_accumulator(stack(without, jnp.arange(-1, count, dtype=jnp.int32), chunk_size=chunk_size))
    return outputs[0] - outputs[1:]


def cover(size: int, side: int, step: int) -> np.ndarray:
    """(places, size): which elements of an axis the window covers at each of its places."""
    starts = step * np.arange(1 + -(-(size - side) // step))[:, None]
    along = np.arange(size)[None]
    return (along >= starts) & (along < starts + side)


class OneArray:
    """The single array of a tree: `put` gives an array the tree's form; `take` takes it out."""

    def __init__(self, structure: Any):
        self.structure = structure

    def put(self, leaf: jax.Array) -> Any:
        """`leaf` in the form of the tree."""
        return jax.tree.unflatten(self.structure, [leaf])

    def take(self, tree: Any) -> jax.Array:
        """The array in `tree`."""
        return jax.tree.leaves(tree)[0]


def only_array(method: str, x: Any) -> tuple[jax.Array, OneArray]:
    """The one array that `x` is, with at least one axis, and the way back."""
    leaves, structure = jax.tree.flatten(x)
    if len(leaves) != 1 or leaves[0].ndim == 0:
        raise ValueError(
            f"{method} slides over the axes of one array, but the explained argument has shapes {shapes(x)}; "
            f"choose one with argnums= and close over the others, or explain parts with ablation(f, groups=...)"
        )
    return leaves[0], OneArray(structure)


def axis_counts(name: str, value: Any) -> int | tuple[int, ...]:
    """One whole number, or a tuple of them, all at least 1."""
    if isinstance(value, np.ndarray):
        value = tuple(value.ravel().tolist())
    if isinstance(value, Sequence) and not isinstance(value, str):
        if not value:
            raise ValueError(f"{name} needs a number for at least one axis, not {value!r}")
        return tuple(check_count(name, one) for one in value)
    return check_count(name, value)


def per_axis(name: str, value: int | tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """One number for each leading axis: an integer stands for all but the last, or for the only one."""
    counts = (value,) * max(1, len(shape) - 1) if isinstance(value, int) else value
    if len(counts) > len(shape):
        raise ValueError(f"{name} {counts} has more axes than the explained argument, of shape {shape}")
    if any(count > size for count, size in zip(counts, shape, strict=False)):
        raise ValueError(f"{name} {counts} is larger than the explained argument, of shape {shape}")
    return counts


def over_trailing(values: jax.Array, leaf: jax.Array) -> jax.Array:
    """Values over the leading axes of `leaf`, repeated over the others."""
    return jnp.broadcast_to(jax.lax.expand_dims(values, range(values.ndim, leaf.ndim)), leaf.shape)
