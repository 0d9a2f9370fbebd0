"""GrabCut from a map: the object is found, whatever the range of the image, and the same each time."""

import jax
import numpy as np
import pytest

from jaxplain import interior

NUMERICS = "plain"
ROW, COLUMN = np.mgrid[:24, :30]
OBJECT = (abs(ROW - 10) < 6) & (abs(COLUMN - 18) < 5)
SALIENCY = np.exp(-((ROW - 9) ** 2 + (COLUMN - 19) ** 2) / 12)
GROUND = np.random.default_rng(0).uniform(0.0, 0.15, (24, 30, 3))
RED = np.array([0.9, 0.3, 0.2])
IMAGE = np.where(OBJECT[..., None], RED + GROUND, GROUND)


@pytest.mark.parametrize("image", [IMAGE, np.uint8(255 * IMAGE / 1.1), 40 * IMAGE - 7, IMAGE.mean(-1)])
def test_the_object_is_found_in_any_range(image):
    np.testing.assert_array_equal(interior.segment(image, SALIENCY), OBJECT)
    np.testing.assert_array_equal(interior.segment(image, 1e-6 * SALIENCY), OBJECT)


def test_of_two_objects_of_a_colour_the_salient_one_is_kept():
    other = (abs(ROW - 15) < 5) & (COLUMN < 6)
    image = np.where(other[..., None], RED + GROUND, IMAGE)
    np.testing.assert_array_equal(interior.segment(image, SALIENCY), OBJECT)


def test_it_is_the_same_each_time():
    image, saliency = np.random.default_rng(1).uniform(size=(24, 30, 3)), SALIENCY + 1e-3 * GROUND[..., 0]
    np.testing.assert_array_equal(interior.segment(image, saliency), interior.segment(image, saliency))


BAD = {
    r"its shape is \(24, 30, 4\)": lambda: interior.segment(np.zeros((24, 30, 4)), SALIENCY),
    r"saliency has shape \(24, 30, 3\)": lambda: interior.segment(IMAGE, IMAGE),
    "must be finite": lambda: interior.segment(IMAGE, np.where(OBJECT, np.nan, SALIENCY)),
    "at least 0: take its absolute": lambda: interior.segment(IMAGE, -SALIENCY),
    "0 at both quantiles": lambda: interior.segment(IMAGE, SALIENCY * (SALIENCY > 0.9)),
    "background < foreground": lambda: interior.segment(IMAGE, SALIENCY, foreground=0.2),
    "num_iterations must be": lambda: interior.segment(IMAGE, SALIENCY, num_iterations=0),
    "outside of jit": lambda: jax.jit(interior.segment)(IMAGE, SALIENCY),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()
