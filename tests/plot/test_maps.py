"""Maps: what is drawn, in any kind and shape of array, and what is refused."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalMemberAccess=false

import io
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from jaxplain.plot import gallery, heatmap, overlay
from jaxplain.plot._scale import enlarge

PHOTO = np.random.default_rng(0).random((12, 16, 3))
SIGNED = np.random.default_rng(1).normal(size=(12, 16))
DRAWERS = {
    "heatmap": heatmap,
    "overlay": overlay,
    "gallery": lambda a, image: gallery({"map": a}, image),
}


@pytest.fixture(params=DRAWERS.values(), ids=DRAWERS.keys())
def draw(request):
    return request.param


def pixels(image):
    """The colours of an image artist, one RGBA in [0, 1] per cell."""
    return image.to_rgba(image.get_array())


def map_artist(figure, axes=0):
    return figure.axes[axes].images[-1]


def render(figure):
    """Draws for real, so that a warning of matplotlib's becomes an error."""
    figure.savefig(io.BytesIO(), format="raw", dpi=60)


# What is drawn


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", [[-1.0, 0.0]]), ("norm", [[5.0, np.sqrt(2)]]), ("max_abs", [[4.0, 1.0]])],
)
def test_reductions(reduction, expected):
    figure = heatmap([[[3.0, -4.0], [1.0, -1.0]]], reduction=reduction)
    np.testing.assert_allclose(map_artist(figure).get_array(), expected)


def test_overlay_draws_the_grey_photo_and_the_enlarged_map():
    cam = np.array([[0.0, 1.0], [2.0, 3.0]])
    photo, drawn = overlay(cam, PHOTO[:12, :12]).axes[0].images
    np.testing.assert_allclose(photo.get_array(), PHOTO[:12, :12] @ [0.2126, 0.7152, 0.0722])
    np.testing.assert_allclose(drawn.get_array(), enlarge(cam, (12, 12)))
    assert drawn.get_clim() == (0, np.percentile(cam, 99.5))  # of the map as given


def test_heatmap_keeps_cells_and_the_colours_of_the_photo():
    figure = heatmap(SIGNED[:3, :4], np.round(255 * PHOTO).astype(np.uint8))
    photo, drawn = figure.axes[0].images[0], figure.axes[1].images[0]
    # Half a step of the 8 bits that the photo was rounded to.
    np.testing.assert_allclose(photo.get_array(), PHOTO, atol=0.5 / 255 + 1e-6)  # rounded to 8 bits
    np.testing.assert_array_equal(drawn.get_array(), SIGNED[:3, :4])


@pytest.mark.parametrize("convert", [jnp.asarray, lambda a: jnp.asarray(a, jnp.bfloat16), np.float16])
def test_array_kinds(draw, convert):
    render(draw(convert(SIGNED), PHOTO))


def test_gallery_order_names_captions_and_columns():
    maps = {r"b $\frac$": SIGNED, "a <i>": SIGNED, "c": SIGNED}
    figure = gallery(
        maps,
        PHOTO,
        columns=3,
        captions={"a <i>": r"costs $\frac$"},
        title=r"$\frac$",
        label=r"$\frac$",
        scale="shared",
    )
    assert [ax.get_title() for ax in figure.axes[:4]] == ["input", *maps]
    assert [ax.get_xlabel() for ax in figure.axes[:4]] == ["", "", r"costs $\frac$", ""]
    assert figure.axes[0].get_subplotspec().get_gridspec().get_geometry() == (2, 3)
    render(figure)


def test_layout_has_no_ticks_and_no_overlaps():
    maps = {f"a long name for method number {i}, which wraps": SIGNED * 10.0**-i for i in range(6)}
    figure = gallery(maps, PHOTO, captions=dict.fromkeys(maps, "a caption of one rather long line, in words"))
    render(figure)
    pictures = figure.axes[:7]
    assert all(len(ax.get_xticks()) == len(ax.get_yticks()) == 0 for ax in pictures)
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.padded(1).fully_containsx(x) for box in boxes for x in (box.x0, box.x1))
    widths = [ax.get_window_extent().width for ax in pictures]
    assert max(widths) - min(widths) < 1
    assert min(widths) > 0.85 * figure.bbox.width / 4


@pytest.mark.parametrize("shape", [(2, 40), (40, 2), (1, 1)])
def test_odd_shapes_draw(draw, shape):
    render(draw(np.ones(shape), np.zeros(shape)))


def test_inputs_are_left_alone(draw):
    values, photo = SIGNED.copy(), PHOTO.copy()
    draw(values, photo)
    np.testing.assert_array_equal(values, SIGNED)
    np.testing.assert_array_equal(photo, PHOTO)


@pytest.mark.parametrize("signed", [None, True])
def test_zero_map_draws_without_warnings(draw, signed):
    render(draw(np.zeros((12, 16)), PHOTO))
    figure = overlay(np.zeros((12, 16)), PHOTO, signed=signed)
    assert np.all(pixels(map_artist(figure))[..., 3] == 0)
    render(figure)


@pytest.mark.parametrize("magnitude", [1e-40, 1e-12, 1e35])
def test_extreme_magnitudes_draw_without_warnings(draw, magnitude):
    render(draw((SIGNED * magnitude).astype(np.float32), PHOTO))


# What is refused


@pytest.mark.parametrize(
    ("attribution", "image", "message"),
    [
        (SIGNED[0], PHOTO, r"shape \(H, W\).*got \(16,\)"),
        (SIGNED[None, ..., None], PHOTO, r"attribution\[0\]"),
        (np.zeros((0, 4)), PHOTO, "no empty axis"),
        (np.where(SIGNED > 2, np.nan, SIGNED), PHOTO, "NaN or infinite.*nan_to_num"),
        (np.where(SIGNED > 2, -np.inf, SIGNED), PHOTO, "NaN or infinite"),
        (SIGNED * 1j, PHOTO, "complex"),
        (SIGNED, PHOTO[None], r"image\[0\]"),
        (SIGNED, np.moveaxis(PHOTO, -1, 0), "moveaxis"),
        (SIGNED, np.concatenate([PHOTO, PHOTO[..., :1]], -1), "alpha channel"),
        (SIGNED, PHOTO * np.nan, "image has 576 NaN"),
        (SIGNED, PHOTO - 0.5, "before the model's preprocessing"),
        (SIGNED, PHOTO * 255, r"floats in \[0, 1\]"),
        (SIGNED, PHOTO[:, :12], "larger than the image"),
        (SIGNED.T, np.ones((32, 24)), None),
        (SIGNED, np.ones((16, 32)), "aspect ratio"),
        (np.ones((7, 7)), PHOTO, "aspect ratio"),
    ],
)
def test_bad_arrays(draw, attribution, image, message):
    if message is None:
        draw(attribution, image)
        return
    with pytest.raises(ValueError, match=message):
        draw(attribution, image)


def test_aspect_may_differ_by_one_cell():
    overlay(np.ones((10, 15)), np.ones((300, 451)))
    overlay(np.ones((8, 10)), np.ones((225, 300)))  # strides of 32, rounded up
    with pytest.raises(ValueError, match="aspect ratio"):
        overlay(np.ones((10, 10)), np.ones((225, 300)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percentile": 0}, "percentile"),
        ({"percentile": 101}, "percentile"),
        ({"reduction": "mean"}, "unknown reduction 'mean'; choose one of sum, norm, max_abs"),
        ({"signed": False}, "negative values"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.5}, "alpha"),
        ({"scale": "global"}, "unknown scale 'global'"),
        ({"columns": 0}, "columns"),
        ({"captions": {"mpa": "typo"}}, "'mpa'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        gallery({"map": SIGNED}, PHOTO, **options)


def test_gallery_names_the_map_at_fault():
    with pytest.raises(ValueError, match="'broken' has 192 NaN"):
        gallery({"fine": SIGNED, "broken": SIGNED * np.nan}, PHOTO)
    with pytest.raises(ValueError, match="at least one map"):
        gallery({}, PHOTO)


# Manners


def test_nothing_global_is_touched(draw):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    draw(SIGNED, PHOTO)
    assert plt.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_pyplot_is_not_imported():
    code = "import sys, jaxplain.plot; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_missing_extra_says_what_to_install(missing):
    code = f"""
    import sys
    sys.modules[{missing!r}] = None
    try:
        import jaxplain.plot
    except ImportError as error:
        assert "pip install jaxplain[plot]" in str(error) and {missing!r} in str(error), error
    else:
        raise AssertionError("imported")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_an_estimate_is_told_from_a_map():
    from jaxplain import Estimate

    with pytest.raises(ValueError, match=r"pass estimate\.value"):
        heatmap(Estimate(np.ones((4, 4)), np.ones((4, 4))))  # pyright: ignore[reportArgumentType]
