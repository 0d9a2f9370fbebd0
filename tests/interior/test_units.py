"""Channels in the order of their influence, and functions with some of them only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import interior

RNG = np.random.default_rng(1)
X, W = RNG.normal(size=(3, 4)), RNG.normal(size=4)


def f(x, scale):
    return scale * (jxp.tag(jnp.sin(x), "z") @ jnp.asarray(W)).sum()


def by_hand(kept, baseline=0.0, scale=2.0):
    z = np.where(np.isin(np.arange(4), kept)[None], np.sin(X), baseline)
    return scale * (z @ W).sum()


@pytest.mark.parametrize("units", [[1, 3], [], [-1], np.array([0, 0, 2])])
def test_keep_and_drop(units):
    kept = [u % 4 for u in units]
    dropped = [u for u in range(4) if u not in kept]
    np.testing.assert_allclose(interior.keep_units(f, "z", units)(X, 2.0), by_hand(kept), rtol=1e-12)
    np.testing.assert_allclose(interior.drop_units(f, "z", units)(X, 2.0), by_hand(dropped), rtol=1e-12)


def test_a_baseline_a_channel_axis_and_traced_units():
    means = np.arange(4.0)[None]
    got = interior.keep_units(f, "z", [1], baseline=means)(X, 2.0)
    np.testing.assert_allclose(got, by_hand([1], means), rtol=1e-12)
    rows = interior.drop_units(f, "z", [0], channel_axis=0)(X, 2.0)
    np.testing.assert_allclose(rows, 2 * (np.sin(X[1:]) @ W).sum(), rtol=1e-12)
    each = jax.jit(jax.vmap(lambda u: interior.drop_units(f, "z", u)(X, 2.0)))(jnp.arange(4)[:, None])
    np.testing.assert_allclose(each, [by_hand([u for u in range(4) if u != k]) for k in range(4)], rtol=1e-12)


def test_rank():
    values = RNG.normal(size=(2, 5, 3))
    np.testing.assert_array_equal(interior.rank_units(values), np.argsort(-values.mean((0, 1))))
    np.testing.assert_array_equal(
        interior.rank_units(values, channel_axis=1, reduce="max"), np.argsort(-values.max((0, 2)))
    )
    np.testing.assert_array_equal(interior.rank_units(np.array([1.0, np.nan, 2.0])), [2, 0, 1])


BAD = {
    "no channel 4": lambda: interior.keep_units(f, "z", [0, 4])(X, 1.0),
    "no axis 2": lambda: interior.keep_units(f, "z", [0], channel_axis=2)(X, 1.0),
    "units are whole numbers": lambda: interior.drop_units(f, "z", [0.5])(X, 1.0),
    r"baseline \(3,\) does not fit": lambda: interior.drop_units(f, "z", [0], baseline=np.ones(3))(X, 1.0),
    "did you mean 'z'": lambda: interior.keep_units(f, "zz", [0])(X, 1.0),
    "reduce must be": lambda: interior.rank_units(X, reduce="median"),
    "no axis 5": lambda: interior.rank_units(X, channel_axis=5),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        BAD[message]()


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_numbers_of_a_short_type_among_many_channels(dtype):
    def wide(x):
        return jxp.tag(x * jnp.arange(300.0), "z").sum()

    x, units = jnp.ones(300), np.array([1, 44], dtype)  # 300 = 256 + 44
    assert interior.keep_units(wide, "z", units)(x) == 45
    assert interior.drop_units(wide, "z", units)(x) == 299 * 150 - 45


@pytest.mark.parametrize("change", [interior.keep_units, interior.drop_units])
def test_a_traced_number_that_is_not_there_is_not_another(change):
    @jax.vmap
    def changed(unit):
        return change(f, "z", unit[None])(jnp.asarray(X), 2.0)

    values = changed(jnp.array([1, 4, -3, -5]))
    assert np.isnan(values[jnp.array([1, 3])]).all()
    np.testing.assert_allclose(values[0], values[2])
