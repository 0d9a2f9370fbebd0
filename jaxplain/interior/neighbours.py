"""Which examples look alike to a network: neighbours and a map of a feature space."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import accumulator_dtype, check_count, stack
from jaxplain._tree import count, describe

Metric = Literal["euclidean", "cosine"]


class Neighbours(NamedTuple):
    """The numbers of examples (k,) and how far each is from the query (k,), the nearest first."""

    indices: jax.Array
    distances: jax.Array


def nearest_neighbours(
    h: Callable[[Any], Any],
    dataset: Any,
    query: Any,
    k: int,
    *,
    metric: Metric = "euclidean",
    chunk_size: int | None = None,
) -> Neighbours:
    r"""The examples of a data set that are nearest to a query in feature space: small $d(h(x_i), h(x))$.

    Args:
        h: maps one example to an array, a site's value, which is flattened: the first half of
            `slice_at(f, at)`, or `lambda x: x` for the space of inputs.
        dataset: an array, or a pytree of arrays, with a leading axis of examples.
        query: one example. `vmap` over queries runs the data once for all.
        k: how many.
        metric: "euclidean", $\|a - b\|$ in units of the features, or "cosine", $1 - a^\top b / \|a\| \|b\|$.
        chunk_size: how many examples run at once (None: all); memory grows with it, the result does not change.

    Returns:
        `Neighbours(indices, distances)`. An example that is in the data set is its own nearest neighbour. Equal
        distances come in the order of the examples, NaN last (cosine's, of features that are all 0).

    Raises:
        ValueError: the data set is empty, its leaves differ in length, k is above it or below 1, the metric is
            unknown, or the query's features have another shape.
        TypeError: `h` returns something other than one array.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> data = jnp.array([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
        >>> near = jxp.interior.nearest_neighbours(lambda x: x, data, jnp.zeros(2), k=2)
        >>> print(near.indices, near.distances)
        [0 2] [0. 1.]

    When not to trust it: nearness in a layer tells what that layer keeps, not why a prediction was made; in many
    dimensions some examples are neighbours of nearly everything (hubs).

    Source: Krizhevsky, Sutskever and Hinton 2012, section 6.1; Papernot and McDaniel 2018.
    """
    total = count("dataset", dataset)
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be one of {', '.join(get_args(Metric))}, not {metric!r}")
    if check_count("k", k) > total:
        raise ValueError(f"k={k}, but the data set has {total} examples")

    def features(x):
        z = site_of(h, x)
        z = z if jnp.issubdtype(z.dtype, jnp.floating) else z.astype(jnp.result_type(float))
        return z.reshape(-1).astype(accumulator_dtype(z.dtype))

    @jax.jit
    def run(dataset, query):
        there = features(query)

        def distance(x):
            here = features(x)
            if here.shape != there.shape:
                raise ValueError(
                    f"the query has {there.size} features and an example of the data set {here.size}; the "
                    "query is one example: jax.vmap maps over many"
                )
            if metric == "euclidean":
                return norm(here - there)
            return cosine_distance(here, there)

        distances = stack(distance, dataset, chunk_size=chunk_size)
        nearest = jnp.argsort(distances)[:k]
        return Neighbours(nearest.astype(jnp.int32), distances[nearest])

    return run(jax.tree.map(jnp.asarray, dataset), jax.tree.map(jnp.asarray, query))


def site_of(h: Callable[[Any], Any], x: Any) -> jax.Array:
    """h(x), if it is one array."""
    z = h(x)
    if not isinstance(z, jax.Array):
        raise TypeError(
            f"h must return one array, the site's, but it returned {describe(z)}; "
            "take the first half of jaxplain.slice_at(f, at), or lambda x: jaxplain.capture(f, at)(x)[1][at]"
        )
    return z


def norm(vector: jax.Array) -> jax.Array:
    """The Euclidean length, from the largest entry on, so that squares neither overflow nor vanish."""
    largest = jax.lax.stop_gradient(jnp.abs(vector).max())
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return scale * jnp.sqrt(jnp.square(vector / scale).sum())


def cosine_distance(a: jax.Array, b: jax.Array) -> jax.Array:
    """1 - cos, as half the squared distance of the unit vectors: 1 less a cosine near 1 has no digits left.

    NaN where one is all 0.
    """
    apart = a / norm(a) - b / norm(b)
    return jnp.minimum(jnp.square(apart).sum() / 2, 2)


def embed(features: Any, *, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """A map of examples in the plane on which neighbours in feature space stay neighbours: t-SNE.

    Args:
        features: an array (n, ...), one row an example, flattened; for example `jax.vmap(h)(dataset)`.
        seed: of scikit-learn's random numbers; the start is the first two principal components.
        perplexity: about how many neighbours each example keeps, below n.

    Returns:
        Points (n, 2), numpy, in no unit.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: features are NaN or infinite, there are fewer than 2 a row, or the perplexity is not between
            0 and n.

    Example:
        >>> import numpy as np, jaxplain as jxp
        >>> clusters = np.repeat(np.eye(3), 5, 0) + np.random.default_rng(0).normal(size=(15, 3)) / 100
        >>> jxp.interior.embed(clusters, perplexity=4.0).shape
        (15, 2)

    When not to trust it: distances between clusters, their sizes and their number are no facts of the features;
    pure noise forms clumps at small perplexities (Wattenberg et al. 2016). Run several, and measure what is kept:
    `sklearn.manifold.trustworthiness`.

    Source: van der Maaten and Hinton 2008.
    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError("embed needs scikit-learn: pip install 'jaxplain[embed]'") from error
    table = np.asarray(features)
    if table.ndim < 2 or np.prod(table.shape[1:]) < 2:
        raise ValueError(f"features need a leading axis of examples and at least 2 a row, not shape {table.shape}")
    if not 0 < perplexity < len(table):
        raise ValueError(
            f"perplexity must lie between 0 and the number of examples, {len(table)}, not {perplexity}"
        )
    table = table.reshape(len(table), -1)
    if not np.isfinite(table).all():
        raise ValueError("features are NaN or infinite")
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(table)
