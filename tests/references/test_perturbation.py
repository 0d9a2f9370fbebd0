"""Captum's perturbation family and lime's fits: the same answers on the same perturbations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.attribution import surrogate, surrogate_fit
from references import derivations_perturbation as slow
from references.compare import QUICK_TO_COMPILE, assert_close, rows, score, select, tolerance
from references.reader import cases, network

CAPTUM = select("captum_pert", ["occlusion", "feature_ablation"])
FIXED = [
    pytest.param(case, id=case.id) for case in cases("captum_pert") if case.method == "lime_fixed"
]  # a fit to given perturbations
LIME = select("lime", ["lime_tabular", "lime_image"])
every_precision = pytest.mark.parametrize("dtype", ["float64", "float32"])


def numbered(groups):
    return np.unique(groups, return_inverse=True)[1].reshape(groups.shape)


@every_precision
@pytest.mark.parametrize("case", CAPTUM)
def test_captum(case, dtype):
    x, labels = rows(case, dtype)
    baseline = jnp.broadcast_to(jnp.asarray(case.inputs["baseline"], dtype), x.shape[1:])
    scale = np.ones(())
    if case.method == "occlusion":
        options = {name: tuple(case.params[name]) for name in ("window", "stride")}
        explain = jxp.occlusion(score(case), baseline=baseline, **options)
    else:
        groups = case.inputs.get("groups")
        groups = None if groups is None else numbered(groups)
        explain = jxp.ablation(score(case), baseline, groups=groups)
        if groups is not None:  # captum writes a group's loss to each of its elements, we share it among them
            scale = np.bincount(groups.ravel())[groups]
    got = jax.jit(jax.vmap(explain), compiler_options=QUICK_TO_COMPILE)(x, labels)
    output = case.outputs["attr"]
    assert got.dtype == dtype
    want = output.get("exact", output.get("f64"))
    assert_close(np.asarray(got) * scale, want, tolerance(output, dtype))


@pytest.mark.parametrize("case", [p for p in CAPTUM if p.values[0].net == "N1"])
def test_slow_derivations_say_the_same(case):
    """Our own loops agree with captum: what the library is tested against elsewhere is not only its own idea."""
    case_rows, labels = rows(case, "float64")
    f = jax.jit(score(case), compiler_options=QUICK_TO_COMPILE)
    baseline = np.broadcast_to(case.inputs["baseline"], case_rows.shape[1:]).astype(float)
    output = case.outputs["attr"]
    want = output.get("exact", output.get("f64"))
    for x, label, expected in zip(np.asarray(case_rows[:2]), labels, want, strict=False):
        g = lambda z, label=label: float(f(jnp.asarray(z), label))
        if case.method == "occlusion":
            got = slow.occlusion(g, x, baseline, tuple(case.params["window"]), tuple(case.params["stride"]))
        else:
            groups = numbered(case.inputs.get("groups", np.arange(x.size)))
            got = slow.ablation(g, x, baseline, groups) * np.bincount(groups.ravel())[groups]
        assert_close(got, expected, 1e-10)


@pytest.mark.parametrize("case", FIXED)
def test_captums_linear_fits(case):
    """Captum casts to float32 before it fits: its own tolerance, 2e-4."""
    x, labels = rows(case, "float64")
    groups, masks = numbered(case.inputs["groups"]), case.inputs["perturbations"]
    # A group index that no element has is a column of `perturbations` that changes nothing.
    used = np.unique(case.inputs["groups"])
    baseline = jnp.broadcast_to(jnp.asarray(case.inputs["baseline"], float), x.shape[1:])
    similarity = case.params["similarity"]
    kernel = surrogate.Kernel(similarity["distance"], jnp.asarray(similarity["kernel_width"]))
    on = jnp.asarray(masks[:, used])[:, groups.ravel()].reshape(-1, *x.shape[1:]) > 0

    @jax.jit
    def outputs(x, label):
        inputs = jnp.where(on, x[None], baseline[None])
        weights = kernel(inputs.reshape(len(on), -1), x.ravel())
        return jax.vmap(score(case), (0, None))(inputs, label), weights

    model = case.params["model"]
    for k in range(len(x)):
        y, weights = outputs(x[k], labels[k])
        assert_close(weights, case.outputs["weights"]["f64"][k], 2e-4)
        if model.startswith("lasso"):
            z, share = jnp.asarray(masks), weights / weights.sum()
            centred, rest = z - (share @ z)[None], y - share @ y
            gram, moment = (centred * weights[:, None]).T @ centred, (centred * weights[:, None]).T @ rest
            penalty = float(model.removeprefix("lasso")) * float(weights.sum())
            got = surrogate_fit.lasso_path(gram, moment, len(gram), penalty)[1]
        else:
            ridge = 0.0 if model == "ols" else float(model.removeprefix("ridge"))
            got = jxp.fit_surrogate(masks, y, weights, ridge=ridge).value
        assert_close(got, case.outputs["coef"]["f64"][k], 2e-4)


@pytest.mark.parametrize("case", LIME)
def test_lime(case):
    """The outputs of the network, the weights, the choice of features and the fit, from lime's own rows."""
    data, outputs = case.inputs["data"], case.inputs["labels"][:, case.params["label"]]
    tabular = case.method == "lime_tabular"
    kernel = surrogate.Kernel("euclidean" if tabular else "cosine", jnp.asarray(case.params["kernel_width"]))
    weights = kernel(jnp.asarray(data), jnp.asarray(data[0]))
    assert_close(weights, case.inputs["weights"], 1e-12)
    if tabular:
        assert case.params["kernel_width"] == 0.75 * data.shape[1] ** 0.5
        model = jax.jit(jax.vmap(network(case.net)))
        assert_close(model(jnp.asarray(case.inputs["model_inputs"]))[:, case.params["label"]], outputs, 1e-12)
    selection = case.params.get("feature_selection", "none")
    num = None if selection == "none" else case.params["num_features"]
    options = {} if selection == "none" else {"selection": "forward" if "forward" in selection else selection}
    got = jxp.fit_surrogate(data, outputs, weights, ridge=1.0, num_features=num, **options)
    assert_close(got.value, case.outputs["coef"]["f64"], 1e-10)
    for name, value in {"intercept": got.intercept, "r2": got.score}.items():
        assert_close(value, case.outputs[name]["f64"], 1e-10)
    assert_close(got.intercept + data[0] @ got.value, case.outputs["local_prediction"]["f64"], 1e-10)
    if num is not None:
        assert set(np.flatnonzero(np.asarray(got.value))) == set(case.outputs["selected"]["f64"].astype(int))
    if "forward" in selection:
        chosen = slow.forward_selection(data, outputs, np.asarray(weights), num)
        assert set(chosen) == set(np.flatnonzero(np.asarray(got.value)))


def test_lime_draws_tables_as_lime_does():
    """Quartile bins and standardised rows of the library's own table, against lime's for the same inputs."""
    quartiles, continuous = (
        next(c for c in cases("lime") if c.variant == f"{kind}-none") for kind in ("quartiles", "continuous")
    )
    x = jnp.asarray(quartiles.inputs["x"][quartiles.params["example"]], float)
    background = quartiles.inputs["background"]
    near = jxp.tabular(background, kind="around_mean").around(x)
    standard = (jnp.asarray(continuous.inputs["model_inputs"]) - near.mean[None]) / near.scale[None]
    assert_close(standard, continuous.inputs["data"], 1e-6)
    bins = jxp.tabular(background).around(x)
    edges = np.quantile(background, [0.25, 0.5, 0.75], axis=0)
    quartile = lambda rows: (rows[:, None] > edges[None]).sum(1)
    own = quartile(np.asarray(x)[None])
    np.testing.assert_array_equal(bins.count, (quartile(background) == own).sum(0))
    assert_close(bins.chance, (quartile(background) == own).mean(0), 1e-12)
    # Lime rounds nothing here but draws in float: a value on an edge may go either way.
    same = quartile(quartiles.inputs["model_inputs"]) == own
    assert (same == (quartiles.inputs["data"] > 0)).mean() > 0.999
