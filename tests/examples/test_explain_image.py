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
from depthwise import shift_depthwise
from explain_methods import METHODS, Method
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
    *(m for m in METHODS if m.name in ("grad_cam", "hires_cam", "cam")),
    Method(
        "two_steps",
        lambda f, _: jxp.integrated_gradients(f, num_steps=2, chunk_size=1),
        "Integrated gradients with too few steps.",
        "Always.",
        baseline=0.0,
    ),
    Method(
        "two_samples",
        lambda f, background: jxp.expected_gradients(f, background, num_samples=2, chunk_size=1),
        "Expected gradients with too few samples.",
        "Always.",
        stochastic=True,
    ),
)


def test_the_whole_demonstration(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
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
    assert page.titles == [method.name for method in FEW]
    assert all(link.startswith(("data:image/", "#")) for link in page.links)
    assert sum(link.startswith("data:image/") for link in page.links) == len(FEW)
    assert "<script" not in source
    text = " ".join(page.text)
    assert "a cup & saucer.png: why espresso?" in text
    assert all(method.shows in text and method.caution in text for method in FEW)

    # The gap of each method in the terminal and in the report, against the library's own.
    f = jxp.class_score(lite0_linen.load().logits)
    x, label = jnp.asarray(zoo.preprocess(zoo.bundled("coffee"))), jnp.int32(967)
    value = jax.jit(jxp.integrated_gradients(f, num_steps=2, chunk_size=1))(x, label)
    for place in (printed, text):
        gap, explained, percent = gap_in(place)
        np.testing.assert_allclose(gap, completeness_gap(f, value, x, 0.0, label), rtol=0.06)
        np.testing.assert_allclose(explained, f(x, label) - f(jnp.zeros_like(x), label), rtol=0.01)
        np.testing.assert_allclose(percent, 100 * gap / explained, rtol=0.11)


def gap_in(text):
    found = re.search(r"gap ([-+.\de]+) of ([-+.\de]+) logits \(([-+.\de]+) %\)", text[text.index("two_steps") :])
    assert found is not None
    return [float(number) for number in found.groups()]


def test_class_activation_maps_account_for_the_logit_less_its_bias():
    network = lite0_linen.load()
    f = jxp.class_score(jax.jit(network.logits))
    x, label = jnp.asarray(zoo.preprocess(zoo.bundled("coffee"))), jnp.int32(967)
    bias = network.params["params"]["classifier"]["bias"][967]
    for method in METHODS:
        if method.baseline == "silent":
            explained = jax.jit(explain_image.explainer(method, f, x[None]))(jax.random.key(0), x, label)
            np.testing.assert_allclose(explained.explained, f(x, label) - bias, atol=1e-4)
            np.testing.assert_allclose(explained.gap, 0, atol=1e-4)


def test_shares_are_readable():
    assert explain_report.percent(-1e-9, 1.0) == "0.00 %"
    assert explain_report.percent(-0.1234) == "-12 %"
    assert explain_report.percent(0.0123) == "+1.2 %"
    assert explain_report.percent(0.0, 0.0) == "of nothing"


def test_patches_keep_the_total():
    pixels = np.random.default_rng(0).normal(size=(224, 224, 3))
    coarse = explain_report.patches(jnp.asarray(pixels))
    assert coarse.shape == (56, 56)
    np.testing.assert_allclose(coarse[1, 2], pixels[4:8, 8:12].sum(), rtol=1e-4)
    assert explain_report.patches(jnp.ones((7, 7))).shape == (7, 7)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [((12, 9), 3, 1), ((12, 9), 3, 2), ((7, 7), 5, 2), ((11, 8), 5, 1)]
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_shifted_products_are_the_convolution(size, kernel, stride, layout):
    rng = np.random.default_rng(0)
    channels_last = layout == "NHWC"
    x = jnp.asarray(rng.normal(size=(1, *size, 6) if channels_last else (1, 6, *size)), jnp.float32)
    shape = (kernel, kernel, 1, 6) if channels_last else (6, 1, kernel, kernel)
    weights = jnp.asarray(rng.normal(size=shape), jnp.float32)

    def convolved(x):
        return jax.lax.conv_general_dilated(
            x,
            weights,
            (stride, stride),
            "SAME",
            dimension_numbers=(layout, "HWIO" if channels_last else "OIHW", layout),
            feature_group_count=6,
        )

    shifted = shift_depthwise(lambda x: jax.nn.relu(convolved(x)) + 1, x)
    assert "conv_general_dilated" not in str(jax.make_jaxpr(shifted)(x))
    expected, pull = jax.vjp(lambda x: jax.nn.relu(convolved(x)) + 1, x)
    actual, pull_shifted = jax.vjp(shifted, x)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    slope = jnp.asarray(rng.normal(size=expected.shape), jnp.float32)
    np.testing.assert_allclose(pull_shifted(slope)[0], pull(slope)[0], rtol=1e-5, atol=1e-5)


def test_other_convolutions_are_left_alone():
    x, weights = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 2, 6))

    def grouped(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, weights, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=2
        )

    assert "conv_general_dilated" in str(jax.make_jaxpr(shift_depthwise(grouped, x))(x))
