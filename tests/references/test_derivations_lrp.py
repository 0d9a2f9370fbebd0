"""The slow derivations of LRP against what zennit, captum and an independent reading answer, in float64.

Every case agrees at its own tolerance, once the derivation follows the peer. Where the peer follows another
definition than ours, `DEVIATIONS` says how; `test_deviations_matter` shows that the two are different answers.
"""

import functools

import numpy as np
import pytest

from references import derivations_lrp as by_hand
from references.compare import select
from references.derivations_units import Affine, Array, units
from references.reader import Case, cases

METHODS = ("lrp", "lrp_composite", "excitation_backprop", "deconvnet", "guided_backprop")
CASES = select("lrp", METHODS)
CONTRASTS = select("own", ["contrastive_mwp"])
CAPTUM_EPS = 1e-9
# Case prefix -> why the answer is not ours: `definition(case, "peer")` differs from `definition(case, "ours")`.
DEVIATIONS = {
    "captum.lrp[gamma": "gamma is W + g max(W, 0) on signed inputs with the bias unscaled, whatever the sign of z",
    "captum.lrp[alpha1beta0": "max(W, 0) on signed inputs, and unless nobias the bias with its sign",
    "zennit.lrp_composite[epsilon_gamma_box]@N4": "BatchNorm passes relevance, the convolution alone is the unit",
    "zennit.lrp_composite[epsilon_alpha2_beta1]@N4": "BatchNorm passes relevance",
    "zennit.lrp_composite[epsilon_alpha2_beta1_flat]@N4": "BatchNorm passes relevance",
    "zennit.lrp_composite[epsilon_plus]@N4": "BatchNorm passes relevance",
    "zennit.lrp_composite[epsilon_plus_flat]@N4": "BatchNorm passes relevance",
}


def captum_gamma(g):
    def messages(unit, x, R):
        W = unit.W + g * by_hand.positive(unit.W)
        return by_hand.shared(x[:, None] * W, unit.b, R, CAPTUM_EPS)

    return messages


def captum_alpha1beta0(unit: Affine, x: Array, R: Array) -> Array:
    return by_hand.shared(x[:, None] * by_hand.positive(unit.W), unit.b, R, CAPTUM_EPS)


# Variant -> (default, convolutions, first layer); "-nobias" is read off.
RULES = {
    "epsilon-1e-6": (by_hand.epsilon(),),
    "epsilon-0.25": (by_hand.epsilon(0.25),),
    "zplus": (by_hand.z_plus(),),
    "alphabeta-1-0": (by_hand.alpha_beta(1, 0),),
    "alphabeta-2-1": (by_hand.alpha_beta(2, 1),),
    "gamma-0.25": (by_hand.gamma(0.25),),
    "wsquare-first-epsilon": (by_hand.epsilon(), None, by_hand.w_square()),
    "flat-first-epsilon": (by_hand.epsilon(), None, by_hand.flat()),
    "wsquare-all": (by_hand.w_square(),),
    "flat-all": (by_hand.flat(),),
    "zbox-first-zplus": (by_hand.z_plus(), None, by_hand.z_box(-1, 1)),
    "wsquare-first-zplus": (by_hand.z_plus(), None, by_hand.w_square()),
    "epsilon_plus": (by_hand.epsilon(), by_hand.z_plus()),
    "epsilon_plus_flat": (by_hand.epsilon(), by_hand.z_plus(), by_hand.flat()),
    "epsilon_alpha2_beta1": (by_hand.epsilon(), by_hand.alpha_beta()),
    "epsilon_alpha2_beta1_flat": (by_hand.epsilon(), by_hand.alpha_beta(), by_hand.flat()),
    "epsilon_gamma_box": (by_hand.epsilon(), by_hand.gamma(), by_hand.z_box(-1, 1)),
    "": (by_hand.z_plus(),),  # excitation backprop
}
CAPTUM_OURS = {
    "epsilon": (by_hand.epsilon(CAPTUM_EPS),),
    "epsilon-0.25": (by_hand.epsilon(0.25),),
    "gamma-0.25": (by_hand.gamma(0.25, CAPTUM_EPS),),
    "alpha1beta0": (by_hand.z_plus(CAPTUM_EPS),),
}
CAPTUM = CAPTUM_OURS | {"gamma-0.25": (captum_gamma(0.25),), "alpha1beta0": (captum_alpha1beta0,)}


def definition(case: Case, whose: str):
    """(default, convolutions, first layer) of a case, as the peer has them or as we do."""
    tables = {"peer": CAPTUM, "ours": CAPTUM_OURS} if case.id.startswith("captum") else {whose: RULES}
    variant = case.variant.removesuffix("-nobias").removesuffix("nobias")
    rules = [*tables[whose][variant], None, None][:3]
    if case.variant.endswith("nobias"):
        rules = [rule and by_hand.unbiased(rule) for rule in rules]
    return rules


@functools.cache
def attribution(case_id: str, row: int, whose: str = "ours") -> Array:
    """The attribution of one example."""
    case = next(param.values[0] for param in CASES if param.values[0].id == case_id)
    x, target = np.asarray(case.inputs["x"][row], float), int(case.inputs["target"][row])
    made = units(case.net, fold=whose == "ours")
    start = by_hand.at_target(made, x, target, 1.0 if case.params.get("start") == "one" else None)
    if case.method in by_hand.RELU_PASSES:
        found = by_hand.guided(made, x, start, by_hand.RELU_PASSES[case.method])
    else:
        default, conv, first = definition(case, whose)
        eps = CAPTUM_EPS if case.id.startswith("captum") else by_hand.EPS
        choice = by_hand.chosen(made, default, conv=conv, first=first)
        found = by_hand.relevances(made, x, start, choice, eps)["x"]
    return found.reshape(x.shape)


def deviates(case: Case) -> bool:
    return any(case.id.startswith(prefix) for prefix in DEVIATIONS)


def gap(case: Case, row: int, whose: str) -> float:
    """The distance from the stored answer, on the scale of the case; single rows may be all 0."""
    want = case.outputs["attr"]["f64"]
    return np.abs(attribution(case.id, row, whose) - want[row]).max() / np.abs(want).max()


def rows_of(case: Case) -> range:
    return range(1 if case.net == "N4" else len(case.inputs["x"]))


@pytest.mark.parametrize("case", CASES)
def test_peer(case):
    for row in rows_of(case):
        assert gap(case, row, "peer") <= case.outputs["attr"]["rtol"]


@pytest.mark.parametrize("case", [param for param in CASES if deviates(param.values[0])])
def test_deviations_matter(case):
    assert max(gap(case, row, "ours") for row in rows_of(case)) > 1e-3


def test_every_deviation_is_of_a_case():
    known = [case.id for case in cases("lrp")]
    assert all(any(name.startswith(prefix) for name in known) for prefix in DEVIATIONS)


@pytest.mark.parametrize("net", ["N1", "N3", "N4"])
def test_relevance_is_conserved_without_biases(net):
    """BatchNorm folded, residual sums and pooling included: for these there is no peer on N4."""
    case = next(case for case in cases("lrp") if case.net == net)
    x, target = np.asarray(case.inputs["x"][0], float), int(case.inputs["target"][0])
    start = by_hand.at_target(units(net), x, target)
    rule = by_hand.everywhere(by_hand.unbiased(by_hand.epsilon(1e-12)))
    found = by_hand.relevances(units(net), x, start, rule, 1e-12)
    assert abs(found["x"].sum() - start.sum()) <= 1e-6 * abs(start.sum())


@pytest.mark.parametrize("case", CONTRASTS)
def test_contrast(case):
    made = units(case.net)
    rules = by_hand.everywhere(by_hand.unbiased(by_hand.z_plus(1e-12)))
    for row, target in enumerate(case.inputs["target"]):
        pair = by_hand.contrast(made, np.asarray(case.inputs["x"][row], float), int(target), rules, 1e-12)
        mwp, dual = (found[case.params["layer"]] for found in pair)
        for name, got in {"mwp": mwp, "dual": dual, "c_mwp": mwp - dual}.items():
            want = case.outputs[name]["f64"]
            assert np.abs(got.reshape(want[row].shape) - want[row]).max() <= 1e-10 * np.abs(want).max()
