"""pytorch-grad-cam's class activation maps, and one by hand: every case in float64 and float32.

Where that library's numbers are not those of the paper's formula, ours are compared with a derivation of the
formula, and a second test shows that the derivation with the library's peculiarity gives the library's numbers.
"""

import functools

import jax
import numpy as np
import pytest

import jaxplain as jxp
from references import derivations_cam as by_hand
from references.compare import PRECISIONS, QUICK_TO_COMPILE, assert_close, by_row, rows, score, select, tolerance
from references.reader import Case, network, weights

METHODS = {
    "ablationcam": jxp.ablation_cam,
    "cam": jxp.cam,
    "eigencam": jxp.eigen_cam,
    "eigengradcam": jxp.eigen_grad_cam,
    "gradcam": jxp.grad_cam,
    "gradcam++": jxp.grad_cam_pp,
    "gradcam_elementwise": jxp.grad_cam_elementwise,
    "hirescam": jxp.hires_cam,
    "layercam": jxp.layer_cam,
    "scorecam": jxp.score_cam,
    "xgradcam": jxp.xgrad_cam,
}
PECULIAR = {
    "ablationcam": {"scores": np.float32},
    "gradcam++": {"in_denominator": 1e-6},
    "xgradcam": {"in_denominator": 1e-7},
}
SIGN_IS_ARBITRARY = ("eigencam", "eigengradcam")
CASES = select("cam", METHODS)


def of(*methods):
    return [param for param in CASES if param.values[0].method in methods]


@functools.cache
def all_answers(net: str, dtype: str):
    """The maps of all cases of a network: one program, since they share activations and gradients."""
    asked = [param.values[0] for param in CASES if param.values[0].net == net]
    explain = {case.id: raw(case) for case in asked}
    if dtype == "float64":
        explain |= {f"{case.id} enlarged": enlarged(case) for case in asked}
    return by_row(explain, asked, dtype)


def raw(case: Case):
    return METHODS[case.method](score(case), case.params["layer"], relu=False)


def enlarged(case: Case):
    return METHODS[case.method](score(case), case.params["layer"], relu=True, upsample=True)


def answers(case: Case, dtype: str = "float64"):
    """Our signed map, and the positive part of it enlarged."""
    ours = all_answers(case.net, dtype)
    return {"raw": ours[case.id], "final": ours.get(f"{case.id} enlarged")}


@functools.cache
def halves(net: str, layer: str):
    """(activation of x, score of an activation and label, its gradient), without the library."""
    upper = network(net, after=layer)

    def head(z, label):
        return upper(z)[label]

    parts = network(net, upto=layer), head, jax.grad(head)
    return [jax.jit(part, compiler_options=QUICK_TO_COMPILE) for part in parts]


def derived(case: Case, **peculiar) -> np.ndarray:
    """The maps by hand, one an example."""
    lower, upper, slope = halves(case.net, case.params["layer"])
    maps = []
    for x, label in zip(*rows(case, "float64"), strict=True):
        A = np.asarray(lower(x))
        G = np.asarray(slope(A, label))
        maps.append(draw(case, np.asarray(x), int(label), A, G, lambda z, label=label: upper(z, label), peculiar))
    return np.stack(maps)


def draw(case, x, label, A, G, head, peculiar):
    match case.method:
        case "ablationcam":
            return by_hand.ablation_cam(head, A, **peculiar)
        case "cam":
            return by_hand.cam(A, weights(case.net)["fc.kernel"][:, label])
        case "scorecam":
            lower = halves(case.net, case.params["layer"])[0]
            return by_hand.score_cam(lambda masked: head(lower(masked)), x, A)
        case "eigencam":
            return by_hand.first_component(A)
        case "eigengradcam":
            return by_hand.first_component(G * A)
    derivation = {
        "gradcam": by_hand.grad_cam,
        "gradcam++": by_hand.grad_cam_pp,
        "gradcam_elementwise": by_hand.grad_cam_elementwise,
        "hirescam": by_hand.hires_cam,
        "layercam": by_hand.layer_cam,
        "xgradcam": by_hand.xgrad_cam,
    }
    return derivation[case.method](A, G, **peculiar)


def signed_as(got, want):
    """`want` with the sign, per example, that brings it nearer to `got`."""
    return want * np.where((np.asarray(got) * want).sum((1, 2), keepdims=True) < 0, -1.0, 1.0)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_map(case, dtype):
    output = case.outputs["raw"]
    got, want = answers(case, dtype)["raw"], output.get("exact", output.get("f64"))
    assert got.dtype == dtype
    rtol = tolerance(output, dtype)
    if case.method in PECULIAR:
        want = derived(case)
    if case.method in SIGN_IS_ARBITRARY:
        want = signed_as(got, want)
    if case.method == "scorecam":  # its scores go through a float32 softmax; by hand, below, to 1e-10
        rtol = max(rtol, output["rtol"])
    assert_close(got, want, rtol)


@pytest.mark.parametrize("case", CASES)
def test_map_is_the_one_by_hand(case):
    got, want = answers(case)["raw"], derived(case)
    assert_close(got, signed_as(got, want) if case.method in SIGN_IS_ARBITRARY else want, 1e-10)


@pytest.mark.parametrize("case", of(*PECULIAR))
def test_the_peculiarity_is_all_that_differs(case):
    peer = case.outputs["raw"]["f64"]
    assert_close(derived(case, **PECULIAR[case.method]), peer, 1e-10)


@pytest.mark.parametrize("case", of(*SIGN_IS_ARBITRARY))
def test_components_point_along_the_mean_over_channels(case):
    lower, _, slope = halves(case.net, case.params["layer"])
    for x, label, got in zip(*rows(case, "float64"), answers(case)["raw"], strict=True):
        A = np.asarray(lower(x))
        mean = (A if case.method == "eigencam" else A * np.asarray(slope(A, label))).mean(-1)
        assert np.corrcoef(mean.ravel(), np.asarray(got).ravel())[0, 1] > 0


def rescaled(drawn: np.ndarray) -> np.ndarray:
    """As pytorch-grad-cam shows a map: from 0 to 1 in every example."""
    drawn = np.asarray(drawn, np.float64)
    drawn = drawn - drawn.min((1, 2), keepdims=True)
    return drawn / (drawn.max((1, 2), keepdims=True) + 1e-7)


# Grad-CAM++ is left out: rescaled and in float32, its peculiarity cannot be told from an error.
@pytest.mark.parametrize("case", of(*(METHODS.keys() - {"cam", "gradcam++"})))
def test_enlarged_map(case):
    """cv2's bilinear enlargement of the positive part is ours, up to the rescaling."""
    ours, shown = answers(case), case.outputs["final"]["f32"]
    peer = case.outputs["raw"]["f32" if case.method in SIGN_IS_ARBITRARY else "f64"]
    alike = (signed_as(ours["raw"], peer) == peer).all((1, 2))
    assert alike.any()
    assert_close(rescaled(ours["final"])[alike], shown[alike], 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_enlarging_is_bilinear(case):
    ours = answers(case)
    space = case.inputs["x"].shape[1:3]
    want = np.stack([by_hand.resized(np.maximum(drawn, 0), space) for drawn in np.asarray(ours["raw"])])
    assert_close(ours["final"], want, 1e-12)


@pytest.mark.parametrize("case", of("cam"))
def test_cam_is_grad_cam_times_the_number_of_places(case):
    ours = np.asarray(answers(case)["raw"])
    grad_cam = all_answers(case.net, "float64")["pytorch_grad_cam.gradcam[relu3]@N4"]
    assert_close(ours, ours[0].size * np.asarray(grad_cam), 1e-12)
