"""What relevance methods promise beyond the laws: conservation unit by unit, identities, sites, clear errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws.networks import IMAGES, first_logit

import jaxplain as jxp

R = jxp.rules
IMAGE = np.asarray(IMAGES[0])
CONSERVING = {
    "epsilon": R.epsilon(0.0),
    "gamma": R.gamma(0.25, eps=0.0),
    "alpha_beta": R.rules_for(R.epsilon(0.0), {R.conv: R.alpha_beta(2.0, 1.0, eps=0.0)}, eps=0.0),
    "z_plus": R.z_plus(eps=0.0),
    "w_square first": R.rules_for(R.z_plus(eps=0.0), {R.first: R.w_square(eps=0.0)}, eps=0.0),
    "flat first": R.rules_for(R.epsilon(0.0), {R.first: R.flat(eps=0.0)}, eps=0.0),
    "box first": R.rules_for(R.epsilon(0.0), {R.first: R.z_box(-4.0, 4.0, eps=0.0)}, eps=0.0),
}


def residual(x, p, biased):
    """Convolutions, a residual sum, max-pooling, average pooling and a dense head."""
    bias = p["b2"][None, None] if biased else 0.0
    conv = lambda x, k: jax.lax.conv_general_dilated(
        x[None], k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    x = jax.nn.relu(conv(x, p["k1"]))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
    x = jxp.tag(jax.nn.relu(conv(x, p["k2"]) + bias), "middle")
    x = jax.nn.relu(x + conv(x, p["k3"]) + bias)
    return x.mean((0, 1)) @ p["w"][:, 0]


def parameters(dtype):
    rng = np.random.default_rng(4)
    shapes = {"k1": (3, 3, 2, 4), "k2": (3, 3, 4, 5), "k3": (3, 3, 5, 5), "b2": (5,), "w": (5, 3)}
    p = {name: rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])) for name, shape in shapes.items()}
    p["w"] = np.abs(p["w"])  # a score well above 0, so that relative means something
    return jax.tree.map(lambda v: jnp.asarray(v, dtype), p)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-12)])
@pytest.mark.parametrize("name", CONSERVING)
def test_every_unit_conserves_without_biases(name, dtype, tolerance):
    p, x = parameters(dtype), jnp.asarray(IMAGE, dtype)
    table = jxp.coverage(partial(residual, biased=False), CONSERVING[name])(x, p)
    assert {row.kind for row in table} >= {"conv", "dense", "activation", "max", "sum"}
    assert abs(table.start) > 1e-2
    for row in table:
        # What float32 rounds is as large as the magnitudes that were added up, not as their sum.
        assert abs(row.leak) <= 10 * tolerance * abs(table.start), row
    assert abs(table.end - table.start) <= 10 * tolerance * abs(table.start)


@pytest.mark.parametrize("name", CONSERVING)
def test_biases_absorb_what_is_missing(name):
    p, x = parameters("float64"), jnp.asarray(IMAGE)
    f = partial(residual, biased=True)
    table = jxp.coverage(f, CONSERVING[name])(x, p)
    leak = sum(row.leak for row in table)
    np.testing.assert_allclose(table.start, float(f(x, p)), rtol=1e-14)
    np.testing.assert_allclose(table.end + leak, table.start, rtol=1e-12)
    np.testing.assert_allclose(table.end, jxp.lrp(f, CONSERVING[name])(x, p).sum(), rtol=1e-12)
    assert abs(leak) > 1e-6
    assert {row.kind for row in table if abs(row.leak) > 1e-12} <= {"conv", "scale"}


def test_lrp_0_is_gradient_times_input_without_biases():
    p, x = parameters("float64"), jnp.asarray(IMAGE)
    f = partial(residual, biased=False)
    got, want = jxp.lrp(f, R.epsilon(0.0))(x, p), jxp.gradient_times_input(f)(x, p)
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12 * float(jnp.abs(want).max()))


def test_z_plus_without_bias_is_excitation_backprop():
    p, x = parameters("float64"), jnp.asarray(IMAGE)
    f = partial(residual, biased=True)
    want = jxp.lrp(f, R.z_plus(bias="ignore"), init=1.0)(x, p)
    np.testing.assert_array_equal(jxp.excitation_backprop(f)(x, p), want)
    assert float(jnp.abs(want - jxp.lrp(f, R.z_plus(), init=1.0)(x, p)).max()) > 1e-4


def test_the_gradient_table_is_jax_grad_custom_derivatives_too():
    @jax.custom_vjp
    def straight_through(x):
        return jnp.round(x)

    straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (2.0 * g,))
    f = lambda x: (straight_through(3 * x) ** 2).sum()
    x = jnp.array([0.4, 1.3])
    np.testing.assert_array_equal(jxp.lrp(f, R.GRADIENT)(x), jax.grad(f)(x))
    g, xs, p = first_logit(True, True)
    np.testing.assert_array_equal(jxp.lrp(g, R.GRADIENT)(xs[0], p), jax.grad(g)(xs[0], p))


def test_numbers_of_rules_can_be_traced():
    f, xs, p = first_logit(True, True)
    loss = lambda g: jnp.square(jxp.lrp(f, R.rules_for(R.gamma(g, eps=0.1), eps=0.0))(xs[0], p)).sum()
    slope = jax.jit(jax.grad(loss))(0.3)
    np.testing.assert_allclose(slope, (loss(0.3 + 1e-5) - loss(0.3 - 1e-5)) / 2e-5, rtol=1e-6)
    several = jax.vmap(lambda g: jxp.lrp(f, R.gamma(g))(xs[0], p))(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(several[1], jxp.lrp(f, R.gamma(1.0))(xs[0], p), rtol=1e-9, atol=1e-12)


def test_relevance_of_a_site():
    p, x = parameters("float64"), jnp.asarray(IMAGE)
    f = partial(residual, biased=False)
    middle = jxp.lrp(f, R.epsilon(0.0), at="middle")(x, p)
    assert middle.shape == (3, 3, 5)
    np.testing.assert_allclose(middle.sum(), f(x, p), rtol=1e-12)
    with pytest.raises(jxp.SiteError, match=r"inside the dense unit.*name what the unit returns"):
        jxp.lrp(lambda x, p: jnp.tanh(jxp.tag(x @ p, "raw") + p[0]).sum(), at="raw")(jnp.ones(2), jnp.ones((2, 2)))


def test_relevance_of_a_site_in_a_scan_has_an_axis_of_rounds():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))

    def f(x):
        step = lambda h, _: (jxp.tag(jax.nn.relu(h @ w), "state"), None)
        return jax.lax.scan(step, x, None, length=4)[0].sum()

    x = jnp.array([1.0, 2.0, 3.0])
    states = jxp.lrp(f, R.epsilon(0.0), at="state")(x)
    assert states.shape == (4, 3)
    np.testing.assert_allclose(states.sum(1), f(x), rtol=1e-12)


def test_init_scales_everything():
    f, xs, p = first_logit(True, True)
    once, twice = (jxp.lrp(f, init=v)(xs[0], p) for v in (1.0, jnp.asarray(2.0)))
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-13)


def test_declared_units_are_not_looked_into():
    softsign = jxp.engine.unit(lambda x: x / (1 + jnp.abs(x)), name="softsign", kind="activation")
    f = lambda x: softsign(x * jnp.array([2.0, -1.0])).sum()
    x = jnp.array([1.0, 3.0])
    table = jxp.coverage(f, R.EPSILON)(x)
    assert [row.kind for row in table] == ["sum", "activation", "scale"]
    np.testing.assert_allclose(jxp.lrp(f, R.epsilon(0.0))(x), softsign(x * jnp.array([2.0, -1.0])), rtol=1e-12)
    np.testing.assert_allclose(jxp.deep_lift(f)(x).sum(), f(x), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(f)(x), jnp.array([2 / 9, -1 / 16]), rtol=1e-12)


def test_registered_primitives_are_served():
    f = jnp.prod
    with pytest.raises(jxp.UnsupportedOperation, match=r"LRP has no rule for reduce_prod at .*register_unit"):
        jxp.lrp(f)(jnp.array([2.0, 3.0]))
    with pytest.raises(ValueError, match="unknown kind 'magic'"):
        jxp.engine.register_unit(jax.lax.erf_p, "magic")
    with pytest.raises(TypeError, match="takes a JAX primitive"):
        jxp.engine.register_unit("erf", "activation")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: R.epsilon(bias="half"), ValueError, "bias='half'"),
        (lambda f: jxp.lrp(f, R.epsilon), TypeError, r"is no rule; call it, as in rules.epsilon\(\)"),
        (lambda f: jxp.lrp(f, "epsilon"), TypeError, "is no rule; make one"),
        (lambda f: R.rules_for(R.epsilon(), product="signal"), ValueError, "product='signal'"),
        (lambda f: R.rules_for(R.epsilon(), {"conv": R.flat()}), TypeError, "a selector is a function"),
        (lambda f: R.rules_for(R.epsilon(), {R.conv: R.flat}), TypeError, "call it"),
        (lambda f: jxp.lrp(f, R.z_box(jnp.zeros(2), 1.0))(jnp.ones(3)), ValueError, "a bound of z_box has shape"),
        (lambda f: jxp.lrp(f, R.passing())(jnp.ones(3)), ValueError, r"passing\(\) needs a unit whose input"),
        (lambda f: jxp.deep_taylor(f, low=0.0), ValueError, "needs both bounds"),
        (lambda f: jxp.deep_lift(f, rule="reveal"), ValueError, "rule='reveal'"),
        (lambda f: jxp.deep_shap(f, jnp.ones((1, 3)), rule="x"), ValueError, "rule='x'"),
        (lambda f: jxp.lrp(f, init=jnp.ones(2))(jnp.ones(3)), ValueError, "scalar"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call(lambda x: jnp.tanh(jnp.ones((2, 3)) @ x).sum())


def test_a_loop_of_unknown_length_is_refused():
    f = lambda x: jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2.0), (0, x))[1].sum()
    for method in (jxp.lrp, jxp.deep_lift):
        with pytest.raises(jxp.UnsupportedOperation, match=r"no rule for while .*lax\.scan"):
            method(f)(jnp.ones(2))


def test_division_by_a_signal_is_refused():
    f = lambda x: (x[:2] / jnp.tanh(x[2:])).sum()
    with pytest.raises(jxp.UnsupportedOperation, match="is no statistic of it"):
        jxp.lrp(f)(jnp.ones(4))


def test_a_contrast_needs_one_last_layer():
    w = jnp.ones((3, 2))
    with pytest.raises(jxp.UnsupportedOperation, match="negates the last affine unit, but there are 2"):
        jxp.contrastive_excitation_backprop(lambda x: (x @ w).sum() + (x @ (2 * w)).sum())(jnp.ones(3))
    with pytest.raises(jxp.SiteError, match="bypasses the last affine unit's input"):
        jxp.contrastive_excitation_backprop(lambda x: (jnp.tanh(x) @ w).sum() + x.sum())(jnp.ones(3))
