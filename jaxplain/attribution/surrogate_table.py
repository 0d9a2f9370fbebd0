"""What LIME perturbs in a table: columns, in or out of the quartile of the row, or moved by Gaussian noise."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import accumulator_dtype, to_accumulator
from jaxplain._tree import shapes
from jaxplain.attribution.surrogate import Distance, Kernel

Kind = Literal["quartiles", "around_instance", "around_mean"]
KINDS = ("quartiles", "around_instance", "around_mean")


def tabular(train_x: Any, *, kind: Kind = "quartiles", categorical: Sequence[int] = ()) -> "Table":
    r"""Perturbations of a row of a table, for `lime(f, perturb=tabular(train_x))`.

    Args:
        train_x: rows that show how the columns are distributed, (n, columns), known before tracing.
        kind: what is drawn, and what the linear model sees. `"quartiles"`: every column for itself is drawn from
            the training rows, and is 1 if it fell in the same quartile as in `x`, else 0: a weight says what being
            in that quartile adds. `"around_instance"`: x plus Gaussian noise of each column's standard deviation,
            and `"around_mean"`: the same around the mean row (the default of lime without a discretiser): a weight
            is a slope, per standard deviation.
        categorical: columns whose values are names: 1 for the same value as in `x`. With `"quartiles"` only.

    Returns:
        What `perturb` takes; `x` is then one row, the distance Euclidean between rows as the linear model sees
        them.

    Raises:
        ValueError: `train_x` is not a table of at least two finite rows, the kind is unknown, a column is out of
            range.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> train_x = jax.random.normal(jax.random.key(0), (500, 3)) * jnp.array([1.0, 10.0, 1.0])
        >>> explain = jxp.lime(lambda x: x[0] + x[1], perturb=jxp.tabular(train_x, kind="around_instance"))
        >>> print(explain(jax.random.key(1), train_x[0]).value.round())
        [ 1. 10.  0.]

    When not to trust it: columns are drawn independently, so rows that cannot exist are asked about; around the
    mean, few draws are near an unusual `x`, and the fit says what matters elsewhere.

    Source: Ribeiro et al. 2016, section 3.3, and their package lime, which draws within a quartile from a Gaussian
    cut off at its ends where we take training values.
    """
    data = np.asarray(train_x, np.float64)
    if data.ndim != 2 or len(data) < 2 or not np.isfinite(data).all():
        raise ValueError(f"train_x must be a table of at least two finite rows; it has shape {data.shape}")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}")
    columns = tuple(categorical)
    if columns and kind != "quartiles":
        raise ValueError(f"categorical columns have no mean or slope: kind='quartiles', not {kind!r}")
    if not all(0 <= c < data.shape[1] for c in columns):
        raise ValueError(
            f"categorical={columns} names a column that is not there: they are 0 to {data.shape[1] - 1}"
        )
    return Table(data, kind, columns)


class Table:
    """The training rows that `lime(perturb=...)` draws from; made by `tabular`."""

    def __init__(self, train_x: np.ndarray, kind: Kind, categorical: tuple[int, ...]):
        self.train_x, self.kind, self.categorical = train_x, kind, categorical

    def around(self, x: Any) -> "NearRow | InBins":
        """The perturbations of one row."""
        leaves, structure = jax.tree.flatten(x)
        if len(leaves) != 1 or leaves[0].shape != self.train_x.shape[1:]:
            raise ValueError(f"x must be one row of {self.train_x.shape[1]} columns, not {shapes(x)}")
        make = InBins if self.kind == "quartiles" else NearRow
        return make(self, leaves[0], structure)


class NearRow:
    """Gaussian rows in units of each column's standard deviation, around `x` or around the mean."""

    default: Distance = "euclidean"

    def __init__(self, table: Table, x: jax.Array, structure: Any):
        self.x, self.structure, self.kind = x, structure, table.kind
        wide = to_accumulator(x)
        scale = table.train_x.std(0)
        self.scale = jnp.asarray(np.where(scale > 0, scale, 1), wide.dtype)
        self.mean = jnp.asarray(table.train_x.mean(0), wide.dtype)
        self.origin = (wide - self.mean) / self.scale

    def rows(self, key: jax.Array, num: int) -> jax.Array:
        """Standard normal, around x or around the mean."""
        noise = jax.random.normal(key, (num, len(self.origin)), self.origin.dtype)
        return noise + self.origin[None] if self.kind == "around_instance" else noise

    def near(self, key: jax.Array, num: int, kernel: Kernel) -> jax.Array:
        """A Gaussian times a Gaussian kernel is one again, of precision 1 + 1 / width^2."""
        need_euclidean(kernel)
        half = jax.random.normal(key, (-(-num // 2), len(self.origin)), self.origin.dtype)
        pairs = jnp.stack([half, -half], 1).reshape(-1, len(self.origin))[:num]
        centre = self.origin
        if self.kind == "around_mean":
            centre = centre / (1 + jnp.square(kernel.width))
        return centre[None] + pairs / jnp.sqrt(1 + 1 / jnp.square(kernel.width))

    def point(self, row: jax.Array, key: jax.Array) -> Any:
        """The row in the table's units."""
        del key
        return jax.tree.unflatten(self.structure, [(row * self.scale + self.mean).astype(self.x.dtype)])

    def spread(self, weights: jax.Array) -> Any:
        """One weight a column."""
        return jax.tree.unflatten(self.structure, [weights.astype(self.x.dtype)])


class InBins:
    """Rows of 1 where a column is in the quartile (or has the category) of `x`, with values of training rows."""

    default: Distance = "euclidean"

    def __init__(self, table: Table, x: jax.Array, structure: Any):
        self.x, self.structure, data = x, structure, table.train_x
        dtype = accumulator_dtype(x.dtype)
        quarters = np.quantile(data, [0.25, 0.5, 0.75], axis=0)
        firsts, counts = [], []
        self.values = jnp.asarray(np.sort(data, axis=0), x.dtype)
        for column in range(data.shape[1]):
            ordered = self.values[:, column]
            if column in table.categorical:
                first, last = (jnp.searchsorted(ordered, x[column], side=s) for s in ("left", "right"))
            else:  # the quartile's values are those above the edge below and up to the edge above
                edges = jnp.asarray(np.unique(quarters[:, column]), x.dtype)
                ends = jnp.searchsorted(ordered, edges, side="right").astype(jnp.int32)
                ends = jnp.concatenate([jnp.zeros(1, jnp.int32), ends, jnp.full(1, len(data), jnp.int32)])
                quartile = jnp.searchsorted(edges, x[column], side="left")
                first, last = ends[quartile], ends[quartile + 1]
            firsts.append(first)
            counts.append(last - first)
        self.first, self.count = (jnp.stack(v).astype(jnp.int32) for v in (firsts, counts))
        self.chance = self.count.astype(dtype) / len(data)
        self.origin = jnp.where(jnp.isnan(x), jnp.nan, 1).astype(dtype)  # NaN is in no quartile, and shows

    def rows(self, key: jax.Array, num: int) -> jax.Array:
        """Each column in the quartile as often as the training rows are."""
        u = jax.random.uniform(key, (num, len(self.origin)), self.origin.dtype)
        return (u < self.chance[None]).astype(u.dtype) * self.origin[None]

    def near(self, key: jax.Array, num: int, kernel: Kernel) -> jax.Array:
        """The kernel is a product over columns: exp(-1 / (2 width^2)) for each that is out."""
        need_euclidean(kernel)
        out = (1 - self.chance) * kernel.at(jnp.ones_like(kernel.width))
        half = jax.random.uniform(key, (-(-num // 2), len(self.origin)), self.origin.dtype)
        pairs = jnp.stack([half, 1 - half], 1).reshape(-1, len(self.origin))[:num]
        return (pairs * (self.chance + out)[None] < self.chance[None]).astype(half.dtype) * self.origin[None]

    def point(self, row: jax.Array, key: jax.Array) -> Any:
        """Of each column a training value in or out of the quartile."""
        u = jax.random.uniform(key, self.x.shape, self.origin.dtype)
        total = len(self.values)
        inside = row > 0
        among = jnp.where(inside, self.count, total - self.count)
        nth = jnp.minimum((u * among.astype(u.dtype)).astype(jnp.int32), among - 1)
        past = ~inside & (nth >= self.first)
        position = jnp.where(inside, self.first + nth, nth + jnp.where(past, self.count, 0))
        drawn = jnp.take_along_axis(self.values, position[None], axis=0)[0]
        return jax.tree.unflatten(self.structure, [drawn])

    def spread(self, weights: jax.Array) -> Any:
        """One weight a column."""
        return jax.tree.unflatten(self.structure, [weights.astype(self.x.dtype)])


def need_euclidean(kernel: Kernel) -> None:
    """An error for the cosine distance, whose kernel is not a product over columns."""
    if kernel.distance != "euclidean":
        raise ValueError("rows of a table are drawn from a Euclidean kernel alone: add sampling='uniform'")
