"""Networks of the kinds that relevance methods meet, with batches: VGG, ResNet, transformer block, LSTM."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Case(NamedTuple):
    """`f(x)` is the score of one example; `xs` is a batch."""

    name: str
    f: Callable[[jax.Array], jax.Array]
    xs: jax.Array


def weights(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])), jnp.float32) for s in shapes]


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]


def pool(x: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2, 2, 1), (2, 2, 1), "VALID")


def vgg(batch: int = 16) -> Case:
    """Six 3x3 convolutions with biases, max-pooling, two dense layers, 64 x 64."""
    widths = [(3, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128)]
    kernels = weights(0, *[(3, 3, a, b) for a, b in widths])
    biases = [0.1 * b for b in weights(1, *[(b,) for _, b in widths])]
    w1, w2 = weights(2, (8 * 8 * 128, 64), (64, 10))

    def f(x):
        for k, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            x = jax.nn.relu(conv(x, kernel) + bias)
            x = pool(x) if k % 2 else x
        return (jax.nn.relu(x.reshape(-1) @ w1) @ w2)[3]

    return Case("VGG-like 64x64", f, images(batch))


def resnet(batch: int = 16) -> Case:
    """A stem and four residual blocks with BatchNorm at inference, global average pooling, 64 x 64."""
    stem, *kernels = weights(3, (3, 3, 3, 32), *[(3, 3, 32, 32)] * 8)
    scales = [1 + 0.1 * s for s in weights(4, *[(32,)] * 9)]
    shifts = [0.1 * s for s in weights(5, *[(32,)] * 9)]
    (head,) = weights(6, (32, 10))

    def norm(x, k):
        return (x - 0.1) * jax.lax.rsqrt(jnp.float32(1.1) + 1e-5) * scales[k] + shifts[k]

    def f(x):
        x = jax.nn.relu(norm(conv(x, stem, 2), 0))
        for k in range(0, 8, 2):
            y = jax.nn.relu(norm(conv(x, kernels[k]), k + 1))
            x = jax.nn.relu(x + norm(conv(y, kernels[k + 1]), k + 2))
        return (x.mean((0, 1)) @ head)[3]

    return Case("ResNet-like 64x64", f, images(batch))


def images(batch: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(9).normal(size=(batch, 64, 64, 3)), jnp.float32)


def transformer(batch: int = 16) -> Case:
    """One block, 64 tokens of width 128, 4 heads, gelu, and a mean-pooled head."""
    q, k, v, o = weights(7, *[(128, 128)] * 4)
    up, down, head = weights(8, (128, 512), (512, 128), (128, 10))

    def norm(x):
        x = x - x.mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)

    def f(x):
        h = norm(x)
        heads = [(h @ w).reshape(64, 4, 32) for w in (q, k, v)]
        scores = jnp.einsum("qhd,khd->hqk", heads[0], heads[1]) / jnp.sqrt(jnp.float32(32))
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), heads[2]).reshape(64, 128)
        x = x + mixed @ o
        x = x + jax.nn.gelu(norm(x) @ up) @ down
        return (x.mean(0) @ head)[3]

    return Case(
        "transformer block", f, jnp.asarray(np.random.default_rng(9).normal(size=(batch, 64, 128)), jnp.float32)
    )


def lstm(batch: int = 16) -> Case:
    """One layer of 128 units by scan over 64 steps of 64 features."""
    wx, wh, head = weights(10, (64, 512), (128, 512), (128, 10))
    bias = jnp.zeros(512)

    def f(x):
        def step(carry, item):
            h, c = carry
            i, g, u, o = jnp.split(item @ wx + h @ wh + bias, 4)
            c = jax.nn.sigmoid(g) * c + jax.nn.sigmoid(i) * jnp.tanh(u)
            return (jax.nn.sigmoid(o) * jnp.tanh(c), c), None

        (h, _), _ = jax.lax.scan(step, (jnp.zeros(128), jnp.zeros(128)), x)
        return (h @ head)[3]

    return Case("LSTM by scan", f, jnp.asarray(np.random.default_rng(9).normal(size=(batch, 64, 64)), jnp.float32))


CONVOLUTIONAL: tuple[Callable[[], Any], ...] = (vgg, resnet)
SEQUENTIAL: tuple[Callable[[], Any], ...] = (transformer, lstm)
