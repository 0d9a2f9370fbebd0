"""The report: escaped, well formed, self-contained."""

# pyright: reportArgumentType=false

import base64
import io
import re
from html.parser import HTMLParser

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from jaxplain.plot import Card, Section, Table, report

EVIL = "<script>alert('1')</script> \" onload=\"x & y"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Elements and text of a page; fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def figure(width=4.0, height=3.0):
    drawn = Figure(figsize=(width, height))
    drawn.add_subplot().plot([0, 1])
    return drawn


def card(**changes):
    fields = {"title": "Gradient", "figure": figure(), "shows": "The slope.", "caution": "When saturated."}
    return Card(**(fields | changes))


def test_everything_given_is_on_the_page():
    table = Table(["method", "seconds"], [["lrp", 0.123456], ["cam", 3]], "Timings")
    facts = [("sum", np.float32(0.5)), ("gap", jnp.float32(1.5)), ("steps", 12345678)]
    sections = [Section("Maps", ["First.", "Second."], [card(facts=facts)]), Section("Times", tables=[table])]
    page = Page(report("Why a cat", sections))
    words = [word.strip() for word in page.words if word.strip()]
    for text in ["Why a cat", "Maps", "First.", "Second.", "Gradient", "What it shows.", "The slope.",
                 "When not to trust it.", "When saturated.", "sum", "0.5", "1.5", "12345678", "Timings",
                 "method", "lrp", "0.1235", "3"]:  # fmt: skip
        assert text in words
    targets = {attrs["id"] for attrs in page.all("section")}
    assert {attrs["href"] for attrs in page.all("a")} == {f"#{target}" for target in targets}
    assert [attrs.get("class") for attrs in page.all("td")] == [None, "number", None, "number"]


def test_every_text_is_escaped():
    table = Table([EVIL], [[EVIL]], EVIL)
    cards = [card(title=EVIL, shows=EVIL, caution=EVIL, facts=[(EVIL, EVIL)]), card(alt=EVIL)]
    sections = [Section(EVIL, [EVIL], cards, [table])] * 2
    text = report(EVIL, sections)
    page = Page(text)
    assert "<script" not in text
    assert not any("onload" in attrs for _, attrs in page.elements)
    assert "".join(page.words).count(EVIL) == 2 + 2 + 2 * 10  # titles, links, and ten texts a section


def test_the_page_needs_no_network():
    text = report("Title", [Section("Maps", cards=[card()])])
    page = Page(text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}
    for _, attrs in page.elements:
        for name in ("src", "href", "srcset", "data"):
            assert attrs.get(name, "#").startswith(("#", "data:image/"))
    outside = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|//|url\(|@import", outside)
    (policy,) = [attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs]
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_figures_are_embedded_with_alt_text(image_format):
    text = report("T", [Section("S", cards=[card(), card(alt="A line.")])], image_format=image_format, dpi=50)
    images = Page(text).all("img")
    assert [image["alt"] for image in images] == ["Gradient: The slope.", "A line."]
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == f"data:image/{image_format};base64"
        with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as decoded:
            assert decoded.format == image_format.upper()
            assert decoded.size == (200, 150)
            assert "Software" not in decoded.info  # the version would make pages differ
        assert (image["width"], image["height"]) == ("384", "288")


def test_wide_figures_take_a_row():
    page = Page(report("T", [Section("S", cards=[card(), card(figure=figure(width=12.0))])], dpi=30))
    assert [attrs["class"] for attrs in page.all("article")] == ["card", "card wide"]


def test_the_page_adapts_to_phones_and_dark_mode():
    text = report("T", [])
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert "auto-fill" in text


def test_the_same_report_is_the_same_page():
    first, second = (report("T", [Section("S", cards=[card()])], dpi=30) for _ in range(2))
    assert first == second


def test_an_empty_report_and_bare_sections_are_pages():
    Page(report("T", []))
    assert "<nav" not in report("T", [Section("Only")])


def test_bad_arguments():
    with pytest.raises(ValueError, match="image_format"):
        report("T", [], image_format="gif")
    with pytest.raises(ValueError, match="row 1 has 1 cells but the header has 2"):
        Table(["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match=r"intro=\[text\]"):
        Section("S", "one string")
