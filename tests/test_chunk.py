"""Chunks: sums and moments do not depend on them, and memory does not grow with the number of points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import _chunk


@pytest.mark.parametrize("total", [1, 2, 7, 12])
@pytest.mark.parametrize("chunk_size", [None, 1, 2, 5, 12, 50])
def test_sums_moments_and_stacks(total, chunk_size):
    points = jnp.asarray(np.random.default_rng(total).normal(size=total))
    weights = jnp.linspace(1.0, 2.0, total)
    function = lambda t: {"a": jnp.stack([t, t**2]), "b": jnp.sin(t)}
    values = jax.vmap(function)(points)
    found = _chunk.weighted_sum(function, points, weights, chunk_size=chunk_size)
    np.testing.assert_allclose(found["a"], weights @ values["a"], rtol=1e-13)
    np.testing.assert_allclose(found["b"], weights @ values["b"], rtol=1e-13)
    mean, variance = _chunk.moments(function, points, chunk_size=chunk_size)
    np.testing.assert_allclose(mean["a"], values["a"].mean(0), rtol=1e-13)
    if total > 1:
        np.testing.assert_allclose(variance["a"], values["a"].var(0, ddof=1), rtol=1e-12)
    else:
        assert bool(jnp.isnan(variance["b"]))
    np.testing.assert_array_equal(_chunk.stack(function, points, chunk_size=chunk_size)["b"], values["b"])


def test_moments_of_large_offsets_do_not_cancel():
    points = 1e8 + jnp.asarray(np.random.default_rng(0).normal(size=64))
    _, variance = _chunk.moments(lambda t: t, points, chunk_size=5)
    np.testing.assert_allclose(variance, np.var(np.asarray(points), ddof=1), rtol=1e-7)


def test_sixteen_bit_values_are_summed_in_float32():
    ones = jnp.ones(4096, jnp.bfloat16)
    total = _chunk.weighted_sum(lambda t: t, ones, jnp.ones(4096, jnp.float32), chunk_size=16)
    assert total.dtype == jnp.float32
    assert float(total) == 4096.0  # in bfloat16 it would stop at 256


METHODS = {
    "integrated_gradients": lambda f, n: jxp.integrated_gradients(f, num_steps=n, chunk_size=8),
    "blur_integrated_gradients": lambda f, n: jxp.blur_integrated_gradients(f, num_steps=n, chunk_size=8),
    "guided_integrated_gradients": lambda f, n: jxp.guided_integrated_gradients(f, num_steps=n),
    "expected_gradients": lambda f, n: (
        lambda x: jxp.expected_gradients(f, jnp.zeros((1, 64, 64)), num_samples=n, chunk_size=8)(
            jax.random.key(0), x
        )
    ),
    "smooth": lambda f, n: (
        lambda x: jxp.smooth(jxp.gradient(f), num_samples=n, chunk_size=8)(jax.random.key(0), x)
    ),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_memory_does_not_grow_with_the_number_of_samples(make):
    f = lambda x: jnp.tanh(x @ x).sum()

    def temporaries(n):
        compiled = jax.jit(make(f, n)).lower(jnp.ones((64, 64))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # What may grow is the list of nodes: a few numbers each.
    assert temporaries(512) - temporaries(32) <= 480 * 64
