"""EfficientNet-Lite0 in Flax Linen."""

from typing import cast

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

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


class ConvNorm(nn.Module):
    """A convolution without bias, then a batch normalisation."""

    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels)."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding="SAME",
            feature_group_count=self.groups,
            use_bias=False,
            name="conv",
        )(x)
        return nn.BatchNorm(use_running_average=True, epsilon=NORM_EPSILON, name="norm")(x)


class MBConv(nn.Module):
    """An inverted residual block."""

    block: Block

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, in_features)."""
        block, hidden = self.block, self.block.hidden_features
        y = x
        if block.has_expand:
            y = jax.nn.relu6(ConvNorm(hidden, name="expand")(y))
        y = jax.nn.relu6(ConvNorm(hidden, block.kernel, block.stride, groups=hidden, name="depthwise")(y))
        y = ConvNorm(block.out_features, name="project")(y)
        return x + y if block.has_skip else y


class EfficientNetLite0(nn.Module):
    """The classifier, from images (batch, height, width, 3) to logits (batch, 1000)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to logits."""
        x = jax.nn.relu6(ConvNorm(STEM_FEATURES, kernel=3, stride=2, name="stem")(x))
        for name, block in BLOCKS.items():
            x = MBConv(block, name=name)(x)
        x = jax.nn.relu6(ConvNorm(HEAD_FEATURES, name="head")(x))
        return nn.Dense(NUM_CLASSES, name="classifier")(x.mean(axis=(1, 2)))


def load() -> Network:
    """The pretrained network; `params` are Linen's variables, `{"params": ..., "batch_stats": ...}`."""
    model = EfficientNetLite0()

    def apply(params: dict, x: jax.Array) -> jax.Array:
        logits = cast(jax.Array, model.apply(params, x[None]))  # alone, as no collection is mutable
        return jnp.squeeze(logits, axis=0)

    return make_network(apply, _variables(load_weights()))


def _variables(weights: dict) -> dict:
    """Sorts the weights into Linen's two collections."""
    collections = {"params": {}, "batch_stats": {}}
    for path, value in flatten_dict(weights).items():
        kind = "batch_stats" if path[-1] in ("mean", "var") else "params"
        collections[kind][path] = jnp.asarray(value)
    return {kind: unflatten_dict(flat) for kind, flat in collections.items()}
