"""Experts with few units, profiles of classes, and instances that deviate from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import interior

RNG = np.random.default_rng(4)
XS, LABELS = RNG.normal(size=(9, 5)), np.array([0, 1, 0, 0, 1, 1, 0, 1, 3])
W, V = RNG.normal(size=(5, 6)), RNG.normal(size=(6, 4))


def logits(x, scale=1.0):
    return scale * (jxp.tag(jnp.tanh(x @ jnp.asarray(W)), "z") @ jnp.asarray(V))


def test_expert_is_the_margin_of_what_is_left():
    kept = [4, 1]
    z = np.tanh(XS[0] @ W)
    left = np.where(np.isin(np.arange(6), kept), z, 0.25) @ V
    expert = interior.class_expert(logits, "z", 2, kept, baseline=0.25)
    np.testing.assert_allclose(expert(XS[0]), left[2] - np.delete(left, 2).max(), rtol=1e-12)
    batch = jax.jit(jax.vmap(expert))(XS)
    np.testing.assert_allclose(batch[3], expert(XS[3]), rtol=1e-12)


def test_whole_expert_is_the_network():
    margins = jax.vmap(interior.class_expert(logits, "z", 1, np.arange(6)))(XS)
    np.testing.assert_array_equal(margins > 0, jax.vmap(logits)(XS).argmax(-1) == 1)


@pytest.mark.parametrize("chunk_size", [None, 2, 4])
def test_profiles_are_means_by_class(chunk_size):
    profiles = interior.class_profiles(logits, "z", chunk_size=chunk_size)(XS, LABELS, 2.0)
    z = np.tanh(XS @ W)
    for c in range(4):
        expected = (2 * z * V[:, c])[c == LABELS].mean(0) if (c == LABELS).any() else np.full(6, np.nan)
        np.testing.assert_allclose(profiles[c], expected, rtol=1e-12)
    traced = jax.jit(lambda labels: interior.class_profiles(logits, "z")(XS, labels, 2.0))(LABELS)
    np.testing.assert_allclose(traced, profiles, rtol=1e-12)


def test_other_axes_are_reduced_as_said():
    def picture(x):  # (3, 2, 4): channels are axis 1
        return jxp.tag(x**2, "z").sum((0, 2))

    xs = RNG.normal(size=(5, 3, 2, 4))
    labels = np.array([0, 1, 1, 0, 1])
    for reduce in ("mean", "max", "sum"):
        own = getattr(np, reduce)(xs**2, axis=(1, 3)) * np.eye(2)[labels]
        expected = np.stack([own[labels == c].mean(0) for c in (0, 1)])
        found = interior.class_profiles(picture, "z", channel_axis=1, reduce=reduce)(xs, labels)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_deviation_is_one_less_the_cosine():
    profiles = RNG.normal(size=(4, 6))
    deviation = jax.jit(jax.vmap(interior.profile_deviation(logits, "z", profiles)))(XS)
    z = np.tanh(XS @ W)
    for i in range(9):
        c = (z[i] @ V).argmax()
        own = z[i] * V[:, c]
        cosine = own @ profiles[c] / np.linalg.norm(own) / np.linalg.norm(profiles[c])
        np.testing.assert_allclose(deviation[i], 1 - cosine, rtol=1e-10)


def test_of_its_own_profile_nothing_deviates_and_of_none_it_is_unknown():
    own = interior.class_profiles(logits, "z")(XS[:1], logits(XS[0]).argmax()[None])
    assert abs(interior.profile_deviation(logits, "z", own)(XS[0])) < 1e-12
    assert np.isnan(interior.profile_deviation(logits, "z", np.full((4, 6), np.nan))(XS[0]))
    assert np.isnan(interior.profile_deviation(logits, "z", np.zeros((4, 6)))(XS[0]))


def flat(x):
    return jxp.tag(x, "z").sum()


def bypassed(x):
    jxp.tag(x**2, "z")
    return x[:2]


BAD = {
    "no channel 6": lambda: interior.class_expert(logits, "z", 0, [6])(XS[0]),
    "label 5 is out of range": lambda: interior.class_expert(logits, "z", 5, [0])(XS[0]),
    "label 4 is out of range: the": lambda: interior.class_profiles(logits, "z")(XS, LABELS + 4),
    r"labels has shape \(8,\)": lambda: interior.class_profiles(logits, "z")(XS, LABELS[:8]),
    "labels are integers": lambda: interior.class_profiles(logits, "z")(XS, LABELS * 1.0),
    "xs holds no examples": lambda: interior.class_profiles(logits, "z")(XS[:0], LABELS[:0]),
    "reduce must be": lambda: interior.class_profiles(logits, "z", reduce="median")(XS, LABELS),
    "no axis 3": lambda: interior.class_profiles(logits, "z", channel_axis=3)(XS, LABELS),
    r"profiles has shape \(4, 5\)": lambda: interior.profile_deviation(logits, "z", np.ones((4, 5)))(XS[0]),
    "logits of one example": lambda: interior.class_profiles(flat, "z")(XS, LABELS),
    "did you mean 'z'": lambda: interior.class_profiles(logits, "zz")(XS, LABELS),
    r"no site 'z'.*\(a value that the output does not depend on": lambda: interior.class_profiles(bypassed, "z")(
        XS, LABELS % 2
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        BAD[message]()


def test_an_example_that_is_not_finite_stays_in_its_class():
    xs = jnp.asarray(XS).at[0].set(jnp.nan)
    found = interior.class_profiles(logits, "z", chunk_size=4)(xs, LABELS)
    whole = interior.class_profiles(logits, "z")(jnp.asarray(XS), LABELS)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], whole[1:], rtol=1e-6)


def test_traced_labels_out_of_range_and_labels_of_a_short_type():
    profiles = jax.jit(interior.class_profiles(logits, "z"))
    assert np.isnan(profiles(jnp.asarray(XS), jnp.asarray(LABELS).at[1].set(4))).all()

    def many(x):
        return jxp.tag(x, "z") * jnp.arange(300.0)

    found = interior.class_profiles(many, "z")(jnp.ones((2, 300)), np.array([3, 3], np.uint8))
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(found).all(1)), [3])


@pytest.mark.parametrize("size", [1e-25, 1.0, 1e25])
def test_deviation_knows_no_size(size):
    profiles = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
    matrix, x = jnp.asarray(V, jnp.float32), jnp.asarray(RNG.normal(size=6), jnp.float32)

    def linear(x):
        return jxp.tag(x, "z") @ matrix

    found = interior.profile_deviation(linear, "z", profiles * jnp.float32(size))(x)
    np.testing.assert_allclose(found, interior.profile_deviation(linear, "z", profiles)(x), rtol=1e-5)


def test_a_small_deviation_keeps_its_digits():
    profile = np.array([1.0, 2.0, 3.0])
    profiles = jnp.asarray([profile, profile + np.array([1e-4, 0.0, 0.0])], jnp.float32)

    def same(x):
        return jxp.tag(x, "z") @ jnp.ones((3, 2), jnp.float32)

    found = interior.profile_deviation(same, "z", profiles[::-1])(profiles[0])
    a, b = (row / np.linalg.norm(row) for row in np.asarray(profiles, float))
    np.testing.assert_allclose(found, np.square(a - b).sum() / 2, rtol=2e-2)
