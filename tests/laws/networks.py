"""Two small smooth networks, so that finite differences mean something, with parameters as an argument."""

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


def conv(x, kernel):
    return jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def image_logits(x, p):
    hidden = jax.nn.silu(conv(x, p["k1"]))
    features = jxp.tag(jax.nn.softplus(conv(hidden, p["k2"]) + p["b2"][None, None]), "features")
    return features.mean((0, 1)) @ p["w"]


def setting(image):
    """(logits_fn, inputs, params) of one of the two networks, as JAX arrays."""
    logits, inputs, params = (
        (image_logits, IMAGES, IMAGE_PARAMS) if image else (vector_logits, VECTORS, VECTOR_PARAMS)
    )
    return logits, jnp.asarray(inputs), jax.tree.map(jnp.asarray, params)


def first_logit(image):
    """(f(x, p) -> scalar, inputs, params)."""
    logits, inputs, params = setting(image)
    return (lambda x, p: logits(x, p)[0]), inputs, params
