"""Pictures of units: what is drawn where, on which scale, and what is refused."""

# pyright: reportArgumentType=false

import io

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import activation_grid, patches, thumbnails

RNG = np.random.default_rng(0)
ACTIVATION = RNG.normal(size=(4, 3, 6))
IMAGES = RNG.random((5, 8, 8))
POINTS = RNG.normal(size=(5, 2))


def render(figure):
    """Draws for real, so that a warning of matplotlib's becomes an error."""
    figure.savefig(io.BytesIO(), format="raw", dpi=60)


def test_every_channel_is_drawn_on_one_scale():
    figure = activation_grid(ACTIVATION, title=r"$\frac$", percentile=100)
    grid = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in grid] == list("012345")
    for channel, ax in enumerate(grid):
        np.testing.assert_array_equal(ax.images[0].get_array(), ACTIVATION[..., channel])
        assert ax.images[0].get_clim() == (-np.abs(ACTIVATION).max(), np.abs(ACTIVATION).max())
    assert grid[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)
    render(figure)


@pytest.mark.parametrize("values", [np.abs(ACTIVATION), np.zeros((2, 2, 1)), jnp.asarray(ACTIVATION)[None]])
def test_kinds_of_activations(values):
    render(activation_grid(values, columns=4))


def test_positive_activations_have_a_sequential_scale():
    figure = activation_grid(np.abs(ACTIVATION))
    assert figure.axes[0].images[0].get_clim()[0] == 0.0


def test_a_row_of_patches_with_values_and_names():
    rows = [
        [IMAGES[0], IMAGES[1, :5]],
        [np.stack([IMAGES[2]] * 3, -1)],
        [(255 * IMAGES[3, ..., None]).astype("u1")],
    ]
    figure = patches(rows, [[2.0, -0.5], [1e-3], jnp.array([7.0])], names=["a", r"$\frac$", "c"], title="t")
    assert [ax.get_xlabel() for ax in figure.axes] == ["2", "−0.5", "0.001", "7"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["a", "", r"$\frac$", "c"]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), IMAGES[1, :5])
    spans = [np.ptp(ax.get_ylim()) for ax in figure.axes]
    assert spans == [8.0] * 4  # one size of pixel, whatever the patch
    assert figure.axes[1].get_ylim() == (6.0, -2.0)  # in the middle
    render(figure)
    render(patches([[IMAGES[0]]]))


def test_thumbnails_stand_at_their_points():
    figure = thumbnails(POINTS, IMAGES, list("abbac"), size=0.1)
    ax = figure.axes[0]
    for image, point, picture in zip(ax.images, POINTS, IMAGES, strict=True):
        left, right, bottom, top = image.get_extent()
        np.testing.assert_allclose([(left + right) / 2, (bottom + top) / 2], point)
        np.testing.assert_allclose([right - left, top - bottom], 0.1 * np.ptp(POINTS, axis=0).max())
        np.testing.assert_array_equal(image.get_array(), picture)
        assert ax.get_xlim()[0] < left
        assert ax.get_ylim()[1] > top
    colors = [frame.get_edgecolor() for frame in ax.patches]
    assert colors[0] == colors[3] != colors[1] == colors[2] != colors[4]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "c"]
    render(figure)


@pytest.mark.parametrize("points", [np.zeros((1, 2)), np.array([[0.0, 0.0], [5.0, 0.0]]), jnp.ones((2, 2))])
def test_few_points_on_a_line_or_in_one_place(points):
    render(thumbnails(points, IMAGES[: len(points), ..., None], title=r"$\frac$"))


BAD = {
    r"shape \(H, W, C\)": lambda: activation_grid(ACTIVATION[0]),
    r"got \(2, 4, 3, 6\)": lambda: activation_grid(np.stack([ACTIVATION] * 2)),
    "no empty axis": lambda: activation_grid(ACTIVATION[:0]),
    "activation has 72 NaN": lambda: activation_grid(ACTIVATION * np.nan),
    "columns": lambda: activation_grid(ACTIVATION, columns=0),
    "percentile": lambda: activation_grid(ACTIVATION, percentile=0),
    "signed=False": lambda: activation_grid(ACTIVATION, signed=False),
    "rows is empty": lambda: patches([]),
    "or one of them is": lambda: patches([[IMAGES[0]], []]),
    "as many numbers": lambda: patches([[IMAGES[0]]], [[1.0, 2.0]]),
    "1 rows but 2 names": lambda: patches([[IMAGES[0]]], names=["a", "b"]),
    "values has 1 NaN": lambda: patches([[IMAGES[0]]], [[np.nan]]),
    r"floats in \[0, 1\]": lambda: patches([[IMAGES[0] * 255]]),
    r"shape \(n, 2\)": lambda: thumbnails(POINTS[0], IMAGES),
    "at least 1": lambda: thumbnails(POINTS[:0], IMAGES[:0]),
    r"5 points need images \(5, H, W": lambda: thumbnails(POINTS, IMAGES[:3]),
    "5 points but 2 labels": lambda: thumbnails(POINTS, IMAGES, ["a", "b"]),
    "11 classes": lambda: thumbnails(np.ones((11, 2)), np.zeros((11, 2, 2)), range(11)),
    "size must": lambda: thumbnails(POINTS, IMAGES, size=0),
    "points has": lambda: thumbnails(POINTS * np.inf, IMAGES),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises(ValueError, match=message):
        BAD[message]()
