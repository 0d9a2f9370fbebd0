"""The demonstration: its errors are one line, its files are complete, its numbers are the library's."""

import re
from html.parser import HTMLParser

import explain_image
import explain_report
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from explain_methods import METHODS, NUM_PATCHES, SHAP_COPIES, Explanation, Method, checker
from PIL import Image
from zoo import lite0_linen

import jaxplain as jxp
from jaxplain.metrics import completeness_gap


@pytest.fixture
def fails(capsys, monkeypatch, tmp_path):
    """Runs the script with arguments that are wrong; returns its one line."""

    def load():
        raise AssertionError("the network was loaded before the arguments were checked")

    monkeypatch.setattr(lite0_linen, "load", load)
    monkeypatch.chdir(tmp_path)

    def run(*argv):
        with pytest.raises(SystemExit) as stop:
            explain_image.main([str(word) for word in argv])
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("explain_image.py: error: ")
        return printed.err

    return run


def test_a_missing_photo_is_one_line(fails):
    assert "no-such.jpg does not exist" in fails("no-such.jpg")


@pytest.mark.parametrize("content", [b"not an image", b"", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_broken_photo_is_one_line(fails, tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    assert "cannot open photo: broken.png" in fails("broken.png")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("espreso", "near names: espresso (967)"),
        ("terrier", "classes: "),
        ("1000", "out of range"),
        ("-1", "out of range"),
        ("", "fits|no ImageNet class"),
    ],
)
def test_a_class_that_is_not_one_is_one_line(fails, name, message):
    assert re.search(message.replace("(", r"\(").replace(")", r"\)"), fails(f"--class={name}"))


def test_wrong_options_are_one_line(fails, tmp_path):
    assert "invalid choice: 'torch'" in fails("--framework", "torch")
    assert "unrecognized arguments" in fails("--fast")
    (tmp_path / "file").touch()
    assert "cannot write to file" in fails("--out", "file")


class Page(HTMLParser):
    """What a page refers to and says, and whether its tags are closed."""

    VOID = frozenset({"meta", "img", "br", "hr", "link", "input"})

    def __init__(self):
        super().__init__()
        self.open, self.links, self.titles, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.links += [value for key, value in attrs if key in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] == "h3":
            self.titles.append(data)


FEW = (
    *(m for m in METHODS if m.name == "hires_cam"),
    Method(
        "twice_the_score",  # needs no gradient, which would take long to compile
        lambda f, _: lambda x, label: jnp.full_like(x, 2 * f(x, label) / x.size),
        "Twice the score, spread over the photo.",
        "Trust it never.",
        baseline=0.0,
    ),
    Method(
        "two_samples",
        lambda f, _: jxp.smooth(jxp.grad_cam(f), num_samples=2),
        "Smoothed Grad-CAM with too few samples.",
        "Always.",
        stochastic=True,
    ),
)


def test_the_whole_demonstration(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    seen, show_runs = [], explain_image.show_runs

    def watched(runs, *rest):
        seen.extend(runs)
        show_runs(runs, *rest)

    monkeypatch.setattr(explain_image, "show_runs", watched)
    zoo.bundled("coffee").save("a cup & saucer.png")
    assert explain_image.main(["a cup & saucer.png", "--class", "Espresso", "--out", "new/out"], FEW) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-2:] == ["new/out/gallery.png", "new/out/report.html"]
    assert "95.1 %" in printed

    with Image.open("new/out/gallery.png") as gallery:
        assert gallery.size[0] > 500
        assert np.asarray(gallery).std() > 10

    source = (tmp_path / "new/out/report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(source)
    page.close()
    assert page.open == []
    assert page.titles == ["photo", *(method.name for method in FEW)]
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert sum(link.startswith("data:image/") for link in page.links) == 1 + len(FEW)
    assert "<script" not in source
    text = " ".join(page.text)
    assert "a cup & saucer.png: why espresso?" in text
    assert all(method.shows in text and method.caution in text for method in FEW)

    # The gap of each method in the terminal and in the report, against the library's own.
    f = jxp.class_score(jax.jit(lite0_linen.load().logits))
    x, label = jnp.asarray(zoo.preprocess(zoo.bundled("coffee"))), jnp.int32(967)
    (value,) = (run.explanations[0].value for run in seen if run.method.name == "twice_the_score")
    for place in (printed[printed.rindex("twice_the_score") :], text[text.index(FEW[1].caution) :]):
        gap, explained, percent = gap_in(place)
        np.testing.assert_allclose(gap, completeness_gap(f, value, x, 0.0, label), rtol=0.06)
        np.testing.assert_allclose(explained, f(x, label) - f(jnp.zeros_like(x), label), rtol=0.01)
        np.testing.assert_allclose(percent, 100 * gap / explained, rtol=0.11)


def gap_in(text):
    found = re.search(r"([-+][-+.\de]+) of ([.\d]+)\D+?([-+][.\d]+) %", text)
    assert found is not None
    return [float(number) for number in found.groups()]


def test_class_activation_maps_account_for_the_logit_less_its_bias():
    network = lite0_linen.load()
    f = jxp.class_score(jax.jit(network.logits))
    x, label = jnp.asarray(zoo.preprocess(zoo.bundled("coffee"))), jnp.int32(967)
    bias = network.params["params"]["classifier"]["bias"][967]
    check = checker(f)
    for method in METHODS:
        if method.baseline == "silent":
            value = jax.jit(method.build(f, x[None]))(x, label)
            gap, explained = check(method, value, x, label)
            np.testing.assert_allclose(explained, f(x, label) - bias, atol=1e-4)
            np.testing.assert_allclose(gap, 0, atol=1e-4)


def test_shares_are_readable():
    assert explain_report.percent(-1e-9, 1.0) == "0.00 %"
    assert explain_report.percent(-0.1234) == "-12 %"
    assert explain_report.percent(0.0123) == "+1.2 %"
    assert explain_report.percent(0.0, 0.0) == "of nothing"
    promised_nothing = Explanation(jnp.ones((7, 7)), None, None, None)
    assert explain_report.accuracy(promised_nothing) == "no total promised"
    assert explain_report.caption(promised_nothing) == ""


def test_patches_keep_the_total():
    pixels = np.random.default_rng(0).normal(size=(224, 224, 3))
    coarse = explain_report.patches(jnp.asarray(pixels))
    assert coarse.shape == (56, 56)
    np.testing.assert_allclose(coarse[1, 2], pixels[4:8, 8:12].sum(), rtol=1e-4)
    assert explain_report.patches(jnp.ones((7, 7))).shape == (7, 7)


def test_kernel_shap_has_copies_enough_for_an_error():
    patches = np.zeros((1, NUM_PATCHES))
    game = lambda kept: kept[:3].prod() + kept.sum()
    explain = jxp.kernel_shap(game, patches, budget=SHAP_COPIES)
    assert np.isfinite(explain(jax.random.key(0), jnp.ones(NUM_PATCHES)).std_error).all()
