"""Guided backpropagation and deconvnet find a ReLU in every spelling, and refuse what they cannot see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp

RNG = np.random.default_rng(0)
W, V, X = RNG.normal(size=(6, 6)), RNG.normal(size=6), RNG.normal(size=6)
METHODS = [jxp.guided_backprop, jxp.deconvnet]


def net(activation):
    return lambda x: jnp.asarray(V) @ activation(jnp.asarray(W) @ activation(jnp.asarray(W) @ x + 0.1))


def by_hand(method):
    """The definition, layer by layer, in numpy."""
    z1 = W @ X + 0.1
    z2 = W @ np.maximum(z1, 0)
    back = np.maximum(V, 0) * ((z2 > 0) if method is jxp.guided_backprop else 1)
    back = np.maximum(W.T @ back, 0) * ((z1 > 0) if method is jxp.guided_backprop else 1)
    return W.T @ back


SPELLINGS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "maximum_reversed": lambda x: jnp.maximum(0.0, x),
    "maximum_of_arrays": lambda x: jnp.maximum(x, np.zeros(6)),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "where_zeros_like": lambda x: jnp.where(x > 0, x, jnp.zeros_like(x)),
    "where_less": lambda x: jnp.where(x <= 0, 0.0, x),
    "mask": lambda x: x * (x > 0).astype(x.dtype),
    "clip": lambda x: jnp.clip(x, 0.0, None),
    "mean_of_abs": lambda x: (x + jnp.abs(x)) / 2.0,
    "max_of_stop_gradient": lambda x: jnp.maximum(x, jax.lax.stop_gradient(x * 0.0)),
    "jit": jax.jit(jax.nn.relu),
    "remat": jax.checkpoint(jax.nn.relu),
    "vmap": jax.vmap(lambda x: jnp.maximum(x, 0.0)),
    "cond": lambda x: jax.lax.cond(True, jax.nn.relu, jnp.sin, x),
    "cond_traced": lambda x: jax.lax.cond(jnp.sin(3.0) > 0, jax.nn.relu, jnp.sin, x),
    "scan": lambda x: jax.lax.scan(lambda c, _: (jax.nn.relu(c), None), x, None, length=1)[0],
    "leaky": jax.nn.leaky_relu,  # the masks are a ReLU's; only the forward values differ
}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling(method, name):
    x = jnp.asarray(X)
    expected = by_hand(method)
    found = jax.jit(method(net(SPELLINGS[name])))(x)
    if name == "leaky":
        assert float(jnp.abs(found).max()) > 1e-3
        return
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert float(jnp.abs(found - jax.grad(net(jax.nn.relu))(x)).max()) > 1e-3


SMOOTH = {
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "softplus_by_hand": lambda x: jnp.maximum(x, 0.0) + jnp.log1p(jnp.exp(-jnp.abs(x))),
    "elu": jax.nn.elu,
    "abs": jnp.abs,
    "hard_swish": jax.nn.hard_swish,
    "step": lambda x: (x > 0).astype(x.dtype) + x,
    "residual": lambda x: x + jax.nn.relu(x),
    "threshold": lambda x: jnp.where(x > 1e-3, x, 0.0),
    "gated": lambda x: x * jax.nn.relu(x),
}


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("activation", SMOOTH.values(), ids=SMOOTH)
def test_what_is_no_relu_is_not_taken_for_one(method, activation):
    with pytest.raises(jxp.UnsupportedOperation, match=r"no ReLU.*plain gradient.*jaxplain\.gradient"):
        method(net(activation))(jnp.asarray(X))
    mixed = lambda x: jax.nn.relu(net(activation)(x))
    f = net(activation)
    passes = float(f(jnp.asarray(X))) > 0 or method is jxp.deconvnet
    expected = jax.grad(f)(jnp.asarray(X)) * float(passes)
    np.testing.assert_allclose(method(mixed)(jnp.asarray(X)), expected, rtol=1e-12)


RELU6 = {
    "relu6": jax.nn.relu6,
    "clip": lambda x: jnp.clip(x, 0.0, 6.0),
    "clamp": lambda x: jax.lax.clamp(0.0, x, 6.0),
    "minimum": lambda x: jnp.minimum(jnp.maximum(x, 0.0), 6.0),
    "maximum": lambda x: jnp.maximum(jnp.minimum(x, 6.0), 0.0),
}


@pytest.mark.parametrize("relu6", RELU6.values(), ids=RELU6)
def test_relu6_is_masked_on_both_sides_in_every_spelling(relu6):
    x = jnp.array([-1.0, 3.0, 6.0, 7.0])
    np.testing.assert_array_equal(jxp.guided_backprop(lambda x: relu6(x).sum())(x), [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(jxp.guided_backprop(lambda x: -relu6(x).sum())(x), [0.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(jxp.deconvnet(lambda x: relu6(x).sum())(x), [1.0, 1.0, 1.0, 1.0])


def test_a_value_used_between_two_rectifiers_is_kept():
    """h = relu(x) is used twice: what comes back from both uses is added before h's own mask."""

    def f(x):
        h = jax.nn.relu(x)
        return jax.nn.relu6(h) @ jnp.array([1.0, -1.0]) + (jnp.eye(2) @ h) @ jnp.array([-3.0, 2.0])

    np.testing.assert_array_equal(jxp.guided_backprop(f)(jnp.array([1.0, 1.0])), [0.0, 2.0])


def test_inequalities_are_strict():
    """At x = 0 nothing passes, though max(x, 0) has a derivative of 1/2 there."""
    np.testing.assert_array_equal(
        jxp.guided_backprop(lambda x: jnp.maximum(x, 0.0).sum())(jnp.zeros(2)), [0.0, 0.0]
    )
    np.testing.assert_array_equal(jxp.deconvnet(lambda x: jnp.maximum(x, 0.0).sum())(jnp.zeros(2)), [1.0, 1.0])


def hidden_in_custom_vjp(x):
    @jax.custom_vjp
    def block(x):
        return jax.nn.relu(jnp.asarray(W) @ x)

    block.defvjp(lambda x: (block(x), x), lambda x, g: (jnp.asarray(W).T @ g,))
    return jax.nn.relu(block(x)).sum()


def hidden_in_while(x):
    count = lambda s: s[0] < 3
    step = lambda s: (s[0] + 1, jax.nn.relu(s[1]))
    return jax.nn.relu(jax.lax.while_loop(count, step, (0, x))[1]).sum()


def opaque(x):
    shape = jax.ShapeDtypeStruct((6,), x.dtype)
    return jax.nn.relu(jax.pure_callback(lambda x: np.maximum(x, 0), shape, x)).sum()


@pytest.mark.parametrize("f", [hidden_in_custom_vjp, hidden_in_while, opaque], ids=lambda f: f.__name__)
def test_what_cannot_be_seen_or_changed_is_refused(f):
    with pytest.raises(jxp.UnsupportedOperation, match=r"test_rectifiers\.py.*(custom derivative|jax\.numpy)"):
        jxp.guided_backprop(f)(jnp.asarray(X))


def test_values_are_unchanged_and_scans_keep_their_length():
    """Only the backward pass changes: captured values of the changed program are those of the function."""
    from jaxplain.attribution.relevance import rectified
    from jaxplain.engine.rectifiers import Shape

    x = jnp.array([-2.0, -0.0, 0.0, 3.0, jnp.nan, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(rectified(Shape(1.0, 0.0, np.inf), True)(x), jax.nn.relu(x))
    np.testing.assert_array_equal(rectified(Shape(1.0, 0.0, 6.0), True)(x), jax.nn.relu6(x))
    np.testing.assert_allclose(rectified(Shape(1.0, 0.01, np.inf), True)(x), jax.nn.leaky_relu(x), rtol=1e-15)
    layers = jnp.asarray(RNG.normal(size=(4, 6, 6)))
    scanned = lambda x: jax.lax.scan(lambda c, w: (jax.nn.relu(w @ c), c.sum()), x, layers)[0].sum()

    def unrolled(x):
        for w in layers:
            x = jnp.maximum(w @ x, 0.0)
        return x.sum()

    for method in METHODS:
        np.testing.assert_allclose(method(scanned)(jnp.asarray(X)), method(unrolled)(jnp.asarray(X)), rtol=1e-12)


def test_a_high_cap_is_kept():
    x = jnp.array([2e4, 3.0])
    f = lambda x: jnp.sin(jnp.clip(x, 0.0, 1e4)).sum()
    np.testing.assert_allclose(jxp.deconvnet(f)(x), jnp.maximum(jnp.cos(jnp.minimum(x, 1e4)), 0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("relu", [jax.nn.relu, jax.nn.relu6, jax.nn.leaky_relu], ids=lambda f: f.__name__)
def test_every_float_type(dtype, relu):
    found = jxp.guided_backprop(lambda x: relu(x).sum())(jnp.array([-1.0, 2.0], dtype))
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(jnp.float32), [0.0, 1.0])


def test_a_cast_is_not_part_of_a_relu():
    """Rounding is part of the function: what follows a cast to bfloat16 is fed bfloat16."""
    w = jnp.asarray(W).astype(jnp.bfloat16)
    f = lambda x: jax.lax.dot(w, jax.nn.relu(x).astype(jnp.bfloat16)).astype(jnp.float32).sum()
    x = jnp.asarray(X, jnp.float32)
    assert jxp.guided_backprop(f)(x).dtype == jnp.float32
    expected = jnp.maximum(w.astype(jnp.float32).sum(0), 0) * (x > 0).astype(jnp.float32)
    np.testing.assert_allclose(jxp.guided_backprop(f)(x), expected, rtol=2e-2, atol=2e-2)
