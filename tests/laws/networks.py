"""Small networks with parameters as an argument: smooth ones, so that finite differences mean something, and
the same with ReLUs for methods that need them (they are smooth but on a set that no seed hits).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp

NUM_CLASSES = 3


def arrays(seed, **shapes):
    """Standard normal arrays scaled by the square root of their fan-in."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1]))) for name, shape in shapes.items()}


VECTOR_PARAMS = arrays(0, w1=(5, 6), b1=(6,), w2=(6, NUM_CLASSES))
IMAGE_PARAMS = arrays(1, k1=(3, 3, 2, 4), k2=(3, 3, 4, 5), b2=(5,), w=(5, NUM_CLASSES))
VECTORS = np.random.default_rng(2).normal(size=(4, 5))
IMAGES = np.random.default_rng(3).normal(size=(4, 6, 6, 2))


def vector_logits(x, p):
    hidden = jnp.tanh(x @ p["w1"] + p["b1"])
    return jax.nn.softplus(hidden) @ p["w2"]


def vector_relu_logits(x, p):
    hidden = jax.nn.relu(x @ p["w1"] + p["b1"])
    return jnp.tanh(hidden) @ p["w2"]


def conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def image_logits(x, p, activation=jax.nn.softplus):
    hidden = activation(conv(x, p["k1"]))
    features = jxp.tag(activation(conv(hidden, p["k2"]) + p["b2"][None, None]), "features")
    return features.mean((0, 1)) @ p["w"]


def setting(image, relu=False):
    """(logits_fn, inputs, params) of one of the networks, as JAX arrays."""
    inputs, params = (IMAGES, IMAGE_PARAMS) if image else (VECTORS, VECTOR_PARAMS)
    logits = {
        (False, False): vector_logits,
        (False, True): vector_relu_logits,
        (True, False): image_logits,
        (True, True): partial(image_logits, activation=jax.nn.relu),
    }[image, relu]
    return logits, jnp.asarray(inputs), jax.tree.map(jnp.asarray, params)


def first_logit(image, relu=False):
    """(f(x, p) -> scalar, inputs, params)."""
    logits, inputs, params = setting(image, relu)
    return (lambda x, p: logits(x, p)[1 if relu or image else 0]), inputs, params
