"""One small convolutional network, written in many ways: what `test_invariance` compares.

Convolution, BatchNorm, ReLU, average pooling; a residual block; a strided convolution, max-pooling before its
ReLU (so that no two elements are equal); the mean over space; a head.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from engine.spellings_dense import EPS, draw
from flax import nnx

KERNELS = {"k1": (3, 3, 2, 4), "k2": (3, 3, 4, 4), "k3": (2, 2, 4, 4)}
NORM = ("mean", "var", "gamma", "beta")


def parameters(seed):
    p = draw(seed, b=(3, 4), wo=(4, 3), bo=(3,), **KERNELS)
    p |= {k: p[k] * 3 / np.sqrt(np.prod(shape[:2])) for k, shape in KERNELS.items()}
    norms = draw(seed + 1, mean=(3, 4), var=(3, 4), gamma=(3, 4), beta=(3, 4))
    return {**p, **norms, "gamma": norms["gamma"] * 2, "beta": norms["beta"] + 0.3}


P = parameters(0)
X = np.random.default_rng(1).uniform(-2, 2, size=(8, 8, 2))


def conv(x, kernel, b):
    z = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return z[0] + b[None, None]


def bn(z, n):
    n = {k: v[None, None] for k, v in n.items()}
    return (z - n["mean"]) / jnp.sqrt(n["var"] + EPS) * n["gamma"] + n["beta"]


def halves(pool):
    """A pooling of 2 by 2, in the form of a function of (height / 2, 2, width / 2, 2, channels)."""
    return lambda h: pool(h.reshape(h.shape[0] // 2, 2, h.shape[1] // 2, 2, -1))


def windows(combine, start):
    return lambda h: jax.lax.reduce_window(h, start, combine, (2, 2, 1), (2, 2, 1), "VALID")


average = lambda h: windows(jax.lax.add, 0.0)(h) / 4
largest = windows(jax.lax.max, -np.inf)


def network(
    relus=(jax.nn.relu,), conv=conv, norms=(bn,), average=average, largest=largest, spread=None, wrap=lambda b: b
):
    """`f(x, p)` of these pieces."""
    spread = spread or (lambda h: h.mean((0, 1)))

    def f(x, p):
        rows = [{k: p[k][i] for k in NORM} for i in range(3)]

        def block(k):
            return lambda h: norms[k % len(norms)](conv(h, p[f"k{k + 1}"], p["b"][k]), rows[k])

        relu = lambda k, h: relus[k % len(relus)](h)
        h = average(relu(0, block(0)(x)))
        h = relu(1, h + wrap(block(1))(h))
        h = relu(2, largest(wrap(block(2))(h)))
        return (spread(h) @ p["wo"] + p["bo"])[1]

    return f


def nchw(x, p):
    """The same with channels first inside."""

    def conv(h, kernel, b):
        z = jax.lax.conv_general_dilated(h[None], kernel.transpose(3, 2, 0, 1), (1, 1), "SAME")
        return z[0] + b[:, None, None]

    def bn(z, n):
        n = {k: v[:, None, None] for k, v in n.items()}
        return (z - n["mean"]) / jnp.sqrt(n["var"] + EPS) * n["gamma"] + n["beta"]

    def pool(combine, start):
        return lambda h: jax.lax.reduce_window(h, start, combine, (1, 2, 2), (1, 2, 2), "VALID")

    net = network(
        conv=conv,
        norms=(bn,),
        average=lambda h: pool(jax.lax.add, 0.0)(h) / 4,
        largest=pool(jax.lax.max, -np.inf),
        spread=lambda h: h.mean((1, 2)),
    )
    return net(x.transpose(2, 0, 1), p)


def bias_on_batch(x, kernel, b):
    z = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return (z + b[None, None, None]).reshape(z.shape[1:])


def flat_space(z, n):
    """BatchNorm over the pixels in a row."""
    rows = z.reshape(-1, 4)
    s = n["gamma"] / jnp.sqrt(n["var"] + EPS)
    return ((rows - n["mean"][None]) * s[None] + n["beta"][None]).reshape(z.shape)


def transposed(z, n):
    return jax.vmap(lambda z, n: (z - n["mean"]) * (n["gamma"] / jnp.sqrt(n["var"] + EPS)) + n["beta"], (2, 0), 2)(
        z, n
    )


def batched(z, n):
    """BatchNorm on a batch of one."""
    s = n["gamma"] * jax.lax.rsqrt(n["var"] + EPS)
    return ((z[None] - n["mean"][None, None, None]) * s[None, None, None] + n["beta"][None, None, None])[0]


def folded(x, p):
    """BatchNorm folded into the convolutions by hand."""
    s = p["gamma"] / jnp.sqrt(p["var"] + EPS)
    kernels = {f"k{i + 1}": p[f"k{i + 1}"] * s[i][None, None, None] for i in range(3)}
    biases = (p["b"] - p["mean"]) * s + p["beta"]
    return network(norms=(lambda z, n: z,))(x, {**p, **kernels, "b": biases})


def padded_by_hand(x, kernel, b):
    below = (np.array(kernel.shape[:2]) - 1) // 2
    above = np.array(kernel.shape[:2]) - 1 - below
    x = jnp.pad(x, [*zip(below, above, strict=True), (0, 0)])
    numbers = ("NHWC", "HWIO", "NHWC")
    return (
        jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=numbers)[0]
        + b[None, None]
    )


def linen_conv(x, kernel, b):
    layer = nn.Conv(4, kernel.shape[:2], param_dtype=jnp.float64)
    return layer.apply({"params": {"kernel": kernel, "bias": b}}, x)


def linen_norm(z, n):
    norm = nn.BatchNorm(use_running_average=True, epsilon=EPS, param_dtype=jnp.float64)
    params, stats = {"scale": n["gamma"], "bias": n["beta"]}, {"mean": n["mean"], "var": n["var"]}
    return norm.apply({"params": params, "batch_stats": stats}, z)


def nnx_conv(x, kernel, b):
    layer = nnx.Conv(*kernel.shape[2:], kernel.shape[:2], param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(kernel), nnx.Param(b)
    return layer(x[None])[0]


def nnx_norm(z, n):
    norm = nnx.BatchNorm(4, use_running_average=True, epsilon=EPS, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    norm.scale, norm.bias = nnx.Param(n["gamma"]), nnx.Param(n["beta"])
    norm.mean, norm.var = nnx.BatchStat(n["mean"]), nnx.BatchStat(n["var"])
    return norm(z[None])[0]


def equinox_conv(x, kernel, b):
    layer = eqx.nn.Conv2d(
        *kernel.shape[2:], kernel.shape[0], padding="SAME", dtype=jnp.float64, key=jax.random.key(0)
    )
    w = kernel.transpose(3, 2, 0, 1), b[:, None, None]
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, w)(x.transpose(2, 0, 1)).transpose(1, 2, 0)


RELUS = [
    lambda x: jnp.where(x > 0, x, 0),
    lambda x: jnp.maximum(x, 0),
    lambda x: jnp.clip(x, 0, None),
    lambda x: x * (x > 0).astype(x.dtype),
    lambda x: (x + jnp.abs(x)) / 2,
    lambda x: jnp.where(x <= 0, 0, x),
]

SPELLINGS = {
    "plain": network(),
    "mixed_1": network(relus=RELUS[:3], norms=(flat_space, transposed), conv=bias_on_batch),
    "mixed_2": network(relus=RELUS[3:], average=halves(lambda h: h.mean((1, 3))), wrap=jax.checkpoint),
    "mixed_3": jax.jit(
        network(
            average=halves(lambda h: jnp.einsum("hawbc->hwc", h) * 0.25),
            spread=lambda h: jnp.einsum("hwc->c", h) / 4.0,
            wrap=jax.jit,
        )
    ),
    "nchw": nchw,
    "norm_on_batch": network(norms=(batched,)),
    "folded_by_hand": folded,
    "vmap": lambda x, p: jax.vmap(network(), in_axes=(0, None))(jnp.stack([x, 2 * x]), p)[0],
    "linen": network(conv=linen_conv, norms=(linen_norm,), largest=lambda h: nn.max_pool(h, (2, 2), (2, 2))),
    "nnx": network(conv=nnx_conv, norms=(nnx_norm,)),
    "equinox": network(conv=equinox_conv),
}


def depthwise(h):
    """Average pooling as a convolution: the same for the epsilon rule only, which divides by the same sum."""
    kernel = jnp.full((2, 2, 1, 4), 0.25)
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"dimension_numbers": numbers, "feature_group_count": 4}
    return jax.lax.conv_general_dilated(h[None], kernel, (2, 2), "VALID", **options)[0]


# The same for the epsilon rule only: pooling as a layer, and padding that counts as an input.
FOR_EPSILON = {
    "pooled_by_convolution": network(average=depthwise),
    "padded_by_hand": network(conv=padded_by_hand),
}
