"""Bars and curves: order, sign, what is left out, what is refused."""

# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false

import io

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import bars, curve

VALUES = np.array([0.1, -0.7, 0.3, 0.0])
NAMES = ["age", r"$\frac$", "tenure", "$none"]


def test_bars_are_sorted_by_magnitude_with_the_largest_on_top():
    ax = bars(VALUES, NAMES).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [-0.7, 0.3, 0.1, 0.0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [r"$\frac$", "tenure", "age", "$none"]
    heights = [ax.transData.transform((0, bar.get_y()))[1] for bar in ax.patches]
    assert heights == sorted(heights, reverse=True)
    assert [text.get_text() for text in ax.texts] == ["−0.7", "+0.3", "+0.1", "0"]


def test_bars_tell_the_sign_by_colour():
    negative, positive = (bar.get_facecolor() for bar in bars(VALUES, NAMES).axes[0].patches[:2])
    assert negative[2] > negative[0]
    assert positive[0] > positive[2]


def test_top_says_what_it_leaves_out():
    ax = bars(VALUES, NAMES, top=1, label="log-odds").axes[0]
    assert len(ax.patches) == 1
    assert ax.get_xlabel() == "log-odds\n3 smaller values not shown, sum +0.4"
    assert bars(VALUES, NAMES, top=9, label="log-odds").axes[0].get_xlabel() == "log-odds"


def test_errors_follow_their_bars():
    ax = bars(VALUES, NAMES, std_error=[0.01, 0.02, 0.03, 0.04]).axes[0]
    (whiskers,) = ax.collections
    lengths = [np.ptp(segment[:, 0]) for segment in whiskers.get_segments()]
    np.testing.assert_allclose(lengths, [0.04, 0.06, 0.02, 0.08])


@pytest.mark.parametrize("values", [np.zeros(3), np.array([1e-30, -1e-31, 0]), -np.ones(3), jnp.ones(3)])
def test_bars_draw_without_warnings(values):
    bars(values, NAMES[:3], title=r"$\frac$", std_error=np.zeros(3)).savefig(io.BytesIO(), format="raw", dpi=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": VALUES[:, None]}, "values must be a vector"),
        ({"values": []}, "at least one entry"),
        ({"values": VALUES * np.nan}, "NaN"),
        ({"names": NAMES[:2]}, "4 values but 2 names"),
        ({"top": 0}, "top"),
        ({"std_error": VALUES}, "non-negative"),
        ({"std_error": [0.1]}, "4 non-negative"),
    ],
)
def test_bad_bars(arguments, message):
    with pytest.raises(ValueError, match=message):
        bars(**({"values": VALUES, "names": NAMES} | arguments))


def test_curves_hold_the_data_and_differ_in_colour_and_dash():
    x = np.arange(30.0)
    ys = {rf"{i} $\frac$": x**i for i in range(3)}
    figure = curve(x, ys, title=r"$\frac$", x_label=r"$\frac$", y_label=r"$\frac$")
    ax = figure.axes[0]
    for line, (name, y) in zip(ax.lines, ys.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xydata(), np.stack([x, y], -1))
    assert len({line.get_color() for line in ax.lines}) == len({line.get_linestyle() for line in ax.lines}) == 3
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(ys)
    figure.savefig(io.BytesIO(), format="raw", dpi=60)


def test_twelve_curves_are_all_distinct():
    lines = curve([0, 1], {str(i): [0, i] for i in range(12)}).axes[0].lines
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == 12


def test_a_single_point_is_visible():
    assert curve([1.0], {"a": jnp.array([2.0])}).axes[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize(
    ("x", "ys", "message"),
    [
        ([0, 1], {}, "at least one line"),
        ([[0, 1]], {"a": [0, 1]}, "x must be a vector"),
        ([0, 1], {"a": [0, 1, 2]}, "'a' has 3 values but x has 2"),
        ([0, 1], {"a": [0, np.inf]}, "'a' has 1 NaN or infinite value "),
    ],
)
def test_bad_curves(x, ys, message):
    with pytest.raises(ValueError, match=message):
        curve(x, ys)


def test_no_figure_is_registered():
    import matplotlib.pyplot as plt

    bars(VALUES, NAMES)
    curve([0, 1], {"a": [0, 1]})
    assert plt.get_fignums() == []
