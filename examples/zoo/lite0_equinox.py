"""EfficientNet-Lite0 in Equinox."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import keystr, tree_map_with_path

from .efficientnet_lite import (
    BLOCKS,
    HEAD_FEATURES,
    NORM_EPSILON,
    NUM_CLASSES,
    STEM_FEATURES,
    Block,
    Network,
    load_weights,
    make_network,
)


class BatchNorm(eqx.Module):
    """Batch normalisation by fixed statistics: an affine map of each channel of (channels, height, width)."""

    scale: jax.Array
    bias: jax.Array
    mean: jax.Array
    var: jax.Array

    def __init__(self, features: int):
        self.scale, self.bias = jnp.ones(features), jnp.zeros(features)
        self.mean, self.var = jnp.zeros(features), jnp.ones(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (channels, height, width)."""
        factor = self.scale * jax.lax.rsqrt(self.var + NORM_EPSILON)
        return (x - self.mean[:, None, None]) * factor[:, None, None] + self.bias[:, None, None]


class ConvNorm(eqx.Module):
    """A convolution without bias, then a batch normalisation."""

    conv: eqx.nn.Conv2d
    norm: BatchNorm

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        key: jax.Array,
    ):
        self.conv = eqx.nn.Conv2d(
            in_features, out_features, kernel, stride, padding="SAME", groups=groups, use_bias=False, key=key
        )
        self.norm = BatchNorm(out_features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (channels, height, width)."""
        return self.norm(self.conv(x))


class MBConv(eqx.Module):
    """An inverted residual block."""

    expand: ConvNorm | None
    depthwise: ConvNorm
    project: ConvNorm
    has_skip: bool = eqx.field(static=True)

    def __init__(self, block: Block, *, key: jax.Array):
        expand_key, depthwise_key, project_key = jax.random.split(key, 3)
        hidden = block.hidden_features
        self.has_skip = block.has_skip
        self.expand = ConvNorm(block.in_features, hidden, key=expand_key) if block.has_expand else None
        self.depthwise = ConvNorm(hidden, hidden, block.kernel, block.stride, groups=hidden, key=depthwise_key)
        self.project = ConvNorm(hidden, block.out_features, key=project_key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (channels, height, width)."""
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = jax.nn.relu6(self.depthwise(y))
        y = self.project(y)
        return x + y if self.has_skip else y


class EfficientNetLite0(eqx.Module):
    """The classifier, from one image (3, height, width) to logits (1000,)."""

    stem: ConvNorm
    blocks: dict[str, MBConv]  # by name, so that paths read as in the other frameworks
    head: ConvNorm
    classifier: eqx.nn.Linear

    def __init__(self, *, key: jax.Array):
        stem_key, head_key, classifier_key, *block_keys = jax.random.split(key, 3 + len(BLOCKS))
        self.stem = ConvNorm(3, STEM_FEATURES, kernel=3, stride=2, key=stem_key)
        self.blocks = {
            name: MBConv(block, key=k) for (name, block), k in zip(BLOCKS.items(), block_keys, strict=True)
        }
        *_, last = BLOCKS.values()
        self.head = ConvNorm(last.out_features, HEAD_FEATURES, key=head_key)
        self.classifier = eqx.nn.Linear(HEAD_FEATURES, NUM_CLASSES, key=classifier_key)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps an image to logits."""
        x = jax.nn.relu6(self.stem(x))
        for name in BLOCKS:
            x = self.blocks[name](x)
        x = jax.nn.relu6(self.head(x))
        return self.classifier(x.mean(axis=(1, 2)))


def load() -> Network:
    """The pretrained network; `params` are the module itself."""
    skeleton = eqx.filter_eval_shape(EfficientNetLite0, key=jax.random.key(0))
    return make_network(lambda model, x: model(x.transpose(2, 0, 1)), _fill(skeleton, load_weights()))


def _fill(skeleton: EfficientNetLite0, weights: dict) -> EfficientNetLite0:
    """Puts the weights in the places of the same name, in Equinox's layout."""

    def leaf(path: Any, place: jax.ShapeDtypeStruct) -> jax.Array:
        node: Any = weights
        for word in keystr(path, simple=True, separator="/").removeprefix("blocks/").split("/"):
            node = node["kernel" if word == "weight" else word]
        if node.ndim == 4:
            node = node.transpose(3, 2, 0, 1)  # HWIO to OIHW
        elif node.ndim == 2:
            node = node.T
        assert node.shape == place.shape
        return jnp.asarray(node)

    return tree_map_with_path(leaf, skeleton)
