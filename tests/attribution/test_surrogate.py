"""LIME: its fit, its draws, its choice of features, what it makes of tables, images and texts; and bad input."""

from functools import partial
from math import exp, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.linear_model
from references import derivations_perturbation as slow

import jaxplain as jxp
from jaxplain.attribution.surrogate import Kernel

RNG = np.random.default_rng(0)
ROWS, OUTPUTS = RNG.normal(size=(60, 8)), RNG.normal(size=60)
WEIGHTS = RNG.uniform(size=60)
OUTPUTS += 2 * ROWS[:, 1] - ROWS[:, 4] + 0.5 * ROWS[:, 6]
X = np.array([1.0, -0.5, 2.0, 0.7, 1.5])
MIX = RNG.normal(size=(5, 3))
SETTINGS = {
    "kernel": {},
    "uniform": {"sampling": "uniform"},
    "euclidean": {"distance": "euclidean", "kernel_width": 1.0},
    "sizes": {"sizes": "uniform"},
}


def f(x):
    return jnp.tanh(x @ jnp.asarray(MIX)).sum() + 0.3 * x[0] * x[2]


@pytest.mark.parametrize("ridge", [0.0, 1.0, 30.0])
def test_fit_is_ridge_with_an_unpenalised_intercept(ridge):
    got = jxp.fit_surrogate(ROWS, OUTPUTS, WEIGHTS, ridge=ridge)
    value, intercept, score = slow.ridge(ROWS, OUTPUTS, WEIGHTS, ridge)
    np.testing.assert_allclose(got.value, value, atol=1e-12)
    np.testing.assert_allclose([got.intercept, got.score], [intercept, score], rtol=1e-11)
    model = sklearn.linear_model.Ridge(alpha=ridge).fit(ROWS, OUTPUTS, sample_weight=WEIGHTS)
    np.testing.assert_allclose(got.value, model.coef_, atol=1e-10)
    np.testing.assert_allclose(got.score, model.score(ROWS, OUTPUTS, WEIGHTS), rtol=1e-9)


@pytest.mark.parametrize("num", [1, 3, 8])
def test_choice_of_features(num):
    chosen = {
        how: set(np.flatnonzero(jxp.fit_surrogate(ROWS, OUTPUTS, WEIGHTS, num_features=num, selection=how).value))
        for how in ("forward", "highest_weights", "lasso_path", "auto")
    }
    assert chosen["forward"] == set(slow.forward_selection(ROWS, OUTPUTS, WEIGHTS, num))
    assert chosen["auto"] == (chosen["forward"] if num <= 6 else chosen["highest_weights"])
    weights = np.abs(slow.ridge(ROWS, OUTPUTS, WEIGHTS, 0.01)[0] * ROWS[0])
    assert chosen["highest_weights"] == set(np.argsort(-weights)[:num])
    root = np.sqrt(WEIGHTS)[:, None]
    share = WEIGHTS / WEIGHTS.sum()
    _, _, path = sklearn.linear_model.lars_path(
        root * (ROWS - share @ ROWS), root[:, 0] * (OUTPUTS - share @ OUTPUTS), method="lasso"
    )
    supports = [set(np.flatnonzero(column)) for column in path.T]
    assert chosen["lasso_path"] == [support for support in supports if len(support) <= num][-1]


def test_features_left_out_have_no_weight_and_no_known_error():
    got = jxp.fit_surrogate(ROWS, OUTPUTS, WEIGHTS, num_features=2)
    alone = jxp.fit_surrogate(ROWS[:, [1, 4]], OUTPUTS, WEIGHTS)
    np.testing.assert_array_equal(np.flatnonzero(got.value), [1, 4])
    np.testing.assert_array_equal(np.isnan(got.std_error), np.asarray(got.value) == 0)
    np.testing.assert_allclose(got.value[jnp.array([1, 4])], alone.value, rtol=1e-12)
    np.testing.assert_allclose(got.std_error[jnp.array([1, 4])], alone.std_error, rtol=1e-12)


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_estimates_lie_around_the_fit_to_all_masks(options):
    """Over 200 keys within 5 standard errors, which are of the right size; the limit is enumerated."""
    sizes, width = options.get("sizes", "binomial"), options.get("kernel_width", 0.25)
    if options.get("distance") == "euclidean":
        kernel = lambda k: sqrt(exp(-(5 - k) / width**2))
    else:
        kernel = lambda k: sqrt(exp(-((1 - sqrt(k / 5)) ** 2) / width**2))
    choices = [1, 5, 10, 10, 5, 1]
    weight = lambda k: kernel(k) / (choices[k] if sizes == "uniform" else 1)
    want, _ = slow.lime_limit(lambda x: float(f(jnp.asarray(x))), X, 0.1, weight)
    explain = jxp.lime(f, perturb=0.1, num_samples=200, ridge=0.0, **options)
    got = jax.jit(jax.vmap(explain, (0, None)))(jax.random.split(jax.random.key(0), 200), jnp.asarray(X))
    deviations = (got.value - want[None]) / got.std_error
    assert float(jnp.abs(deviations).max()) < 5
    # The fit is biased by a share of 1 / n of its spread; 200 keys see a seventh of a standard error.
    assert float(jnp.abs(deviations.mean(0)).max()) < 0.4
    assert 0.85 < float(jnp.sqrt(jnp.square(deviations).mean())) < 1.25


@pytest.mark.parametrize("sampling", ["kernel", "uniform"])
def test_a_function_linear_in_its_parts_is_found_exactly(sampling):
    groups = np.array([0, 0, 1, 2, 1])
    explain = jxp.lime(lambda x: 3.0 + (jnp.arange(5.0) * x).sum(), groups=groups, ridge=0.0, sampling=sampling)
    value, intercept, score, error = explain(jax.random.key(0), jnp.asarray(X))
    terms = np.arange(5) * X
    whole = np.array([terms[:2].sum(), terms[[2, 4]].sum(), terms[3]])
    np.testing.assert_allclose(value, (whole / [2, 2, 1])[groups], atol=1e-12)
    np.testing.assert_allclose([intercept, score], [3, 1], rtol=1e-12)
    np.testing.assert_allclose(error, 0, atol=1e-12)
    # The elements and the intercept sum to the linear model's value at x.
    np.testing.assert_allclose(value.sum() + intercept, 3 + terms.sum(), rtol=1e-12)


def test_an_unused_part_of_an_additive_function_gets_zero():
    blind = lambda x: 2 * x[0] - x[4]
    value = jxp.lime(blind, ridge=0.0)(jax.random.key(0), jnp.asarray(X)).value
    np.testing.assert_allclose(value[1:4], 0, atol=1e-13)


def test_sampling_from_the_kernel_needs_a_quarter_of_the_samples_where_the_kernel_is_narrow():
    """GLIME's point: uniform draws waste themselves where the kernel is small, and the penalty takes the rest."""
    mix = jnp.asarray(np.random.default_rng(1).normal(size=(24, 8)) / 5)
    rough = lambda z: jax.nn.sigmoid(3 * jnp.tanh(2 * z @ mix).sum())
    keys, x = jax.random.split(jax.random.key(0), 40), jnp.ones(24)
    options = {"distance": "euclidean", "kernel_width": 0.5}

    def spread(sampling, num):
        explain = jxp.lime(rough, sampling=sampling, num_samples=num, **options)
        value = jax.jit(jax.vmap(explain, (0, None)))(keys, x).value
        return float(jnp.sqrt(value.var(0).sum()) / jnp.linalg.norm(value.mean(0)))

    assert spread("kernel", 128) < 0.5 * spread("uniform", 512)


def test_kernel():
    rows, origin = jnp.array([[1.0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]), jnp.ones(4)
    cosine = [1, sqrt(exp(-(0.5**2) / 0.25**2)), sqrt(exp(-1 / 0.25**2))]
    np.testing.assert_allclose(Kernel("cosine", jnp.asarray(0.25))(rows, origin), cosine, rtol=1e-12)
    euclidean = [1, sqrt(exp(-3 / 1.5**2)), sqrt(exp(-4 / 1.5**2))]
    np.testing.assert_allclose(Kernel("euclidean", jnp.asarray(1.5))(rows, origin), euclidean, rtol=1e-12)


TRAIN = np.random.default_rng(2).normal(size=(400, 3)) * [1.0, 5.0, 0.2] + [0.0, 3.0, -1.0]
SLOPES = np.array([1.0, -0.2, 0.0])


@pytest.mark.parametrize("sampling", ["kernel", "uniform"])
@pytest.mark.parametrize("kind", ["around_instance", "around_mean"])
def test_tables_of_numbers_give_slopes_per_standard_deviation(kind, sampling):
    explain = jxp.lime(
        lambda x: x @ jnp.asarray(SLOPES), perturb=jxp.tabular(TRAIN, kind=kind), sampling=sampling, ridge=0.0
    )
    value, _, score, _ = explain(jax.random.key(0), jnp.asarray(TRAIN[5]))
    np.testing.assert_allclose(value, SLOPES * TRAIN.std(0), atol=1e-12)
    np.testing.assert_allclose(score, 1, rtol=1e-12)


def test_tables_are_perturbed_where_it_says():
    """The mean input that the function sees: x around the instance; between x and the mean around the mean."""
    x = jnp.asarray(TRAIN.mean(0) + 2 * TRAIN.std(0))
    for kind, wanted in {"around_instance": 2.0, "around_mean": 2 / (1 + 0.75**2 * 3)}.items():
        near = jxp.tabular(TRAIN, kind=kind).around(x)
        kernel = Kernel("euclidean", jnp.asarray(0.75 * sqrt(3)))
        rows = near.near(jax.random.key(0), 4000, kernel)
        np.testing.assert_allclose(rows.mean(0), np.full(3, wanted), atol=1e-12)  # antithetic: exactly
        np.testing.assert_allclose(rows.std(0), (1 + 1 / 1.6875) ** -0.5, rtol=0.05)
        plain = near.rows(jax.random.key(0), 4000)
        np.testing.assert_allclose(plain.mean(0), 2.0 if kind == "around_instance" else 0.0, atol=0.08)


@pytest.mark.parametrize("sampling", ["kernel", "uniform"])
def test_quartiles(sampling):
    """A function of the quartile of column 1 and of a category alone; values come from the training rows."""
    train = np.column_stack([TRAIN, RNG.integers(0, 3, size=400)])
    edges = np.quantile(train[:, 1], [0.25, 0.5, 0.75])
    given = jnp.asarray([0.0, edges[1] + 1e-6, -1.0, 2.0])

    def steps(x):
        third = (x[1] > edges[1]) & (x[1] <= edges[2])
        values = jnp.concatenate([jnp.asarray(train), given[None]])
        seen = jnp.isclose(x[None], values, atol=1e-12).any(0).all()  # nothing but training values, or x itself
        return jnp.where(seen, jnp.where(third, 2.0, 0.0) + jnp.where(x[3] == 2.0, 1.0, 0.0), jnp.nan)

    explain = jxp.lime(steps, perturb=jxp.tabular(train, categorical=[3]), sampling=sampling, ridge=0.0)
    value, intercept, score, _ = jax.jit(explain)(jax.random.key(0), given)
    np.testing.assert_allclose(value, [0, 2, 0, 1], atol=1e-10)
    np.testing.assert_allclose([intercept, score], [0, 1], atol=1e-10)


def test_quartile_draws_have_the_training_rows_frequencies():
    bins = jxp.tabular(TRAIN).around(jnp.asarray(TRAIN[0]))
    rows = bins.rows(jax.random.key(0), 8000)
    np.testing.assert_allclose(rows.mean(0), 0.25, atol=0.02)  # 4 standard errors
    width = 0.8
    tilted = bins.near(jax.random.key(1), 8000, Kernel("euclidean", jnp.asarray(width)))
    weights = Kernel("euclidean", jnp.asarray(width))(rows, bins.origin)
    np.testing.assert_allclose(tilted.mean(0), (weights @ rows) / weights.sum(), atol=0.03)
    points = jax.vmap(bins.point)(rows, jax.random.split(jax.random.key(2), 8000))
    quartile = lambda v: (np.asarray(v)[:, None] > np.quantile(TRAIN, [0.25, 0.5, 0.75], axis=0)[None]).sum(1)
    np.testing.assert_array_equal(quartile(points) == quartile(TRAIN[:1]), np.asarray(rows) > 0)


def test_superpixels_are_connected_numbers_of_any_range():
    image = np.zeros((24, 30, 3))
    image[:, 15:] = [200, 30, 0]
    groups = jxp.superpixels(image - 100, num_segments=6)
    assert groups.shape == (24, 30)
    np.testing.assert_array_equal(np.unique(groups), np.arange(groups.max() + 1))
    assert not set(groups[:, :15].ravel()) & set(groups[:, 15:].ravel())  # none crosses the edge
    assert jxp.superpixels(image[..., 0], num_segments=4).shape == (24, 30)
    assert jxp.superpixels(np.zeros((6, 6, 3))).shape == (6, 6)
    value = jxp.lime(jnp.mean, groups=groups, perturb=jxp.mean_within(groups), num_samples=40)(
        jax.random.key(0), jnp.asarray(image)
    ).value
    np.testing.assert_allclose(value, 0, atol=1e-6)  # even patches are their own means


def test_words():
    found = jxp.words("The plot, the PLOT; good.", lower=True)
    assert found.names == ("the", "plot", "good")
    np.testing.assert_array_equal(found.groups, [0, 1, 0, 1, 2])
    np.testing.assert_array_equal(found.counts({"plot": 0, "good": 2}), [[0, 0, 0], [2, 0, 0], [0, 0, 1]])
    assert jxp.words("a b a", distinct=False).names == ("a", "b", "a")
    assert jxp.words("ab, cd", pattern=r"(\w)\w").names == ("ab", "cd")  # the word, not its group
    vectors = jnp.asarray(RNG.normal(size=(5, 4)))
    value = jxp.lime(lambda v: v.sum(), groups=found.groups, ridge=0.0)(jax.random.key(0), vectors).value
    np.testing.assert_allclose(value.sum(), vectors.sum(), rtol=1e-10)


def test_representatives_cover_within_the_greedy_guarantee():
    rng = np.random.default_rng(4)
    for _ in range(20):
        table = rng.normal(size=(8, 10)) * (rng.uniform(size=(8, 10)) < 0.25)
        picked = tuple(int(i) for i in jxp.pick_representatives(table, 3))
        assert len(set(picked)) == 3
        assert slow.coverage(table, picked) >= (1 - 1 / np.e) * slow.best_coverage(table, 3) - 1e-12
        greedy = max(range(8), key=lambda i, t=table: slow.coverage(t, (i,)))
        assert slow.coverage(table, picked[:1]) == slow.coverage(table, (greedy,))
    np.testing.assert_array_equal(jxp.pick_representatives(np.full((2, 2), np.nan), 2), [-1, -1])


BAD = {
    "num_samples=6 is too small for 5 parts": lambda x: jxp.lime(f, num_samples=6),
    "num_samples must be": lambda x: jxp.lime(f, num_samples=0),
    "num_features=6, but there are only 5": lambda x: jxp.lime(f, num_features=6),
    "num_features must be": lambda x: jxp.lime(f, num_features=0),
    "selection must be one of": lambda x: jxp.lime(f, selection="best"),
    "sampling must be one of": lambda x: jxp.lime(f, sampling="gaussian"),
    "sizes must be one of": lambda x: jxp.lime(f, sizes="all"),
    "distance must be one of": lambda x: jxp.lime(f, distance="l1"),
    "kernel_width must be positive": lambda x: jxp.lime(f, kernel_width=0.0),
    "ridge is a penalty": lambda x: jxp.lime(f, ridge=-1.0),
    "do not cover": lambda x: jxp.lime(f, groups=np.zeros(4, int)),
    "every number from 0": lambda x: jxp.lime(f, groups=np.array([0, 0, 2, 2, 3])),  # 1 is an empty superpixel
    "perturb has shape": lambda x: jxp.lime(f, perturb=jnp.zeros(3)),
    "leave groups out": lambda x: jxp.lime(f, groups=np.arange(5), perturb=jxp.tabular(np.eye(5))),
    "one row of 3 columns": lambda x: jxp.lime(f, perturb=jxp.tabular(np.eye(3))),
    "Euclidean kernel alone": lambda x: jxp.lime(f, perturb=jxp.tabular(np.eye(5)), distance="cosine"),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_options(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](X)(jax.random.key(0), jnp.asarray(X))


def test_bad_data():
    calls = {
        "table of at least two": lambda: jxp.tabular(np.ones(3)),
        "at least two finite": lambda: jxp.tabular([[1.0, np.nan], [0.0, 1.0]]),
        "kind must be one of": lambda: jxp.tabular(np.eye(2), kind="deciles"),
        "no mean or slope": lambda: jxp.tabular(np.eye(2), kind="around_mean", categorical=[0]),
        "not there": lambda: jxp.tabular(np.eye(2), categorical=[2]),
        "image must be finite": lambda: jxp.superpixels(np.full((4, 4, 3), np.nan)),
        "image must be": lambda: jxp.superpixels(np.ones(4)),
        "num_segments must be": lambda: jxp.superpixels(np.ones((4, 4, 3)), num_segments=0),
        "no word": lambda: jxp.words("?! ..."),
        "are wanted": lambda: jxp.fit_surrogate(ROWS, OUTPUTS[:3], WEIGHTS),
        "budget=9, but": lambda: jxp.pick_representatives(np.eye(8), 9),
        "examples, features": lambda: jxp.pick_representatives(np.ones(8), 1),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(jxp.superpixels)(jnp.ones((4, 4, 3)))


def test_superpixels_name_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"jaxplain\[image\]"):
        jxp.superpixels(np.ones((4, 4, 3)))


@pytest.mark.parametrize("num_features", [None, 2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_output_that_is_no_number_spoils_everything(bad, num_features):
    outputs = OUTPUTS.copy()
    outputs[7] = bad
    got = jxp.fit_surrogate(ROWS, outputs, WEIGHTS, num_features=num_features)
    assert all(bool(jnp.isnan(leaf).all()) for leaf in got)
    explain = jxp.lime(lambda x: jnp.where(x[1] == 0, bad, x.sum()), num_features=num_features)
    assert all(bool(jnp.isnan(leaf).all()) for leaf in explain(jax.random.key(0), jnp.asarray(X)))


def test_a_row_with_nan_is_not_explained():
    for kind in ("quartiles", "around_instance", "around_mean"):
        for sampling in ("kernel", "uniform"):
            explain = jxp.lime(lambda x: x[:2].sum(), perturb=jxp.tabular(TRAIN, kind=kind), sampling=sampling)
            got = explain(jax.random.key(0), jnp.array([0.0, 1.0, jnp.nan]))
            assert bool(jnp.isnan(got.value).all()), (kind, sampling)


def test_a_constant_model_has_no_weights_and_no_score():
    got = jxp.lime(lambda x: 0.1 + 0 * x.sum())(jax.random.key(0), jnp.asarray(X, jnp.float32))
    np.testing.assert_array_equal(got.value, np.zeros(5))
    np.testing.assert_array_equal(got.std_error, np.zeros(5))
    assert float(got.intercept) == np.float32(0.1)
    assert bool(jnp.isnan(got.score))


def test_features_that_cannot_be_told_apart():
    twins = np.column_stack([ROWS[:, :2], ROWS[:, 0]])
    assert bool(jnp.isnan(jxp.fit_surrogate(twins, OUTPUTS, WEIGHTS, ridge=0.0).value).all())
    shared = jxp.fit_surrogate(twins, OUTPUTS, WEIGHTS, ridge=1.0).value
    np.testing.assert_allclose(shared[0], shared[2], rtol=1e-10)  # the penalty shares it out
    assert bool(jnp.isnan(jxp.fit_surrogate(ROWS, OUTPUTS, -WEIGHTS).value).all())
    assert bool(jnp.isnan(jxp.fit_surrogate(ROWS, OUTPUTS, 0 * WEIGHTS).value).all())


@pytest.mark.parametrize("sampling", ["kernel", "uniform"])
@pytest.mark.parametrize("table", [False, True])
def test_chunks_and_traces(sampling, table):
    traces = []

    def counted(x):
        traces.append(x.shape)
        return jnp.sin(x).sum()

    perturb = jxp.tabular(RNG.normal(size=(50, 5))) if table else 0.0
    make = partial(jxp.lime, counted, perturb=perturb, sampling=sampling, num_samples=31)
    results = [make(chunk_size=size)(jax.random.key(0), jnp.asarray(X)) for size in (None, 1, 4, 31)]
    assert len(traces) == 4
    for result in results[1:]:
        for one, other in zip(result, results[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)


def test_sixteen_bits():
    x = jnp.ones(5, jnp.bfloat16)
    got = jxp.lime(lambda x: 100 + x[0].astype(jnp.float32) / 8)(jax.random.key(0), x)
    assert got.value.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.value.astype(float), [0.125, 0, 0, 0, 0], atol=0.002)  # the penalty's share
