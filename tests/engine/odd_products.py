"""Odd functions for the relevance engine: products, normalisation, attention and the rest; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
from engine.odd_case import (
    IMAGE,
    M3,
    POSITIVE,
    TOKENS,
    VECTOR,
    V,
    W,
    case,
    conv,
    fixed,
    kernel,
    relu,
    rng_matrix,
    w,
)
from jax import lax

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


@case(VECTOR, bias=True)
def squared_distance(x):
    """A prototype head: minus the squared distance to each of some points."""
    return -((x[None] - V) ** 2).sum(-1)[1]


@case(POSITIVE)
def matrix_inverse(x):
    return jnp.linalg.solve(W + jnp.diag(x), jnp.asarray(w))[0]


@case(POSITIVE)
def power_live(x):
    return (x ** x[::-1]) @ w


@case(VECTOR, lambda x: (fixed(jax.nn.sigmoid(x @ V))[:3] * (x @ W)[:3]).sum())
def gate_before_slice(x):
    gates = jax.nn.sigmoid(jnp.concatenate([x @ V, x @ W]))
    return (gates[:3] * (x @ W)[:3]).sum()


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
