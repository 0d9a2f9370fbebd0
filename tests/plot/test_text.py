"""The coloured text: every token with its value and colour, words in one piece, escaped, what is refused."""

import re
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest

from jaxplain.plot import text

EVIL = "<script>alert('1')</script> \" onload=\"x & y"
TOKENS = ["[CLS]", "won", "##der", "##ful", "film", "##", "but", "[SEP]"]
VALUES = np.array([0.0, 1.0, 0.5, 2.0, -0.5, 0.1, -1.5, 0.25])


class Page(HTMLParser):
    """The words of a text as lists of (token, value, background); fails on tags that do not match."""

    def __init__(self, page):
        super().__init__()
        self.words, self.rest, self.open = [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if "title" in attributes:
            (background,) = re.findall("background: (#[0-9a-f]{6})", attributes["style"])
            self.words[-1].append([None, attributes["title"], background])
        elif tag == "span":
            self.words.append([])
        assert not any(name.startswith("on") for name in attributes)
        self.open.append((tag, "title" in attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][1]:
            self.words[-1][-1][0] = data
        else:
            self.rest.append(data)


def test_pieces_are_joined_to_their_word():
    words = [[token for token, _, _ in word] for word in Page(text(TOKENS, VALUES)).words]
    assert words == [["[CLS]"], ["won", "der", "ful"], ["film"], ["##"], ["but"], ["[SEP]"]]
    assert "won</span><span" in text(TOKENS, VALUES)


def test_a_text_may_begin_with_a_piece():
    assert [word[0][0] for word in Page(text(["##ing", "a"], [1, 2])).words] == ["##ing", "a"]


def test_every_token_tells_its_value():
    values = [value for word in Page(text(TOKENS, VALUES)).words for _, value, _ in word]
    assert values == ["0", "+1", "+0.5", "+2", "−0.5", "+0.1", "−1.5", "+0.25"]


def test_colours_are_symmetric_about_zero_and_end_at_the_largest():
    colors = {value: color for word in Page(text(TOKENS, VALUES)).words for _, value, color in word}
    assert colors["0"] == "#f7f7f7"
    assert colors["+2"] == "#963c00"
    mirrored = {value: color for word in Page(text(TOKENS, -VALUES)).words for _, value, color in word}
    assert mirrored["−2"] == "#0a3f87"
    assert mirrored["+0.5"] == colors["+0.5"]


def test_text_on_dark_colours_is_white():
    page = text(["a", "b", "c"], [1.0, -1.0, 0.0])
    assert re.findall("; color: (#[0-9a-f]{6})", page) == ["#ffffff", "#ffffff", "#222222"]


def test_the_line_below_tells_the_scale_and_the_sum():
    page = Page(text(TOKENS, VALUES, title="Why & how"))
    assert "blue −2, orange +2, sum +1.85" in page.rest
    assert "Why & how" in page.rest
    assert "figcaption" not in text(TOKENS, VALUES)


def test_everything_is_escaped():
    page = text([EVIL, f"##{EVIL}"], [1.0, -1.0], title=EVIL)
    assert "<script" not in page
    parsed = Page(page)
    assert [token for word in parsed.words for token, _, _ in word] == [EVIL, EVIL]
    assert EVIL in parsed.rest


@pytest.mark.parametrize("values", [np.zeros(3), jnp.ones(3), [1, -2, 3], np.array([1e-30, 0, -1e-30])])
def test_values_of_every_kind(values):
    Page(text(["a", "b", "c"], values))


@pytest.mark.parametrize(
    ("tokens", "values", "message"),
    [
        ([], [], "tokens is empty"),
        ("a b", [1, 2, 3], "got one string"),
        (["a"], [1, 2], "1 tokens but 2 values"),
        (["a", "b"], [1], "2 tokens but 1 values"),
        (["a", "b"], np.ones((2, 3)), r"shape \(2, 3\).*sum\(axis=-1\)"),
        (["a"], 1.0, "must be a vector"),
        (["a", "b"], [1, np.nan], "1 NaN or infinite value"),
        (["a"], [np.inf], "NaN or infinite"),
        (["a"], [1j], "complex"),
        (["a", 3], [1, 2], "token 1 is int, not a string"),
    ],
)
def test_bad_input(tokens, values, message):
    with pytest.raises(ValueError, match=message):
        text(tokens, values)
