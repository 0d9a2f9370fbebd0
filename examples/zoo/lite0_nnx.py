"""EfficientNet-Lite0 in Flax NNX."""

import jax
import jax.numpy as jnp
from flax import nnx

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


class ConvNorm(nnx.Module):
    """A convolution without bias, then a batch normalisation."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(
            in_features,
            out_features,
            (kernel, kernel),
            strides=stride,
            padding="SAME",
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(out_features, use_running_average=True, epsilon=NORM_EPSILON, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels)."""
        return self.norm(self.conv(x))


class MBConv(nnx.Module):
    """An inverted residual block."""

    def __init__(self, block: Block, *, rngs: nnx.Rngs):
        hidden = block.hidden_features
        self.has_skip = block.has_skip
        self.expand = ConvNorm(block.in_features, hidden, rngs=rngs) if block.has_expand else None
        self.depthwise = ConvNorm(hidden, hidden, block.kernel, block.stride, groups=hidden, rngs=rngs)
        self.project = ConvNorm(hidden, block.out_features, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (batch, height, width, channels)."""
        y = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = jax.nn.relu6(self.depthwise(y))
        y = self.project(y)
        return x + y if self.has_skip else y


class EfficientNetLite0(nnx.Module):
    """The classifier, from images (batch, height, width, 3) to logits (batch, 1000)."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem = ConvNorm(3, STEM_FEATURES, kernel=3, stride=2, rngs=rngs)
        for name, block in BLOCKS.items():
            setattr(self, name, MBConv(block, rngs=rngs))
            last_features = block.out_features
        self.head = ConvNorm(last_features, HEAD_FEATURES, rngs=rngs)
        self.classifier = nnx.Linear(HEAD_FEATURES, NUM_CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images to logits."""
        x = jax.nn.relu6(self.stem(x))
        for name in BLOCKS:
            x = getattr(self, name)(x)
        x = jax.nn.relu6(self.head(x))
        return self.classifier(x.mean(axis=(1, 2)))


def load() -> Network:
    """The pretrained network; `params` are its state as nested dictionaries of arrays."""
    graphdef, _ = nnx.split(nnx.eval_shape(lambda: EfficientNetLite0(rngs=nnx.Rngs(0))))

    def apply(params: dict, x: jax.Array) -> jax.Array:
        logits = nnx.merge(graphdef, params)(x[None])
        return jnp.squeeze(logits, axis=0)

    return make_network(apply, jax.tree.map(jnp.asarray, load_weights()))
