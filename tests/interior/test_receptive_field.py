"""What a unit can see, against changing every input element and looking whether the unit moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxplain as jxp
from jaxplain import UnsupportedOperation
from jaxplain.interior import bounding_box, receptive_field

RNG = np.random.default_rng(0)


def weights(*shape):
    """Positive and generic, so that nothing cancels and every ReLU is on."""
    return jnp.asarray(np.random.default_rng(shape).uniform(0.5, 1.5, size=shape))


def conv(x, features, size=3, stride=1, padding="SAME", dilation=1, groups=1):
    space = x.ndim - 1
    letters = "HW"[:space]
    kernel = weights(*(size,) * space, x.shape[-1] // groups, features)
    return jax.nn.relu(
        lax.conv_general_dilated(
            x[None],
            kernel,
            (stride,) * space,
            padding,
            rhs_dilation=(dilation,) * space,
            dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
            feature_group_count=groups,
        )[0]
    )


def pool(x, kind, size=2, stride=2, padding="VALID"):
    space = x.ndim - 1
    window, strides = (size,) * space + (1,), (stride,) * space + (1,)
    if kind == "max":
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
    total = lax.reduce_window(x, 0.0, lax.add, window, strides, padding)
    return total / lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, window, strides, padding)


def scanned(x):
    """Three layers with their own weights, as a scan; the kernel of each is sliced out by the round's number."""
    kernels = weights(3, 3, 1, 1)

    def layer(carry, _):
        number, x = carry
        kernel = lax.dynamic_index_in_dim(kernels, number, keepdims=False)
        x = lax.conv_general_dilated(x[None], kernel, (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC"))[0]
        return (number + 1, x + jnp.roll(x, number, 0)), x[number]

    (_, x), rows = lax.scan(layer, (jnp.asarray(0), x), length=3)
    return jnp.concatenate([x, rows])


def attention(x):
    """Of the first three rows among themselves."""
    scores = x[:3] @ weights(x.shape[-1], x.shape[-1]) @ x[:3].T
    return jax.nn.softmax(scores / 100) @ x[:3]


IMAGE, LINE = (9, 8, 2), (14, 1)
STACKS = {
    "3x3": (IMAGE, lambda x: conv(conv(x, 3), 2), (4, 3, 1)),
    "corner": (IMAGE, lambda x: conv(conv(x, 3), 2), (0, 7, 0)),
    "stride, SAME is asymmetric": (IMAGE, lambda x: conv(conv(x, 3, stride=2), 2, 4, 2), (1, 1, 0)),
    "VALID": (IMAGE, lambda x: conv(conv(x, 3, 2, padding="VALID"), 2, stride=3, padding="VALID"), (1, 1, 1)),
    "explicit padding": (IMAGE, lambda x: conv(conv(x, 2, 3, 2, [(2, 0), (0, 3)]), 2), (0, 4, 0)),
    "negative padding": (IMAGE, lambda x: conv(x, 2, 3, 1, [(-2, 0), (0, -1)]), (0, 3, 0)),
    "dilation": (IMAGE, lambda x: conv(conv(x, 2, dilation=2), 2, 2, dilation=3), (5, 4, 1)),
    "depthwise": (IMAGE, lambda x: conv(conv(x, 2, groups=2), 4, stride=2, groups=2), (2, 2, 3)),
    "grouped then mixed": (IMAGE, lambda x: conv(conv(x, 4, groups=2), 2, 1), (2, 2, 0)),
    "max pool": (IMAGE, lambda x: conv(pool(conv(x, 2), "max", 3, 2, "SAME"), 2), (2, 0, 1)),
    "average pool": (IMAGE, lambda x: conv(pool(x, "average"), 2), (3, 3, 0)),
    "residual": (IMAGE, lambda x: x + conv(conv(x, 4, groups=2), 2, groups=2), (3, 0, 0)),
    "branches": (IMAGE, lambda x: jnp.concatenate([conv(x, 2, 1), conv(x, 2, 5)], -1), (3, 4, 3)),
    "one branch": (IMAGE, lambda x: jnp.concatenate([conv(x, 2, 1), conv(x, 2, 5)], -1), (3, 4, 1)),
    "dense": (IMAGE, lambda x: conv(x[2:5], 2, padding="VALID").reshape(-1) @ weights(12, 4), (2,)),
    "mean over space": (IMAGE, lambda x: conv(x, 2, groups=2).mean((0, 1)), (1,)),
    "1-D": (LINE, lambda x: conv(pool(conv(x, 2, 4, 2), "max"), 3, 2), (2, 1)),
    "1-D dilated": (LINE, lambda x: conv(conv(x, 1, 2, padding="VALID"), 1, 3, 2, dilation=2), (-1, 0)),
    "transposed": (
        LINE,
        lambda x: lax.conv_transpose(x[None], weights(3, 1, 2), (2,), "SAME", None, ("NHC", "HIO", "NHC"))[0],
        (9, 1),
    ),
    "scan, last carry": (LINE, scanned, (8, 0)),
    "scan, a round's row": (LINE, scanned, (15, 0)),
    "attention": ((5, 3), attention, (2, 1)),
    "masked": (LINE, lambda x: jnp.convolve(jnp.where(jnp.arange(14) % 3 == 1, x[:, 0], 0.0), jnp.ones(5)), (6,)),
    "remat": (IMAGE, lambda x: conv(jax.checkpoint(lambda x: conv(x, 2))(x), 2, stride=2), (0, 1, 0)),
    "flip, pad, roll": (LINE, lambda x: jnp.roll(jnp.pad(x[::-1], ((2, 1), (0, 0))), 3, 0) * 2, (7, 0)),
    "running maximum": (LINE, lax.cummax, (5, 0)),
    "running sum, reversed": (LINE, lambda x: lax.cumsum(x, reverse=True), (5, 0)),
    "sorted": ((4, 3), lambda x: jnp.sort(x, 0), (2, 1)),
    "chosen by constants": (LINE, lambda x: x[jnp.array([3, 1, 3])] + x[5:6], (1, 0)),
    "written": (LINE, lambda x: x.at[3].set(x[7] * x[2]).at[4].add(1.0), (3, 0)),
    "split": (LINE, lambda x: jnp.split(x, 2)[1] * 2, (3, 0)),
    "top": ((5,), lambda x: lax.top_k(x, 2)[0], (1,)),
    "product of all": ((4, 3), lambda x: x.prod(0), (1,)),
    "spectrum of every row": ((4, 5), lambda x: jnp.abs(jnp.fft.rfft(x)), (2, 1)),
    "spread": ((4, 3), lambda x: x.std(1), (2,)),
    "interleaved": ((4,), lambda x: jnp.stack([x[:2], x[2:]]).T.reshape(-1), (1,)),
    "softmax": ((4, 3), lambda x: jax.nn.softmax(x, -1), (2, 1)),
    "product": ((4, 3), lambda x: x @ x.T, (2, 1)),
    "kernel from the input": (LINE, lambda x: jnp.convolve(x[:, 0], 1 + x[2:4, 0], "valid"), (8,)),
}


def moved_by_hand(network, shape, index):
    """Every element changed by several amounts, at several inputs."""
    like = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    unit = lambda x: network(x)[index]

    @jax.jit
    def moved(x):
        near = jax.vmap(lambda one: jnp.stack([unit(x + a * one) for a in (-50.0, -1.0, 0.5, 100.0)]))(like)
        return (jnp.abs(near / unit(x) - 1) > 1e-9).any(1).reshape(shape)

    return np.any([moved(x) for x in RNG.uniform(0.5, 1.5, size=(3, *shape))], 0)


@pytest.mark.parametrize("name", STACKS)
def test_field_is_what_moves_the_unit(name):
    shape, network, index = STACKS[name]
    find = receptive_field(lambda x: jxp.tag(network(x), "here").sum(), "here", index)
    field = jax.jit(find)(jnp.zeros(shape))
    assert field.dtype == bool
    np.testing.assert_array_equal(field, moved_by_hand(network, shape, index))
    assert field.any()


def test_it_does_not_depend_on_numbers():
    """Off behind ReLUs, or with NaN around, a unit sees what it sees; integers and comparisons pass it on."""
    network = lambda x: jxp.tag(jax.nn.relu(conv(x, 2) - 1e6), "here") * 0.0
    f = receptive_field(network, "here", (4, 4, 1))
    want = np.zeros(IMAGE, bool)
    want[3:6, 3:6] = True
    for x in (jnp.zeros(IMAGE), jnp.full(IMAGE, jnp.nan)):
        np.testing.assert_array_equal(f(x), want)
    signs = lambda x: jxp.tag(
        jnp.floor((lax.stop_gradient(x) > 0).astype(float)) + jnp.argmax(x[:2]).astype(float), "here"
    )
    np.testing.assert_array_equal(receptive_field(signs, "here", 3)(jnp.zeros(5)), [1, 1, 0, 1, 0])


def test_nothing_underflows_in_a_deep_network():
    deep = lambda x: jxp.tag(
        lax.fori_loop(0, 200, lambda _, x: 1e-30 * jnp.convolve(x, jnp.ones(3), "same"), x), "z"
    )
    field = receptive_field(deep, "z", 250)(jnp.zeros(500))
    assert bounding_box(field).start == 50
    assert bounding_box(field).stop == 451


def test_many_places_in_one_trace_and_other_arguments():
    traces = []

    def network(scale, x):
        traces.append(1)
        return jxp.tag(conv(x["image"], 2, stride=2) * scale, "here").sum() + x["count"]

    @jax.jit
    @jax.vmap
    def fields(place):
        find = receptive_field(network, "here", place, argnums=1)
        return find(2.0, {"image": jnp.zeros(IMAGE), "count": 3})

    places = np.array([[0, 0, 0], [1, 2, 0], [4, 3, 0], [-1, -1, 0], [7, 0, 0]])
    found = fields(places)
    assert len(traces) == 1
    assert found["count"] is None
    for place, field in zip(places[:4], found["image"], strict=False):
        alone = receptive_field(network, "here", tuple(place), argnums=1)(
            2.0, {"image": jnp.zeros(IMAGE), "count": 3}
        )
        np.testing.assert_array_equal(field, alone["image"])
    np.testing.assert_array_equal(found["image"][2], found["image"][3])
    assert not found["image"][4].any()  # a traced place outside sees nothing
    box = jax.vmap(bounding_box)(found["image"])
    np.testing.assert_array_equal(box.start[:3], [[0, 0, 0], [1, 4, 0], [7, 6, 0]])
    np.testing.assert_array_equal(box.stop[:3], [[2, 3, 2], [4, 7, 2], [9, 8, 2]])
    np.testing.assert_array_equal([box.start[4], box.stop[4]], np.zeros((2, 3)))


def test_a_site_inside_a_scan():
    def network(x):
        step = lambda x, _: (jxp.tag(jnp.convolve(x, jnp.ones(3), "same"), "here"), None)
        return lax.scan(step, x, length=4)[0].sum()

    for rounds in range(4):
        field = receptive_field(network, "here", (rounds, 6))(jnp.zeros(13))
        np.testing.assert_array_equal(np.flatnonzero(field), np.arange(5 - rounds, 8 + rounds))


@pytest.mark.parametrize("constant", [True, False])
def test_branches(constant):
    branches = [lambda x: x, lambda x: jnp.roll(x, 1) * x]
    f = lambda x, n: jxp.tag(lax.switch(n if constant else (x[0] > 0).astype(int), branches, x), "here")
    for number, want in enumerate([[3], [2, 3]] if constant else [[0, 2, 3]] * 2):
        field = receptive_field(f, "here", 3)(jnp.zeros(5), jnp.asarray(number))
        np.testing.assert_array_equal(np.flatnonzero(field), want)


def test_where_the_input_chooses_all_counts():
    f = lambda x: jxp.tag(x[jnp.argmax(x[:2])] + x[3], "here")
    np.testing.assert_array_equal(receptive_field(f, "here", ())(jnp.zeros(5)), np.ones(5))


def test_declared_units_and_transforms_of_the_network():
    swish = jxp.engine.unit(lambda x: x * jax.nn.sigmoid(x), name="swish", kind="activation")
    f = lambda x: jxp.tag(jax.grad(lambda x: (swish(x)[1:] * x[:-1]).sum())(x), "here")
    np.testing.assert_array_equal(receptive_field(f, "here", 2)(jnp.zeros(6)), [0, 1, 1, 1, 0, 0])


BAD = {
    "no unit": lambda: receptive_field(lambda x: jxp.tag(2 * x, "z"), "z", 5)(jnp.zeros(5)),
    "one number an axis": lambda: receptive_field(lambda x: jxp.tag(2 * x, "z"), "z", (0, 0))(jnp.zeros(5)),
    "did you mean 'zed'": lambda: receptive_field(lambda x: jxp.tag(2 * x, "zed"), "zd", 0)(jnp.zeros(5)),
    "while at .* is not known": lambda: receptive_field(
        lambda x: jxp.tag(lax.while_loop(lambda x: x[0] < 3, lambda x: x + 1, x), "z"), "z", 0
    )(jnp.zeros(5)),
    "no float leaves": lambda: receptive_field(lambda x: jxp.tag(2.0 * x, "z"), "z", 0)(jnp.arange(5)),
    "one array of booleans": lambda: bounding_box(jnp.zeros(3)),
    "not dict": lambda: bounding_box({"a": jnp.zeros(3) > 0}),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError, UnsupportedOperation), match=message):
        BAD[message]()


def test_boxes_of_scalars_and_of_nothing():
    assert bounding_box(jnp.asarray(True)).start.shape == (0,)
    box = bounding_box(jnp.zeros((2, 3), bool))
    np.testing.assert_array_equal(box.start, box.stop)
