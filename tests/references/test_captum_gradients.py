"""Captum's gradient family, every case in float64 and float32.

Attributions inside the network are compositions of `slice_at` with the methods for inputs: with z = h(x) and
y = g(z, x), an explanation of g by z is one of the layer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.attribution import paths
from jaxplain.metrics import completeness_gap
from references.compare import PRECISIONS, assert_close, by_row, score, select, tolerance
from references.reader import Case

NODES: dict[str, paths.Nodes] = {
    "gausslegendre": "gauss_legendre",
    "riemann_left": "left",
    "riemann_right": "right",
    "riemann_middle": "midpoint",
    "riemann_trapezoid": "trapezoid",
}


def attribution(explain):
    return lambda x, label: {"attr": explain(x, label)}


def saliency(case):
    method = jxp.saliency if case.params["abs"] else jxp.gradient
    return attribution(method(score(case)))


def input_x_gradient(case):
    return attribution(jxp.gradient_times_input(score(case)))


def integrated_gradients(case):
    f, baseline = score(case), case.inputs["baseline"]
    explain = straight_path(case, f, baseline)
    trapezoid = case.params["method"] == "riemann_trapezoid"

    def outputs(x, label):
        attr = explain(x, label) * (trapezoid_share(case.params["n_steps"]) if trapezoid else 1.0)
        return {"attr": attr, "delta": completeness_gap(f, attr, x, baseline, label)}

    return outputs


def trapezoid_share(n):
    """Captum's trapezoid gives each of n nodes the weight 1/n, half of it at the two ends: this sum of weights."""
    return (n - 1) / n


def straight_path(case, f, baseline):
    return jxp.integrated_gradients(
        f, baseline, num_steps=case.params["n_steps"], nodes=NODES[case.params["method"]]
    )


def layer_activation(case):
    layer = case.params["layer"]
    return attribution(lambda x, label: jxp.capture(score(case), layer)(x, label)[1][layer])


def layer_gradient_x_activation(case):
    h, g = jxp.slice_at(score(case), case.params["layer"])
    return attribution(lambda x, label: jxp.gradient_times_input(g)(h(x, label), x, label))


def layer_integrated_gradients(case):
    options = {"num_steps": case.params["n_steps"], "nodes": NODES[case.params["method"]]}
    f, baseline = score(case), case.inputs["baseline"]
    return attribution(jxp.interior.internal_integrated_gradients(f, case.params["layer"], baseline, **options))


def internal_influence(case):
    """The mean over the input's path of the gradient by the layer."""
    alphas, weights = paths.quadrature(NODES[case.params["method"]], case.params["n_steps"])
    mean_slope = jxp.interior.internal_influence(score(case), case.params["layer"], weights=weights)

    def explain(x, label):
        baseline = jnp.asarray(case.inputs["baseline"], x.dtype)
        points = jax.vmap(lambda alpha: baseline + alpha * (x - baseline))(jnp.asarray(alphas, x.dtype))
        return mean_slope(points, label) * float(weights.sum())  # ours are divided by it: captum's are rounded

    return attribution(explain)


def layer_conductance(case):
    """Captum's sum, written out: slopes times the layer's steps between nodes, whose weights it does not use.

    It leaves out the path's ends, before the first node and behind the last, so it does not sum to the difference
    of outputs. `interior.conductance` is the integral, and does: see the test of it below.
    """
    h, g = jxp.slice_at(score(case), case.params["layer"])
    alphas, _ = paths.quadrature(NODES[case.params["method"]], case.params["n_steps"] + 1)

    def explain(x, label):
        baseline = jnp.asarray(case.inputs["baseline"], x.dtype)
        points = jax.vmap(lambda alpha: baseline + alpha * (x - baseline))(jnp.asarray(alphas, x.dtype))
        z = jax.vmap(lambda point: h(point, label))(points)
        slopes = jax.vmap(lambda z, point: jxp.gradient(g)(z, point, label))(z, points)
        return (slopes[:-1] * (z[1:] - z[:-1])).sum(0)

    return attribution(explain)


def unit(case):
    """The activation of one unit, a function of the example."""
    return jxp.interior.unit_activation(score(case), case.params["layer"], case.params["neuron"])


def neuron_gradient(case):
    return attribution(jxp.interior.neuron_gradient(score(case), case.params["layer"], case.params["neuron"]))


def neuron_integrated_gradients(case):
    return attribution(straight_path(case, unit(case), case.inputs["baseline"]))


def neuron_conductance(case):
    """Integrated gradients through one unit: its gradient by x, times that of the output by it."""
    h, g = jxp.slice_at(score(case), case.params["layer"])
    unit_of = unit(case)

    def through_unit(x, label):
        slopes = jxp.gradient(g)(h(x, label), x, label)
        return jax.lax.stop_gradient(slopes)[tuple(case.params["neuron"])] * unit_of(x, label)

    return attribution(straight_path(case, through_unit, case.inputs["baseline"]))


def layer_gradcam(case):
    if case.params.get("attr_dim_summation", True):
        explain = jxp.grad_cam(score(case), case.params["layer"], relu=case.params["relu_attributions"])
        return attribution(lambda x, label: explain(x, label)[..., None])
    h, g = jxp.slice_at(score(case), case.params["layer"])

    def weighted_channels(x, label):
        z = h(x, label)
        return z * jxp.gradient(g)(z, x, label).mean((0, 1), keepdims=True)

    return attribution(weighted_channels)


METHODS = {
    "saliency": saliency,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "layer_activation": layer_activation,
    "layer_gradient_x_activation": layer_gradient_x_activation,
    "layer_integrated_gradients": layer_integrated_gradients,
    "internal_influence": internal_influence,
    "layer_conductance": layer_conductance,
    "neuron_gradient": neuron_gradient,
    "neuron_integrated_gradients": neuron_integrated_gradients,
    "neuron_conductance": neuron_conductance,
    "layer_gradcam": layer_gradcam,
}
CASES = select("captum_grad", METHODS)


@functools.cache
def answers(net: str, method: str, dtype: str):
    """Our outputs by case id, and under the id with "as captum" with captum's rounded weights."""
    asked = [param.values[0] for param in CASES]
    asked = [case for case in asked if (case.net, case.method) == (net, method)]
    explain = {case.id: METHODS[method](case) for case in asked}
    if dtype == "float64":  # in one program with the others, most of it is shared
        explain |= {f"{case.id} as captum": with_float32_weights(case) for case in asked if integrates(case)}
    return by_row(explain, asked, dtype)


def integrates(case: Case) -> bool:
    return "n_steps" in case.params


def with_float32_weights(case):
    def explain(x, label):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(paths, "quadrature", float32_weights)
            return METHODS[case.method](case)(x, label)

    return explain


def float32_weights(nodes, num_steps, *, exact=paths.quadrature):
    """The quadrature with its weights rounded as captum's are; of the trapezoid those that sum to (n - 1) / n."""
    alphas, weights = exact(nodes, num_steps)
    share = trapezoid_share(num_steps) if nodes == "trapezoid" else 1.0
    return alphas, (weights * share).astype(np.float32).astype(np.float64) / share


def wanted(case: Case) -> dict[str, np.ndarray]:
    """What captum answers, in the form of our outputs."""
    want = {name: output["f64"] for name, output in case.outputs.items()}
    if case.params.get("multiply_by_inputs", True):
        return want
    # The mean gradient alone: times the difference it is ours. Its sum is no amount of anything, nor is `delta`.
    x, baseline = (np.asarray(case.inputs[name], np.float64) for name in ("x", "baseline"))
    return {"attr": want["attr"] * (x - baseline)}


def assert_answers(case, got, rtol):
    want = wanted(case)
    assert want.keys() <= got.keys()
    for name, values in want.items():
        # A residual is a difference of sums, and exact to a fraction of those.
        size = np.abs(want["attr"]).reshape(len(values), -1).sum(1).max() if name == "delta" else None
        assert_close(got[name], values, rtol, scale=size)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_captum(case, dtype):
    got = answers(case.net, case.method, dtype)[case.id]
    assert got["attr"].dtype == dtype
    rtol = tolerance(case.outputs["attr"], dtype)
    if integrates(case):  # captum's weights are float32 in float64 too: see the next test
        rtol = max(rtol, case.outputs["attr"]["rtol"])
    assert_answers(case, got, rtol)


@pytest.mark.parametrize("case", [param for param in CASES if integrates(param.values[0])])
def test_captums_rounded_weights_are_all_that_differs(case):
    assert_answers(case, answers(case.net, case.method, "float64")[f"{case.id} as captum"], 1e-10)


@pytest.mark.parametrize("case", [c for c in CASES if c.values[0].method == "layer_conductance"])
def test_conductance_is_what_captums_sum_is_near(case):
    """Ours adds up; captum's, by its own numbers, misses a share, and is as far from ours as that."""
    f, baseline, layer = score(case), case.inputs["baseline"], case.params["layer"]
    x, labels = np.asarray(case.inputs["x"], np.float64), np.asarray(case.inputs["target"])
    explain = jax.jit(jax.vmap(jxp.interior.conductance(f, layer, baseline, num_steps=500, nodes="midpoint")))
    ours = np.asarray(explain(x, labels)).reshape(len(x), -1)
    # A smooth rule meets kinks, so the sum is right to the size of its steps.
    total = jax.vmap(f)(x, labels) - jax.vmap(lambda label: f(jnp.asarray(baseline, np.float64), label))(labels)
    theirs = case.outputs["attr"]["f64"].reshape(len(x), -1)
    size = np.abs(ours).sum(1)
    np.testing.assert_array_less(np.abs(ours.sum(1) - total), 5e-3 * size)
    gap = np.abs(theirs.sum(1) - total)
    assert gap.max() > 5e-3 * size[gap.argmax()]
    np.testing.assert_array_less(np.abs(theirs - ours).sum(1), 0.1 * size)


@pytest.mark.parametrize("case", [param for param in CASES if param.values[0].variant.endswith("nosum")])
def test_weighted_channels_sum_to_grad_cam(case):
    same_net = answers(case.net, case.method, "float64")
    raw = same_net[case.id.replace("nosum", "raw")]["attr"]
    assert_close(same_net[case.id]["attr"].sum(-1, keepdims=True), raw, 1e-12)
