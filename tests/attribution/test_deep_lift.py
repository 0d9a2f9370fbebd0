"""DeepLIFT and Deep SHAP: where they are exact, and how far from the Shapley values where they are not."""

from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp

X, X0 = np.array([1.3, -0.7, 2.0, 0.4]), np.array([0.2, 0.5, -1.0, 0.9])


def pooled(x):
    """Max-pooling whose winner changes between input and reference."""
    return (jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (3,), (1,), "VALID") ** 2).sum()


FUNCTIONS = {
    "max-pooling": pooled,
    "min": lambda x: jnp.minimum(x[0], x[1]) * 2 + x.min() * x.max(),
    "product": lambda x: x[0] * x[1] * x[2],
    "quotient": lambda x: x[0] / (2 + x[3] ** 2),
    "square by itself": lambda x: jnp.dot(x, x),
    "softmax": lambda x: jax.nn.softmax(3 * x)[1] * 5,
    "log_softmax": lambda x: jax.nn.log_softmax(x)[2],
    "stop_gradient": lambda x: (jax.lax.stop_gradient(jnp.tanh(x)) * x).sum(),
    "layer norm": lambda x: jnp.tanh((x - x.mean()) / jnp.sqrt(x.var() + 1e-5))[0],
}


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_completeness(name, rule):
    f, x, x0 = FUNCTIONS[name], jnp.asarray(X), jnp.asarray(X0)
    result = jax.jit(jxp.deep_lift(f, x0, rule=rule))(x)
    np.testing.assert_allclose(result.sum(), f(x) - f(x0), rtol=1e-11)


def test_no_difference_gives_nothing_and_the_gradient_of_it():
    x = jnp.asarray(X)
    f = lambda x: jnp.tanh(x @ jnp.arange(1.0, 5.0)) + jnp.exp(x).sum()
    explain = lambda x, x0: jxp.deep_lift(f, x0)(x)
    assert float(jnp.abs(explain(x, x)).max()) == 0
    # At x = x0 the multiplier is the gradient, so that is the derivative of the contributions.
    slope = jax.jacobian(explain)(x, x)
    np.testing.assert_allclose(jnp.diag(slope), jax.grad(f)(x), rtol=1e-6)


def test_rescale_is_linear_and_exact_for_linear_functions():
    w = jnp.asarray(np.arange(1.0, 5.0))
    f = lambda x: w @ x + 3.0
    np.testing.assert_allclose(jxp.deep_lift(f, X0)(jnp.asarray(X)), w * (X - X0), rtol=1e-14)


def shapley(f, x, x0):
    """Shapley values by enumeration, absent inputs at the reference."""
    n = len(x)
    values = np.zeros(n)
    for k in range(n):
        rest = [j for j in range(n) if j != k]
        for size in range(n):
            for chosen in combinations(rest, size):
                mask = np.isin(np.arange(n), chosen)
                gain = f(np.where(mask | (np.arange(n) == k), x, x0)) - f(np.where(mask, x, x0))
                values[k] += float(gain) / (n * comb(n - 1, size))
    return values


def test_two_factors_get_their_shapley_values():
    f = lambda x: x[0] * x[1] + jnp.tanh(x[2]) * x[3]
    np.testing.assert_allclose(jxp.deep_lift(f, X0)(jnp.asarray(X)), shapley(f, X, X0), rtol=1e-12)


def test_deep_shap_is_the_mean_over_references_and_near_the_shapley_values(capsys):
    rng = np.random.default_rng(0)
    w1, w2 = rng.normal(size=(4, 16)) / 2, rng.normal(size=16) / 4
    background = rng.normal(size=(5, 4))
    f = lambda x: jax.nn.relu(x @ jnp.asarray(w1)) @ jnp.asarray(w2)
    x = jnp.asarray(X)
    got = jxp.deep_shap(f, background)(x)
    each = jnp.stack([jxp.deep_lift(f, row)(x) for row in background])
    np.testing.assert_allclose(got, each.mean(0), rtol=1e-12)
    np.testing.assert_allclose(got.sum(), f(x) - jax.vmap(f)(jnp.asarray(background)).mean(), rtol=1e-12)
    exact = np.mean([shapley(f, X, row) for row in background], axis=0)
    gap = float(np.abs(got - exact).max() / np.abs(exact).max())
    with capsys.disabled():
        print(f"\nDeep SHAP is off the Shapley values by {gap:.3f} of the largest")
    assert 1e-6 < gap < 0.25


def test_what_is_steered_by_the_input_is_refused():
    steered = {
        "where": lambda x: jnp.where(x > x[::-1], x, 2 * x).sum(),
        "argmax": lambda x: x[jnp.argmax(x)],
        "sort": lambda x: jnp.sort(x)[0],
        "cond": lambda x: jax.lax.cond(x[0] > 0, lambda v: v.sum(), lambda v: 2 * v.sum(), x),
    }
    for name, f in steered.items():
        with pytest.raises(jxp.UnsupportedOperation):
            jxp.deep_lift(f)(jnp.asarray(X))
        assert bool(jnp.isfinite(jxp.lrp(f)(jnp.asarray(X))).all()), name
