"""Numpy callables as functions: right, batched by the chunk, and never silently of another shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.interop import numpy_function

# Callbacks run in threads of JAX's own, which know no `with jax.enable_x64`: so in float32, as users have it.
NUMERICS = "plain"
ROUNDING = 1e-5  # of sums of 32 numbers of size 1
X = np.linspace(-1, 1, 5).astype(np.float32)
BACKGROUND = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)


def counting():
    sizes = []

    def fn(batch):
        sizes.append(len(batch))
        assert isinstance(batch, np.ndarray)
        return np.tanh(batch).prod(1) + batch[:, 0]

    return numpy_function(fn), sizes


def test_agrees_with_the_same_in_jax():
    f, _ = counting()
    same = lambda x: jnp.tanh(x).prod() + x[0]
    want = jxp.exact_shap(same, BACKGROUND)(X)
    np.testing.assert_allclose(jxp.exact_shap(f, BACKGROUND)(X), want, atol=ROUNDING)
    np.testing.assert_allclose(jax.jit(jxp.exact_shap(f, BACKGROUND, chunk_size=8))(X), want, atol=ROUNDING)


def test_one_example_alone():
    f, sizes = counting()
    want = np.tanh(X).prod() + X[0]
    for call in (f, jax.jit(f)):
        assert call(X).shape == ()
        np.testing.assert_allclose(call(X), want, atol=ROUNDING)
    assert set(sizes) == {1}


@pytest.mark.parametrize("chunk_size", [8, 32, 3])
def test_is_called_with_whole_chunks(chunk_size):
    f, sizes = counting()
    jax.block_until_ready(jxp.exact_shap(f, BACKGROUND, chunk_size=chunk_size)(X))
    # 32 coalitions on 4 rows; in chunks of 3, each coalition is rows 1 and then 3.
    assert sum(sizes) == 128
    assert max(sizes) == chunk_size
    assert len(sizes) == {8: 16, 32: 4, 3: 64}[chunk_size]


def test_one_call_without_chunks():
    f, sizes = counting()
    jax.block_until_ready(jax.jit(jxp.kernel_shap(f, BACKGROUND, budget=20))(jax.random.key(0), X).value)
    assert sizes == [20 * 4]


def test_outputs_of_other_shapes():
    logits = numpy_function(lambda batch: np.stack([batch[:, 0], 2 * batch[:, 1]], 1), (2,))
    np.testing.assert_allclose(jax.vmap(logits)(jnp.ones((3, 5))), [[1, 2]] * 3)
    f = jxp.class_score(logits)
    np.testing.assert_allclose(
        jxp.exact_shap(f, np.zeros((1, 5)))(jnp.asarray(X), 1), [0, 2 * X[1], 0, 0, 0], atol=ROUNDING
    )
    wrong = numpy_function(lambda batch: batch)
    with pytest.raises(Exception, match=r"returned shape \(1, 5\)"):
        jax.block_until_ready(wrong(jnp.asarray(X)))


def test_a_forest():
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor

    x, y = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(n_estimators=20, random_state=0).fit(x, y)
    f = numpy_function(model.predict)
    got = jax.jit(jxp.exact_shap(f, x[:3], groups=np.arange(10) // 2))(x[7])
    want = model.predict(x[7:8].astype(np.float32))[0] - model.predict(x[:3].astype(np.float32)).mean()
    np.testing.assert_allclose(got.sum(), want, atol=1e-3)  # of predictions of size 150


def test_one_example_and_whole_numbers():
    f, sizes = counting()
    np.testing.assert_allclose(f(X), np.tanh(X).prod() + X[0], atol=ROUNDING)
    assert sizes == [1]
    jxp.rise(f, num_masks=4, grid=2)(jax.random.key(0), X)  # evaluates one input by itself
    half = numpy_function(lambda batch: batch.mean(1))
    assert half(jnp.array([0, 1])) == half(jnp.array([False, True])) == 0.5
