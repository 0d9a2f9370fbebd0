"""The methods that `explain_image` shows: how each is made, what it shows, when not to trust it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from zoo.efficientnet_lite import IMAGE_SIZE, preprocess

import jaxplain as jxp
from jaxplain.metrics import completeness_gap

R = jxp.rules
Explain = Callable[..., Any]

# The photo blurred until nothing can be recognised: the network's logit is near 0, the colours stay plausible.
# (From plain grey, the straight path passes through faint photos whose score jumps: at 32 steps integrated
# gradients then missed up to half of the difference it explains.)
BLURRED = jxp.blur(20.0)
MAX_SIGMA = 50.0
# What a black and a white pixel are to the network.
BLACK, WHITE = (float(preprocess(np.full((IMAGE_SIZE, IMAGE_SIZE, 3), v, np.uint8)).flat[0]) for v in (0, 255))


class Method(NamedTuple):
    """One way to explain a score.

    Attributes:
        name: what it is called: its name in `jaxplain`, if it has one there.
        build: `build(f, background)` makes the explainer.
        shows: one line: what the map shows.
        caution: one line: when not to trust it.
        unit: of the map's values.
        stochastic: whether the explainer takes a key first and returns an `Estimate`.
        baseline: where the map's total must be f(x) - f(baseline): an input, or "silent" for the last
            convolutional activation at zero, which leaves the classifier's bias; "whole" compares the total with
            the score itself, of which biases may keep a share; None promises nothing.
        pooled: whether it is the mean of the map, not its sum, that must be that difference.
        parts: what the explainer needs beside the photo and is found outside of JAX, from the photo.
    """

    name: str
    build: Callable[[Explain, jax.Array], Explain]
    shows: str
    caution: str
    unit: str = "logits"
    stochastic: bool = False
    baseline: Any = None
    pooled: bool = False
    parts: Callable[[np.ndarray], np.ndarray] | None = None


NUM_PATCHES = 24  # at most, so that one compiled program serves all photos
LIME_COPIES, SHAP_COPIES = 50, 80  # of the photo with some patches blurred; fewer would leave SHAP no error


def patches_of(x: np.ndarray) -> np.ndarray:
    """(height, width): the number of the patch of like colour that each pixel belongs to, below NUM_PATCHES."""
    for wanted in range(5 * NUM_PATCHES // 4, 0, -2):  # photos fall into fewer than are asked for
        patches = jxp.superpixels(x, num_segments=wanted)
        if patches.max() < NUM_PATCHES:
            return patches
    raise ValueError("the photo does not fall into patches")


def every_fourth(value: jax.Array) -> jax.Array:
    """A map that is the same for all colours and smooth, thinned to be drawn."""
    return value[::4, ::4, 0]


def occlusion(f: Explain, _: jax.Array) -> Explain:
    explain = jxp.occlusion(f, window=(48, 48), stride=44, baseline=BLURRED, chunk_size=1)
    return lambda x, label: every_fourth(explain(x, label))


def rise(f: Explain, _: jax.Array) -> Explain:
    explain = jxp.rise(f, num_masks=60, baseline=BLURRED, chunk_size=1)

    def above_mean(key, x, label):
        value, error = map(every_fourth, explain(key, x, label))
        return jxp.Estimate(value - value.mean(), error)

    return above_mean


def on_patches(
    make: Callable[[Explain], Explain],
) -> Callable[[Explain, jax.Array], Explain]:
    """Explains patches, kept or blurred, by `make(f)(key, kept, *args)`; draws a patch's number all over it."""

    def build(f: Explain, _: jax.Array) -> Explain:
        def with_parts(kept, x, blurred, label, patches):
            return f(jnp.where(kept[patches][..., None] > 0, x, blurred), label)

        explain_parts = make(with_parts)

        def explain(key, x, label, patches):
            found = explain_parts(key, jnp.ones(NUM_PATCHES), x, BLURRED(x), label, patches)
            thin = patches[::4, ::4]
            return jxp.Estimate(found.value[thin], found.std_error[thin])

        return explain

    return build


lime = on_patches(lambda f: jxp.lime(f, num_samples=LIME_COPIES, chunk_size=1))
kernel_shap = on_patches(
    lambda f: jxp.kernel_shap(f, jnp.zeros((1, NUM_PATCHES)), budget=SHAP_COPIES, chunk_size=1)
)


# Score-CAM is not among them: with 1280 channels it takes 1280 forward passes a photo, minutes on a CPU. Nor are
# DeepLIFT's reveal_cancel rule (half a minute to compile, then 9 s a photo) and alpha-beta (as noise here).
# `explain_digit` shows both.
METHODS = (
    Method(
        "gradient",
        lambda f, _: jxp.gradient(f),
        "Where a slightly brighter pixel (red, green and blue together) would raise or lower the score.",
        "It is the slope at this photo, not what the score is made of; pixels next to each other often disagree.",
        unit="logits per unit of brightness",
    ),
    Method(
        "saliency",
        lambda f, _: jxp.saliency(f, channel_axis=-1),
        "How strongly the score reacts to each pixel, by its most sensitive colour.",
        "As noisy as the gradient, and it hides whether the pixel speaks for the class or against it.",
        unit="logits per unit of brightness",
    ),
    Method(
        "sensitivity",
        lambda f, _: jxp.sensitivity(f),
        "The squared gradient: where the score reacts most, with the strong far above the weak.",
        "Squaring turns a few noisy pixels into the whole map, and hides the sign.",
        unit="(logits per unit of brightness)²",
    ),
    Method(
        "gradient_times_input",
        lambda f, _: jxp.gradient_times_input(f),
        "The slope times how far the pixel is from mid-grey, which is this network's zero.",
        "A mid-grey pixel gets nothing whatever the network makes of it, and no total is promised.",
    ),
    Method(
        "smoothgrad",
        lambda f, _: jxp.smooth(jxp.gradient(f), num_samples=12, sigma=0.15, chunk_size=1),
        "The gradient, averaged over 12 noisy copies of the photo.",
        "It explains the network blurred by that noise; 12 copies leave a visible error, see the facts.",
        unit="logits per unit of brightness",
        stochastic=True,
    ),
    Method(
        "integrated_gradients",
        lambda f, _: jxp.integrated_gradients(f, BLURRED, num_steps=32, chunk_size=1),
        "What each pixel adds to the score between a strongly blurred copy of the photo and the photo itself.",
        "It credits only what differs from the blurred copy, and the photos half-way are not real photos.",
        baseline=BLURRED,
    ),
    Method(
        "blur_integrated_gradients",
        lambda f, _: jxp.blur_integrated_gradients(f, max_sigma=MAX_SIGMA, num_steps=16, chunk_size=1),
        "What each pixel adds to the score while the photo comes into focus.",
        "What a blur leaves unchanged, such as large even areas and the overall colour, is never credited.",
        baseline=jxp.blur(MAX_SIGMA),
    ),
    Method(
        "guided_integrated_gradients",
        lambda f, _: jxp.guided_integrated_gradients(f, BLURRED, num_steps=12),
        "As integrated gradients, along a path that changes the least sensitive pixels first.",
        "Its sum converges slowly: while the gap is near 100 %, the map accounts for almost none of the score.",
        baseline=BLURRED,
    ),
    Method(
        "expected_gradients",
        lambda f, background: jxp.expected_gradients(f, background, num_samples=12, chunk_size=1),
        "What each pixel adds to the score, compared with a few other photos instead of one baseline.",
        "Traces of those other photos remain, and 12 samples leave a visible error: see the facts.",
        stochastic=True,
    ),
    Method(
        "deep_lift",
        lambda f, _: jxp.deep_lift(f, BLURRED),
        "What each pixel adds to the score of a strongly blurred copy, layer by layer: the sum is exact.",
        "Shares are as large as they cancel; the network's layers decide them, not its function alone.",
        baseline=BLURRED,
    ),
    Method(
        "lrp epsilon plus flat",
        lambda f, _: jxp.lrp(f, R.EPSILON_PLUS_FLAT),
        "The score handed down layer by layer, in convolutions to what excites (z+), at last evenly to pixels.",
        "Biases keep nearly all of it here, see the gap; edges of any object light up, for any class.",
        baseline="whole",
    ),
    Method(
        "lrp epsilon gamma box",
        lambda f, _: jxp.lrp(f, R.epsilon_gamma_box(BLACK, WHITE)),
        "The score handed down with some weight on what inhibits (gamma); pixels lie between black and white.",
        "Biases keep most of it here, see the gap; another gamma gives another map.",
        baseline="whole",
    ),
    Method(
        "deep_taylor",
        lambda f, _: jxp.deep_taylor(f, low=BLACK, high=WHITE),
        "The score handed down as shares of what excites each unit, never negative.",
        "The sum would be the score, but units that only a bias makes active keep it, see the gap.",
        baseline="whole",
    ),
    Method(
        "excitation_backprop",
        lambda f, _: jxp.excitation_backprop(f),
        "The chance that a walk from the class down through positive weights ends at the pixel.",
        "It hardly knows the class: another label gives nearly this map. Most walks end at biases.",
        unit="probability",
    ),
    Method(
        "contrastive excitation",
        lambda f, _: jxp.contrastive_excitation_backprop(f),
        "The same, less the chance for the opposite of the class: orange is for it rather than against it.",
        "Only the classifier's weights are opposed, so its detail is that of its 7 by 7 places, carried down.",
        unit="difference of probabilities",
    ),
    Method(
        "grad_cam",
        lambda f, _: jxp.grad_cam(f),
        "Where the last convolutional layer, 7 by 7 places, finds evidence for the class.",
        "Evidence against the class is cut off; and a place sees more of the photo than lies under it.",
    ),
    Method(
        "grad_cam_pp",
        lambda f, _: jxp.grad_cam_pp(f),
        "As Grad-CAM, counting only channels that speak for the class, so that several objects show alike.",
        "It ignores all evidence against the class, and its weights assume that the score is exp(logit).",
        unit="weighted activation",
    ),
    Method(
        "layer_cam",
        lambda f, _: jxp.layer_cam(f),
        "Activation times positive gradient at each place, summed over channels.",
        "Channels that speak against the class are dropped, so what is shown may be outweighed.",
    ),
    Method(
        "xgrad_cam",
        lambda f, _: jxp.xgrad_cam(f),
        "As Grad-CAM, with channels weighted by where they are active.",
        "With this network's head (mean, then one dense layer) it must equal Grad-CAM: no second opinion.",
    ),
    Method(
        "hires_cam",
        lambda f, _: jxp.hires_cam(f),
        "What each of the 7 by 7 places adds to the score, for and against: the sum is the logit less its bias.",
        "Exact about the last layer; it says nothing of how the layers below made the activation.",
        baseline="silent",
    ),
    Method(
        "cam",
        lambda f, _: jxp.cam(f),
        "The score that the classifier would give each place alone; their mean is the logit less its bias.",
        "It is HiResCAM times 49 with this head: agreement between the two confirms nothing.",
        baseline="silent",
        pooled=True,
    ),
    Method(
        "occlusion",
        occlusion,
        "What the score loses when a square of 48 by 48 pixels is blurred away there.",
        "What the photo shows twice, or larger than the square, loses nothing; the square has edges of its own.",
    ),
    Method(
        "rise",
        rise,
        "How far the score is above its mean when random, half-blurred copies of the photo keep this place.",
        "60 masks leave much noise, see the facts; nothing finer than a seventh of the photo can show.",
        stochastic=True,
    ),
    Method(
        "lime on superpixels",
        lime,
        "What keeping a patch of like colour adds to the score, the others being blurred or not at random.",
        f"A linear model of {LIME_COPIES} such copies: patches that only matter together share what they add.",
        unit="logits a patch",
        stochastic=True,
        parts=patches_of,
    ),
    Method(
        "kernel_shap on superpixels",
        kernel_shap,
        "What a patch adds to the score when it comes into focus, averaged over which others are in focus.",
        f"Estimated from {SHAP_COPIES} copies, see the error; the network has never seen half-blurred photos.",
        unit="logits a patch",
        stochastic=True,
        parts=patches_of,
    ),
)


class Explanation(NamedTuple):
    """What a method says of one photo.

    Attributes:
        value: the map, of the photo's size or coarser, perhaps with colour channels.
        gap: the map's total minus the difference it must sum to; None if the method promises none.
        explained: that difference.
        error: the mean standard error over the largest |value|; None if the method draws no samples.
    """

    value: jax.Array
    gap: jax.Array | None
    explained: jax.Array | None
    error: jax.Array | None


def explainer(method: Method, f: Explain, background: jax.Array) -> Callable[..., tuple[Any, Any]]:
    """The pure function `(key, x, label, *parts) -> (value, error)` of a method; see `Explanation`.

    Args:
        method: the method.
        f: `f(x, label)`, the score to explain.
        background: reference photos, with a leading axis.

    Returns:
        A function to be compiled once and used for every photo, as the label is an argument of it.
    """
    explain = method.build(f, background)

    def explained(key: jax.Array, x: jax.Array, label: jax.Array, *parts: jax.Array) -> tuple[Any, Any]:
        if method.stochastic:
            value, std_error = explain(key, x, label, *parts)
            return value, std_error.mean() / abs(value).max()
        return explain(x, label), None

    return explained


def checker(f: Explain) -> Callable[..., tuple[Any, Any]]:
    """The function `(method, value, x, label) -> (gap, explained)`, both None where nothing is promised."""
    f = jax.jit(f)
    before, after = map(jax.jit, jxp.slice_at(f, jxp.last_conv()))

    def check(method: Method, value: jax.Array, x: jax.Array, label: jax.Array) -> tuple[Any, Any]:
        if method.baseline is None:
            return None, None
        if method.baseline == "whole":
            score = f(x, label)
            return value.sum() - score, score
        shares = value / value.size if method.pooled else value
        if method.baseline == "silent":
            gap = completeness_gap(after, shares, before(x, label), 0.0, x, label)
        else:
            gap = completeness_gap(f, shares, x, method.baseline, label)
        return gap, shares.sum() - gap

    return check
