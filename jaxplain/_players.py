"""Players: the parts of an input that a method turns on and off, each element of `x` belonging to one.

`groups` numbers them: a pytree like the explained argument, of whole numbers 0 ... M - 1, in the shape of each
leaf or of its leading axes (superpixels of shape (H, W) for an image (H, W, C)). None makes every element a
player of its own. The numbers are known before tracing, since M is a shape.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import accumulator_dtype


class Players(NamedTuple):
    """`labels` gives, in the shape of each leaf of `x`, the player every element belongs to; `count` is M."""

    labels: Any
    count: int

    @property
    def sizes(self) -> np.ndarray:
        """(M,): how many elements each player has."""
        flat = [np.ravel(leaf) for leaf in jax.tree.leaves(self.labels)]
        return np.bincount(np.concatenate(flat), minlength=self.count)

    def keep(self, mask: jax.Array, x: Any, other: Any) -> Any:
        """`x` where the player's entry of `mask` (M,) is on, `other` elsewhere; `x` sets the types."""
        on = jnp.asarray(mask, bool)

        def choose(label, leaf, instead):
            return jnp.where(on[label], leaf, jnp.asarray(instead, leaf.dtype))

        return jax.tree.map(choose, self.labels, x, other)

    def spread(self, values: jax.Array, x: Any) -> Any:
        """`values` (M,) in the form of `x`: each element gets its player's value over the player's size."""
        share = values / jnp.asarray(self.sizes, accumulator_dtype(values.dtype))
        return jax.tree.map(lambda label, leaf: share[label].astype(leaf.dtype), self.labels, x)


def players_of(groups: Any, x: Any) -> Players:
    """The players that `groups` makes of `x`: checked, and in the full shape of every leaf.

    Raises:
        ValueError: the structure or a shape is not that of `x`, or the numbers leave one out.
        TypeError: they are not whole numbers, or are traced.
    """
    leaves, structure = jax.tree.flatten(x)
    if groups is None:
        ends = np.cumsum([0, *(leaf.size for leaf in leaves)])
        labels = [
            np.arange(start, end).reshape(leaf.shape)
            for leaf, start, end in zip(leaves, ends[:-1], ends[1:], strict=True)
        ]
        return Players(jax.tree.unflatten(structure, labels), int(ends[-1]))
    try:
        given = structure.flatten_up_to(groups)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"groups must number the parts of the explained argument in its own structure: it has "
            f"{jax.tree.structure(groups)}, the argument {structure}"
        ) from error
    labels = [_labels(number, leaf) for number, leaf in zip(given, leaves, strict=True)]
    found = np.unique(np.concatenate([label.ravel() for label in labels]))
    count = len(found)
    if not np.array_equal(found, np.arange(count)):
        raise ValueError(
            f"groups must use every number from 0 to {count - 1} (there are {count} different ones), but they "
            f"run from {found[0]} to {found[-1]}; np.unique(groups, return_inverse=True)[1] renumbers one array"
        )
    return Players(jax.tree.unflatten(structure, labels), count)


def num_players(groups: Any, x: Any) -> int:
    """How many players `groups` makes of `x`: with None, the number of its elements.

    Args:
        groups: the player of each element, a pytree of whole numbers from 0 in the shape of `x` or of its leading
            axes, or None.
        x: a pytree of arrays.

    Returns:
        M, an integer.

    Raises:
        ValueError: the groups do not cover `x`.
        TypeError: they are not whole numbers, or are traced.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> shapley.num_players(jnp.array([0, 0, 1]), jnp.zeros((3, 2)))
        2
    """
    return players_of(groups, x).count


def _labels(numbers: Any, leaf: jax.Array) -> np.ndarray:
    if _jax.is_tracer(numbers):
        raise TypeError(
            "groups must be known before tracing, since their count is a shape: give a numpy array, "
            "not an argument of a function under jit or vmap"
        )
    label = np.asarray(numbers)
    if not np.issubdtype(label.dtype, np.integer):
        raise TypeError(f"groups must be whole numbers, one a player, not {label.dtype}: groups.astype(int)")
    if label.shape != leaf.shape[: label.ndim]:
        raise ValueError(
            f"groups of shape {label.shape} do not cover an argument of shape {leaf.shape}: every element needs "
            f"a number, in that shape or in its leading axes (so, superpixels (H, W) for an image (H, W, C))"
        )
    return np.broadcast_to(label.reshape(label.shape + (1,) * (leaf.ndim - label.ndim)), leaf.shape)
