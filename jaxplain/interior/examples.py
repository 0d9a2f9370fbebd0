"""What the methods over a data set share: examples on a leading axis, and a function from one to a site."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxplain._tree import describe


def check_dataset(dataset: Any) -> int:
    """The number of examples; an error if there are none, or not as many in every leaf."""
    leaves = jax.tree.leaves(dataset)
    counts = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves}
    if not leaves or len(counts) != 1 or 0 in counts:
        found = ", ".join(str(np.shape(leaf)) for leaf in leaves) or "no arrays"
        raise ValueError(
            "the data set needs a leading axis of examples, the same number in every leaf and at least 1; "
            f"its shapes are: {found}"
        )
    return counts.pop()


def site_of(h: Callable[[Any], Any], x: Any) -> jax.Array:
    """h(x), if it is one array."""
    z = h(x)
    if not isinstance(z, jax.Array):
        raise TypeError(
            f"h must return one array, the site's, but it returned {describe(z)}; "
            "take the first half of jaxplain.slice_at(f, at), or lambda x: jaxplain.capture(f, at)(x)[1][at]"
        )
    return z
