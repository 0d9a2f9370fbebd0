"""Waterfalls and beeswarms: order, sign, sums, what is left out, what is refused."""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import io

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import beeswarm, waterfall
from jaxplain.plot.tables import _offsets, _ranks

VALUES = np.array([0.1, -0.7, 0.3, 0.0])
NAMES = ["age = 59", r"$\frac$", "tenure", "$none"]
ROWS = np.random.default_rng(0).normal(size=(50, 4))
SHARES = ROWS * VALUES


def spans(figure):
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[0].patches]


def test_each_step_begins_where_the_one_above_ends():
    figure = waterfall(VALUES, NAMES, base=2.0)
    np.testing.assert_allclose(spans(figure), [(2, 1.3), (1.3, 1.6), (1.6, 1.7), (1.7, 1.7)])
    ax = figure.axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [r"$\frac$", "tenure", "age = 59", "$none"]
    assert [text.get_text() for text in ax.texts] == ["−0.7", "+0.3", "+0.1", "0", "base 2", "output 1.7"]
    heights = [ax.transData.transform((0, bar.get_y()))[1] for bar in ax.patches]
    assert heights == sorted(heights, reverse=True)


def test_steps_tell_the_sign_by_colour():
    negative, positive = (bar.get_facecolor() for bar in waterfall(VALUES, NAMES, base=0).axes[0].patches[:2])
    assert negative[2] > negative[0]
    assert positive[0] > positive[2]


def test_what_top_leaves_out_is_one_last_step():
    figure = waterfall(VALUES, NAMES, base=2.0, top=2)
    np.testing.assert_allclose(spans(figure), [(2, 1.3), (1.3, 1.6), (1.6, 1.7)])
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "2 smaller ones together"
    # One left over gets its own name, in the same room.
    assert len(spans(waterfall(VALUES, NAMES, base=2.0, top=3))) == 4


def test_errors_are_at_the_ends_of_the_steps():
    figure = waterfall(VALUES, NAMES, base=2.0, std_error=[0.01, 0.02, 0.03, 0.04], top=2)
    whiskers = figure.axes[0].containers[-1].lines[2][0]
    ends = [segment[:, 0] for segment in whiskers.get_segments()]
    np.testing.assert_allclose(ends, [(1.28, 1.32), (1.57, 1.63)])


@pytest.mark.parametrize("values", [np.zeros(3), np.array([1e-30, -1e-31, 0]), -np.ones(3), jnp.ones(3)])
def test_pictures_are_drawn_without_warnings(values):
    figure = waterfall(values, NAMES[:3], base=-1.0, title=r"$\frac$", std_error=np.zeros(3))
    figure.savefig(io.BytesIO(), format="raw", dpi=60)
    figure = beeswarm(values[None], jnp.ones((1, 3)), NAMES[:3], title=r"$\frac$")
    figure.savefig(io.BytesIO(), format="raw", dpi=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": VALUES[:, None]}, "values must be a vector"),
        ({"values": VALUES * np.nan}, "NaN"),
        ({"names": NAMES[:2]}, "4 values but 2 names"),
        ({"top": 0}, "top"),
        ({"base": np.zeros(4)}, "one row at a time"),
        ({"base": np.nan}, "base has 1 NaN"),
        ({"std_error": VALUES}, "non-negative"),
        ({"std_error": [0.1]}, "4 non-negative"),
    ],
)
def test_bad_waterfalls(arguments, message):
    with pytest.raises(ValueError, match=message):
        waterfall(**({"values": VALUES, "names": NAMES, "base": 0.0} | arguments))


def test_columns_are_sorted_and_points_are_at_their_values():
    ax = beeswarm(SHARES, ROWS, NAMES).axes[0]
    order = np.argsort(-np.abs(SHARES).mean(0))
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [NAMES[i] for i in order]
    swarms = [drawn for drawn in ax.collections if len(drawn.get_offsets()) == len(ROWS)]
    for row, (swarm, column) in enumerate(zip(swarms, order, strict=True)):
        x, y = np.asarray(swarm.get_offsets()).T
        np.testing.assert_allclose(x, SHARES[:, column])
        assert np.abs(y - row).max() < 0.5
        # The highest number is the brightest, the lowest the darkest.
        light = swarm.get_facecolors()[:, :3].sum(1)
        assert light.argmax() == ROWS[:, column].argmax()
        assert light.argmin() == ROWS[:, column].argmin()


def test_a_missing_number_is_grey_and_no_rank():
    rows = np.array([[np.nan], [1.0], [7.0], [1.0]])
    np.testing.assert_allclose(_ranks(rows[:, 0]), [np.nan, 0, 1, 0])
    np.testing.assert_allclose(_ranks(np.array([3.0, 3.0])), 0.5)
    assert np.isnan(_ranks(np.array([np.nan]))).all()
    colors = beeswarm(np.zeros((4, 1)), rows, ["a"]).axes[0].collections[0].get_facecolors()
    assert len(set(colors[0, :3])) == 1
    assert len(set(colors[1, :3])) == 3


def test_points_at_one_place_are_spread_and_stay_in_their_row():
    few, many = _offsets(np.zeros(3), 1.0, 0.1), _offsets(np.zeros(500), 1.0, 0.1)
    np.testing.assert_allclose(few, [0, 0.1, -0.1])
    assert len(set(many.round(6))) == 500
    assert np.abs(many).max() < 0.43
    np.testing.assert_array_equal(_offsets(np.arange(3.0), 1.0, 0.1), 0)


def test_beeswarm_says_what_it_leaves_out():
    ax = beeswarm(SHARES, ROWS, NAMES, top=1, label="log-odds").axes[0]
    assert len(ax.get_yticklabels()) == 1
    assert ax.get_xlabel() == "log-odds\n3 columns of smaller mean magnitude not shown"
    assert beeswarm(SHARES, ROWS, NAMES, top=9, label="log-odds").axes[0].get_xlabel() == "log-odds"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": VALUES}, "values must be a table"),
        ({"values": SHARES * np.nan}, "NaN"),
        ({"features": ROWS[:3]}, r"features has shape \(3, 4\)"),
        ({"names": NAMES[:2]}, "4 columns but 2 names"),
        ({"top": 0}, "top"),
    ],
)
def test_bad_beeswarms(arguments, message):
    with pytest.raises(ValueError, match=message):
        beeswarm(**({"values": SHARES, "features": ROWS, "names": NAMES} | arguments))
