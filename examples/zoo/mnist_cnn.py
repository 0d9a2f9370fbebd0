"""A small convolutional network for handwritten digits, in Flax NNX.

Three convolutions of 3x3, each with a ReLU and a max pool of 2x2, then two dense layers: the plain layout that
textbooks explain. Its weights come with a package; the 20 digits are the first of MNIST's test set.
"""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from PIL import Image

from .packages import package_folder
from .torch_weights import WeightsError, load_state_dict

IMAGE_SIZE = 28
NUM_CLASSES = 10
FEATURES = (32, 64, 128)
HIDDEN = 256

_REQUIREMENT = "digit-recognizer-py==0.1.0"
_SHA256 = "325e0773529babe8"
_MEAN, _DEVIATION = 0.1307, 0.3081


class Digits(NamedTuple):
    """A digit classifier as pure functions of one image.

    Attributes:
        logits: `logits(x)`, from a float32 image (28, 28, 1) as `preprocess` makes it to logits (10,).
        params: the pytree of arrays closed over; paths read `conv0/kernel`, `dense1/bias`.
        apply: `apply(params, x)`, the same with the parameters as an argument.
    """

    logits: Callable[[jax.Array], jax.Array]
    params: Any
    apply: Callable[[Any, jax.Array], jax.Array]


class Digit(NamedTuple):
    """A photo of a digit, uint8 (28, 28), white on black, and which one it is."""

    name: str
    label: int
    pixels: np.ndarray


def _max_pool(x: jax.Array) -> jax.Array:
    """Largest value of each 2x2 square of (batch, height, width, channels); an odd last row is dropped."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


class DigitCNN(nnx.Module):
    """The classifier, from images (batch, 28, 28, 1) to logits (batch, 10)."""

    def __init__(self, *, rngs: nnx.Rngs):
        first, second, third = FEATURES
        self.conv0 = nnx.Conv(1, first, (3, 3), rngs=rngs)
        self.conv1 = nnx.Conv(first, second, (3, 3), rngs=rngs)
        self.conv2 = nnx.Conv(second, third, (3, 3), rngs=rngs)
        self.dense0 = nnx.Linear(3 * 3 * third, HIDDEN, rngs=rngs)
        self.dense1 = nnx.Linear(HIDDEN, NUM_CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to logits."""
        for conv in (self.conv0, self.conv1, self.conv2):
            x = _max_pool(jax.nn.relu(conv(x)))
        x = jax.nn.relu(self.dense0(x.reshape(len(x), -1)))
        return self.dense1(x)


def load() -> Digits:
    """The pretrained network; `params` are its state as nested dictionaries of arrays."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: DigitCNN(rngs=nnx.Rngs(0))))
    params = jax.tree.map(jnp.asarray, load_weights())

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return jnp.squeeze(nnx.merge(graphdef, params)(x[None]), axis=0)

    def logits(x: jax.Array) -> jax.Array:
        return apply(params, x)

    return Digits(logits=logits, params=params, apply=apply)


def load_weights() -> dict[str, dict[str, np.ndarray]]:
    """Pretrained weights in JAX layout: `conv0` to `conv2` (HWIO), `dense0` and `dense1` (in, out)."""
    path = package_folder("digit_recognizer", requirement=_REQUIREMENT) / "models" / "handwriting_model.pth"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(_SHA256):
        raise WeightsError(f"{path.name} is damaged: its sha256 begins {digest[:16]}, expected {_SHA256}")
    state = load_state_dict(path)
    weights = {}
    for i in range(len(FEATURES)):
        name = f"conv_layers.{3 * i}"
        weights[f"conv{i}"] = {
            "kernel": state[f"{name}.weight"].transpose(2, 3, 1, 0),
            "bias": state[f"{name}.bias"],
        }
    # PyTorch flattens (channels, height, width), this network (height, width, channels).
    first = state["fc_layers.0.weight"].reshape(HIDDEN, FEATURES[-1], 3, 3).transpose(2, 3, 1, 0)
    weights["dense0"] = {"kernel": first.reshape(-1, HIDDEN), "bias": state["fc_layers.0.bias"]}
    weights["dense1"] = {"kernel": state["fc_layers.2.weight"].T, "bias": state["fc_layers.2.bias"]}
    return weights


def digits() -> list[Digit]:
    """The 20 labelled digits of MNIST's test set that foolbox carries, in its order."""
    folder = package_folder("foolbox", requirement="foolbox==3.3.4") / "data"
    found = []
    for path in sorted(folder.glob("mnist_*_*.png")):
        with Image.open(path) as image:
            found.append(Digit(path.name, int(path.stem.split("_")[-1]), np.asarray(image.convert("L"))))
    return found


def preprocess(pixels: np.ndarray) -> np.ndarray:
    """Turns a digit, uint8 (28, 28) white on black, into the network's input, float32 (28, 28, 1)."""
    if pixels.dtype != np.uint8 or pixels.shape != (IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(f"expected uint8 {(IMAGE_SIZE, IMAGE_SIZE)}, got {pixels.dtype} {pixels.shape}")
    return ((pixels.astype(np.float32)[..., None] / 255 - _MEAN) / _DEVIATION).astype(np.float32)
