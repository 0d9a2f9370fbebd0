"""What drives a unit: attributions of a channel by several methods, and pixels scaled by them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.interior import scaled_pixels, visualise_unit

RNG = np.random.default_rng(0)
X, K, W = RNG.normal(size=(6, 5, 2)), RNG.normal(size=(3, 3, 2, 4)), RNG.normal(size=4)


def features(x):
    z = jax.lax.conv_general_dilated(
        x[None], jnp.asarray(K), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jxp.tag(jax.nn.relu(z), "features")


def f(x, scale=1.0):
    """Of any output; the site has a leading axis of size 1."""
    return scale * features(x).mean((0, 1, 2)) @ jnp.asarray(W), {"and": x}


METHODS = {
    "gradient": jxp.gradient,
    "guided_backprop": jxp.guided_backprop,
    "integrated_gradients": partial(jxp.integrated_gradients, num_steps=8),
    "lrp": partial(jxp.lrp, rules=jxp.rules.EPSILON),
}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("unit", [1, -1])
def test_every_method_explains_the_largest_value_of_a_channel(name, unit):
    want = METHODS[name](lambda x: features(x)[..., unit].max())(X)
    got = visualise_unit(f, "features", unit, method=METHODS[name])(X, 3.0)
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-15)
    assert np.abs(want).max() > 0.1


def test_the_mean_one_place_and_other_channel_axes():
    want = jax.grad(lambda x: features(x)[..., 2].mean())(X)
    np.testing.assert_allclose(visualise_unit(f, "features", 2, reduce="mean")(X), want, rtol=1e-12, atol=1e-15)
    place = np.unravel_index(np.argmax(features(X)[0, ..., 2]), (6, 5))
    want = jax.grad(lambda x: features(x)[(0, *place, 2)])(X)
    for unit in ((*map(int, place), 2), (0, *map(int, place), 2)):
        np.testing.assert_allclose(visualise_unit(f, "features", unit)(X), want, rtol=1e-12)
    np.testing.assert_allclose(visualise_unit(f, "features", 2)(X), want, rtol=1e-12)  # it is the largest
    first = lambda x: jxp.tag(jnp.moveaxis(features(x), -1, 1), "first")
    np.testing.assert_allclose(visualise_unit(first, "first", 2, channel_axis=1)(X), want, rtol=1e-12)


def test_argnums_many_units_and_samples():
    swapped = lambda scale, x: f(x, scale)
    want = visualise_unit(f, "features", 1)(X)
    np.testing.assert_allclose(visualise_unit(swapped, "features", 1, argnums=1)(2.0, X), want, rtol=1e-12)
    each = jax.jit(jax.vmap(lambda unit: visualise_unit(f, "features", unit)(X)))(jnp.arange(4))
    np.testing.assert_allclose(each[1], want, rtol=1e-12)
    smoothed = visualise_unit(f, "features", 1, method=lambda q: jxp.smooth(jxp.gradient(q), num_samples=4))
    assert smoothed(jax.random.key(0), X).value.shape == X.shape


def test_scaled_pixels():
    image = RNG.uniform(size=(10, 10, 3))
    influence = RNG.normal(size=(10, 10, 3))
    got = scaled_pixels(image, influence, percentile=90.0)
    total = np.maximum(influence.sum(-1), 0)
    want = image * np.minimum(total / np.percentile(total, 90.0), 1)[..., None]
    np.testing.assert_allclose(got, want, rtol=1e-12)
    np.testing.assert_allclose(
        jax.jit(partial(scaled_pixels, percentile=90.0))(image, influence), want, rtol=1e-12
    )
    alone = scaled_pixels(image[..., 0], influence[..., 0], percentile=100.0, channel_axis=None)
    positive = np.maximum(influence[..., 0], 0)
    np.testing.assert_allclose(alone, image[..., 0] * positive / positive.max(), rtol=1e-12)


def test_scaled_pixels_at_the_edges():
    image = np.full((2, 2, 1), 200, np.uint8)
    one = np.zeros((2, 2, 1))
    assert not scaled_pixels(image, one).any()
    assert not scaled_pixels(image, one - 1).any()
    one[0, 1] = 1e-9  # its percentile is 0, its maximum is not
    np.testing.assert_allclose(scaled_pixels(image, one, percentile=50.0)[..., 0], [[0, 200], [0, 0]])
    assert np.isnan(scaled_pixels(image, one * np.nan)).all()


BAD = {
    "no channel 4": lambda: visualise_unit(f, "features", 4)(X),
    "no channel -5": lambda: visualise_unit(f, "features", -5)(X),
    "and no unit": lambda: visualise_unit(f, "features", (0, 9, 0))(X),
    "no axis 4": lambda: visualise_unit(f, "features", 0, channel_axis=4)(X),
    "did you mean 'features'": lambda: visualise_unit(f, "feature", 0)(X),
    "reduce must be": lambda: visualise_unit(f, "features", 0, reduce="sum"),
    "method is a transform": lambda: visualise_unit(f, "features", 0, method="gradient"),
    "interpreted as an integer": lambda: visualise_unit(f, "features", 0.5)(X),
    "same one": lambda: scaled_pixels(X, X[:2]),
    "not empty": lambda: scaled_pixels(X[:0], X[:0]),
    "percentile must lie": lambda: scaled_pixels(X, X, percentile=0.0),
    "no axis 3": lambda: scaled_pixels(X, X, channel_axis=3),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        BAD[message]()


def test_a_traced_channel_that_is_not_there_gives_nan():
    def pair(x):
        return jxp.tag(jnp.stack([x, 2 * x], -1), "z").sum()

    maps = jax.vmap(lambda unit: visualise_unit(pair, "z", unit)(jnp.array([1.0, 3.0])))(jnp.arange(-3, 3))
    np.testing.assert_array_equal(np.isnan(maps).all(1), [True, False, False, False, False, True])
    np.testing.assert_array_equal(maps[1:3], maps[3:5])
