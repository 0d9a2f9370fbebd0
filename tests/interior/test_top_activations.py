"""The examples a unit responds to most, against sorting all activations, and the patches cut out of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import interior
from jaxplain.interior import patches, top_activations

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(11, 7, 6, 2))
KERNEL = RNG.normal(size=(3, 3, 2, 4))


def h(x, stride=2):
    """A site (4, 3, 4) of an image (7, 6, 2)."""
    return jax.lax.conv_general_dilated(
        x[None], jnp.asarray(KERNEL), (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


@pytest.fixture(scope="module")
def sites():
    return np.stack([h(jnp.asarray(x)) for x in IMAGES])


@pytest.mark.parametrize("chunk_size", [None, 1, 4, 20])
@pytest.mark.parametrize("unit", [0, 2, -1])
def test_it_is_a_sort_of_all_activations(sites, unit, chunk_size):
    top = top_activations(h, IMAGES, unit, 5, chunk_size=chunk_size)
    best = sites[..., unit].max((1, 2))
    order = np.argsort(-best)[:5]
    np.testing.assert_array_equal(top.examples, order)
    np.testing.assert_allclose(top.values, best[order], rtol=1e-12)
    for i, (row, column), value in zip(top.examples, top.positions, top.values, strict=True):
        np.testing.assert_allclose(sites[i, row, column, unit], value, rtol=1e-12)


def test_other_channel_axes_dense_sites_and_trees():
    want = top_activations(h, IMAGES, 1, 3)
    first = top_activations(lambda d: jnp.moveaxis(h(d["image"]), -1, 0), {"image": IMAGES}, 1, 3, channel_axis=0)
    jax.tree.map(np.testing.assert_array_equal, first, want)
    dense = top_activations(lambda x: h(x).max((0, 1)), IMAGES, 1, 3)
    np.testing.assert_array_equal(dense.examples, want.examples)
    assert dense.positions.shape == (3, 0)


def test_many_units_in_one_run_and_one_trace():
    traces = []

    def counted(x):
        traces.append(1)
        return h(x)

    each = jax.vmap(lambda unit: top_activations(counted, IMAGES, unit, 2, chunk_size=3))(jnp.arange(4))
    assert len(traces) == 1
    for unit in range(4):
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.map(lambda v: v[unit], each),
            top_activations(h, IMAGES, unit, 2),
        )


def test_equal_values_and_nan():
    top = top_activations(lambda x: x, np.array([[1.0], [2.0], [2.0], [1.0]]), 0, 4)
    np.testing.assert_array_equal(top.examples, [1, 2, 0, 3])
    top = top_activations(lambda x: x, np.array([[1.0], [np.nan], [2.0]]), 0, 2)
    np.testing.assert_array_equal(top.examples, [1, 2])


def test_patches_are_the_receptive_fields(sites):
    top = top_activations(h, IMAGES, 3, 11)
    found = patches(h, IMAGES, top, 3)
    for patch, i, place in zip(found, top.examples, top.positions, strict=True):
        (row, column) = place
        # SAME on 7 rows pads one before; on 6 columns none before and one behind
        rows = slice(max(2 * int(row) - 1, 0), 2 * int(row) + 2)
        columns = slice(2 * int(column), 2 * int(column) + 3)
        np.testing.assert_array_equal(patch, IMAGES[i, rows, columns])
        if patch.shape == (3, 3, 2):  # cut out whole, it alone makes the unit's value
            np.testing.assert_allclose((patch * KERNEL[..., 3]).sum(), sites[i, row, column, 3], rtol=1e-12)
    assert {patch.shape for patch in found} > {(3, 3, 2)}


def test_patches_of_a_dense_unit_are_whole_images_and_one_trace_serves_all():
    traces = []

    def dense(x):
        traces.append(1)
        return h(x).reshape(-1) @ jnp.ones((48, 2))

    top = top_activations(dense, IMAGES, 1, 4)
    traces.clear()
    found = patches(dense, IMAGES, top, 1)
    assert len(traces) <= 2  # of them one to learn the site's shape
    for patch, i in zip(found, top.examples, strict=True):
        np.testing.assert_array_equal(patch, IMAGES[i])


def test_patches_with_channels_first():
    top = top_activations(lambda x: jnp.moveaxis(h(x), -1, 0), IMAGES, 3, 4, channel_axis=0)
    found = patches(lambda x: jnp.moveaxis(h(x), -1, 0), IMAGES, top, 3, channel_axis=0)
    for a, b in zip(found, patches(h, IMAGES, top, 3), strict=True):
        np.testing.assert_array_equal(a, b)


def test_with_capture():
    f = lambda x: jxp.tag(h(x), "conv").sum()
    top = top_activations(jxp.slice_at(f, "conv").h, IMAGES, 0, 2)
    again = top_activations(lambda x: jxp.capture(f, "conv")(x)[1]["conv"], IMAGES, 0, 2)
    jax.tree.map(np.testing.assert_array_equal, top, again)


TOP = interior.TopActivations(jnp.ones(1), jnp.zeros(1, int), jnp.zeros((1, 2), int))
BAD = {
    "k=12, but the data set has 11": lambda: top_activations(h, IMAGES, 0, 12),
    "k must be a whole number": lambda: top_activations(h, IMAGES, 0, 0),
    "no channel 4": lambda: top_activations(h, IMAGES, 4, 1),
    "cannot be interpreted as an integer": lambda: top_activations(h, IMAGES, 0.5, 1),
    "no axis 3": lambda: top_activations(h, IMAGES, 0, 1, channel_axis=3),
    "dataset holds no examples": lambda: top_activations(h, np.zeros((0, 3)), 0, 1),
    "dataset holds no arrays": lambda: top_activations(h, {}, 0, 1),
    "dataset has leaves with different numbers": lambda: top_activations(
        h, (np.zeros((2, 3)), np.zeros((3, 3))), 0, 1
    ),
    "returned tuple": lambda: top_activations(jxp.capture(lambda x: jxp.tag(x, "x"), "x"), IMAGES, 0, 1),
    "chunk_size must be": lambda: top_activations(h, IMAGES, 0, 1, chunk_size=0),
    "one array each": lambda: patches(h, {"a": IMAGES}, TOP, 0),
    r"no float leaves.*astype\(float\)": lambda: patches(
        lambda x: x.astype(float), np.ones((2, 3, 3, 3), int), TOP, 0
    ),
    "no channel 9": lambda: patches(h, IMAGES, TOP, 9),
    "one number an axis": lambda: patches(h, IMAGES, TOP._replace(positions=jnp.zeros((1, 1), int)), 0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        BAD[message]()


@pytest.mark.parametrize("chunk_size", [1, 2, 5])
def test_a_dense_site_in_chunks(chunk_size):
    data = jnp.array([[1.0, 0.0], [-1.0, 0.0], [3.0, 0.0], [-2.0, 0.0], [3.0, 0.0]])
    top = top_activations(lambda x: x, data, 0, 4, chunk_size=chunk_size)
    np.testing.assert_array_equal(top.values, [3.0, 3.0, 1.0, -1.0])
    np.testing.assert_array_equal(top.examples, [2, 4, 0, 1])
    assert top.positions.shape == (4, 0)


def test_nan_of_either_sign_comes_first_and_zeros_are_equal():
    data = jnp.array([[4.0], [-1.0], [-0.0], [0.0], [9.0]])
    top = top_activations(jnp.sqrt, data, 0, 5)  # at run time the root of -1 is NaN with a sign
    np.testing.assert_array_equal(top.examples, [1, 4, 0, 2, 3])
    assert np.isnan(top.values[0])
    flipped = top_activations(lambda x: x, jnp.array([[1.0], [-jnp.nan], [2.0]]), 0, 3)
    np.testing.assert_array_equal(flipped.examples, [1, 2, 0])


def test_a_traced_channel_that_is_not_there():
    top = jax.vmap(lambda unit: top_activations(h, jnp.asarray(IMAGES), unit, 2))(jnp.array([3, 4]))
    assert np.isfinite(top.values[0]).all()
    assert np.isnan(top.values[1]).all()


@pytest.mark.parametrize(("example", "position"), [(0, 7), (0, -1), (-1, 1), (3, 1)])
def test_patches_of_another_site_or_other_data(example, position):
    top = interior.TopActivations(jnp.ones(1), jnp.array([example]), jnp.array([[position]]))
    with pytest.raises(IndexError, match="are not those of"):
        patches(lambda x: x[:, None], jnp.ones((3, 4)), top, 0)
