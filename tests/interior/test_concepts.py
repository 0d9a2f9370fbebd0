"""Directions of concepts, what outputs make of them, and the test against chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

import jaxplain as jxp
from jaxplain import interior
from jaxplain.interior.concepts import pairwise

RNG = np.random.default_rng(6)
YES, NO = RNG.normal(size=(7, 2, 3)) + np.array([1.0, 0.0, -0.5]), RNG.normal(size=(5, 2, 3))
W = RNG.normal(size=(6, 4))


def f(x, scale):
    z = jxp.tag(jnp.tanh(x), "z")
    return scale * jnp.square(z.reshape(-1) @ jnp.asarray(W)).sum()


def peer(yes, no, strength):
    """scikit-learn's ridge regression on the labels: its coefficients and intercept."""
    z = np.tanh(np.concatenate([yes, no])).reshape(len(yes) + len(no), -1)
    y = np.repeat([1.0, -1.0], [len(yes), len(no)])
    spread = np.square(z - z.mean(0)).sum(1).mean()
    return z, y, Ridge(alpha=strength * spread, solver="svd", tol=1e-12).fit(z, y)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_direction_is_that_of_ridge_regression(strength, chunk_size):
    fit = jax.jit(interior.concept_vector(jnp.tanh, ridge=strength, chunk_size=chunk_size))
    concept = fit(YES, NO)
    normal = peer(YES, NO, strength)[2].coef_
    np.testing.assert_allclose(concept.direction.reshape(-1), normal / np.linalg.norm(normal), rtol=1e-8)


def test_accuracy_is_that_of_refitting_without_each():
    # The strength is fixed while one is left out, as the formula has it.
    z, y, whole = peer(YES, NO, 0.05)
    right = []
    for i in range(len(y)):
        rest = np.arange(len(y)) != i
        left = Ridge(alpha=whole.alpha, solver="svd", tol=1e-12).fit(z[rest], y[rest])
        right.append(left.predict(z[i : i + 1])[0] * y[i] > 0)
    accuracy = interior.concept_vector(jnp.tanh, ridge=0.05)(YES, NO).accuracy
    assert 0 < np.mean(right) < 1
    np.testing.assert_allclose(accuracy, np.mean(right), rtol=1e-12)


def test_sensitivity_is_the_directional_derivative():
    v = RNG.normal(size=(2, 3))
    x = YES[0]
    z = np.tanh(x).reshape(-1)
    expected = 3.0 * (2 * W @ (z @ W)) @ v.reshape(-1)
    found = jax.jit(interior.concept_sensitivity(f, "z", v))(x, 3.0)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_tcav_is_its_definition_pair_by_pair():
    inputs, sets = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(4, 6, 2, 3))
    found = jax.jit(interior.tcav(f, "z", ridge=0.2, chunk_size=3))(inputs, sets[0], sets[1:], 2.0)
    # Written out: a classifier for every ordered pair, a derivative for every input.
    score, slope, right = np.zeros((3, 4, 4))
    for i in range(4):
        for j in range(4):
            if i == j:
                continue
            concept = interior.concept_vector(jnp.tanh, ridge=0.2)(sets[i], sets[j])
            towards = interior.concept_sensitivity(f, "z", concept.direction)
            along = np.array([towards(x, 2.0) for x in inputs])
            score[i, j], slope[i, j], right[i, j] = (along > 0).mean(), along.mean(), concept.accuracy
    np.testing.assert_allclose(found.score, score[0].sum() / 3, rtol=1e-12)
    np.testing.assert_allclose(found.random_scores, score[1:].sum(1) / 3, rtol=1e-12)
    mean = slope.sum(1) / 3
    np.testing.assert_allclose(found.sensitivity, mean[0], rtol=1e-9)
    np.testing.assert_allclose(found.accuracy, right[0].sum() / 3, rtol=1e-12)
    np.testing.assert_allclose(found.p_value, (1 + (abs(mean[1:]) >= abs(mean[0])).sum()) / 4, rtol=1e-12)


def test_random_concepts_are_rejected_at_the_nominal_rate():
    """p is uniform on 1/20, ..., 1 for a concept drawn as the random sets are; a real one is found."""
    num_sets, size, trials = 20, 6, 400
    keys = jax.random.split(jax.random.key(0), trials)
    slopes = jnp.asarray(RNG.normal(size=(5, 8)) + 1.0)  # of like sign, as those of one class

    def trial(key):
        z = jax.random.normal(key, (num_sets * size, 8))
        mean = pairwise(z, slopes, size, 0.05)[1].sum(1)
        return (jnp.abs(mean) >= jnp.abs(mean[0])).sum()

    ranks = np.asarray(jax.jit(lambda keys: jax.lax.map(trial, keys, batch_size=50))(keys))
    for rank in (1, 2, 5, 10):
        rate = rank / num_sets
        error = np.sqrt(rate * (1 - rate) / trials)
        assert abs((ranks <= rank).mean() - rate) < 4 * error, rank
    # Not by never rejecting: a set moved along the mean slope is found every time.
    z = jax.random.normal(jax.random.key(1), (num_sets * size, 8)).at[:size].add(slopes.mean(0)[None])
    mean = pairwise(z, slopes, size, 0.05)[1].sum(1)
    assert (jnp.abs(mean[1:]) < jnp.abs(mean[0])).all()


def test_turning_concept_and_random_round_turns_the_sign():
    inputs, sets = RNG.normal(size=(4, 2, 3)), RNG.normal(size=(2, 6, 2, 3))
    slopes = jnp.asarray(inputs.reshape(4, -1))
    score, slope, _ = pairwise(jnp.asarray(sets.reshape(12, -1)), slopes, 6, 0.1)
    np.testing.assert_allclose(score[0, 1], 1 - score[1, 0], rtol=1e-12)
    np.testing.assert_allclose(slope, -slope.T, rtol=1e-12)


def test_no_spread_is_no_direction():
    concept = interior.concept_vector(lambda x: x)(np.ones((3, 2)), np.ones((3, 2)))
    assert np.isnan(concept.direction).all()
    assert np.isnan(concept.accuracy)


def test_an_unknown_activation_is_an_unknown_answer():
    sets = RNG.normal(size=(4, 6, 2, 3))
    sets[2, 1, 0, 0] = np.nan
    found = interior.tcav(f, "z")(sets[0], sets[0], sets[1:], 1.0)
    assert np.isnan(found.p_value)


SETS = RNG.normal(size=(3, 6, 2, 3))
BAD = {
    "ridge must be": lambda: interior.concept_vector(jnp.tanh, ridge=0.0),
    "ridge must be a positive number, not True": lambda: interior.tcav(f, "z", ridge=True),
    "examples holds none": lambda: interior.concept_vector(jnp.tanh)(YES[:0], NO),
    "others holds no examples": lambda: interior.concept_vector(jnp.tanh)(YES, NO[:0]),
    r"direction has shape \(3, 2\)": lambda: interior.concept_sensitivity(f, "z", np.ones((3, 2)))(YES[0], 1.0),
    "inputs holds none": lambda: interior.tcav(f, "z")(YES[:0], SETS[0], SETS[1:], 1.0),
    "the concept has 5": lambda: interior.tcav(f, "z")(YES, SETS[0][:5], SETS[1:], 1.0),
    r"activations of the examples have shape \(2, 3\), others \(2,\)": lambda: interior.concept_vector(jnp.tanh)(
        YES, NO[..., 0]
    ),
    "give both in one form": lambda: interior.tcav(f, "z")(YES, SETS[0], SETS[1:].astype(int), 1.0),
    "random_sets has 1 sets": lambda: interior.tcav(f, "z")(YES, SETS[0], SETS[1:2], 1.0),
    "did you mean 'z'": lambda: interior.tcav(f, "zz")(YES, SETS[0], SETS[1:], 1.0),
    "must return a scalar": lambda: interior.tcav(lambda x: jxp.tag(x, "z"), "z")(YES, SETS[0], SETS[1:]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()


@pytest.mark.parametrize(("count", "size"), [(60, 3), (300, 3), (12, 40)])
@pytest.mark.parametrize("strength", [1e-2, 1e-5])
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_float32_keeps_the_direction(count, size, strength, scale):
    rng = np.random.default_rng(count)
    yes, no = rng.normal(size=(2, count, size)).astype(np.float32) + np.float32([[[0.3]], [[0.0]]])
    concept = interior.concept_vector(lambda x: x, ridge=strength)(yes * np.float32(scale), no * np.float32(scale))
    z, y = np.concatenate([yes, no]).astype(float), np.repeat([1.0, -1.0], count)
    z = z - z.mean(0)
    moments = z.T @ z + strength * np.square(z).sum() / len(z) * np.eye(size)
    normal = np.linalg.solve(moments, z.T @ y)
    np.testing.assert_allclose(concept.direction, normal / np.linalg.norm(normal), atol=2e-4)


def test_tcav_of_a_concept_far_away_in_float32():
    rng = np.random.default_rng(1)
    draws = rng.normal(size=(7, 8, 3)).astype(np.float32)
    concept = draws[0] + np.float32([0.0, 1e4, 0.0])

    def test(dtype):
        run = interior.tcav(lambda x: jxp.tag(x, "z")[0] ** 3, "z")
        return run(*(v.astype(dtype) for v in (draws[6], concept, draws[1:6])))

    for found, expected in zip(test(np.float32), test(np.float64), strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-3)


def test_activations_of_whole_numbers():
    yes, no = np.array([[3, 0], [4, 1]]), np.array([[0, 0], [1, 1]])
    found = interior.concept_vector(lambda x: x)(yes, no)
    expected = interior.concept_vector(lambda x: x)(yes.astype(float), no.astype(float))
    np.testing.assert_allclose(found.direction, expected.direction)


def test_equal_random_sets_leave_an_answer():
    draws = np.random.default_rng(1).normal(size=(7, 8, 3))
    draws[3] = draws[4]
    found = interior.tcav(lambda x: jxp.tag(x, "z")[0] ** 3, "z")(draws[6], draws[0], draws[1:6])
    assert all(np.isfinite(part).all() for part in found)
