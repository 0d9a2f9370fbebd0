"""Influence of internal values against the chain rule by hand, the axioms of Leino et al. 2018, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import interior

RNG = np.random.default_rng(0)
W1, W2 = RNG.normal(size=(4, 5)), RNG.normal(size=(5, 3))
XS = RNG.normal(size=(6, 4))


def f(x, label):
    """A network of tanh units, smooth so that quadratures converge."""
    z = jxp.tag(jnp.tanh(x @ jnp.asarray(W1)), "z")
    return jnp.sin(z @ jnp.asarray(W2))[label]


def slope(x, label):
    """dg/dz in numpy."""
    z = np.tanh(x @ W1)
    return np.cos(z @ W2)[label] * W2[:, label]


def value(x, label):
    return np.sin(np.tanh(x @ W1) @ W2)[label]


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_internal_influence_is_the_mean_slope(weighted, chunk_size):
    weights = np.array([1.0, 0, 2, 3, 0, 1]) if weighted else np.ones(6)
    want = np.average([slope(x, 1) for x in XS], axis=0, weights=weights)
    options = {"weights": weights} if weighted else {}
    explain = interior.internal_influence(f, "z", chunk_size=chunk_size, **options)
    np.testing.assert_allclose(explain(XS, 1), want, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(explain)(XS, 1), want, rtol=1e-12)
    active = interior.internal_influence(f, "z", times_activation=True, chunk_size=chunk_size, **options)
    want = np.average([slope(x, 1) * np.tanh(x @ W1) for x in XS], axis=0, weights=weights)
    np.testing.assert_allclose(active(XS, 1), want, rtol=1e-12)


def test_linear_agreement():
    """Of a linear function of the site the influence is its weights, whatever the distribution."""
    linear = lambda x: jxp.tag(x, "x") @ jnp.asarray(W1[:, 0])
    for weights in (None, np.arange(6.0)):
        got = interior.internal_influence(linear, "x", weights=weights)(XS)
        np.testing.assert_allclose(got, W1[:, 0], rtol=1e-12)


def test_distributional_marginality():
    """Functions whose slopes agree on the distribution have the same influence."""
    inside = lambda x: (jxp.tag(x, "x") ** 2).sum()
    beyond = lambda x: (jxp.tag(x, "x") ** 2).sum() + jnp.maximum(jnp.abs(x).max() - 10, 0) ** 3
    np.testing.assert_allclose(
        interior.internal_influence(inside, "x")(XS), interior.internal_influence(beyond, "x")(XS), rtol=1e-12
    )


def test_slice_invariance_and_preprocessing():
    """Two slices with the same units agree; a map put ahead of the network moves the distribution along."""

    def rearranged(x, label):
        z = jxp.tag(1 - 2 / (jnp.exp(2 * (jnp.asarray(W1).T @ x)) + 1), "z")
        return jnp.sin(sum(z[k] * jnp.asarray(W2)[k] for k in range(5)))[label]

    want = interior.internal_influence(f, "z")(XS, 2)
    np.testing.assert_allclose(interior.internal_influence(rearranged, "z")(XS, 2), want, rtol=1e-9)
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0]
    behind = lambda y, label: f(y @ jnp.asarray(turn), label)
    np.testing.assert_allclose(interior.internal_influence(behind, "z")(XS @ turn.T, 2), want, rtol=1e-9)


def test_internal_integrated_gradients_are_those_of_the_second_half():
    x, x0 = XS[0], XS[1]
    explain = interior.internal_integrated_gradients(f, "z", x0)
    z, z0 = np.tanh(x @ W1), np.tanh(x0 @ W1)
    alphas, weights = np.polynomial.legendre.leggauss(40)
    path = [np.cos((z0 + (a + 1) / 2 * (z - z0)) @ W2)[1] for a in alphas]
    want = (z - z0) * (np.array(path) @ weights / 2) * W2[:, 1]
    got = explain(x, 1)
    np.testing.assert_allclose(got, want, rtol=1e-10)
    np.testing.assert_allclose(got.sum(), value(x, 1) - value(x0, 1), rtol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.vmap(explain, (0, None)))(XS, 1)[0], got, rtol=1e-12)


@pytest.mark.parametrize("baseline", [0.0, XS[1], lambda x: 0 * x + 0.5])
def test_conductance_is_the_flow_through_each_unit(baseline):
    x = XS[0]
    x0 = np.asarray(baseline(x) if callable(baseline) else np.broadcast_to(baseline, x.shape))
    got = interior.conductance(f, "z", baseline, num_steps=40, chunk_size=16)(x, 1)
    alphas, weights = np.polynomial.legendre.leggauss(60)
    want = np.zeros(5)
    for a, w in zip((alphas + 1) / 2, weights / 2, strict=True):
        z = np.tanh((x0 + a * (x - x0)) @ W1)
        want += w * slope(x0 + a * (x - x0), 1) * (1 - z**2) * ((x - x0) @ W1)
    np.testing.assert_allclose(got, want, rtol=1e-8)
    np.testing.assert_allclose(got.sum(), value(x, 1) - value(x0, 1), rtol=1e-8)


def test_a_unit_is_a_quantity_of_interest():
    x = XS[0]
    unit = interior.unit_activation(f, "z", 3)
    np.testing.assert_allclose(unit(x, 1), np.tanh(x @ W1)[3], rtol=1e-12)
    want = (1 - np.tanh(x @ W1)[3] ** 2) * W1[:, 3]
    np.testing.assert_allclose(interior.neuron_gradient(f, "z", 3)(x, 1), want, rtol=1e-12)
    np.testing.assert_allclose(interior.neuron_gradient(f, "z", (-2,))(x, 1), want, rtol=1e-12)
    image = lambda x: jxp.tag(x[None] ** 2, "squares").sum()
    np.testing.assert_allclose(interior.unit_activation(image, "squares", (1, 2))(W1), W1[1, 2] ** 2)


def test_inside_a_scan_and_by_tokens():
    """All iterations of a site stand on its leading axis; a table's rows are a site of whole numbers."""

    def rounds(x):
        step = lambda carry, _: (jxp.tag(jnp.sin(carry), "state"), None)
        return jax.lax.scan(step, x, None, length=3)[0].sum()

    got = interior.internal_influence(rounds, "state")(XS)
    assert got.shape == (3, 4)
    np.testing.assert_allclose(got[2], np.ones(4), rtol=1e-12)
    words = lambda tokens: (jxp.tag(jnp.asarray(W1)[tokens], "vectors") ** 2).sum()
    tokens = np.array([[0, 2], [1, 3]])
    got = interior.internal_influence(words, "vectors")(tokens)
    np.testing.assert_allclose(got, 2 * W1[tokens].mean(0), rtol=1e-12)


def test_derivatives_of_an_explanation():
    """By the input, against central differences: 1e-10 of a third derivative, and rounding / 1e-5."""
    explain = interior.conductance(f, "z", 0.0, num_steps=8)
    one = lambda x: explain(x, 1)[2]
    x, direction, step = jnp.asarray(XS[0]), jnp.asarray(XS[1]), 1e-5
    want = (one(x + step * direction) - one(x - step * direction)) / (2 * step)
    np.testing.assert_allclose(jax.grad(one)(x) @ direction, want, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(one, (x,), (direction,))[1], want, rtol=1e-6)


def test_nan_is_not_no_influence():
    relu = lambda x: jax.nn.relu(jxp.tag(x * 1.0, "z")).sum()
    xs = np.array([[1.0, np.nan], [1.0, 2.0]])
    assert np.isnan(interior.internal_influence(relu, "z")(xs)).all()
    assert np.isnan(interior.conductance(relu, "z")(xs[0])).all()
    assert np.isnan(interior.internal_integrated_gradients(relu, "z")(xs[0])).all()


def test_types_are_kept():
    half = lambda x: jxp.tag(x * 2, "z").sum()
    xs = jnp.ones((3, 2), jnp.bfloat16)
    assert interior.internal_influence(half, "z")(xs).dtype == jnp.bfloat16
    assert interior.conductance(half, "z")(xs[0]).dtype == jnp.bfloat16
    assert interior.internal_integrated_gradients(half, "z")(xs[0]).dtype == jnp.bfloat16


def test_one_trace_a_shape():
    traces = []

    def counted(x):
        traces.append(1)
        return jnp.sum(jxp.tag(x**2, "z"))

    interior.internal_influence(counted, "z", chunk_size=4)(XS)
    assert len(traces) == 1


def unused(x):
    jxp.tag(x**2, "z")
    return x.sum()


BAD = {
    "no site 'y'": lambda: interior.internal_influence(f, "y")(XS, 1),
    "no site 'unused'": lambda: interior.internal_influence(
        lambda x: (jxp.tag(x * 2, "unused"), x.sum())[1], "unused"
    )(XS),
    "output does not depend on is not among": lambda: interior.internal_influence(unused, "z")(XS),
    "only through what has no slope": lambda: interior.internal_influence(
        lambda x: jnp.where(jxp.tag(2 * x, "z") > 0, 1.0, x).sum(), "z"
    )(XS),
    "stop_gradient.*derivative is 0": lambda: interior.conductance(
        lambda x: jax.lax.stop_gradient(jxp.tag(x**2, "z")).sum() + x.sum(), "z"
    )(XS[0]),
    "the output does not depend on is not": lambda: interior.conductance(unused, "z")(XS[0]),
    "xs holds no inputs": lambda: interior.internal_influence(f, "z")(XS[:0], 1),
    "weights has shape \\(2,\\)": lambda: interior.internal_influence(f, "z", weights=np.ones(2))(XS, 1),
    "none negative": lambda: interior.internal_influence(f, "z", weights=-np.ones(6))(XS, 1),
    "not all 0": lambda: interior.internal_influence(f, "z", weights=np.zeros(6))(XS, 1),
    "no unit \\(7,\\)": lambda: interior.neuron_gradient(f, "z", 7)(XS[0], 1),
    "no unit \\(1, 2\\)": lambda: interior.unit_activation(f, "z", (1, 2))(XS[0], 1),
    "baseline has shape": lambda: interior.conductance(f, "z", np.ones(3))(XS[0], 1),
    "num_steps": lambda: interior.conductance(f, "z", num_steps=0),
    "must return a scalar": lambda: interior.internal_influence(lambda x: jxp.tag(x, "x"), "x")(XS),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        BAD[message]()


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_what_bypasses_the_site_is_taken_where_the_path_is(chunk_size):
    """Of (sum of z) (sum of x) with z = x^2 the slope is the sum of x: on the path for conductance, else at x."""
    bypassed = lambda x: jxp.tag(x**2, "z").sum() * x.sum()
    x = XS[0]
    got = interior.conductance(bypassed, "z", chunk_size=chunk_size)(x)
    np.testing.assert_allclose(got, 2 * x**2 * x.sum() / 3, rtol=1e-12)  # the integral of (a sum x) (2 a x^2)
    got = interior.internal_integrated_gradients(bypassed, "z", chunk_size=chunk_size)(x)
    np.testing.assert_allclose(got, x**2 * x.sum(), rtol=1e-12)
    got = interior.internal_influence(bypassed, "z", chunk_size=chunk_size)(XS)
    np.testing.assert_allclose(got, np.full(4, XS.sum(1).mean()), rtol=1e-12)


def test_weights_of_any_size_and_traced_ones_that_are_no_distribution():
    def mean(weights):
        return interior.internal_influence(f, "z", weights=weights)(jnp.asarray(XS[:2]), 0)

    expected = mean(jnp.array([1.0, 3.0]))
    for size in (5e307, 1e-300):  # the sum of the first overflows
        np.testing.assert_allclose(mean(jnp.array([size, 3 * size])), expected, rtol=1e-5)
    np.testing.assert_allclose(mean(np.array([1e-60, 3e-60])), expected, rtol=1e-5)
    for bad in ([-1.0, 3.0], [0.0, 0.0], [np.inf, 1.0]):
        assert np.isnan(jax.jit(mean)(jnp.array(bad))).all()
    with pytest.raises(ValueError, match="distribution"):
        mean(np.array([np.inf, 1.0]))
