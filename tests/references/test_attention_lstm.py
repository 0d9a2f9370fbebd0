"""LRP and DeepLIFT on the LSTM (N6) and the attention block (N7): lxt, an independent reading, derivations."""

import functools

import numpy as np
import pytest

import jaxplain as jxp
from references import derivations_tokens as by_hand
from references.compare import PRECISIONS, assert_close, by_row, score, select, tolerance
from references.reader import data

SHARED_BACK = "the stabiliser's or the bias's share is given back to the inputs; ours is absorbed"
NOT_OURS = {
    "own.lstm_lrp[all-bias0-eps1]@N6": SHARED_BACK,
    "own.lstm_lrp[all-bias1-eps1]@N6": SHARED_BACK,
    "own.lstm_lrp[prop-bias0-eps0]@N6": "no such sharing of a product: gate or uniform",
    "own.lstm_lrp[abs-bias0-eps0]@N6": "no such sharing of a product: gate or uniform",
}
LSTM = [param for param in select("own", ["lstm_lrp"]) if param.id not in NOT_OURS]
ATTENTION = select("attn", ["attnlrp", "cp_lrp"])
SECANTS = {"N6": by_hand.lstm_secant, "N7": by_hand.attention_secant}
PRODUCT = {"all": "gate", "half": "uniform"}
SOFTMAX = {"attnlrp": "attention", "cp_lrp": "detach"}
# The attention cases have no stabiliser, rules.ATTENTION one of 1e-6: this far apart on N7.
DEFAULT_EPS = 2e-4


def library(case):
    """The rules of a case, with its stabiliser everywhere."""
    from jaxplain import rules

    if case.method == "lstm_lrp":
        eps = case.params["eps"]
        return rules.rules_for(rules.epsilon(eps), {}, product=PRODUCT[case.params["rule"]], eps=eps)
    return rules.rules_for(
        rules.epsilon(0.0),
        {},
        product="uniform",
        softmax=SOFTMAX[case.method],
        normalisation="detach",
        eps=0.0,
    )


@functools.cache
def answers(net, dtype):
    """What is asked of a network: one program."""
    from jaxplain import rules

    asked = [param.values[0] for param in LSTM + ATTENTION if param.values[0].net == net]
    f = score(asked[0])
    explain = {case.id: jxp.lrp(f, library(case)) for case in asked}
    explain["deep_lift"] = jxp.deep_lift(f, data(net)["baseline"])
    explain["deep_shap"] = jxp.deep_shap(f, data(net)["background"][:3])
    if net == "N7":
        explain["rules.ATTENTION"] = jxp.lrp(f, rules.ATTENTION)
    return by_row(explain, asked, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", LSTM + ATTENTION)
def test_case(case, dtype):
    got, want = answers(case.net, dtype)[case.id], case.outputs["attr"]
    assert got.dtype == dtype
    assert_close(got, want["f64"], tolerance(want, dtype))


def test_attention_with_the_default_stabiliser():
    case = next(param.values[0] for param in ATTENTION if param.values[0].method == "attnlrp")
    got = answers("N7", "float64")["rules.ATTENTION"]
    assert_close(got, case.outputs["attr"]["f64"], DEFAULT_EPS)


def examples(net):
    return [(np.asarray(x, float), int(t)) for x, t in zip(data(net)["x"], data(net)["target"], strict=True)]


@functools.cache
def contributions(net, baseline):
    """By hand, of every example; `baseline` is a row of the background, or "baseline"."""
    known = data(net)
    start = np.asarray(known["background"][baseline] if isinstance(baseline, int) else known[baseline], float)
    rows = [by_hand.deep_lift(SECANTS[net](x, start), x, start, target) for x, target in examples(net)]
    return np.stack(rows)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("net", SECANTS)
def test_deep_lift(net, dtype):
    got, rtol = answers(net, dtype), {"float64": 1e-9, "float32": 1e-5}[dtype]
    assert_close(got["deep_lift"], contributions(net, "baseline"), rtol)
    assert_close(got["deep_shap"], sum(contributions(net, row) for row in range(3)) / 3, rtol)
