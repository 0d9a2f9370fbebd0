"""Helpful and harmful training images: which are drawn, in which order, what is left out, what is refused."""

# pyright: reportArgumentType=false

import io

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import influence_table

IMAGES = np.random.default_rng(0).random((7, 8, 8))
VALUES = np.array([0.5, -2.0, 0.0, 3.0, -0.25, -1.0, 0.125])
NAMES = list("abcdefg")


def render(figure):
    """Draws for real, so that a warning of matplotlib's becomes an error."""
    figure.savefig(io.BytesIO(), format="raw", dpi=60)


def test_help_is_negative_and_each_row_runs_from_the_strongest():
    figure = influence_table(IMAGES, VALUES, names=NAMES, top=2)
    assert [ax.get_title() for ax in figure.axes] == ["b", "f", "d", "a"]
    assert [ax.get_xlabel() for ax in figure.axes] == ["−2", "−1", "+3", "+0.5"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["most helpful", "", "most harmful", ""]
    np.testing.assert_array_equal(figure.axes[2].images[0].get_array(), IMAGES[3])
    render(figure)


def test_sides_have_their_colours():
    figure = influence_table(IMAGES, VALUES, top=1)
    helpful, harmful = (ax.spines["left"].get_edgecolor() for ax in figure.axes)
    assert helpful[2] > helpful[0]
    assert harmful[0] > harmful[2]


def test_the_note_says_what_is_left_out():
    note = influence_table(IMAGES, VALUES, top=1, label="nats").get_supxlabel()
    assert note == "below the images: nats; not shown: 2 less helpful, sum −1.2, 2 less harmful, sum +0.62"
    assert influence_table(IMAGES, VALUES, top=9, label="nats").get_supxlabel() == "below the images: nats"


def test_the_test_image_comes_first():
    figure = influence_table(IMAGES, VALUES, test_image=IMAGES[0], test_name=r"$\frac$", names=[r"$\frac$"] * 7)
    assert figure.axes[0].get_title() == r"$\frac$"
    assert len(figure.axes) == 1 + 3 + 3  # an influence of 0 is on neither side
    render(figure)


@pytest.mark.parametrize("values", [np.zeros(7), np.ones(7), -np.ones(7) * 1e-30, jnp.ones(7)])
def test_one_side_may_be_empty(values):
    render(influence_table(IMAGES, values, title=r"$\frac$", test_image=IMAGES[0]))


@pytest.mark.parametrize("convert", [lambda v: (255 * v).astype(np.uint8), jnp.asarray, lambda v: v[..., None]])
def test_kinds_of_images(convert):
    render(influence_table(convert(IMAGES), VALUES))
    render(influence_table(np.stack([IMAGES] * 3, -1), VALUES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": VALUES[:, None]}, "values must be a vector"),
        ({"values": []}, "at least one entry"),
        ({"values": VALUES * np.nan}, "NaN"),
        ({"values": VALUES[:3]}, r"3 values need images \(3, H, W"),
        ({"images": IMAGES[0]}, "7 values need images"),
        ({"images": IMAGES * 255}, r"floats in \[0, 1\]"),
        ({"names": ["a"]}, "7 values but 1 names"),
        ({"top": 0}, "top"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        influence_table(**{"images": IMAGES, "values": VALUES} | arguments)
