"""The networks that the benchmarks explain."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

from zoo import bundled, lite0_linen, preprocess


class Net(NamedTuple):
    """A network with its last activation at hand: `logits = head(features(x))`."""

    name: str
    logits: Callable[[jax.Array], jax.Array]
    features: Callable[[jax.Array], jax.Array] | None
    head: Callable[[jax.Array], jax.Array]
    x: jax.Array
    label: int


def small_cnn() -> Net:
    """A plain network of VGG's kind at 64 x 64: six 3x3 convolutions, two poolings, a pooled head."""
    rng = np.random.default_rng(0)
    widths = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    kernels = [jnp.asarray(rng.normal(size=(3, 3, a, b)) * np.sqrt(2 / (9 * a)), jnp.float32) for a, b in widths]
    weights = jnp.asarray(rng.normal(size=(128, 10)) / np.sqrt(128), jnp.float32)

    def features(x):
        x = x[None]
        for k, kernel in enumerate(kernels):
            x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.relu(x)
            if k in (1, 3):
                x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        return x

    def head(z):
        return (z.mean((1, 2)) @ weights)[0]

    x = jnp.asarray(rng.normal(size=(64, 64, 3)), jnp.float32)
    return Net("small CNN 64x64", lambda x: head(features(x)), features, head, x, 3)


def lite0() -> Net:
    """EfficientNet-Lite0 on a photo of coffee; its head is a mean over space and a dense layer."""
    net = lite0_linen.load()
    params: Any = net.params
    weights, bias = (jnp.asarray(params["params"]["classifier"][k]) for k in ("kernel", "bias"))

    def head(z):
        return (z.mean((1, 2)) @ weights + bias)[0]

    return Net("lite0 224x224", net.logits, None, head, jnp.asarray(preprocess(bundled("coffee"))), 967)
