"""Naming values: by tag, module path, weight path, kind and position; and the errors when that fails."""

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
X = np.linspace(-1.0, 1.0, 8, dtype=np.float32).reshape(2, 4)


def captured(f, at, *args, **options):
    return jxp.capture(f, at, **options)(*args)[1][at]


def names(f, *args, **options):
    return {name for row in jxp.list_sites(f, **options)(*args) for name in row.names}


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        return x + nn.relu(nn.Dense(4, name="inner")(x))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = LinenBlock(name="block1")(x)
        x = LinenBlock(name="block2")(x)
        return nn.Dense(3, name="head")(x)


@pytest.fixture(scope="module")
def linen():
    net = LinenNet()
    params = net.init(jax.random.key(0), jnp.asarray(X))
    return net, params


def test_linen_module_paths(linen):
    net, params = linen
    f = lambda x: net.apply(params, x).sum()
    _, states = net.apply(params, jnp.asarray(X), capture_intermediates=True)
    inside = states["intermediates"]
    for at, expected in {
        "LinenNet/block1": inside["block1"]["__call__"][0],
        "block1": inside["block1"]["__call__"][0],
        "block2/inner": inside["block2"]["inner"]["__call__"][0],
        "head": inside["head"]["__call__"][0],
        "LinenNet": inside["__call__"][0],
    }.items():
        np.testing.assert_array_equal(captured(f, at, jnp.asarray(X)), expected)


def test_a_shortened_path_must_be_unique(linen):
    net, params = linen
    f = lambda x: net.apply(params, x).sum()
    with pytest.raises(jxp.SiteError, match=r"'inner' is ambiguous.*LinenNet/block1/inner.*LinenNet/block2/inner"):
        captured(f, "inner", jnp.asarray(X))


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, jax.vmap], ids=["jit", "remat", "vmap"])
def test_module_paths_through_transforms(linen, wrap):
    net, params = linen
    plain = captured(lambda x: net.apply(params, x).sum(), "block2", jnp.asarray(X))
    found = captured(lambda x: wrap(lambda x: net.apply(params, x))(x).sum(), "block2", jnp.asarray(X))
    np.testing.assert_allclose(found, plain, rtol=1e-6)


def test_module_path_under_grad(linen):
    """Names of the forward pass, not of the backward pass that shares its modules."""
    net, params = linen
    f = lambda x: jax.value_and_grad(lambda x: net.apply(params, x).sum())(x)[0]
    plain = captured(lambda x: net.apply(params, x).sum(), "block2/inner", jnp.asarray(X))
    np.testing.assert_allclose(captured(f, "block2/inner", jnp.asarray(X)), plain, rtol=1e-6)


def test_haiku_module_paths():
    def forward(x):
        return hk.nets.MLP([5, 3], name="mlp")(x)

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), jnp.asarray(X))
    hidden = jnp.asarray(X) @ params["mlp/~/linear_0"]["w"] + params["mlp/~/linear_0"]["b"]
    found = captured(lambda x: net.apply(params, x).sum(), "mlp/linear_0", jnp.asarray(X))
    np.testing.assert_allclose(found, hidden, rtol=1e-6)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.fc1 = nnx.Linear(4, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, use_running_average=True, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(5, 3, rngs=rngs)])

    def __call__(self, x):
        return self.layers[0](nnx.relu(self.norm(self.fc1(x))))


def test_nnx_layers_by_weight_path():
    net = NnxNet(nnx.Rngs(0))
    net.norm.mean[...] = jnp.arange(5.0, dtype=jnp.float32)
    net.norm.bias[...] = jnp.ones(5, jnp.float32)
    f, x = lambda x: net(x).sum(), jnp.asarray(X)
    params = nnx.state(net)
    np.testing.assert_array_equal(captured(f, "fc1", x, params=params), net.fc1(x))
    np.testing.assert_array_equal(captured(f, "norm", x, params=params), net.norm(net.fc1(x)))
    np.testing.assert_array_equal(captured(f, "layers/0", x, params=params), net(x))
    np.testing.assert_allclose(captured(f, "fc1/kernel", x, params=params), x @ net.fc1.kernel[...], rtol=1e-6)
    graph, state = nnx.split(net)
    as_argument = lambda x, state: nnx.merge(graph, state)(x).sum()
    np.testing.assert_array_equal(captured(as_argument, "fc1", x, state), net.fc1(x))


class EquinoxNet(eqx.Module):
    fc1: eqx.nn.Linear
    layers: list

    def __init__(self, key):
        self.fc1 = eqx.nn.Linear(4, 5, key=key)
        self.layers = [eqx.nn.Linear(5, 5, key=key), eqx.nn.Linear(5, 3, key=key)]

    def __call__(self, x):
        return self.layers[1](self.layers[0](jax.nn.relu(self.fc1(x))))


def test_equinox_layers_by_weight_path():
    net = EquinoxNet(jax.random.key(0))
    f, x = lambda x: net(x).sum(), jnp.asarray(X[0])
    np.testing.assert_array_equal(captured(f, "fc1", x, params=net), net.fc1(x))
    hidden = net.layers[0](jax.nn.relu(net.fc1(x)))
    np.testing.assert_array_equal(captured(f, "layers/0", x, params=net), hidden)
    np.testing.assert_array_equal(captured(lambda x, net: net(x).sum(), "layers/0", x, net), hidden)
    jitted = jax.jit(lambda x, net: captured(lambda x: net(x).sum(), "layers/0", x, params=net))
    np.testing.assert_allclose(jitted(x, net), hidden, rtol=1e-6)


def test_a_layer_used_twice_has_two_sites():
    p = {"shared": {"w": jnp.asarray(X[:, :2]), "b": jnp.ones(2, jnp.float32)}}
    layer = lambda x, p: jnp.tanh(x @ p["shared"]["w"] + p["shared"]["b"])
    f, x = lambda x, p: layer(layer(x, p), p).sum(), jnp.asarray(X[0, :2])
    with pytest.raises(jxp.SiteError, match=r"'shared' names 2 values; choose one of 'shared:0', 'shared:1'"):
        captured(f, "shared", x, p)
    first = x @ p["shared"]["w"] + p["shared"]["b"]
    np.testing.assert_allclose(captured(f, "shared:0", x, p), first, rtol=1e-6)
    second = jnp.tanh(first) @ p["shared"]["w"] + p["shared"]["b"]
    np.testing.assert_allclose(captured(f, "shared:1", x, p), second, rtol=1e-6)
    np.testing.assert_allclose(captured(f, "shared:-1", x, p), second, rtol=1e-6)
    with pytest.raises(jxp.SiteError, match="counted from 0"):
        captured(f, "shared:2", x, p)


def test_tags_win_over_module_paths(linen):
    net, params = linen
    f = lambda x: jxp.tag(net.apply(params, x) * 2, "head").sum()
    np.testing.assert_array_equal(captured(f, "head", jnp.asarray(X)), net.apply(params, jnp.asarray(X)) * 2)


def test_existing_checkpoint_names_are_tags():
    from jax.ad_checkpoint import checkpoint_name

    assert float(captured(lambda x: checkpoint_name(2 * x, "double") + 1, "double", jnp.float32(3))) == 6


def test_missing_names_list_the_near_ones(linen):
    net, params = linen
    f = lambda x: net.apply(params, x).sum()
    with pytest.raises(jxp.SiteError, match=r"no site 'LinenNet/blok1': did you mean 'LinenNet/block1'"):
        captured(f, "LinenNet/blok1", jnp.asarray(X))
    with pytest.raises(jxp.SiteError, match="there are no names at all"):
        captured(lambda x: x.sum(), "conv", jnp.asarray(X))
    with pytest.raises(TypeError, match="a site is a name"):
        captured(f, 3, jnp.asarray(X))


def test_names_inside_what_cannot_be_entered_say_so():
    x = jnp.ones(3, jnp.float32)
    inside = lambda x: jxp.tag(x * 2, "inside").sum()

    @jax.custom_vjp
    def custom(x):
        return inside(x)

    custom.defvjp(lambda x: (inside(x), None), lambda _, g: (g * jnp.ones(3, jnp.float32),))
    for f, what in {
        custom: "custom derivative",
        lambda x: jax.lax.cond(x[0] > 0, inside, jnp.sum, x): "cond",
        lambda x: jax.lax.while_loop(lambda s: s < 3, inside, x.sum()): "while",
    }.items():
        with pytest.raises(jxp.SiteError, match=rf"'inside' is inside .*{what}.*tag what it returns"):
            captured(f, "inside", x)


def test_kinds_and_positions():
    w = jnp.asarray(X)

    def f(x):
        hidden = jax.nn.gelu(w @ x + 1.0) + jax.nn.silu(2 * w @ x)
        return jnp.where(hidden > 0, hidden, 0.0).max()

    rows = jxp.list_sites(f)(w[0])
    assert [row.kind for row in rows if row.shape == (2,)] == [
        "dense", "activation", "dense", "activation", "sum", "activation",
    ]  # fmt: skip
    y, found = jxp.capture(f, jxp.nth("sum", 0), jxp.nth("activation", -1), jxp.nth("max", 0))(w[0])
    assert float(found[jxp.nth("max", 0)]) == float(y)
    np.testing.assert_array_equal(found[jxp.nth("activation", -1)], jax.nn.relu(found[jxp.nth("sum", 0)]))
    with pytest.raises(jxp.SiteError, match=r"has 0 conv units \(3 activation, 2 dense"):
        captured(f, jxp.nth("conv", 0), w[0])
    with pytest.raises(ValueError, match=r"unknown kind 'convolution'.*'conv'"):
        jxp.nth("convolution", 0)


RELUS = {
    "relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "where_le": lambda x: jnp.where(x <= 0, 0.0, x),
    "times_mask": lambda x: x * (x > 0).astype(x.dtype),
    "clip": lambda x: jnp.clip(x, 0.0, None),
    "relu6": jax.nn.relu6,
    "leaky": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "gelu_exact": lambda x: jax.nn.gelu(x, approximate=False),
    "silu": jax.nn.silu,
    "silu_spelled_out": lambda x: x * jax.nn.sigmoid(x),
    "swish_by_hand": lambda x: x / (1 + jnp.exp(-x)),
    "hard_swish": jax.nn.hard_swish,
    "softplus": jax.nn.softplus,
    "elu": jax.nn.elu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "tanh": jnp.tanh,
    "square": jnp.square,
    "abs": jnp.abs,
}


@pytest.mark.parametrize("activation", RELUS.values(), ids=RELUS)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_an_activation_is_one_unit_in_every_spelling(activation, wrap):
    w = jnp.asarray(X[:, :2])
    f = lambda x: w @ wrap(activation)(w @ x)
    rows = jxp.list_sites(f)(jnp.ones(2, jnp.float32))
    assert [row.kind for row in rows] == ["dense", "activation", "dense"]


def test_the_table_prints(linen):
    net, params = linen
    text = repr(jxp.list_sites(lambda x: net.apply(params, x).sum())(jnp.asarray(X)))
    header, *lines = text.split("\n")
    assert header.split() == ["names", "kind", "shape", "dtype", "place"]
    assert any("LinenNet/block1/inner" in line and "dense" in line and "(2, 4)" in line for line in lines)
    assert all(".py:" in line for line in lines)


def test_only_what_depends_on_the_explained_argument_is_a_site():
    f = lambda x, y: (jxp.tag(x * 2, "of_x") * jxp.tag(y * 3, "of_y")).sum()
    x = jnp.ones(2, jnp.float32)
    assert names(f, x, x) == {"of_x"}
    assert names(f, x, x, argnums=1) == {"of_y"}
    assert names(f, x, x, argnums=(0, 1)) == {"of_x", "of_y"}


def test_equal_computations_of_two_modules_are_two_sites():
    def f(x):
        with jax.named_scope("a"):
            p = x * 2
        with jax.named_scope("b"):
            q = x * 2
        return (p + 10 * q).sum()

    x = jnp.ones(2, jnp.float32)
    assert float(jxp.plant(f, {"a": jnp.zeros(2)})(x)) == 40.0
    assert float(jxp.plant(f, {"b": jnp.zeros(2)})(x)) == 4.0


def test_names_and_positions_are_in_program_order():
    w = jnp.asarray(X[:, :2])

    def f(x):
        first = jxp.tag(x @ w, "t")
        second = jxp.tag(x @ (2 * w) + 1, "t")
        return (jnp.tanh(second) + jnp.sin(first)).sum()

    x = w[0]
    np.testing.assert_allclose(captured(f, "t:0", x), x @ w, rtol=1e-6)
    np.testing.assert_allclose(captured(f, "t:1", x), x @ (2 * w) + 1, rtol=1e-6)
    np.testing.assert_allclose(captured(f, jxp.nth("dense", 0), x), x @ w, rtol=1e-6)
    layer = lambda x, p: jnp.tanh(x @ p["fc"]["w"])
    g = lambda x, p: jax.checkpoint(layer)(layer(x, p), p).sum()
    p = {"fc": {"w": w}}
    np.testing.assert_allclose(captured(g, "fc:0", x, p), x @ w, rtol=1e-6)


def test_stacked_weights_of_a_scan_name_the_layer_inside():
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2, 2)), jnp.float32)
    f = lambda x, p: jax.lax.scan(lambda c, w: (jnp.tanh(w @ c), None), x, p["layers"]["w"])[0].sum()
    assert captured(f, "layers", jnp.ones(2, jnp.float32), {"layers": {"w": w}}).shape == (3, 2)


def test_a_leaf_named_value_is_a_leaf():
    p = {
        "attn": {"query": jnp.asarray(X[:, :2]), "value": jnp.asarray(X[:, 2:]), "out": jnp.eye(2, dtype=X.dtype)}
    }
    f = lambda x, p: (((x @ p["attn"]["query"]) * (x @ p["attn"]["value"])) @ p["attn"]["out"]).sum()
    x = jnp.ones(2, jnp.float32)
    np.testing.assert_allclose(captured(f, "attn/value", x, p), x @ p["attn"]["value"], rtol=1e-6)
    np.testing.assert_allclose(captured(f, "attn", x, p).sum(), f(x, p), rtol=1e-6)


def test_tags_with_colons_and_scopes_with_brackets():
    f = lambda x: (jxp.tag(x * 2, "a:0") + jxp.tag(x * 3, "a")).sum()
    x = jnp.ones(2, jnp.float32)
    assert float(captured(f, "a:0", x)[0]) == 2.0
    assert float(captured(f, "a", x)[0]) == 3.0
    with jax.named_scope("outside"):
        pass

    def g(x):
        with jax.named_scope("conv(3x3)"):
            return jnp.sin(x).sum()

    assert "conv(3x3)" in names(g, x)


def test_tags_on_what_is_no_site_say_so():
    f = lambda x: (x * jxp.tag(jnp.ones(2, jnp.float32), "constant")).sum() + jxp.tag(jnp.argmax(x), "index")
    for name in ("constant", "index"):
        with pytest.raises(jxp.SiteError, match=f"'{name}' does not depend on the explained argument, or"):
            captured(f, name, jnp.ones(2, jnp.float32))


def test_numpy_parameters_and_static_shapes():
    p = {"fc": {"w": X[:, :2].copy()}}
    f = lambda x, shape: (x @ p["fc"]["w"]).reshape(tuple(shape)).sum()
    x = jnp.ones(2, jnp.float32)
    np.testing.assert_allclose(captured(f, "fc", x, np.array([1, 2]), params=p), x @ p["fc"]["w"], rtol=1e-6)
