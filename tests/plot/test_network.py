"""The flow of relevance: a bar for what arrives, one for what is passed on, the leak at its end; bad tables."""

# pyright: reportAttributeAccessIssue=false

import io
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import network


class Unit(NamedTuple):
    place: str
    kind: str
    rule: str
    relevance_in: float
    relevance_out: float
    leak: float


TABLE = [
    Unit("head", "dense", "epsilon", 11.0, 10.0, 1.0),
    Unit(r"block$_1$/$\frac$", "conv", "gamma", 10.0, 10.5, -0.5),
    Unit("stem", "conv", "zbox", 10.5, -1.5, 12.0),
    Unit("", "relu", "pass", -1.5, -1.5, 0.0),
]


def test_the_output_is_on_top_and_every_unit_is_named():
    ax = network(TABLE).axes[0]
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert labels == [
        "dense head [epsilon]",
        r"conv block$_1$/$\frac$ [gamma]",
        "conv stem [zbox]",
        "relu [pass]",
    ]
    heights = [ax.transData.transform((0, y))[1] for y in ax.get_yticks()]
    assert heights == sorted(heights, reverse=True)


def test_bars_are_what_arrives_what_is_passed_on_and_the_leak_at_its_end():
    arrives, passed, leak = network(TABLE).axes[0].containers
    assert [bar.get_width() for bar in arrives] == [11.0, 10.0, 10.5, -1.5]
    assert [bar.get_width() for bar in passed] == [10.0, 10.5, -1.5, -1.5]
    assert [bar.get_width() for bar in leak] == [1.0, -0.5, 12.0, 0.0]
    assert [bar.get_x() for bar in leak] == [10.0, 10.5, -1.5, -1.5]
    assert len({bars[0].get_facecolor() for bars in (arrives, passed, leak)}) == 3


def test_bars_lie_within_the_axis():
    ax = network(TABLE).axes[0]
    low, high = ax.get_xlim()
    assert low < -1.5
    assert high > 11.0


def test_leaks_that_can_be_seen_are_labelled():
    ax = network([*TABLE, Unit("last", "add", "ratio", 1.0, 0.99, 0.01)]).axes[0]
    assert [(text.get_text(), text.xy[1]) for text in ax.texts] == [("+1", 0), ("−0.5", 1), ("+12", 2)]


def test_the_legend_says_what_the_colours_mean():
    figure = network(TABLE, title=r"coffee $\frac$")
    (legend,) = figure.legends
    colors = [patch.get_facecolor() for patch in legend.get_patches()]
    assert colors == [bars[0].get_facecolor() for bars in figure.axes[0].containers]
    assert "leak" in legend.get_texts()[2].get_text()
    assert figure.axes[0].get_title(loc="left") == r"coffee $\frac$"


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        tuple(TABLE[:1]),
        [Unit("a", "b", "c", 0.0, 0.0, 0.0)],
        [Unit("a", "b", "c", -2.0, -1.0, -1.0)],
        [Unit("a", "b", "c", jnp.float32(1.0), np.float64(1.0), 0)],
        TABLE * 30,
    ],
)
def test_it_draws_without_warnings(table):
    network(table, title=r"$\frac$").savefig(io.BytesIO(), format="raw", dpi=40)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([], "table is empty"),
        ([TABLE[0], ("stem", "conv")], "row 1 has no field place, kind, rule, relevance_in"),
        ([TABLE[0]._replace(leak=np.nan)], r"leak of 'dense head \[epsilon\]' has 1 NaN"),
        ([TABLE[0]._replace(relevance_in=np.inf)], "relevance_in of .* NaN or infinite"),
        ([TABLE[0]._replace(relevance_out=np.ones(3))], r"relevance_out of .* one number, got shape \(3,\)"),
        ([TABLE[0]._replace(relevance_out=1j)], "complex"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        network(table)


def test_no_figure_is_registered():
    import matplotlib.pyplot as plt

    network(TABLE)
    assert plt.get_fignums() == []
