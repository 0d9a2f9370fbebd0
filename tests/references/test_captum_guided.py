"""Captum's methods that change the backward pass of ReLUs: every case in float64 and float32.

Captum enlarges Grad-CAM by repetition in its Guided Grad-CAM, where ours does so bilinearly (conventions.md):
the case is compared with our two factors, the map repeated, and our product with the map enlarged bilinearly.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from references.compare import PRECISIONS, assert_close, by_row, score, select, tolerance

METHODS = {"guided_backprop": jxp.guided_backprop, "deconvolution": jxp.deconvnet, "guided_gradcam": None}
CASES = select("captum_grad", METHODS)


@functools.cache
def answers(net: str, dtype: str):
    """What all cases of a network need: one program."""
    asked = [param.values[0] for param in CASES if param.values[0].net == net]
    explain = {case.id: METHODS[case.method](score(case)) for case in asked if METHODS[case.method]}
    for case in asked:
        if case.method == "guided_gradcam":
            f, layer = score(case), case.params["layer"]
            explain["guided"] = jxp.guided_backprop(f)
            explain["map"] = jxp.grad_cam(f, layer)
            explain["large map"] = jxp.grad_cam(f, layer, upsample=True)
            explain["product"] = jxp.guided_grad_cam(f, layer)
    return by_row(explain, asked, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_case(case, dtype):
    given, want = answers(case.net, dtype), case.outputs["attr"]
    if case.method == "guided_gradcam":
        small = np.asarray(given["map"])
        repeat = want["f64"].shape[1] // small.shape[1]
        repeated = small.repeat(repeat, 1).repeat(repeat, 2)[..., None]
        got = np.asarray(given["guided"]) * repeated
        bilinear = np.asarray(given["guided"]) * np.asarray(given["large map"])[..., None]
        assert_close(given["product"], bilinear, tolerance(want, dtype))
        assert np.abs(np.asarray(given["product"]) - got).max() > 1e-3 * np.abs(got).max()
    else:
        got = given[case.id]
    assert_close(got, want["f64"], tolerance(want, dtype))


@pytest.mark.parametrize("net", ["N1", "N3"])
def test_guided_is_not_the_plain_gradient(net):
    case = next(param.values[0] for param in CASES if param.values[0].net == net)
    x, label = jnp.asarray(case.inputs["x"][0], float), int(case.inputs["target"][0])
    plain, guided = jax.grad(score(case))(x, label), answers(net, "float64")[f"captum.guided_backprop@{net}"][0]
    assert float(jnp.abs(plain - guided).max()) > 1e-2 * float(jnp.abs(plain).max())
