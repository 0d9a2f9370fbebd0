"""Scales: where zero lands, whose limits hold, what is transparent, what enlarging does."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import gallery, heatmap, overlay
from jaxplain.plot._scale import Scale, enlarge

PHOTO = np.random.default_rng(0).random((12, 16, 3))
SIGNED = np.random.default_rng(1).normal(size=(12, 16))
SIGHTS = {  # Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def pixels(image):
    """The colours of an image artist, one RGBA in [0, 1] per cell."""
    return image.to_rgba(image.get_array())


def map_artist(figure, axes=0):
    return figure.axes[axes].images[-1]


def linear(rgb):
    rgb = np.asarray(rgb)[..., :3]
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lightness(rgb):
    """CIE L*."""
    luminance = linear(rgb) @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


# Colours


def test_zero_is_the_centre_of_the_diverging_map():
    image = map_artist(heatmap([[0.0, 3.0], [-1.0, 0.5]], percentile=100))
    zero = pixels(image)[0, 0]
    np.testing.assert_allclose(zero, np.array([0xF7, 0xF7, 0xF7, 0xFF]) / 255, atol=1e-6)
    assert image.norm(0.0) == 0.5


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e30])
def test_positive_is_orange_and_negative_is_blue(magnitude):
    plus, minus = pixels(map_artist(heatmap([[magnitude, -magnitude]])))[0]
    assert plus[0] > plus[2] + 0.3
    assert minus[2] > minus[0] + 0.3


def test_unsigned_map_is_sequential_and_starts_at_zero():
    image = map_artist(heatmap(np.abs(SIGNED), percentile=100))
    assert image.get_clim() == (0.0, np.abs(SIGNED).max())
    order = np.argsort(np.abs(SIGNED), axis=None)
    assert np.all(np.diff(lightness(pixels(image)).ravel()[order]) >= -0.05)
    assert heatmap(np.abs(SIGNED), signed=True).axes[0].images[0].get_clim()[0] < 0


def test_lightness_falls_alike_on_both_sides_of_zero():
    light = lightness(Scale(True, 1.0, False).colors().colors)
    assert np.max(np.abs(light - light[::-1])) < 10
    assert np.all(np.diff(light[len(light) // 2 :]) < 0)
    assert np.all(np.diff(light[: len(light) // 2 + 1]) > 0)


@pytest.mark.parametrize("sight", SIGHTS)
def test_signs_stay_apart_for_every_sight(sight):
    colors = np.clip(linear(Scale(True, 1.0, False).colors().colors) @ np.transpose(SIGHTS[sight]), 0, 1)
    negative, positive = colors[:85][::-1], colors[-85:]  # beyond a third of the limit, paired by magnitude
    assert np.min(np.linalg.norm(positive - negative, axis=-1)) > 0.2


@pytest.mark.parametrize("signed", [False, True])
def test_opacity_is_proportional_to_magnitude(signed):
    values = np.linspace(-1.0 if signed else 0.0, 1.0, 5)[None, :] * np.ones((5, 1))
    shown = pixels(map_artist(overlay(values, np.zeros((5, 5)), alpha=0.8, percentile=100)))
    # One step of a colour map of some 256 colours.
    np.testing.assert_allclose(shown[..., 3], 0.8 * np.abs(values), atol=0.8 / 256)  # 256 colours
    assert np.all(shown[values == 0, 3] == 0)


# Limits


def test_percentile_sets_the_limit_and_the_arrow_tells():
    values = np.arange(-100.0, 101.0).reshape(3, 67)
    full, clipped = heatmap(values, percentile=100), heatmap(values, percentile=50)
    assert map_artist(full).get_clim() == (-100, 100)
    assert map_artist(clipped).get_clim() == (-50, 50)
    at_limit, beyond = pixels(map_artist(clipped))[values >= 50][[0, -1]]
    np.testing.assert_allclose(at_limit, beyond)
    bars = [figure.axes[-1]._colorbar for figure in (full, clipped)]
    assert [bar.extend for bar in bars] == ["neither", "both"]


def test_sparse_map_falls_back_to_its_maximum():
    values = np.zeros((100, 100))
    values[3, 4] = -2.0
    assert map_artist(heatmap(values)).get_clim() == (-2, 2)


def test_shared_scale_is_one_limit_and_one_bar():
    maps = {"small": SIGNED * 1e-3, "large": SIGNED, "unsigned": np.abs(SIGNED) * 0.1}
    figure = gallery(maps, PHOTO, scale="shared", percentile=100)
    limit = np.abs(SIGNED).max()
    assert {ax.images[1].get_clim() for ax in figure.axes[1:4]} == {(-limit, limit)}
    assert len(figure.axes) == 1 + 3 + 1


def test_own_scales_are_the_maps_own():
    maps = {"small": SIGNED * 1e-3, "large": SIGNED, "unsigned": np.abs(SIGNED)}
    figure = gallery(maps, PHOTO, percentile=100)
    limit = np.abs(SIGNED).max()
    clims = [map_artist(figure, i).get_clim() for i in (1, 2, 3)]
    np.testing.assert_allclose(clims, [(-limit * 1e-3, limit * 1e-3), (-limit, limit), (0, limit)])
    assert len(figure.axes) == 1 + 3 + 3


# Enlarging


def test_enlarging_is_bilinear_between_cell_centres():
    # Two cells over four pixels: centres at 1 and 3, pixels at 0.5, 1.5, 2.5, 3.5.
    np.testing.assert_allclose(enlarge(np.array([[0.0, 4.0]]), (1, 4)), [[0.0, 1.0, 3.0, 4.0]])
    grid = np.array([[0.0, 4.0], [8.0, 12.0]])
    large = enlarge(grid, (4, 4))
    np.testing.assert_allclose(large, [0, 1, 3, 4] + np.array([0, 2, 6, 8])[:, None])
    np.testing.assert_allclose(enlarge(SIGNED, SIGNED.shape), SIGNED)


@pytest.mark.parametrize("shape", [(7, 7), (14, 20), (1, 1), (5, 3)])
def test_enlarging_agrees_with_jax(shape):
    values = np.random.default_rng(2).normal(size=shape)
    expected = jax.image.resize(jnp.asarray(values), (28, 21), "bilinear")
    np.testing.assert_allclose(enlarge(values, (28, 21)), expected, atol=1e-5)
