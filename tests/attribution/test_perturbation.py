"""Ablation, occlusion and RISE: equal to slow derivations on inputs of every rank, and errors on bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_perturbation as slow

import jaxplain as jxp
from jaxplain.attribution.perturbation import interpolation

RNG = np.random.default_rng(0)
SHAPES = {"vector": (7,), "series": (6, 2), "image": (5, 4, 3), "volume": (4, 3, 3, 2)}
X = {name: RNG.normal(size=shape) for name, shape in SHAPES.items()}
W = {name: RNG.normal(size=(x.size, 4)) / 2 for name, x in X.items()}
every_rank = pytest.mark.parametrize("name", SHAPES)


def network(name):
    """Not linear, and different for every element."""
    return lambda x: jnp.tanh(x.ravel() @ jnp.asarray(W[name])).sum() + 0.1 * (x.ravel() ** 3).sum()


def numpy_network(name):
    return lambda x: float(np.tanh(x.ravel() @ W[name]).sum() + 0.1 * (x.ravel() ** 3).sum())


@every_rank
@pytest.mark.parametrize("grouped", [False, True])
def test_ablation_is_its_definition(name, grouped):
    x, baseline = X[name], RNG.normal(size=SHAPES[name])
    groups = RNG.integers(0, 3, size=x.shape) if grouped else np.arange(x.size).reshape(x.shape)
    groups.flat[:3] = range(3)
    explain = jxp.ablation(network(name), jnp.asarray(baseline), groups=groups if grouped else None, chunk_size=4)
    np.testing.assert_allclose(
        explain(jnp.asarray(x)), slow.ablation(numpy_network(name), x, baseline, groups), atol=1e-12
    )


WINDOWS = {
    "vector": [(3, 2), (2, None), (7, 3), ((4,), (3,))],
    "series": [(4, 3), ((2,), (1,)), ((4, 2), (3, 1))],
    "image": [(3, 2), ((2, 3), (2, 1)), ((5, 4, 1), (1, 1, 1)), ((2,), None), ((2,), 1), ((3, 2, 2), 2)],
    "volume": [(2, None), ((3, 2, 2), (2, 2, 1))],
}


SLIDES = [(n, *case) for n, cases in WINDOWS.items() for case in cases]


@pytest.mark.parametrize(("name", "window", "stride"), SLIDES)
def test_occlusion_is_its_definition(name, window, stride):
    x = X[name]
    sides = (window,) * max(1, x.ndim - 1) if isinstance(window, int) else window
    steps = sides if stride is None else (stride,) * len(sides) if isinstance(stride, int) else stride
    got = jxp.occlusion(network(name), window=window, stride=stride, baseline=0.3, chunk_size=5)(jnp.asarray(x))
    want = slow.occlusion(numpy_network(name), x, np.full(x.shape, 0.3), sides, steps)
    np.testing.assert_allclose(got, want, atol=1e-12)


def test_edges_count_as_often_as_they_are_covered():
    """Of a sum, a window takes what it covers: 3, 3 and at the edge 1 of 7, which alone covers the last."""
    got = jxp.occlusion(jnp.sum, window=3, stride=3)(jnp.ones(7))
    np.testing.assert_array_equal(jxp.occlusion(jnp.sum, window=np.array([3]))(jnp.ones(7)), got)
    np.testing.assert_array_equal(got, [3, 3, 3, 3, 3, 3, 1])
    overlapping = jxp.occlusion(jnp.sum, window=3, stride=2)(jnp.ones(6))  # windows 0-2, 2-4, 4-5
    np.testing.assert_array_equal(overlapping, [3, 3, 3, 3, 2.5, 2])


@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_rise_estimates_its_expectation(keep):
    """Over 200 keys: the estimates lie around the exact expectation, as far as their standard errors say."""
    x, f = X["vector"], network("vector")
    want = slow.rise_expectation(numpy_network("vector"), x, 0.2, 3, keep)
    explain = jxp.rise(f, num_masks=64, grid=3, keep=keep, baseline=0.2, chunk_size=24)
    value, error = jax.jit(jax.vmap(explain, (0, None)))(jax.random.split(jax.random.key(1), 200), jnp.asarray(x))
    deviations = (value - want[None]) / error
    assert float(jnp.abs(deviations).max()) < 5
    assert float(jnp.abs(deviations.mean(0)).max()) < 5 / np.sqrt(200)
    assert 0.85 < float(jnp.sqrt(jnp.square(deviations).mean())) < 1.2


def test_masks_have_the_chance_of_a_cell_as_their_mean():
    """Explaining f = m_i itself: E[m_i m_i] / p, and of a constant exactly the constant, without noise."""
    value, error = jxp.rise(lambda x: 3.7 + 0 * x.sum(), num_masks=5, grid=2)(
        jax.random.key(0), jnp.ones((8, 6, 3))
    )
    np.testing.assert_array_equal(value, jnp.full((8, 6, 3), 3.7))
    np.testing.assert_array_equal(error, jnp.zeros((8, 6, 3)))
    for count, length in ((3, 16), (7, 8 * 4), (1, 4)):
        np.testing.assert_allclose(interpolation(count, length).sum(1), 1, rtol=1e-14)


def test_rise_finds_what_matters_and_masks_channels_together():
    x = jnp.ones((12, 10, 2))
    value, error = jxp.rise(lambda x: x[2:4, 5:7].mean(), num_masks=600, grid=(4, 4))(jax.random.key(0), x)
    np.testing.assert_array_equal(value[..., 0], value[..., 1])
    assert np.unravel_index(int(value[..., 0].argmax()), (12, 10)) in [
        (i, j) for i in (1, 2, 3, 4) for j in (5, 6)
    ]
    assert float(value[3, 6, 0] - value[10, 1, 0]) > 5 * float(error.max())


BAD = {
    "window must be a whole number of at least 1": lambda x: jxp.occlusion(jnp.sum, window=0),
    "window must be a whole": lambda x: jxp.occlusion(jnp.sum, window=(2, 0)),
    "window needs a number": lambda x: jxp.occlusion(jnp.sum, window=()),
    "stride must be a whole number of at least 1": lambda x: jxp.occlusion(jnp.sum, window=2, stride=0),
    r"window \(5, 5\) is larger than .*\(4, 3, 2\)": jxp.occlusion(jnp.sum, window=5),
    r"window \(1, 1, 1, 1\) has more axes": jxp.occlusion(jnp.sum, window=(1, 1, 1, 1)),
    "stride .* needs one number for each": jxp.occlusion(jnp.sum, window=(2, 2), stride=(1,)),
    r"stride \(2, 2\) is larger than the window": jxp.occlusion(jnp.sum, window=1, stride=2),
    "one array": lambda x: jxp.occlusion(lambda d: d["a"].sum(), window=1)({"a": x, "b": x}),
    "one array, but": lambda x: jxp.rise(lambda x: x)(jax.random.key(0), 1.0),
    "num_masks must be a whole": lambda x: jxp.rise(jnp.sum, num_masks=0),
    "grid must be a whole": lambda x: jxp.rise(jnp.sum, grid=0),
    r"grid \(7, 7\) is larger": lambda x: jxp.rise(jnp.sum)(jax.random.key(0), x),
    "keep is the chance": lambda x: jxp.rise(jnp.sum, keep=1.0),
    "keep is the chance of": lambda x: jxp.rise(jnp.sum, keep=float("nan")),
    "do not cover": jxp.ablation(jnp.sum, groups=np.zeros((3, 3), int)),
    "every number from 0 to": jxp.ablation(jnp.sum, groups=np.full((4, 3), 2)),
    r"baseline has shape \(2,\)": jxp.ablation(jnp.sum, np.zeros(2)),
    r"baseline has shape \(3,\)": jxp.occlusion(jnp.sum, window=1, baseline=np.zeros(3)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](jnp.ones((4, 3, 2)))


def test_groups_that_are_traced_or_not_whole_numbers():
    with pytest.raises(TypeError, match="known before tracing"):
        jax.jit(lambda g: jxp.ablation(jnp.sum, groups=g)(jnp.ones(3)))(jnp.zeros(3, int))
    with pytest.raises(TypeError, match="whole numbers"):
        jxp.ablation(jnp.sum, groups=np.zeros(3))(jnp.ones(3))


METHODS = {
    "ablation": jxp.ablation,
    "occlusion": lambda f: jxp.occlusion(f, window=1),
    "rise": lambda f: partial(jxp.rise(f, num_masks=4, grid=2), jax.random.key(0)),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_outputs_that_are_not_numbers(make):
    """NaN for some inputs only: wherever it enters, no number comes out."""
    result = make(lambda x: jnp.where(x[0] == 0, jnp.nan, x.sum()))(jnp.ones(2))
    assert bool(jnp.isnan(jax.tree.leaves(result)[0]).any())
    everywhere = make(lambda x: jnp.nan * x.sum())(jnp.ones(2))
    assert bool(jnp.isnan(jax.tree.leaves(everywhere)[0]).all())


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_it_is_run_on_chunks_and_traced_once(make):
    """Large batches go through the function one trace at a time, whatever the remainder."""
    traces = []

    def f(x):
        traces.append(x.shape)
        return x.sum()

    make(f)(jnp.ones(5))
    assert traces == [(5,)]


def test_scores_far_from_zero_in_sixteen_bits_are_not_summed_in_them():
    """A mean over 2000 masks of outputs near 1 would be lost in bfloat16, whose next number is 1.0078."""
    x = jnp.ones(16, jnp.bfloat16)
    f = lambda x: 1 + x.astype(jnp.float32).mean() / 8
    value, _ = jxp.rise(f, num_masks=2000, grid=4)(jax.random.key(0), x)
    exact, _ = jxp.rise(f, num_masks=2000, grid=4)(jax.random.key(0), x.astype(jnp.float32))
    assert value.dtype == jnp.bfloat16
    np.testing.assert_allclose(value.astype(jnp.float32), exact, rtol=2 * float(jnp.finfo(jnp.bfloat16).eps))
