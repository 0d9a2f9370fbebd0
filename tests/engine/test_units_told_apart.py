"""Functions in which one unit could be taken for another: what a review found, against a plain spelling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp

R = jxp.rules
relu = jax.nn.relu
_rng = np.random.default_rng(0)
W, U, T, X, V = (_rng.normal(size=shape) for shape in ((4, 4), (4, 4), (4, 4), 4, 4))
WIDE = _rng.normal(size=(4, 8))


def rematted(x):
    h, w = jax.checkpoint(lambda x, w: (relu(U @ x), 1.0 * w))(x, jnp.asarray(W))
    return (w @ h) @ V


def branched(x):
    yes = lambda x: (relu(U @ x), jnp.asarray(W))
    h, w = jax.lax.cond(jnp.asarray(True), yes, lambda x: (x, 2 * jnp.asarray(W)), x)
    return (w @ h) @ V


def looped(x):
    step = lambda c, w: (relu(U @ c), 1.0 * w)
    c, ws = jax.lax.scan(step, x, jnp.asarray(W)[None])
    return (ws[0] @ c) @ V


def plain(x):
    return (W @ relu(U @ x)) @ V


@pytest.mark.parametrize("f", [rematted, branched, looped])
def test_a_constant_that_leaves_control_flow_is_a_weight(f):
    x = jnp.asarray(X)
    for method in (lambda f: jxp.lrp(f, R.z_plus()), jxp.deep_lift):
        np.testing.assert_allclose(method(f)(x), method(plain)(x), rtol=1e-10)


def test_derivative_by_a_weight_that_leaves_a_remat():
    def f(x, w):
        h, v = jax.checkpoint(lambda x, w: (relu(U @ x), w * jnp.tanh(w)))(x, w)
        return (jnp.tanh(2 * v) @ h) @ V

    loss = lambda w: jnp.square(jxp.lrp(f, R.epsilon(0.01))(jnp.asarray(X), w)).sum()
    w, along, step = jnp.asarray(W), jnp.asarray(T), 1e-6
    slope = (loss(w + step * along) - loss(w - step * along)) / (2 * step)
    np.testing.assert_allclose((jax.grad(loss)(w) * along).sum(), slope, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(loss, (w,), (along,))[1], slope, rtol=1e-6)


def test_a_mean_that_multiplies_is_a_factor_and_no_normaliser():
    x = jnp.abs(jnp.asarray(X))
    mean = lambda x: (relu(x[:2]) * relu(x[2:]).mean()) @ V[:2]
    total = lambda x: (relu(x[:2]) * relu(x[2:]).sum()) @ V[:2] / 2
    got, want = (jxp.lrp(f, R.epsilon(0.0))(x) for f in (mean, total))
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert float(jnp.abs(got[2:]).min()) > 0
    with pytest.raises(jxp.UnsupportedOperation, match="is no statistic of it"):
        jxp.lrp(lambda x: (relu(x[:2]) / (1 + relu(x[2:]).sum())).sum())(x)


def test_a_cast_from_integers_may_be_negative():
    f = lambda x, k: V @ relu(WIDE @ jnp.concatenate([relu(W @ x), k.astype(x.dtype)]))
    x, k = jnp.asarray(X), jnp.array([-3, 2, -1, 4])
    np.testing.assert_allclose(
        jxp.lrp(f, R.z_plus())(x, k), jxp.lrp(f, R.z_plus())(x, k.astype(float)), rtol=1e-12
    )


@pytest.mark.parametrize("rule", [R.z_plus(), R.w_square(), R.gamma(0.5)], ids=lambda r: type(r).__name__)
def test_constants_may_be_written_first(rule):
    x, s = jnp.asarray(X), jnp.asarray(V)
    explain = lambda f: jxp.lrp(f, rule)(x)
    np.testing.assert_allclose(
        explain(lambda x: relu((s * x) @ W).sum()), explain(lambda x: relu((x * s) @ W).sum())
    )
    late, early = (lambda x: relu((s - x) @ W).sum()), (lambda x: relu((-x + s) @ W).sum())
    np.testing.assert_allclose(explain(late), explain(early), rtol=1e-10)


@pytest.mark.parametrize("bias_first", [True, False])
def test_sums_of_several_layers_are_one(bias_first):
    weights, b, x = jnp.concatenate([W, U, T], 1), jnp.asarray(V), jnp.asarray(_rng.normal(size=12))

    def apart(x):
        z = W @ x[:4] + U @ x[4:8] + T @ x[8:]
        return jnp.tanh(b + z if bias_first else z + b) @ V

    want = jxp.lrp(lambda x: jnp.tanh(weights @ x + b) @ V, R.z_plus())(x)
    np.testing.assert_allclose(jxp.lrp(apart, R.z_plus())(x), want, rtol=1e-10)


IMAGE = _rng.normal(size=(6, 6, 4))
MEAN, SCALE = _rng.normal(size=4), _rng.uniform(0.5, 2.0, size=4)
KERNEL, SIGNS = _rng.normal(size=(3, 3, 4, 5)), _rng.normal(size=5)
LAYER_RULES = {
    "epsilon": R.epsilon(0.01),
    "gamma": R.gamma(0.3),
    "alpha_beta": R.alpha_beta(2.0, 1.0),
    "z_box": R.z_box(-3.0, 3.0),
    "flat": R.flat(),
    "w_square": R.w_square(),
}


def convolved(x, kernel, padding, groups=1):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"dimension_numbers": numbers, "feature_group_count": groups}
    return jax.lax.conv_general_dilated(x[None], kernel, (2, 2), padding, **options)[0]


@pytest.mark.parametrize("name", LAYER_RULES)
@pytest.mark.parametrize("normalised", [False, True])
def test_padding_ahead_of_a_convolution_is_its_own(name, normalised):
    def f(x, pad):
        x = (x - MEAN[None, None]) / SCALE[None, None] if normalised else relu(x)
        if pad == "inside":
            z = convolved(x, jnp.asarray(KERNEL), ((1, 2), (0, 1)))
        elif pad == "ahead":
            z = convolved(jnp.pad(x, ((1, 2), (0, 1), (0, 0))), jnp.asarray(KERNEL), "VALID")
        else:  # ahead, and more channels than there are
            x = jnp.pad(x, ((1, 2), (0, 1), (0, 2)))
            z = convolved(x, jnp.pad(KERNEL, ((0, 0), (0, 0), (0, 2), (0, 0))), "VALID")
        return relu(z).sum((0, 1)) @ SIGNS

    x = jnp.asarray(IMAGE)
    inside, ahead, wide = (
        jax.jit(jxp.lrp(lambda x, p=p: f(x, p), LAYER_RULES[name]))(x) for p in ("inside", "ahead", "wide")
    )
    np.testing.assert_allclose(ahead, inside, rtol=1e-9, atol=1e-12)
    # Channels of no weight take part in a rule that does not look at weights.
    if name != "flat":
        np.testing.assert_allclose(wide, inside, rtol=1e-9, atol=1e-12)


def test_padding_with_something_else_is_an_input():
    def f(x):
        ones = jnp.pad(relu(x), ((1, 1), (1, 1), (0, 0)), constant_values=1.0)
        return relu(convolved(ones, jnp.asarray(KERNEL), "VALID")).sum((0, 1)) @ SIGNS

    def g(x):
        wide = jnp.ones((8, 8, 4)).at[1:-1, 1:-1].set(relu(x))
        return relu(convolved(wide, jnp.asarray(KERNEL), "VALID")).sum((0, 1)) @ SIGNS

    for rule in LAYER_RULES.values():
        np.testing.assert_allclose(
            jxp.lrp(f, rule)(jnp.asarray(IMAGE)), jxp.lrp(g, rule)(jnp.asarray(IMAGE)), rtol=1e-9
        )


@pytest.mark.parametrize("name", LAYER_RULES)
@pytest.mark.parametrize(("groups", "outputs"), [(2, 6), (4, 8), (4, 4), (1, 3)])
def test_normalisation_ahead_of_a_grouped_convolution_is_folded(name, groups, outputs):
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4 // groups, outputs))
    signs = np.random.default_rng(2).normal(size=outputs)

    def ahead(x):
        z = convolved((x - MEAN[None, None]) / SCALE[None, None], jnp.asarray(kernel), "VALID", groups)
        return relu(z).sum((0, 1)) @ signs

    def by_hand(x):
        folded, shift = np.empty_like(kernel), np.zeros(outputs)
        for o in range(outputs):
            for i in range(4 // groups):
                channel = o // (outputs // groups) * (4 // groups) + i
                folded[:, :, i, o] = kernel[:, :, i, o] / SCALE[channel]
                shift[o] -= folded[:, :, i, o].sum() * MEAN[channel]
        z = convolved(x, jnp.asarray(folded), "VALID", groups) + shift[None, None]
        return relu(z).sum((0, 1)) @ signs

    x = jnp.asarray(IMAGE)
    rule = LAYER_RULES[name]
    np.testing.assert_allclose(jxp.lrp(ahead, rule)(x), jxp.lrp(by_hand, rule)(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["epsilon", "z_box"])
def test_a_grouped_kernel_may_be_what_is_explained(name):
    image = jnp.asarray(IMAGE)

    def scaled(kernel):
        return relu(convolved(image, 2.0 * kernel, "VALID", 2)).sum((0, 1)) @ SIGNS[:4]

    def plain(kernel):
        return relu(2.0 * convolved(image, kernel, "VALID", 2)).sum((0, 1)) @ SIGNS[:4]

    kernel = jnp.asarray(KERNEL[:, :, :2, :4])
    explained = [jxp.lrp(f, LAYER_RULES[name])(kernel) for f in (scaled, plain)]
    np.testing.assert_allclose(*explained, rtol=1e-9)


SINGLE = {
    "times": lambda s, c: s * c,
    "plus": lambda s, c: relu(s + c),
    "over": lambda s, c: s / c,
    "relu": lambda s, c: relu(s * c),
    "larger": jnp.maximum,
}


@pytest.mark.parametrize("name", SINGLE)
def test_one_number_meets_an_array(name):
    """`s * c` with a single s that depends on the input is that s in every place, scaled."""
    constants = jnp.asarray([1.0, 2.0, 3.0, -1.0])
    place = jnp.asarray([1.0, -2.0, 0.5, 1.0])
    compact = lambda x: SINGLE[name](x.sum(), constants) @ place
    wide = lambda x: SINGLE[name](jnp.broadcast_to(x.sum(), (4,)), constants) @ place
    x = jnp.asarray(V)
    for method in (lambda f: jxp.lrp(f, R.epsilon(0.0)), jxp.deep_lift):
        np.testing.assert_allclose(method(compact)(x), method(wide)(x), rtol=1e-9, atol=1e-12)
    gap = jxp.deep_lift(compact)(x).sum() - (compact(x) - compact(jnp.zeros(4)))
    assert abs(gap) < 1e-12
