"""The slow derivations of DeepLIFT against captum, the original package and an independent reading, in float64."""

import numpy as np
import pytest

from references import derivations_deeplift as by_hand
from references.compare import assert_close, select
from references.derivations_units import Affine, affine_names, units, values
from references.reader import cases

ORIGINAL = select("deeplift", ["deeplift_revealcancel", "deeplift_rescale", "deeplift_genomicsdefault"])
OWN = select("own", ["deeplift_revealcancel"])
CAPTUM = select("captum_grad", ["deeplift_rescale", "deeplift_shap", "layer_deeplift"])
# Case -> why the stored answer is not ours.
DEVIATIONS = {
    "captum.deeplift_rescale[softmax-single]@N1s": (
        "captum's softmax subtracts from the multipliers their mean over the tensor; it does not sum to the change"
    ),
}
ROWS = {"N1": 6, "N1s": 6, "N3": 2}


def behind(net, layer):
    """The units behind a layer."""
    made = units(net)
    return made[[unit.name for unit in made].index(layer) + 1 :]


def upto(net, layer, x):
    made = units(net)
    return values(made, x)[[unit.name for unit in made].index(layer) + 1]


def explained(case, row, **how):
    """The contributions to the target of one example of a case."""
    x, target = np.asarray(case.inputs["x"][row], float), int(case.inputs["target"][row])
    if case.method == "deeplift_shap":
        background = np.asarray(case.inputs["background"][: case.params["background_rows"]], float)
        each = [by_hand.contributions(units(case.net), x, b, target, **how) for b in background]
        return sum(each) / len(each)
    baseline = np.asarray(case.inputs["baseline"], float)
    if case.method == "layer_deeplift":
        layer = case.params["layer"]
        x, baseline = (upto(case.net, layer, v) for v in (x, baseline))
        return by_hand.contributions(behind(case.net, layer), x, baseline, target, **how)
    return by_hand.contributions(units(case.net), x, baseline, target, **how)


def stored(case, row, name="attr"):
    """What the peer answers, times the difference where it gives bare multipliers."""
    output = case.outputs[name]
    want = np.asarray(output.get("f64", output.get("f32"))[row], float)
    if case.params.get("multiply_by_inputs", True):
        return want
    return want * (np.asarray(case.inputs["x"][row], float) - case.inputs["baseline"])


def agrees(case, row, got, name="attr"):
    want = stored(case, row, name)
    assert_close(got.reshape(want.shape), want, case.outputs[name]["rtol"])


@pytest.mark.parametrize("case", [param for param in CAPTUM if param.id not in DEVIATIONS])
def test_captum(case):
    for row in range(ROWS[case.net]):
        if "attr_complete" in case.outputs:
            agrees(case, row, explained(case, row), "attr_complete")
            # As shipped, the pooling's multiplier is lost: the gradient of the maximum.
            agrees(case, row, explained(case, row, maximum=by_hand.first_place))
        else:
            agrees(case, row, explained(case, row))


@pytest.mark.parametrize("case", OWN + ORIGINAL)
def test_package(case):
    dense = [name for name in affine_names(units(case.net)) if name.startswith("fc")]
    how = {
        "deeplift_rescale": {},
        "deeplift_revealcancel": {"reveal": lambda unit: True},
        # RevealCancel behind dense layers only, and max pooling by its gradient.
        "deeplift_genomicsdefault": {
            "reveal": lambda unit: unit.name in dense,
            "maximum": by_hand.first_place,
        },
    }
    for row in range(ROWS[case.net]):
        agrees(case, row, explained(case, row, **how[case.method]))


@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("net", ["N1", "N3"])
def test_contributions_sum_to_the_change(net, rule):
    case = next(c for c in cases("captum_grad") if c.id == f"captum.deeplift_rescale[baseline]@{net}")
    x, target = np.asarray(case.inputs["x"][0], float), int(case.inputs["target"][0])
    start = by_hand.inputs(x.ravel(), np.asarray(case.inputs["baseline"], float).ravel())
    end = by_hand.through(units(net), start, reveal=lambda unit: rule == "reveal_cancel")
    assert_close(start.delta @ end.M[:, target], end.delta[target], 1e-12)


@pytest.mark.parametrize("case", [param for param in CAPTUM if param.id in DEVIATIONS])
def test_softmax_of_captum_is_another(case):
    """Ours sums to the change of the probability; captum's neither does nor is it ours."""
    for row in range(2):
        x, target = np.asarray(case.inputs["x"][row], float), int(case.inputs["target"][row])
        logits = by_hand.through(units("N1"), by_hand.inputs(x, case.inputs["baseline"]))
        shares = by_hand.softmax(logits)
        ours = (x - case.inputs["baseline"]) * shares.M[:, target]
        assert_close(ours.sum(), shares.delta[target], 1e-12)
        want = stored(case, row)
        assert np.abs(ours - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("x", [(2.0, 3.0), (3.0, 2.0)])
def test_reveal_cancel_gives_both_inputs_of_a_minimum_half(x):
    """min(a, b) = a - relu(a - b) of Shrikumar et al. 2017, section 3.5.3."""
    start = by_hand.inputs(np.array(x), np.zeros(2))
    difference = Affine("difference", "dense", np.array([[1.0], [-1.0]]), np.zeros(1), np.ones((2, 1), bool))
    rest = by_hand.reveal_cancel(start, difference, by_hand.relu)
    least = start[:1] + rest.linear(-np.eye(1))
    assert_close(start.delta * least.M[:, 0], np.full(2, min(x) / 2), 1e-12)
