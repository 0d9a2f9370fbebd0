"""DeepLIFT and Deep SHAP: the answers of captum, of the original package and of an independent reading, and
the slow derivations. Captum's are those that are complete: with a copy between ReLU and pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from references import derivations_deeplift as by_hand
from references.compare import PRECISIONS, assert_close, by_row, score, select, tolerance
from references.derivations_units import units
from references.reader import cases, data

GENOMICS = "one rule behind convolutions and another behind dense layers, max pooling by its gradient"
NOT_OURS = {
    "captum.deeplift_rescale[softmax-single]@N1s": "captum's softmax does not sum to the change of the output",
    "deeplift.deeplift_genomicsdefault[zero]@N3": GENOMICS,
    "deeplift.deeplift_genomicsdefault[baseline]@N3": GENOMICS,
}
METHODS = ("deeplift_rescale", "deeplift_revealcancel", "deeplift_shap", "layer_deeplift")
GROUPS = ("captum_grad", "deeplift", "own")
CASES = {group: [param for param in select(group, METHODS) if param.id not in NOT_OURS] for group in GROUPS}
ALL = [param for group in GROUPS for param in CASES[group]]
# By hand, on the first example: network -> baselines and rules.
DERIVED = [
    ("N1", "baseline", "rescale"),
    ("N1", "baseline", "reveal_cancel"),
    ("N1s", "baseline", "rescale"),
    ("N3", "baseline", "rescale"),
    ("N3", "baseline", "reveal_cancel"),
    ("N4", "baseline", "rescale"),
]


def explainer(case):
    f = score(case)
    if case.method == "deeplift_shap":
        return jxp.deep_shap(f, case.inputs["background"][: case.params["background_rows"]])
    baseline = case.inputs["baseline"]
    if case.method == "deeplift_revealcancel":
        return jxp.deep_lift(f, baseline, rule="reveal_cancel")
    if case.method == "deeplift_rescale":
        return jxp.deep_lift(f, baseline)
    h, g = jxp.slice_at(f, case.params["layer"])

    def inside(x, label):
        start = h(jnp.asarray(baseline, x.dtype), label)
        return jxp.deep_lift(g, start)(h(x, label), x, label)

    return inside


def a_case(net):
    """A case of the network: they all have the same examples."""
    for group in ("captum_grad", "lrp"):
        for case in cases(group):
            if case.net == net and "target" in case.inputs:
                return case
    raise LookupError(net)


@functools.cache
def answers(net, dtype):
    """What the cases and the derivations ask of a network: one program."""
    explain = {case.id: explainer(case) for case in (param.values[0] for param in ALL) if case.net == net}
    f, known = score(a_case(net)), data(net)
    for of, baseline, rule in DERIVED:
        if of == net:
            explain[f"{rule} from {baseline}"] = jxp.deep_lift(f, known[baseline], rule=rule)
    return by_row(explain, [a_case(net)], dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", ALL)
def test_case(case, dtype):
    got = answers(case.net, dtype)[case.id]
    assert got.dtype == dtype
    name = "attr_complete" if "attr_complete" in case.outputs else "attr"
    output = case.outputs[name]
    if "f64" in output:
        want, rtol = np.asarray(output["f64"]), tolerance(output, dtype)
    else:  # the original package answers in float32
        want, rtol = np.asarray(output["f32"], float), output["rtol"]
    if not case.params.get("multiply_by_inputs", True):
        want = want * (np.asarray(case.inputs["x"], float) - case.inputs["baseline"])
    assert_close(got, want, rtol)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("net", "baseline", "rule"), DERIVED)
def test_derivation(net, baseline, rule, dtype):
    got = answers(net, dtype)[f"{rule} from {baseline}"][0]
    assert_close(got, derived(net, baseline, rule), {"float64": 1e-9, "float32": 1e-5}[dtype])


@functools.cache
def derived(net, baseline, rule):
    case = a_case(net)
    x, target = np.asarray(case.inputs["x"][0], float), int(case.inputs["target"][0])
    start = by_hand.inputs(x.ravel(), data(net)[baseline].ravel().astype(float))
    made = units("N1" if net == "N1s" else net)
    end = by_hand.through(made, start, reveal=lambda unit: rule == "reveal_cancel")
    if net == "N1s":
        end = by_hand.softmax(end)
    return (start.delta * end.M[:, target]).reshape(x.shape)


@pytest.mark.parametrize("x", [(2.0, 3.0), (3.0, 2.0), (1.0, 1.0)])
def test_reveal_cancel_gives_both_inputs_of_a_minimum_half(x):
    """min(a, b) = a - relu(a - b), where Rescale gives all to one (Shrikumar et al. 2017, section 3.5.3)."""

    def f(x):
        return x @ jnp.array([1.0, 0.0]) - jax.nn.relu(x @ jnp.array([1.0, -1.0]))

    got = jxp.deep_lift(f, rule="reveal_cancel")(jnp.asarray(x))
    assert_close(got, np.full(2, min(x) / 2), 1e-12)
