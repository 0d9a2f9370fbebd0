"""The reader reads right, and no case of the reference data is left out without a reason."""

import jax
import numpy as np
import pytest

import jaxplain as jxp
from references import (
    reader,
    test_attention_lstm,
    test_cam,
    test_captum_gradients,
    test_captum_guided,
    test_captum_sampling,
    test_deeplift,
    test_influence,
    test_lrp,
    test_perturbation,
    test_shapley,
)
from references.compare import QUICK_TO_COMPILE, assert_close

COVERED = {
    "attn": [test_attention_lstm.ATTENTION],
    "cam": [test_cam.CASES],
    "captum_grad": [
        test_captum_gradients.CASES,
        test_captum_guided.CASES,
        test_deeplift.CASES["captum_grad"],
    ],
    "captum_pert": [
        test_captum_sampling.CASES,
        test_captum_sampling.DETERMINISTIC,
        test_perturbation.CAPTUM,
        test_perturbation.FIXED,
        test_shapley.CASES["single"],
    ],
    "deeplift": [test_deeplift.CASES["deeplift"]],
    "influence": list(test_influence.CASES.values()),
    "lime": [test_perturbation.LIME],
    "lrp": [test_lrp.CASES],
    "own": [test_lrp.CONTRASTS, test_deeplift.CASES["own"], test_attention_lstm.LSTM],
    "shap": [test_shapley.CASES[name] for name in ("interactions", "games", "marginal", "linear")],
}
# Cases whose definition is not ours, with the reason; derivations answer for all but the smoothed ReLU's.
NOT_OURS = test_lrp.NOT_OURS | test_deeplift.NOT_OURS | test_attention_lstm.NOT_OURS | test_influence.NOT_OURS
NOT_OURS = NOT_OURS | test_shapley.NOT_OURS
# Methods that are not there yet.
LATER = {
    "influence_ekfac": "jaxplain.training.ekfac",
    "influence_kfac": "jaxplain.training.ekfac",
    "infidelity": "jaxplain.metrics.infidelity",
    "kronfluence_diagonal": "jaxplain.training.ekfac",
    "kronfluence_ekfac": "jaxplain.training.ekfac",
    "kronfluence_kfac": "jaxplain.training.ekfac",
    "trak_definition": "jaxplain.training.trak",
}


@pytest.mark.parametrize("net", reader.networks())
def test_network_gives_the_stored_logits(net):
    logits = jax.jit(jax.vmap(reader.network(net)), compiler_options=QUICK_TO_COMPILE)
    data = reader.data(net)
    assert_close(logits(data["x"].astype(np.float64)), data["logits"], 1e-12)
    assert logits(data["x"].astype(np.float32)).dtype == np.float32


def test_two_halves_make_the_network():
    x = reader.data("N4")["x"][0].astype(np.float64)
    for layer in ("relu1", "res1", "gap"):
        lower, upper = reader.network("N4", upto=layer), reader.network("N4", after=layer)
        np.testing.assert_array_equal(upper(lower(x)), reader.network("N4")(x))


def test_every_layer_is_a_site():
    for net in reader.networks():
        x = reader.data(net)["x"][0]
        sites = {name for row in jxp.list_sites(reader.network(net))(x) for name in row.names}
        assert set(names(reader.networks()[net]["layers"])) <= sites
    assert "res1.bn2" in set(names(reader.networks()["N4"]["layers"]))


def names(layers):
    for layer in layers:
        yield layer["name"]
        yield from names(layer.get("body", []))


@pytest.mark.parametrize("group", reader.GROUPS)
def test_every_case_has_a_test_or_a_reason(group):
    tested = [param.id for params in COVERED[group] for param in params]
    left = [case.id for case in reader.cases(group) if case.method in LATER or case.id in NOT_OURS]
    assert len(set(tested)) == len(tested)
    assert sorted(tested + left) == sorted(case.id for case in reader.cases(group))


def test_every_reason_is_needed():
    known = [case for group in reader.GROUPS for case in reader.cases(group)]
    assert {case.method for case in known} >= LATER.keys()
    assert {case.id for case in known} >= NOT_OURS.keys()
