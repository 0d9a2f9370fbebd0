"""The slow derivations on the LSTM and the attention block against lxt and an independent reading, in float64."""

import numpy as np
import pytest

from references import derivations_tokens as by_hand
from references.compare import assert_close, select
from references.reader import data

LSTM = select("own", ["lstm_lrp"])
ATTENTION = select("attn", ["attnlrp", "cp_lrp"])
SECANTS = {"N6": by_hand.lstm_secant, "N7": by_hand.attention_secant}


@pytest.mark.parametrize("case", LSTM)
def test_lstm(case):
    asked = case.params
    how = by_hand.Shares(asked["rule"], asked["eps"], asked["bias_share"], asked["eps_share"])
    rows = [
        by_hand.lstm_lrp(np.asarray(x, float), int(target), how)
        for x, target in zip(case.inputs["x"], case.inputs["target"], strict=True)
    ]
    for name, output in case.outputs.items():
        got = np.stack([row[name] for row in rows])
        size = np.abs(case.outputs["attr"]["f64"]).max()  # the rests may be 0
        assert_close(got, output["f64"], 1e-10, scale=size)


@pytest.mark.parametrize("case", ATTENTION)
def test_attention(case):
    got = np.stack(
        [
            by_hand.attention_lrp(np.asarray(x, float), int(target), detach=case.method == "cp_lrp")
            for x, target in zip(case.inputs["x"], case.inputs["target"], strict=True)
        ]
    )
    for output in case.outputs.values():
        assert_close(got, output["f64"], output["rtol"])


@pytest.mark.parametrize("net", SECANTS)
def test_multipliers_sum_to_the_change(net):
    x, baseline = (np.asarray(data(net)["x"][row], float) for row in (0, 1))
    end = SECANTS[net](x, baseline)
    assert_close(end.v, data(net)["logits"][0], 1e-12)
    assert_close(end.v0, data(net)["logits"][1], 1e-12)
    assert_close((x - baseline).ravel() @ end.M, end.delta, 1e-10)
