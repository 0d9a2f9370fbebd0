"""A small convolutional network for the 8x8 digits of scikit-learn, trained here in seconds, in plain `jnp`.

What the examples about the inside of a network share: layers are tagged, and as many networks as wanted can be
trained, each from its own seed and its own share of the digits.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import jaxplain as jxp

NUM_CLASSES = 10
FEATURES = (32, 64, 64)
HIDDEN = 64
NUM_TEST = 597  # of 1797


class Examples(NamedTuple):
    """Images (n, 8, 8, 1), float32 in [0, 1], and labels (n,), int32."""

    images: np.ndarray
    labels: np.ndarray

    def take(self, indices: Any) -> "Examples":
        """Some of them."""
        return Examples(self.images[indices], self.labels[indices])


def digits() -> tuple[Examples, Examples]:
    """The digits to train with (1200) and to test with (597), in a fixed random order."""
    table: Any = load_digits()
    images = (table.images[..., None] / 16).astype(np.float32)
    everything = Examples(images, table.target.astype(np.int32))
    order = np.random.default_rng(0).permutation(len(everything.labels))
    return everything.take(order[NUM_TEST:]), everything.take(order[:NUM_TEST])


def logits(params: Any, x: Any) -> jax.Array:
    """An image (8, 8, 1) to logits (10,); sites "conv0" (8, 8, 32), "conv1" (4, 4, 64), "conv2", "dense"."""
    for i, stride in enumerate((1, 2, 1)):
        layer = params[f"conv{i}"]
        x = jax.lax.conv_general_dilated(
            x[None], layer["kernel"], (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        x = jxp.tag(jax.nn.relu(x + layer["bias"]), f"conv{i}")
    x = jax.nn.relu(x.reshape(-1) @ params["dense0"]["kernel"] + params["dense0"]["bias"])
    x = jxp.tag(x, "dense")
    return x @ params["dense1"]["kernel"] + params["dense1"]["bias"]


def start(key: jax.Array) -> Any:
    """Parameters before training."""
    channels = (1, *FEATURES)
    shapes = {f"conv{i}": (3, 3, *channels[i : i + 2]) for i in range(3)}
    shapes |= {"dense0": (16 * FEATURES[-1], HIDDEN), "dense1": (HIDDEN, NUM_CLASSES)}
    initial = jax.nn.initializers.he_normal()
    keys = jax.random.split(key, len(shapes))
    return {
        name: {"kernel": initial(k, shape), "bias": jnp.zeros(shape[-1])}
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def train(
    seed: int = 0, num_train: int = 1200, epochs: int = 30, batch_size: int = 50, examples: Examples | None = None
) -> Any:
    """Parameters of a network trained by Adam from a seed, on the first of the digits to train with.

    Fewer digits make a network that errs more, which is what some studies are about.
    """
    examples = digits()[0] if examples is None else examples
    examples = examples.take(slice(num_train))
    count = len(examples.labels)
    optimizer = optax.adam(optax.cosine_decay_schedule(2e-3, epochs * (count // batch_size)))

    def loss(params: Any, batch: Examples) -> jax.Array:
        answers = jax.vmap(logits, (None, 0))(params, batch.images)
        return optax.softmax_cross_entropy_with_integer_labels(answers, batch.labels).mean()

    @jax.jit
    def step(params: Any, memory: Any, batch: Examples) -> Any:
        change, memory = optimizer.update(jax.grad(loss)(params, batch), memory)
        return optax.apply_updates(params, change), memory

    params = start(jax.random.key(seed))
    memory, draw = optimizer.init(params), np.random.default_rng(seed)
    for _ in range(epochs):
        for chosen in np.split(draw.permutation(count)[: count - count % batch_size], count // batch_size):
            params, memory = step(params, memory, examples.take(chosen))
    return params


def accuracy(params: Any, examples: Examples) -> float:
    """The share of examples that the network gets right."""
    answers = jax.jit(jax.vmap(logits, (None, 0)))(params, examples.images)
    return float((np.argmax(answers, -1) == examples.labels).mean())
