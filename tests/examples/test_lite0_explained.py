"""EfficientNet-Lite0 explained: the three frameworks agree, and the maps are where they should be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import bundled, lite0_equinox, lite0_linen, lite0_nnx, preprocess

import jaxplain as jxp
from benchmarks.bench_pointing_game import shares

FRAMEWORKS = {"linen": lite0_linen, "nnx": lite0_nnx, "equinox": lite0_equinox}
ESPRESSO = 967
OPTIMISED = {"xla_backend_optimization_level": 3}  # this network runs longer than it compiles


@pytest.fixture(scope="module")
def photo():
    return jnp.asarray(preprocess(bundled("coffee")))


@pytest.fixture(scope="module")
def explained(photo):
    """Explainers of every family on each framework, one compiled program a framework.

    The other methods are compositions of these gradients, which know nothing of a framework.
    """
    found = {}
    for name, framework in FRAMEWORKS.items():
        net = framework.load()
        f = jxp.class_score(net.logits)
        at = "block10/project/norm"
        methods = {
            "gradient": jxp.gradient(f),
            "integrated_gradients": jxp.integrated_gradients(f, num_steps=2, chunk_size=1),
            "guided_backprop": jxp.guided_backprop(f),
            "grad_cam": jxp.grad_cam(f, upsample=True),
            "grad_cam_pp": jxp.grad_cam_pp(f),
            "cam": jxp.cam(f),
            "hires_cam": jxp.hires_cam(f),
            "layer_cam": jxp.layer_cam(f, at, params=net.params),
            "xgrad_cam": jxp.xgrad_cam(f, at, params=net.params, relu=False),
        }
        together = jax.jit(
            lambda x, methods=methods: {k: m(x, ESPRESSO) for k, m in methods.items()}, compiler_options=OPTIMISED
        )
        found[name] = jax.tree.map(np.asarray, together(photo)), net
    return found


def test_every_explainer_gives_the_same_on_all_three_frameworks(explained):
    reference, _ = explained["linen"]
    for name in ("nnx", "equinox"):
        for method, values in explained[name][0].items():
            scale = np.abs(reference[method]).max()
            assert scale > 0
            worst = np.abs(values - reference[method]).max() / scale
            # Rounding moves a few of the network's kinks, so gradients agree less well than logits (1e-5).
            assert worst < 2e-3, (name, method, worst)


def test_cam_is_grad_cam_before_relu_times_the_places_and_complete(explained, photo):
    maps, net = explained["linen"]
    f = jxp.class_score(net.logits)
    grad_cam, logit = jax.jit(lambda x: (jxp.grad_cam(f, relu=False)(x, ESPRESSO), f(x, ESPRESSO)))(photo)
    np.testing.assert_allclose(maps["cam"], 49 * grad_cam, rtol=1e-5, atol=1e-5 * np.abs(maps["cam"]).max())
    bias = float(net.params["params"]["classifier"]["bias"][ESPRESSO])
    np.testing.assert_allclose(maps["hires_cam"].sum(), float(logit) - bias, rtol=1e-5)
    np.testing.assert_allclose(maps["cam"].mean(), float(logit) - bias, rtol=1e-5)


def test_the_default_site_is_the_last_relu6(explained, photo):
    _, net = explained["linen"]
    (row,) = [row for row in jxp.list_sites(net.logits)(photo) if row.shape[-3:] == (7, 7, 1280)][-1:]
    assert row.kind == "activation"
    z = jax.jit(jxp.slice_at(net.logits, jxp.last_conv()).h)(photo)
    assert z.shape[-3:] == (7, 7, 1280)
    assert float(z.min()) == 0.0
    assert float(z.max()) <= 6.0


def test_grid_pointing_game():
    found = shares()
    assert found.shape == (12, 4)
    assert found.mean() >= 0.80
