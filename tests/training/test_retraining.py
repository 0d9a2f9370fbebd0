"""Retraining helpers against Python loops, and the linear datamodelling score against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from training.problems import quick

from jaxplain import training

DATA = np.array([1.0, 2.0, 6.0, -3.0, 0.5])


def train(key, weights):
    """A mean with noise of the key's, and another output."""
    mean = (weights * jnp.asarray(DATA)).sum() / weights.sum()
    return {"mean": mean + jax.random.normal(key, dtype=mean.dtype), "kept": weights.sum()}


def by_loop(key, weights):
    noise = float(jax.random.normal(key, dtype=jnp.float64))
    return np.average(DATA, weights=weights) + noise


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_leave_one_out(chunk_size):
    key = jax.random.key(3)
    retrain = training.leave_one_out(train, chunk_size=chunk_size)
    whole, without = quick(lambda key: retrain(key, 5))(key)
    np.testing.assert_allclose(whole["mean"], by_loop(key, np.ones(5)), rtol=1e-12)
    want = [by_loop(key, np.arange(5) != k) for k in range(5)]
    np.testing.assert_allclose(without["mean"], want, rtol=1e-12)
    np.testing.assert_array_equal(without["kept"], [4] * 5)
    some = quick(lambda key: retrain(key, 5, [3, 1])[1])(key)
    np.testing.assert_allclose(some["mean"], [want[3], want[1]], rtol=1e-12)
    np.testing.assert_allclose(
        jax.jit(lambda i: retrain(key, 5, i)[1]["mean"])(jnp.array([4])), want[4:], rtol=1e-12
    )


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_subset_retraining(chunk_size):
    masks = np.random.default_rng(0).random((4, 5)) < 0.6
    retrain = training.subset_retraining(train, chunk_size=chunk_size)
    keys = jax.random.split(jax.random.key(0), 4)
    want = [by_loop(key, mask) for key, mask in zip(keys, masks, strict=True)]
    np.testing.assert_allclose(quick(retrain)(keys, masks)["mean"], want, rtol=1e-12)
    shared = [by_loop(keys[0], mask) for mask in masks]
    np.testing.assert_allclose(quick(retrain)(keys[0], masks)["mean"], shared, rtol=1e-12)
    old_style = jax.random.key_data(keys)
    np.testing.assert_allclose(quick(retrain)(old_style, masks)["mean"], want, rtol=1e-12)
    np.testing.assert_allclose(quick(retrain)(old_style[0], masks.astype(int))["mean"], shared, rtol=1e-12)


def test_linear_datamodeling_score():
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=(3, 20))
    actual = np.round(predicted + rng.normal(size=(3, 20)), 1)  # with ties
    want = [scipy.stats.spearmanr(p, a).statistic for p, a in zip(predicted, actual, strict=True)]
    got = training.linear_datamodeling_score(predicted, actual)
    np.testing.assert_allclose(got, np.mean(want), rtol=1e-12)
    np.testing.assert_allclose(training.linear_datamodeling_score(predicted, predicted**3), 1, rtol=1e-12)
    assert bool(jnp.isnan(training.linear_datamodeling_score(predicted, np.ones((3, 20)))))


def test_summed_influence_orders_real_retraining():
    """Ridge regression in closed form: losses after training on subsets follow `influence @ masks.T`."""
    rng = np.random.default_rng(2)
    n, l2 = 30, 0.1
    x = rng.normal(size=(n + 4, 3))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.5 * rng.normal(size=n + 4)
    split = lambda some: {"x": x[some], "y": y[some]}
    train, test = split(slice(n)), split(slice(n, None))
    loss = lambda w, z: jnp.square(z["x"] @ w - z["y"]) / 2

    def fitted(weights):
        weighted = train["x"].T * weights[None]
        return jnp.linalg.solve(weighted @ train["x"] / n + l2 * jnp.eye(3), weighted @ train["y"] / n)

    regularizer = lambda w: l2 / 2 * jnp.sum(w**2)
    curvature = training.hessian(loss, regularizer=regularizer)
    explain = training.influence(loss, curvature=curvature, solve=training.dense())
    masks = (rng.random((40, n)) < 0.7).astype(float)
    retrain = training.subset_retraining(lambda key, weights: jax.vmap(loss, (None, 0))(fitted(weights), test))

    @quick
    def run(key):
        return explain(fitted(jnp.ones(n)), train, test)[0], retrain(key, masks)

    values, losses = run(jax.random.key(0))
    score = training.linear_datamodeling_score(np.asarray(values) @ masks.T, np.asarray(losses).T)
    assert score > 0.8
    wrong = training.linear_datamodeling_score(-np.asarray(values) @ masks.T, np.asarray(losses).T)
    np.testing.assert_allclose(wrong, -score, rtol=1e-12)


def test_bad_input():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"numbers from 0 to 4"):
        training.leave_one_out(train)(key, 5, [5])
    with pytest.raises(ValueError, match=r"num_train must be a whole number"):
        training.leave_one_out(train)(key, 0)
    with pytest.raises(TypeError, match=r"leave_one_out.*key"):
        training.leave_one_out(train)(5, 5)
    with pytest.raises(ValueError, match=r"chunk_size must be"):
        training.leave_one_out(train, chunk_size=0)
    with pytest.raises(ValueError, match=r"\(num_subsets, num_train\)"):
        training.subset_retraining(train)(key, np.ones(5))
    with pytest.raises(ValueError, match=r"2 keys and 3 masks"):
        training.subset_retraining(train)(jax.random.split(key), np.ones((3, 5)))
    with pytest.raises(TypeError, match="key"):
        training.subset_retraining(train)(7, np.ones((3, 5)))
    with pytest.raises(ValueError, match=r"must both be \(num_test, num_subsets"):
        training.linear_datamodeling_score(np.ones((2, 3)), np.ones((2, 4)))
