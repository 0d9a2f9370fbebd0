"""Odd functions for the relevance engine: activations, choices, loops, convolutions and moves."""

import jax
import jax.numpy as jnp
import numpy as np
from engine.odd_case import (
    IMAGE,
    M3,
    POSITIVE,
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


@case(VECTOR)
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
