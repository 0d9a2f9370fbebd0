"""Axioms, where a method promises them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from laws.methods import METHODS
from laws.networks import first_logit, setting

COMPLETE = [m for m in METHODS if m.complete]
LINEAR = [m for m in METHODS if "linear" not in m.excused]
DUMMY = [m for m in METHODS if "dummy" not in m.excused and not m.map]
STOCHASTIC = [m for m in METHODS if m.stochastic and "calibration" not in m.excused]
by_name = {"ids": lambda m: m.name}


@pytest.mark.parametrize("method", COMPLETE, **by_name)
def test_completeness(method):
    f, xs, p = first_logit(method.image, method.relu)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    def gap(x, p):
        explained = method.complete(lambda x: f(x, p), x)
        return (method.explain(f, x, p).sum() - explained) / jnp.abs(explained)

    assert float(jnp.abs(gap(xs, p)).max()) < method.gap


@pytest.mark.parametrize("nodes", ["gauss_legendre", "midpoint", "trapezoid", "left", "right"])
def test_integrated_gradients_are_exact_on_polynomials_up_to_the_rule(nodes):
    """Gauss-Legendre with n nodes integrates a gradient of degree 2n - 1; the others one of degree 1 or 0."""
    n = 4
    degree = {"gauss_legendre": 2 * n, "midpoint": 2, "trapezoid": 2, "left": 1, "right": 1}[nodes]
    x, start = jnp.array([1.3, -0.7, 0.4]), jnp.array([-0.2, 0.5, 0.1])

    def gap(power):
        f = lambda x: (jnp.array([0.5, -2.0, 1.0]) * x).sum() ** power
        result = jxp.integrated_gradients(f, start, num_steps=n, nodes=nodes)(x)
        return abs(float(result.sum() / (f(x) - f(start)) - 1))

    assert gap(degree) < 1e-13
    assert gap(degree + 2) > 1e-6


@pytest.mark.parametrize("nodes", ["gauss_legendre", "midpoint", "trapezoid", "left", "right"])
@pytest.mark.parametrize("num_steps", [2, 7, 33])
def test_weights_sum_to_one(nodes, num_steps):
    """A constant gradient g gets (x - x') g from every rule (captum's trapezoid gives (n-1)/n of it)."""
    g, x, start = jnp.array([2.0, -3.0]), jnp.array([0.3, 1.7]), jnp.array([1.0, 0.1])
    result = jxp.integrated_gradients(lambda x: (g * x).sum(), start, num_steps=num_steps, nodes=nodes)(x)
    np.testing.assert_allclose(result, g * (x - start), rtol=1e-15)


@pytest.mark.parametrize("method", LINEAR, **by_name)
def test_linearity(method):
    """Explaining a f + b g is explaining f and g."""
    logits, xs, p = setting(method.image, method.relu)
    explain = lambda f: jax.jit(partial(method.explain, f))(xs[0], p)
    first, second = explain(lambda x, p: logits(x, p)[0]), explain(lambda x, p: logits(x, p)[1])
    both = explain(lambda x, p: 2.0 * logits(x, p)[0] - 3.0 * logits(x, p)[1])
    scale = float(jnp.abs(both).max())
    np.testing.assert_allclose(both, 2.0 * first - 3.0 * second, rtol=0, atol=1e-12 * scale)


@pytest.mark.parametrize("method", DUMMY, **by_name)
def test_an_input_that_is_not_used_gets_exactly_zero(method):
    f, xs, p = first_logit(False, method.relu)
    blind = lambda x, p: f(x.at[2].set(0.0), p)
    result = method.explain(blind, xs[0], p)
    assert float(result[2]) == 0.0
    assert float(jnp.abs(result).max()) > 1e-3


def test_an_input_that_is_not_used_gets_zero_from_blurring():
    f, xs, p = first_logit(False)
    result = jxp.blur_integrated_gradients(lambda x, p: f(x.at[2].set(0.0), p), max_sigma=3.0)(xs[0], p)
    assert float(result[2]) == 0.0


@pytest.mark.parametrize("method", [m for m in METHODS if m.name.startswith("integrated")], **by_name)
def test_symmetric_inputs_get_the_same(method):
    f = lambda x, p: jnp.tanh(x[0] * x[1]) + jnp.sin(x[0] + x[1]) * x[2]
    result = method.explain(f, jnp.array([0.7, 0.7, -0.2]), None)
    np.testing.assert_allclose(result[0], result[1], rtol=1e-14)


@pytest.mark.parametrize("method", [m for m in STOCHASTIC if "unbiased" not in m.excused], **by_name)
def test_standard_errors_are_calibrated(method):
    """Over 300 keys, the spread of the estimates is what `std_error` says, and their mean is the truth.

    The truth is the mean over many more samples with other keys: the estimate must not depend, but for chance,
    on how many samples are drawn.
    """
    f, xs, p = first_logit(method.image, method.relu)
    few, many = 16, 1024
    make = {n: method.make(f, num_samples=n) for n in (few, many)}
    keys = jax.random.split(jax.random.key(0), 300)
    runs = jax.jit(jax.vmap(make[few], (0, None, None)))(keys, xs[0], p)
    truths = jax.jit(jax.vmap(make[many], (0, None, None)))(jax.random.split(jax.random.key(1), 16), xs[0], p)
    truth, slack = truths.value.mean(0), truths.value.std(0) / 4
    spread = runs.value.std(0, ddof=1)
    some = spread > 1e-12
    assert some.any()
    error = jnp.sqrt((spread**2) / 300 + slack**2)
    assert float((jnp.abs(runs.value.mean(0) - truth) / error)[some].max()) < 5
    claimed = jnp.sqrt(jnp.square(runs.std_error).mean(0))
    ratio = (claimed / spread)[some]
    assert 0.8 < float(jnp.median(ratio)) < 1.25, ratio


def test_one_sample_has_no_known_error():
    f, xs, p = first_logit(False)
    estimate = jxp.smooth(jxp.gradient(f), num_samples=1)(jax.random.key(0), xs[0], p)
    assert bool(jnp.isnan(estimate.std_error).all())
    assert bool(jnp.isfinite(estimate.value).all())


def test_smooth_moments_of_a_quadratic():
    """For f = sum a x^2 the gradient at x + s e is 2 a (x + s e): all moments are known."""
    a, x = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.0, 1.0, 3.0])
    explain = jxp.gradient(lambda x: (a * x**2).sum())
    spread = 0.2 * 3.0  # sigma times the range of x
    expected = {
        "mean": 2 * a * x,
        "square": 4 * a**2 * (x**2 + spread**2),
        "variance": 4 * a**2 * spread**2,
    }
    for moment, truth in expected.items():
        smoothed = jxp.smooth(explain, sigma=0.2, num_samples=20_000, moment=moment, chunk_size=5_000)
        value, error = jax.jit(smoothed)(jax.random.key(3), x)
        assert float((jnp.abs(value - truth) / error).max()) < 5, moment
        assert float((error / jnp.abs(truth).max()).max()) < 0.05


def test_hires_cam_and_cam_are_complete_on_a_pooled_head():
    """The total of HiResCAM, and the mean of CAM, are the logit minus the head's bias; CAM is Z Grad-CAM."""
    f, xs, p = first_logit(True)
    biased = lambda x, p: f(x, p) + 0.7
    x = xs[0]
    cam = jxp.cam(biased, "features")(x, p)
    np.testing.assert_allclose(cam.mean(), f(x, p), rtol=1e-12)
    np.testing.assert_allclose(jxp.hires_cam(biased, "features")(x, p).sum(), f(x, p), rtol=1e-12)
    np.testing.assert_allclose(cam, 36 * jxp.grad_cam(biased, "features", relu=False)(x, p), rtol=1e-12)
    np.testing.assert_allclose(jxp.xgrad_cam(biased, "features", relu=False)(x, p).sum(), f(x, p), rtol=1e-12)


def test_completeness_gap_and_remainder_have_the_documented_sign():
    from jaxplain.metrics import completeness_gap

    f, x = lambda x: (x**2).sum(), jnp.array([1.0, 2.0])
    assert float(completeness_gap(f, jnp.array([1.0, 4.5]), x)) == 0.5
    assert float(completeness_gap(f, jnp.array([1.0, 4.0]), x, 1.0)) == 2.0
    assert float(jxp.taylor_remainder(f)(x)) == -5.0


@pytest.mark.parametrize("offset", [0.0, 1.0, 1000.0])
@pytest.mark.parametrize("num_steps", [7, 64, 1000])
def test_guided_paths_arrive_in_float32(offset, num_steps):
    """Of a linear function every path gives (x - x') g, however small the steps are beside the numbers."""
    g = jnp.array([1.0, -2.0, 0.5], jnp.float32)
    start = jnp.full(3, offset, jnp.float32)
    x = start + jnp.array([0.01, 0.02, -0.03], jnp.float32)
    explain = jxp.guided_integrated_gradients(lambda x: (g * x).sum(), start, num_steps=num_steps)
    np.testing.assert_allclose(explain(x), (x - start) * g, rtol=1e-4)


def test_sums_of_sixteen_bit_attributions_are_taken_in_float32():
    from jaxplain.metrics import completeness_gap

    x = jax.random.uniform(jax.random.key(0), (2000,)).astype(jnp.bfloat16)
    linear = lambda x: x.astype(jnp.float32).sum()
    assert abs(float(completeness_gap(linear, x, x))) < 1e-3
    assert abs(float(jxp.taylor_remainder(linear)(x))) < 1e-3


@pytest.mark.parametrize("name", ["conductance", "internal_integrated_gradients", "deep_lift", "lrp"])
def test_arguments_in_the_order_of_argnums(name):
    """The baseline, and the result, of each argument belong to it in whatever order they are asked for."""

    def f(x, y):
        return (jxp.tag(x**2 * y, "h") @ jnp.array([1.0, -2.0])) + y[0]

    x, y, low, high = (np.array(v) for v in ([1.0, 2.0], [3.0, 0.5], [0.1, 0.2], [1.0, 2.0]))

    def explained(first, order, baselines):
        method = getattr(jxp, name, None) or getattr(jxp.interior, name)
        given = {"lrp": (jxp.rules.EPSILON,), "deep_lift": (baselines,)}.get(name, ("h", baselines))
        result = method(f, *given, argnums=order)(x, y)
        return result[first] if isinstance(result, tuple) else result

    one, other = explained(0, (0, 1), (low, high)), explained(1, (1, 0), (high, low))
    np.testing.assert_allclose(one, other, rtol=1e-12)
