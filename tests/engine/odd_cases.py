"""Odd functions for the relevance engine: what each computes, and what is known of its explanation.

A case may give, for LRP-0 (`epsilon(0)`: gates, detached statistics):
- `same`: a function with the same value whose gradient times input is LRP-0 (statistics and gates held by
  `stop_gradient`); the function itself if it is piecewise linear and has no bias;
- `power`: gradient times input divided by this (2 for a bilinear form whose factors share equally);
- `bias`: whether constants keep some of the relevance, so that the sum over x is not f(x);
- `conserves`: False for the softmax rule of attention, which does not, by its formula;
- `smooth`: False where the function's own `stop_gradient` makes its derivative another than that of its values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

rng = np.random.default_rng(0)
W = rng.normal(size=(6, 6))
V = rng.normal(size=(6, 6))
w = rng.normal(size=6)
M3 = rng.normal(size=(6, 6, 6))
VECTOR = rng.normal(size=6)
IMAGE = rng.normal(size=(6, 6, 4))
TOKENS = rng.normal(size=(5, 6))
POSITIVE = np.abs(VECTOR) + 0.3
relu = jax.nn.relu
fixed = lax.stop_gradient


class Case(NamedTuple):
    f: Callable[..., Any]
    x: Any
    same: Callable[..., Any] | None = None
    power: int = 1
    bias: bool = False
    conserves: bool = True
    smooth: bool = True


CASES: dict[str, Case] = {}


def case(x, same=None, *, power=1, linear=False, **known):
    """Adds a function to the cases; `linear`: piecewise, and without bias."""

    def add(f):
        CASES[f.__name__.strip("_")] = Case(f, x, f if linear or power > 1 else same, power, **known)
        return f

    return add


def conv(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers} | options
    return lax.conv_general_dilated(x[None], kernel, **options)[0]


def kernel(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


# --- activations -----------------------------------------------------------------------------------------------


@case(VECTOR)
def relu6(x):
    return jax.nn.relu6(x @ W * 4) @ w


@case(VECTOR)
def hard_swish(x):
    return jax.nn.hard_swish(x @ W) @ w


@case(VECTOR, linear=True)
def prelu(x):
    z = x @ W
    return jnp.where(z > 0, z, jnp.asarray(w) * 0.1 * z) @ w


@case(VECTOR, linear=True)
def prelu_two_halves(x):
    z = x @ W
    return (jnp.maximum(z, 0) + 0.1 * jnp.asarray(w) * jnp.minimum(z, 0)) @ w


@case(VECTOR, linear=True)
def maxout(x):
    return jnp.maximum(x @ W, x @ V) @ w


@case(VECTOR, linear=True)
def maxout_reshaped(x):
    return (x @ W).reshape(3, 2).max(-1) @ w[:3]


@case(VECTOR)
def cube(x):
    z = x @ W
    return (z**2 * z) @ w


@case(VECTOR)
def cube_by_products(x):
    z = x @ W
    return (z * z * z) @ w


@case(VECTOR, linear=True)
def crelu(x):
    z = x @ W
    return jnp.concatenate([relu(z), relu(-z)]) @ np.concatenate([w, 2 * w])


@case(VECTOR)
def logsumexp_head(x):
    return jax.nn.logsumexp(relu(x @ W)) * 3.0


@case(VECTOR)
def log_softmax_head(x):
    return jax.nn.log_softmax(relu(x @ W))[2]


@case(VECTOR, linear=True, conserves=False)
def softmax_head(x):
    return jax.nn.softmax(relu(x @ W))[2]


@jax.custom_jvp
def own(x):
    return jnp.where(x > 0, x, 0.1 * x)


own.defjvp(lambda x, t: (own(*x), jnp.where(x[0] > 0, 1.0, 0.1) * t[0]))


@jax.custom_vjp
def layer(x, kernel):
    return relu(x @ kernel)


layer.defvjp(
    lambda x, k: (layer(x, k), (x, k)),
    lambda r, g: (((g * (r[0] @ r[1] > 0)) @ r[1].T), jnp.outer(r[0], g)),
)


@case(VECTOR, linear=True)
def custom_jvp(x):
    return own(x @ W) @ w


@case(VECTOR, lambda x: relu(x @ W) @ w)
def custom_vjp_layer(x):
    return layer(x, jnp.asarray(W)) @ w


# --- choices ---------------------------------------------------------------------------------------------------


@case(VECTOR, linear=True)
def where_constant(x):
    return jnp.where(np.arange(6) < 3, relu(x @ W), 0.0) @ w


@case(VECTOR, linear=True)
def where_constant_two(x):
    return jnp.where(np.arange(6) < 3, x @ W, x @ V) @ w


@case(VECTOR, linear=True)
def where_by_input(x):
    z = x @ W
    return jnp.where(z > x, 2.0 * z, x @ V) @ w


@case(VECTOR, linear=True)
def cond_constant(x):
    return lax.cond(jnp.asarray(w)[0] > 0, lambda x: relu(x @ W).sum(), lambda x: (x @ V).sum(), x)


@case(VECTOR, linear=True)
def cond_by_input(x):
    return lax.cond(x[0] > 0, lambda x: relu(x @ W).sum(), lambda x: (x @ V).sum(), x)


@case(VECTOR, linear=True)
def switch_by_index(x):
    return lax.switch(jnp.argmax(x), [lambda x, k=k: (x @ (W + k)).sum() for k in range(6)], x)


@case(VECTOR, linear=True)
def top_k_pooling(x):
    return lax.top_k(relu(x @ W), 3)[0] @ w[:3]


@case(VECTOR, linear=True)
def sorting(x):
    return jnp.sort(x @ W) @ w


@case(VECTOR, linear=True)
def arg_sort(x):
    z = x @ W
    return z[jnp.argsort(z)] @ w


@case(VECTOR, linear=True)
def median(x):
    return jnp.median((x @ W)[:5]) * 2.0


@case(VECTOR, linear=True)
def argmax_routing(x):
    return (x @ jnp.asarray(M3)[jnp.argmax(x @ W)]) @ w


@case(VECTOR, linear=True)
def stop_gradient_residual(x):
    return (relu(x @ W) @ V - fixed(x @ V) + fixed(x @ V)) @ w


@case(VECTOR, lambda x: (relu(x @ W) * fixed(x)) @ w, smooth=False)
def stop_gradient_factor(x):
    return (relu(x @ W) * fixed(x)) @ w


@case(VECTOR, smooth=False)
def straight_through(x):
    z = x @ W
    return (z + fixed(jnp.round(z) - z)) @ w


# --- loops -----------------------------------------------------------------------------------------------------


@case(VECTOR, linear=True)
def associative_scan(x):
    return lax.associative_scan(jnp.add, x @ W) @ w


@case(VECTOR)
def associative_products(x):
    return lax.associative_scan(jnp.multiply, x @ W)[2]


@case(VECTOR, linear=True)
def cumsum(x):
    return jnp.cumsum(relu(x @ W)) @ w


@case(VECTOR, linear=True)
def cumulative_max(x):
    return lax.cummax(x @ W) @ w


@case(POSITIVE)
def cumprod(x):
    return jnp.cumprod(x)[3]


@case(VECTOR, linear=True)
def fori_static(x):
    return lax.fori_loop(0, 3, lambda _, h: relu(h @ W), x) @ w


@case(VECTOR, linear=True)
def fori_dynamic(x):
    return lax.fori_loop(0, jnp.argmax(jnp.asarray(w)), lambda _, h: relu(h @ W), x) @ w


@case(VECTOR, linear=True)
def scan_reverse(x):
    step = lambda h, k: (relu(h @ k), h[0])
    h, ys = lax.scan(step, x, jnp.stack([W, V]), reverse=True)
    return h @ w + ys.sum()


@case(VECTOR, linear=True)
def weight_tying(x):
    return (relu(x @ W) @ W.T) @ w


# --- products --------------------------------------------------------------------------------------------------


@case(VECTOR, linear=True)
def einsum_three_constants(x):
    return jnp.einsum("i,ij,j->", x, W, w)


@case(VECTOR, power=2)
def einsum_three_bilinear(x):
    return jnp.einsum("i,ij,j->", x, W, x)


@case(TOKENS, power=2)
def gram(x):
    return (x @ x.T * rng_matrix(5)).sum()


def rng_matrix(n):
    return np.random.default_rng(n).normal(size=(n, n))


@case(VECTOR, power=2)
def outer(x):
    return (jnp.outer(x @ W, x @ V) * V).sum()


@case(VECTOR, lambda x: (x @ W * fixed(jax.nn.sigmoid(x @ V))) @ w)
def glu(x):
    return jax.nn.glu(jnp.concatenate([x @ W, x @ V])) @ w


@case(VECTOR, lambda x: (fixed(jax.nn.silu(x @ W)) * (x @ V)) @ w)
def swiglu(x):
    return (jax.nn.silu(x @ W) * (x @ V)) @ w


def squeeze(hold):
    def f(x):
        h = relu(conv(x, kernel(3, 3, 4, 4)))
        gate = jax.nn.sigmoid(relu(h.mean((0, 1)) @ kernel(4, 2)) @ kernel(2, 4))
        return (h * hold(gate)[None, None]).mean((0, 1)) @ w[:4]

    return f


@case(IMAGE, squeeze(fixed))
def squeeze_excitation(x):
    return squeeze(lambda g: g)(x)


@case(POSITIVE, lambda x: (x * w).sum() / fixed(x.sum()))
def division_by_sum(x):
    return (x * w).sum() / x.sum()


@case(POSITIVE)
def division_by_layer(x):
    return (x @ W)[0] / (x @ np.abs(V))[1]


@case(VECTOR)
def ratio_one_plus(x):
    z = x @ W
    return (z / (1 + jnp.abs(z))) @ w


# --- normalisation ---------------------------------------------------------------------------------------------


def groups(size, axes, hold):
    def f(x):
        h = conv(x, kernel(3, 3, 4, 4)).reshape(6, 6, 4 // size, size)
        h = h - h.mean(axes, keepdims=True)
        h = h / hold(jnp.sqrt((h**2).mean(axes, keepdims=True) + 1e-3))
        return relu(h.reshape(6, 6, 4)).mean((0, 1)) @ w[:4]

    return f


@case(IMAGE, groups(2, (0, 1, 3), fixed))
def group_norm(x):
    return groups(2, (0, 1, 3), lambda s: s)(x)


@case(IMAGE, groups(1, (0, 1), fixed))
def instance_norm(x):
    return groups(1, (0, 1), lambda s: s)(x)


@case(VECTOR, lambda x: (x @ W / fixed(jnp.sqrt(((x @ W) ** 2).mean() + 1e-3)) * w) @ w)
def rms_norm(x):
    z = x @ W
    return (z * lax.rsqrt((z**2).mean() + 1e-3) * w) @ w


@case(VECTOR, lambda x: (x @ W) @ w / fixed(jnp.linalg.norm(x @ W)) / np.linalg.norm(w))
def cosine_head(x):
    z = x @ W
    return z @ w / (jnp.linalg.norm(z) * np.linalg.norm(w))


@case(VECTOR, lambda x: (x @ W) @ w / fixed(jnp.linalg.norm(x @ W)))
def normalised_then_head(x):
    z = x @ W
    return (z / jnp.maximum(jnp.linalg.norm(z), 1e-6)) @ w


@case(VECTOR)
def norm_as_output(x):
    return jnp.sqrt((relu(x @ W) ** 2).sum())


@case(IMAGE)
def batch_norm_training(x):
    rows = x.reshape(-1, 4)
    rows = (rows - rows.mean(0)[None]) / jnp.sqrt(rows.var(0)[None] + 1e-3)
    return relu(rows).sum(0) @ w[:4]


# --- convolutions and moves ------------------------------------------------------------------------------------


@case(IMAGE, linear=True)
def depthwise(x):
    return relu(conv(x, kernel(3, 3, 1, 8), feature_group_count=4)).sum((0, 1)) @ np.arange(1.0, 9)


@case(IMAGE, linear=True)
def dilated(x):
    return relu(conv(x, kernel(3, 3, 4, 3), rhs_dilation=(2, 2))).sum((0, 1)) @ np.arange(1.0, 4)


@case(IMAGE, linear=True)
def transposed(x):
    numbers = ("NHWC", "HWIO", "NHWC")
    z = lax.conv_transpose(x[None], kernel(3, 3, 4, 3), (2, 2), "SAME", dimension_numbers=numbers)
    return relu(z).sum((0, 1, 2)) @ np.arange(1.0, 4)


@case(IMAGE, linear=True)
def grouped(x):
    return relu(conv(x, kernel(3, 3, 2, 6), feature_group_count=2)).sum((0, 1)) @ np.arange(1.0, 7)


@case(IMAGE, linear=True)
def dynamic_filter(x):
    """A convolution whose kernel is the explained input."""
    return relu(conv(np.sin(np.arange(64.0)).reshape(8, 8, 1), x.reshape(6, 6, 1, 4))).sum()


@case(IMAGE, linear=True)
def pixel_shuffle(x):
    h = conv(x, kernel(3, 3, 4, 4)).reshape(6, 6, 2, 2, 1).transpose(0, 2, 1, 3, 4).reshape(12, 12)
    return (relu(h) * rng_matrix(12)).sum()


@case(IMAGE, linear=True)
def pyramid(x):
    h = relu(conv(x, kernel(3, 3, 4, 4)))
    levels = [h.reshape(n, 6 // n, n, 6 // n, 4).max((1, 3)).reshape(-1) for n in (1, 2, 3)]
    h = jnp.pad(jnp.concatenate(levels), (2, 1))
    return h @ np.sin(np.arange(len(h)))


@case(VECTOR, linear=True)
def gather(x):
    return relu(x @ W)[np.array([0, 0, 3, 5])] @ w[:4]


@case(VECTOR, linear=True)
def scatter_set(x):
    return (x @ V).at[np.array([0, 2])].set(relu(x @ W)[:2]) @ w


@case(VECTOR, linear=True)
def scatter_add(x):
    return (x @ V).at[np.array([0, 0, 2])].add(relu(x @ W)[:3]) @ w


@case(VECTOR, linear=True)
def segment_sum(x):
    return jax.ops.segment_sum(relu(x @ W), np.array([0, 1, 0, 2, 1, 1]), 3) @ w[:3]


@case(VECTOR, linear=True)
def scatter_max(x):
    return jnp.zeros(3).at[np.array([0, 1, 0, 2, 1, 1])].max(relu(x @ W)) @ w[:3]


@case(VECTOR, linear=True)
def roll_and_flip(x):
    return (jnp.roll(x @ W, 2) - jnp.flip(relu(x @ V))) @ w


@case(VECTOR, linear=True)
def fourier_round_trip(x):
    return relu(jnp.fft.irfft(jnp.fft.rfft(x) * np.exp(-np.arange(4.0)).astype(complex), 6)) @ w


@case(VECTOR)
def fourier_magnitude(x):
    return jnp.abs(jnp.fft.rfft(x)) @ w[:4]


@case(VECTOR)
def complex_numbers(x):
    return (lax.complex(x, x @ W) * np.full(6, 1.0 - 2.0j)).real @ w


# --- the rest --------------------------------------------------------------------------------------------------


@case(VECTOR, linear=True)
def dropout(x):
    keep = jax.random.bernoulli(jax.random.key(0), 0.5, (6,))
    return jnp.where(keep, relu(x @ W) / 0.5, 0.0) @ w


@case(VECTOR, linear=True)
def ensemble_mean(x):
    return jax.vmap(lambda k: relu(x @ k) @ w)(jnp.asarray(M3)).mean()


@case(VECTOR, bias=True)
def noise_added(x):
    return relu(x @ W + 0.1 * jax.random.normal(jax.random.key(1), (6,))) @ w


def attend(mask):
    def f(x):
        scores = mask((x @ W) @ (x @ V).T / np.sqrt(6.0))
        return (jax.nn.softmax(scores, -1) @ x).mean(0) @ w

    return f


TRIL = np.tril(np.ones((5, 5), bool))


@case(TOKENS, conserves=False)
def causal_inf(x):
    return attend(lambda s: jnp.where(TRIL, s, -jnp.inf))(x)


@case(TOKENS, conserves=False)
def causal_finfo(x):
    return attend(lambda s: jnp.where(TRIL, s, jnp.finfo(s.dtype).min))(x)


@case(TOKENS, conserves=False)
def causal_added(x):
    return attend(lambda s: s + np.where(TRIL, 0.0, -1e9))(x)


@case(TOKENS, conserves=False)
def causal_after(x):
    p = jax.nn.softmax((x @ W) @ (x @ V).T / np.sqrt(6.0), -1, where=TRIL)
    return (p @ x).mean(0) @ w


@case(TOKENS)
def linear_attention(x):
    phi = lambda z: jax.nn.elu(z) + 1
    q, k = phi(x @ W), phi(x @ V)
    return ((q @ (k.T @ x)) / (q @ k.sum(0))[:, None]).mean(0) @ w


@case({"a": VECTOR, "b": (TOKENS, np.float64(0.7))}, linear=True)
def pytree(x):
    a, (b, c) = x["a"], x["b"]
    return relu(a @ W) @ w + relu(b @ V).sum() + 2.0 * c


@case({"x": VECTOR, "index": np.array([1, 4])}, lambda d: relu(d["x"] @ W)[np.array([1, 4])].sum())
def integers_alongside(d):
    return relu(d["x"] @ W)[d["index"]].sum()


@case(VECTOR, linear=True)
def bf16_weights(x):
    return (relu(x @ jnp.asarray(W, jnp.bfloat16).astype(x.dtype)) @ w).astype(x.dtype)


@case(VECTOR, smooth=False)
def round_trip_float32(x):
    return relu((x @ W).astype(jnp.float32)).astype(x.dtype) @ w


@case(VECTOR, bias=True)
def where_other_constant(x):
    """What the mask takes out is replaced by a constant, which keeps its own relevance."""
    return jnp.where(np.arange(6) < 3, x @ W, 5.0) @ w


@case(VECTOR, bias=True)
def convolution_1d_with_bias(x):
    return relu(jnp.convolve(x, w[:3]) + 0.3).sum()


@case(VECTOR)
def squared_distance(x):
    """A prototype head: minus the squared distance to each of some points."""
    return -((x[None] - V) ** 2).sum(-1)[1]


@case(POSITIVE)
def matrix_inverse(x):
    return jnp.linalg.solve(W + jnp.diag(x), jnp.asarray(w))[0]


@case(POSITIVE)
def power_live(x):
    return (x ** x[::-1]) @ w


@case(VECTOR, lambda x: (fixed(jax.nn.sigmoid(x @ V))[:3] * jnp.tanh(x @ W)[:3]).sum())
def gate_before_slice(x):
    gates = jax.nn.sigmoid(jnp.concatenate([x @ V, x @ W]))
    return (gates[:3] * jnp.tanh(x @ W)[:3]).sum()


# (case, methods): part of the message with which they are refused.
LRP, BOTH = ("lrp_0", "epsilon_plus", "attention"), ("lrp_0", "epsilon_plus", "attention", "deep_lift")
REFUSALS = [
    ("where_by_input", ("deep_lift",), "steered by"),
    ("cond_by_input", ("deep_lift",), "chooses its branch"),
    ("switch_by_index", ("deep_lift",), "chooses its branch"),
    ("argmax_routing", ("deep_lift",), "steered by"),
    ("top_k_pooling", ("deep_lift",), "top_k"),
    ("sorting", ("deep_lift",), "sort"),
    ("median", ("deep_lift",), "steered by"),
    ("arg_sort", ("deep_lift",), "steered by"),
    ("fori_dynamic", BOTH, "while"),
    ("cumprod", BOTH, "cumprod"),
    ("division_by_layer", LRP, "divides by"),
    ("scatter_max", BOTH, "scatter"),
    ("fourier_round_trip", BOTH, "fft"),
    ("fourier_magnitude", BOTH, "fft"),
    ("complex_numbers", BOTH, ""),
    ("linear_attention", LRP, "divides by"),
    ("matrix_inverse", LRP, "linear_solve"),
    ("matrix_inverse", ("deep_lift",), "lu"),
    ("power_live", BOTH, "pow"),
]
REFUSED = {(key, name): text for key, names, text in REFUSALS for name in names}
