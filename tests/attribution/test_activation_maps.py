"""Class activation maps: the same in every spelling and layout of a network, and errors where no map is."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxplain as jxp

NUMERICS = "plain"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 2)).astype(np.float32)
K1 = (RNG.normal(size=(3, 3, 2, 4)) / 3).astype(np.float32)
K2 = (RNG.normal(size=(3, 3, 4, 5)) / 4).astype(np.float32)
B1, B2 = RNG.normal(size=4).astype(np.float32), RNG.normal(size=5).astype(np.float32)
HEAD = RNG.normal(size=(5, 3)).astype(np.float32)
MAPS = [jxp.grad_cam, jxp.cam, jxp.hires_cam, jxp.xgrad_cam, jxp.layer_cam, jxp.grad_cam_pp]


def conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def plain(relu=jax.nn.relu, wrap=lambda f: f):
    """The network in plain jnp, with a choice of relu and of what each block is wrapped in."""
    block1 = wrap(lambda x: relu(conv(x, K1) + B1))
    block2 = wrap(lambda x: relu(conv(x, K2) + B2))
    return lambda x: block2(block1(x)).mean((0, 1)) @ HEAD


def channels_first(x):
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x[None], jnp.transpose(kernel, (3, 2, 0, 1)), (1, 1), "SAME")[0]

    x = jnp.transpose(x, (2, 0, 1))
    x = jax.nn.relu(convolve(x, jnp.asarray(K1)) + B1[:, None, None])
    x = jax.nn.relu(convolve(x, jnp.asarray(K2)) + B2[:, None, None])
    return x.mean((1, 2)) @ HEAD


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), name="c1")(x))
        x = nn.relu(nn.Conv(5, (3, 3), name="c2")(x))
        return nn.Dense(3, use_bias=False, name="head")(x.mean((-3, -2)))


LINEN_PARAMS = {
    "params": {"c1": {"kernel": K1, "bias": B1}, "c2": {"kernel": K2, "bias": B2}, "head": {"kernel": HEAD}}
}


def nnx_network():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.c1, self.c2 = nnx.Conv(2, 4, (3, 3), rngs=rngs), nnx.Conv(4, 5, (3, 3), rngs=rngs)
            self.head = nnx.Linear(5, 3, use_bias=False, rngs=rngs)

        def __call__(self, x):
            return self.head(nnx.relu(self.c2(nnx.relu(self.c1(x)))).mean((0, 1)))

    net = Net(nnx.Rngs(0))
    nnx.update(net, jax.tree.map(jnp.asarray, nnx.State(LINEN_PARAMS["params"])))
    return net


def equinox_network():
    class Net(eqx.Module):
        c1: eqx.nn.Conv2d
        c2: eqx.nn.Conv2d
        head: eqx.nn.Linear

        def __call__(self, x):
            x = jax.nn.relu(self.c2(jax.nn.relu(self.c1(jnp.transpose(x, (2, 0, 1))))))
            return self.head(x.mean((1, 2)))

    key = jax.random.key(0)
    net = Net(
        eqx.nn.Conv2d(2, 4, 3, padding="SAME", key=key),
        eqx.nn.Conv2d(4, 5, 3, padding="SAME", key=key),
        eqx.nn.Linear(5, 3, use_bias=False, key=key),
    )
    weights = (K1.transpose(3, 2, 0, 1), B1[:, None, None], K2.transpose(3, 2, 0, 1), B2[:, None, None], HEAD.T)
    where = lambda n: (n.c1.weight, n.c1.bias, n.c2.weight, n.c2.bias, n.head.weight)
    return eqx.tree_at(where, net, tuple(map(jnp.asarray, weights)))


def haiku_network():
    def forward(x):
        x = jax.nn.relu(hk.Conv2D(4, 3, name="c1")(x[None]))
        x = jax.nn.relu(hk.Conv2D(5, 3, name="c2")(x))
        return hk.Linear(3, with_bias=False, name="head")(x.mean((1, 2)))[0]

    params = {"c1": {"w": K1, "b": B1}, "c2": {"w": K2, "b": B2}, "head": {"w": HEAD}}
    return lambda x: hk.without_apply_rng(hk.transform(forward)).apply(params, x)


def batch_inside(x):
    return jax.vmap(plain())(x[None])[0]


NETWORKS = {
    "maximum": plain(lambda x: jnp.maximum(x, 0)),
    "where": plain(lambda x: jnp.where(x > 0, x, 0.0)),
    "mask": plain(lambda x: x * (x > 0)),
    "clip": plain(lambda x: jnp.clip(x, 0, None)),
    "jit": plain(wrap=jax.jit),
    "remat": plain(wrap=jax.checkpoint),
    "channels_first": channels_first,
    "batch_inside": batch_inside,
    "linen": lambda x: Linen().apply(LINEN_PARAMS, x),
    "linen_batched": lambda x: Linen().apply(LINEN_PARAMS, x[None])[0],
    "nnx": nnx_network(),
    "equinox": equinox_network(),
    "haiku": haiku_network(),
}


@pytest.fixture(scope="module")
def expected():
    f = jxp.class_score(plain())
    return {method: jax.jit(method(f))(X, 1) for method in MAPS}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_same_network_gives_the_same_maps(network, expected):
    f = jxp.class_score(network)
    maps = jax.jit(lambda x: {method.__name__: method(f)(x, 1) for method in MAPS})(X)
    for method in MAPS:
        assert maps[method.__name__].shape == (6, 8)
        assert float(jnp.abs(expected[method]).max()) > 1e-3
        np.testing.assert_allclose(maps[method.__name__], expected[method], rtol=1e-4, atol=1e-6)


def test_the_default_site_is_the_last_activation_through_which_everything_flows():
    def residual(x):
        y = jxp.tag(jax.nn.relu(conv(x, K1) + B1), "early")
        branch = jax.nn.relu(conv(y, K2))[..., :4]
        y = jxp.tag(jax.nn.relu(y + branch), "late")
        shortcut_pooled = y.mean((0, 1))
        return (shortcut_pooled @ HEAD[:4])[0]

    for method in (jxp.grad_cam, jxp.hires_cam):
        np.testing.assert_array_equal(method(residual)(X), method(residual, "late")(X))
    assert float(jnp.abs(jxp.grad_cam(residual)(X) - jxp.grad_cam(residual, "early")(X)).max()) > 1e-3


def test_pooling_after_the_last_activation_is_not_the_default_site():
    def pooled(x):
        y = jxp.tag(jax.nn.relu(conv(x, K1) + B1), "relu")
        y = jax.lax.reduce_window(y, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")
        return y.mean((0, 1)) @ HEAD[:4, 0]

    assert jxp.grad_cam(pooled)(X).shape == (6, 8)
    np.testing.assert_array_equal(jxp.grad_cam(pooled)(X), jxp.grad_cam(pooled, "relu")(X))


def test_upsampling_is_bilinear_with_half_pixel_centres():
    def strided(x):
        y = jax.lax.conv_general_dilated(x[None], K1, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[
            0
        ]
        return jnp.square(jxp.tag(y, "y")).sum()

    small = np.asarray(jxp.hires_cam(strided, "y")(X))
    large = np.asarray(jxp.hires_cam(strided, "y", upsample=True)(X))
    assert (small.shape, large.shape) == ((3, 4), (6, 8))
    at = lambda n, k: np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1)
    rows, columns = at(3, 0), at(4, 0)
    expected = np.empty((6, 8))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            r0, c0 = int(r), int(c)
            r1, c1 = min(r0 + 1, 2), min(c0 + 1, 3)
            a, b = r - r0, c - c0
            top = (1 - b) * small[r0, c0] + b * small[r0, c1]
            bottom = (1 - b) * small[r1, c0] + b * small[r1, c1]
            expected[i, j] = (1 - a) * top + a * bottom
    np.testing.assert_allclose(large, expected, rtol=1e-5, atol=1e-5)


def test_upsampling_finds_the_space_of_a_channels_first_input():
    def f(x):
        y = jax.lax.conv_general_dilated(x[None], jnp.transpose(jnp.asarray(K1), (3, 2, 0, 1)), (2, 2), "SAME")
        return jnp.square(y).sum()

    first = jxp.grad_cam(f, upsample=True)(jnp.transpose(X, (2, 0, 1)))
    last = jxp.grad_cam(lambda x: f(jnp.transpose(x, (2, 0, 1))), upsample=True)(X)
    assert first.shape == (6, 8)
    np.testing.assert_allclose(first, last, rtol=1e-5)


def test_one_dimensional_signals_have_maps_too():
    kernel = K1[0]
    signal = X[:, 0]

    def f(x):
        y = jax.lax.conv_general_dilated(x[None], kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC"))
        return jnp.square(jax.nn.relu(y)).sum()

    assert jxp.grad_cam(f)(signal).shape == (6,)
    assert jxp.score_cam(f)(signal).shape == (6,)


HEADS = {
    "max_pooling": lambda y: y.max((0, 1)) @ HEAD[:, 0],
    "flattened": lambda y: (y.reshape(-1) * jnp.linspace(0, 1, 240)).sum(),
    "relu_after": lambda y: jax.nn.relu(y.mean((0, 1))) @ HEAD[:, 0],
    "softmax_after": lambda y: jax.nn.log_softmax(y.mean((0, 1)) @ HEAD)[0],
    "one_axis_only": lambda y: jnp.square(y.mean(0)).sum(),
    "weighted_by_place": lambda y: (y * jnp.linspace(0, 1, 8)[:, None]).mean((0, 1)) @ HEAD[:, 0],
    "squared": lambda y: jnp.square(y).mean((0, 1)) @ HEAD[:, 0],
    "two_paths": lambda y: y.mean((0, 1)) @ HEAD[:, 0] + y[0, 0, 0],
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_cam_refuses_a_head_that_is_not_pooled_and_linear(head):
    f = lambda x: head(jxp.tag(jax.nn.relu(conv(conv(x, K1), K2)), "site"))
    with pytest.raises(jxp.SiteError, match=r"cam needs a head that averages site 'site'.*use grad_cam"):
        jxp.cam(f, "site")(X)
    assert jxp.grad_cam(f, "site")(X).shape == (6, 8)


POOLED = {
    "mean": lambda y: y.mean((0, 1)) @ HEAD[:, 0] + 1.0,
    "two_sums": lambda y: (y[None].sum((1, 2)) / 48.0 @ HEAD)[0, 1],
    "average_pooling": lambda y: (
        jax.lax.reduce_window(y, 0.0, jax.lax.add, (6, 8, 1), (1, 1, 1), "VALID").reshape(-1) @ HEAD[:, 2]
    ),
    "scaled_first": lambda y: (y * 2.0).sum((0, 1)) @ HEAD[:, 0],
    "hidden_linear_layer": lambda y: (y.mean((0, 1)) @ HEAD @ HEAD.T - 3.0)[2],
}


@pytest.mark.parametrize("head", POOLED.values(), ids=POOLED)
def test_cam_is_the_head_times_the_activation(head):
    site = lambda x: jax.nn.relu(conv(conv(x, K1), K2))
    f = lambda x: head(jxp.tag(site(x), "site"))
    weights = jax.grad(lambda m: head(jnp.broadcast_to(m, (6, 8, 5))))(jnp.zeros(5))
    np.testing.assert_allclose(jxp.cam(f, "site")(X), site(X) @ weights, rtol=1e-4, atol=1e-5)


ERRORS = {
    "no spatial axes": (lambda x: jnp.square(jxp.tag(x.mean((0, 1)), "site")).sum(), "site", r"no spatial axes"),
    "scalar": (lambda x: jxp.tag(x.sum(), "site"), "site", "no spatial axes"),
    "no convolution": (lambda x: jnp.square(x).sum(), None, r"no convolutional activation.*list_sites"),
    "unknown": (lambda x: jxp.tag(x, "conv1").sum(), "conv2", r"no site 'conv2'.*did you mean 'conv1'"),
    "inside a scan": (
        lambda x: jax.lax.scan(lambda c, _: (jxp.tag(jnp.sin(c), "site"), None), x, None, length=2)[0].sum(),
        "site",
        r"inside a scan.*tag it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_errors(case):
    f, at, message = case
    for method in (jxp.grad_cam, jxp.cam, jxp.score_cam, jxp.eigen_cam):
        with pytest.raises(jxp.SiteError, match=message):
            method(f, at)(X)


def test_resizing_needs_one_array_of_the_right_rank():
    f = lambda x: jnp.square(jxp.tag(x["a"] + x["b"], "site")).sum()
    x = {"a": X, "b": X}
    assert jxp.grad_cam(f, "site")(x).shape == (6, 8)
    for call in (jxp.grad_cam(f, "site", upsample=True), jxp.score_cam(f, "site")):
        with pytest.raises(ValueError, match="2 float leaves"):
            call(x)
    tokens = lambda x: jnp.square(jxp.tag(x.reshape(48, 2), "site")).sum()
    with pytest.raises(ValueError, match=r"1 spatial axes, but the input has shape \(6, 8, 2\)"):
        jxp.grad_cam(tokens, "site", upsample=True)(X)


def test_memory_of_a_channel_scan_is_bounded_by_the_chunk():
    f = jxp.class_score(plain())

    def temporaries(chunk_size):
        explain = jax.jit(lambda x: jxp.score_cam(f, chunk_size=chunk_size)(x, 1))
        return explain.lower(X).compile().memory_analysis().temp_size_in_bytes

    assert temporaries(1) < temporaries(None)


def conv_first(x, kernel, stride=1):
    kernel = jnp.transpose(jnp.asarray(kernel), (3, 2, 0, 1))
    return jax.lax.conv_general_dilated(x[None], kernel, (stride, stride), "SAME")[0]


def group_norm(x):
    grouped = x.reshape(2, 2, *x.shape[1:])
    centred = grouped - grouped.mean((1, 2, 3), keepdims=True)
    return (centred / jnp.sqrt(jnp.square(centred).mean((1, 2, 3), keepdims=True) + 1e-5)).reshape(x.shape)


CHANNELS_FIRST = {
    "concatenate": lambda x: jnp.concatenate([jax.nn.relu(conv_first(x, K1)), conv_first(x, K1)], 0),
    "slice": lambda x: conv_first(x, K1)[:3],
    "split": lambda x: jnp.split(conv_first(x, K1), 2)[0],
    "group_norm": lambda x: group_norm(conv_first(x, K1)),
    "repeat": lambda x: jnp.repeat(jnp.repeat(conv_first(x, K1, 2), 2, 1), 2, 2),
    "dense": lambda x: jnp.einsum("chw,cd->dhw", conv_first(x, K1), jnp.asarray(K2[0, 0])),
    "cond": lambda x: jax.lax.cond(x.sum() > -1e9, lambda x: conv_first(x, K1), lambda x: -conv_first(x, K1), x),
    "remat": jax.checkpoint(lambda x: jax.nn.relu(conv_first(x, K1))),
    "before_the_convolution": lambda x: x * 2,
}


@pytest.mark.parametrize("body", CHANNELS_FIRST.values(), ids=CHANNELS_FIRST)
def test_channels_first_is_followed_through(body):
    def f(x):
        y = jxp.tag(body(x), "site")
        z = conv_first(y, K1) if y.shape[0] == 2 else y
        return jnp.square(z.mean((1, 2))).sum()

    x = jnp.transpose(X, (2, 0, 1))
    found = jxp.hires_cam(f, "site")(x)
    values, slopes = (jxp.capture(f, "site")(x)[1]["site"], jax.grad(jxp.slice_at(f, "site").g)(body(x), x))
    np.testing.assert_allclose(found, (values * slopes).sum(0), rtol=1e-5, atol=1e-6)
    assert jxp.hires_cam(f, "site", upsample=True)(x).shape == (6, 8)


def test_an_axis_that_cannot_be_told_is_an_error():
    f = lambda x: jnp.square(jxp.tag(jnp.sort(conv_first(x, K1).reshape(-1)).reshape(6, 8, 4), "site")).sum()
    with pytest.raises(jxp.SiteError, match=r"which axis of site 'site'.*cannot be told"):
        jxp.grad_cam(f, "site")(jnp.transpose(X, (2, 0, 1)))


def test_the_input_is_read_through_a_remat():
    def stem(x):
        y = jax.lax.conv_general_dilated(x[None], K1, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jax.nn.relu(y[0])

    def f(wrap):
        return lambda x: jnp.square(jxp.tag(jax.nn.relu(conv(wrap(stem)(x), K2)), "site")).sum()

    plain = jxp.score_cam(f(lambda g: g), "site", upsample=True)(X)
    np.testing.assert_allclose(jxp.score_cam(f(jax.checkpoint), "site", upsample=True)(X), plain, rtol=1e-5)
    assert plain.shape == (6, 8)


def test_the_default_site_of_dense_and_segmentation_networks():
    def dense_net(x):
        y = jax.nn.relu(conv(x, K1))
        y = jnp.concatenate([y, jax.nn.relu(conv(y, K2))], -1)
        return jnp.square(jxp.tag(jax.nn.relu(y * 2 - 0.1), "last").mean((0, 1))).sum()

    np.testing.assert_array_equal(jxp.grad_cam(dense_net)(X), jxp.grad_cam(dense_net, "last")(X))

    def segmentation(x):
        return jax.nn.log_softmax(jxp.tag(conv(x, K1), "logits"))[..., 1].mean()

    np.testing.assert_array_equal(jxp.grad_cam(segmentation)(X), jxp.grad_cam(segmentation, "logits")(X))


def test_every_function_means_the_same_last_convolution():
    def f(x):
        y = jax.nn.relu(conv(x, K1))
        return jnp.square(jax.checkpoint(lambda y: jax.nn.relu(conv(y, K2)))(y)).mean()

    at = jxp.last_conv()
    captured = jxp.capture(f, at)(X)[1][at]
    assert captured.shape == (6, 8, 5)
    np.testing.assert_array_equal(captured, jxp.slice_at(f, at).h(X))
    np.testing.assert_allclose(jxp.plant(f, {at: captured})(X), f(X), rtol=1e-6)
