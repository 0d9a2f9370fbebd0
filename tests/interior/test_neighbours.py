"""Neighbours in feature space, against a sort of all distances, and what the map of a feature space keeps."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness

import jaxplain as jxp
from jaxplain.interior import embed, nearest_neighbours

RNG = np.random.default_rng(0)
DATA, QUERIES, W = RNG.normal(size=(13, 4, 3)), RNG.normal(size=(2, 4, 3)), RNG.normal(size=(3, 5))


def h(x):
    return jnp.tanh(x @ jnp.asarray(W))


@pytest.mark.parametrize("chunk_size", [None, 1, 5, 100])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_it_is_a_sort_of_all_distances(metric, chunk_size):
    rows, own = (np.tanh(v @ W).reshape(len(v), -1) for v in (DATA, QUERIES))
    far = cdist(own, rows, metric)
    for query, want in zip(QUERIES, far, strict=True):
        near = nearest_neighbours(h, DATA, query, 6, metric=metric, chunk_size=chunk_size)
        np.testing.assert_array_equal(near.indices, np.argsort(want)[:6])
        np.testing.assert_allclose(near.distances, np.sort(want)[:6], rtol=1e-12)
    many = jax.vmap(lambda q: nearest_neighbours(h, DATA, q, 6, metric=metric, chunk_size=chunk_size))(QUERIES)
    np.testing.assert_array_equal(many.indices, np.argsort(far)[:, :6])


def test_it_is_its_own_neighbour_and_takes_trees_and_integers():
    f = lambda d: jxp.tag(h(d["x"]), "z").sum()
    near = nearest_neighbours(jxp.slice_at(f, "z").h, {"x": DATA}, {"x": DATA[7]}, 1)
    np.testing.assert_array_equal(near.indices, [7])
    assert float(near.distances[0]) < 1e-14
    whole = np.array([[0, 3], [4, 0], [0, 200]], np.uint8)  # differences of uint8 would wrap
    near = nearest_neighbours(lambda x: x, whole, np.array([0, 4], np.uint8), 3)
    np.testing.assert_array_equal(near.indices, [0, 1, 2])
    np.testing.assert_allclose(near.distances, [1, np.sqrt(32), 196])


def test_ties_and_undefined_angles():
    rows = np.array([[1.0, 0.0], [0.0, 0.0], [2.0, 0.0], [1e200, 1e200], [1e-200, 0.0]])
    near = nearest_neighbours(lambda x: x, rows, np.array([1.0, 0.0]), 5, metric="cosine")
    np.testing.assert_array_equal(near.indices, [0, 2, 4, 3, 1])
    np.testing.assert_allclose(near.distances, [0, 0, 0, 1 - np.sqrt(0.5), np.nan], atol=1e-12)


def test_jit_and_one_trace():
    traces = []

    def counted(x):
        traces.append(1)
        return h(x)

    run = jax.jit(lambda data, query: nearest_neighbours(counted, data, query, 3, chunk_size=4))
    for query in QUERIES:
        jax.tree.map(np.testing.assert_allclose, run(DATA, query), nearest_neighbours(h, DATA, query, 3))
    assert len(traces) == 2  # of the query and of an example


def test_a_map_keeps_neighbours():
    rows = np.repeat(RNG.normal(size=(4, 2, 3)), 15, 0) + RNG.normal(size=(60, 2, 3)) / 20
    points = embed(rows, perplexity=8.0)
    assert points.shape == (60, 2)
    assert trustworthiness(rows.reshape(60, -1), points, n_neighbors=5) > 0.9
    np.testing.assert_array_equal(points, embed(jnp.asarray(rows), perplexity=8.0))


def test_without_scikit_learn(monkeypatch):
    load = builtins.__import__

    def no_sklearn(name, *rest):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_sklearn)
    with pytest.raises(ImportError, match=r"pip install 'jaxplain\[embed\]'"):
        embed(DATA)


BAD = {
    "k=14, but the data set has 13": lambda: nearest_neighbours(h, DATA, DATA[0], 14),
    "k must be a whole number": lambda: nearest_neighbours(h, DATA, DATA[0], 1.5),
    "metric must be one of euclidean, cosine": lambda: nearest_neighbours(h, DATA, DATA[0], 1, metric="l1"),
    "the query has 260 features and an example of the data set 20": lambda: nearest_neighbours(h, DATA, DATA, 1),
    "dataset holds no examples": lambda: nearest_neighbours(h, DATA[:0], DATA[0], 1),
    "h must return one array": lambda: nearest_neighbours(lambda x: {"a": x}, DATA, DATA[0], 1),
    "perplexity must lie between 0 and the number of examples, 13": lambda: embed(DATA),
    r"at least 2 a row, not shape \(50, 1\)": lambda: embed(np.zeros((50, 1))),
    "NaN": lambda: embed(np.full((50, 2), np.nan)),
    r"not shape \(\)": lambda: embed(1.0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_size_of_features_changes_no_order(metric, size):
    data = np.asarray(DATA.reshape(13, -1) * size, np.float32)
    query = np.asarray(QUERIES[0].ravel() * size, np.float32)
    near = nearest_neighbours(lambda x: x, jnp.asarray(data), jnp.asarray(query), 13, metric=metric)
    by_hand = cdist(query[None].astype(float), data.astype(float), metric)[0]
    np.testing.assert_array_equal(near.indices, by_hand.argsort())
    np.testing.assert_allclose(near.distances, by_hand[by_hand.argsort()], rtol=1e-4)


def test_cosine_of_vectors_that_are_nearly_parallel():
    steps = np.array([5.0, 0.0, 3.0, 1.0, 4.0, 2.0])
    data = np.asarray(np.ones(20) + 1e-4 * steps[:, None] * np.arange(20), np.float32)
    near = nearest_neighbours(lambda x: x, jnp.asarray(data), jnp.asarray(data[1]), 6, metric="cosine")
    np.testing.assert_array_equal(near.indices, steps.argsort())
    assert (near.distances >= 0).all()
