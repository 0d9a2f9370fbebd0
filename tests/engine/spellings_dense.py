"""One small network of dense layers, written in many ways: what `test_invariance` compares.

Two layers, two more of equal shape, one shared layer used twice, a BatchNorm (some of its scales negative) after
the first layer, and a head.
"""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

EPS = 1e-3


def draw(seed, **shapes):
    """Normal arrays scaled by their fan-in; those named var are positive."""
    rng = np.random.default_rng(seed)
    arrays = {name: rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 2) for name, shape in shapes.items()}
    return {name: np.abs(a) + 0.5 if name.startswith("var") else a for name, a in arrays.items()}


P = draw(
    0,
    w1=(5, 6), b1=(6,), mean=(6,), var=(6,), gamma=(6,), beta=(6,),
    ws=(2, 6, 6), bs=(2, 6), wt=(6, 6), bt=(6,), wo=(6, 3), bo=(3,),
)  # fmt: skip
X = np.random.default_rng(1).uniform(-2, 2, size=5)


def bn(z, p):
    return (z - p["mean"]) / jnp.sqrt(p["var"] + EPS) * p["gamma"] + p["beta"]


def dense(x, w, b):
    return x @ w + b


def loop(h, layer, p):
    for w, b in zip(p["ws"], p["bs"], strict=True):
        h = layer(h, w, b)
    return h


def twice(h, layer, p):
    for _ in range(2):
        h = layer(h, p["wt"], p["bt"])
    return h


def network(relu=jax.nn.relu, dense=dense, bn=bn, equal=loop, shared=twice, wrap=lambda layer: layer):
    """`f(x, p)` of the pieces that it is made of."""

    def f(x, p):
        layer = wrap(lambda h, w, b: relu(dense(h, w, b)))
        h = relu(bn(dense(x, p["w1"], p["b1"]), p))
        h = shared(equal(h, layer, p), layer, p)
        return dense(h, p["wo"], p["bo"])[1]

    return f


@jax.custom_jvp
def own_relu(x):
    return jnp.maximum(x, 0)


own_relu.defjvp(lambda x, t: (own_relu(*x), jnp.where(x[0] > 0, t[0], 0)))


@jax.custom_vjp
def kept_relu(x):
    return jnp.where(x > 0, x, 0)


kept_relu.defvjp(lambda x: (kept_relu(x), x > 0), lambda on, g: (jnp.where(on, g, 0),))

RELUS = {
    "where": lambda x: jnp.where(x > 0, x, 0),
    "where_not": lambda x: jnp.where(x <= 0, 0, x),
    "maximum": lambda x: jnp.maximum(x, 0),
    "maximum_of_zeros": lambda x: jnp.maximum(jnp.zeros_like(x), x),
    "clip": lambda x: jnp.clip(x, 0, None),
    "times_mask": lambda x: x * (x > 0).astype(x.dtype),
    "half_of_abs": lambda x: (x + jnp.abs(x)) / 2,
    "heaviside": lambda x: x * jnp.heaviside(x, 0.0),
    "select": lambda x: jax.lax.select(x > 0, x, jnp.zeros_like(x)),
    "leaky_0": lambda x: jax.nn.leaky_relu(x, 0.0),
    "minus_min": lambda x: x - jnp.minimum(x, 0),
    "custom_jvp": own_relu,
    "custom_vjp": kept_relu,
    "tag_between": lambda x: jax.nn.relu(jax.ad_checkpoint.checkpoint_name(x, "between")),
    "on_a_matrix": lambda x: jax.nn.relu(x.reshape(2, 3)).reshape(6),
    "vmapped": lambda x: jax.vmap(jax.nn.relu)(x),
}


def columns(x, w, b):
    return jax.vmap(lambda column, shift: x @ column + shift, in_axes=(1, 0))(w, b)


def on_reshaped(x, w, b):
    z = (x @ w).reshape(1, -1)
    return (z + b.reshape(1, -1)).reshape(-1)


DENSE = {
    "einsum": lambda x, w, b: jnp.einsum("i,ij->j", x, w) + b,
    "einsum_weight_first": lambda x, w, b: b + jnp.einsum("ij,i->j", w, x),
    "weight_first": lambda x, w, b: jnp.dot(w.T, x) + b,
    "tensordot": lambda x, w, b: jnp.tensordot(w, x, ((0,), (0,))) + b,
    "bias_reshaped": on_reshaped,
    "bias_subtracted": lambda x, w, b: x @ w - (-b),
    "batch_axis": lambda x, w, b: (x[None] @ w + b[None])[0],
    "columns": columns,
    "scaled_weight": lambda x, w, b: (x @ (w * 2.0)) / 2.0 + b,
    "scaled_input": lambda x, w, b: (x * 4.0) @ (w * 0.25) + b,
    "bias_scaled_with_it": lambda x, w, b: 0.5 * (x @ (w * 2.0) + 2.0 * b),
    "twice_negated": lambda x, w, b: -(x @ (-w) - b),
    "convolution": lambda x, w, b: (
        jax.lax.conv_general_dilated(x[None, :, None], w.T[:, :, None], (1,), "VALID")[0, :, 0] + b
    ),
    "concatenated": lambda x, w, b: jnp.concatenate([x @ w[:, :2] + b[:2], x @ w[:, 2:] + b[2:]]),
}

NORMS = {
    "bn_rsqrt": lambda z, p: (z - p["mean"]) * (jax.lax.rsqrt(p["var"] + EPS) * p["gamma"]) + p["beta"],
    "bn_one_scale": lambda z, p: z * scale(p) + (p["beta"] - p["mean"] * scale(p)),
    "bn_power": lambda z, p: p["gamma"] * (z - p["mean"]) * (p["var"] + EPS) ** -0.5 + p["beta"],
    "bn_jax": lambda z, p: jax.nn.standardize(z, None, p["mean"], p["var"], EPS) * p["gamma"] + p["beta"],
    "bn_on_a_matrix": lambda z, p: bn(z.reshape(1, -1), {k: v.reshape(1, -1) for k, v in norm(p).items()})[0],
    "bn_split_axes": lambda z, p: bn(z.reshape(2, 3), {k: v.reshape(2, 3) for k, v in norm(p).items()}).reshape(6),
}


def scale(p):
    return p["gamma"] / jnp.sqrt(p["var"] + EPS)


def norm(p):
    return {k: p[k] for k in ("mean", "var", "gamma", "beta")}


def scanned(h, layer, p):
    return jax.lax.scan(lambda h, wb: (layer(h, *wb), None), h, (p["ws"], p["bs"]))[0]


def scanned_twice(h, layer, p):
    return jax.lax.scan(lambda h, _: (layer(h, p["wt"], p["bt"]), None), h, length=2)[0]


def counted(h, layer, p):
    return jax.lax.fori_loop(0, 2, lambda _, h: layer(h, p["wt"], p["bt"]), h)


def indexed(h, layer, p):
    return jax.lax.fori_loop(0, 2, lambda i, h: layer(h, p["ws"][i], p["bs"][i]), h)


def chosen(h, layer, p):
    """Two branches, by a number that does not depend on x."""
    return jax.lax.cond(p["bt"][0] < 100, lambda h: twice(h, layer, p), lambda h: h, h)


def folded(x, p):
    """BatchNorm folded into the first layer by hand."""
    p = {**p, "w1": p["w1"] * scale(p)[None], "b1": (p["b1"] - p["mean"]) * scale(p) + p["beta"]}
    return network(bn=lambda z, p: z)(x, p)


def centred_input(x, p):
    """A shift and a scale of the input, undone by the first layer."""
    s, t = jnp.arange(1.0, 6.0), jnp.arange(5.0)
    first = {**p, "w1": p["w1"] / s[:, None], "b1": p["b1"] - (t / s) @ p["w1"]}
    return network()(x * s + t, first)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        def layer(n, name):
            return nn.Dense(n, param_dtype=jnp.float64, name=name)

        norm = nn.BatchNorm(use_running_average=True, epsilon=EPS, param_dtype=jnp.float64, name="norm")
        h = nn.relu(norm(layer(6, "first")(x)))
        for k in range(2):
            h = nn.relu(layer(6, f"equal{k}")(h))
        shared = layer(6, "shared")
        h = nn.relu(shared(nn.relu(shared(h))))
        return layer(3, "head")(h)


def linen(x, p):
    layers = {"first": ("w1", "b1"), "shared": ("wt", "bt"), "head": ("wo", "bo")}
    params = {name: {"kernel": p[w], "bias": p[b]} for name, (w, b) in layers.items()}
    params |= {f"equal{k}": {"kernel": p["ws"][k], "bias": p["bs"][k]} for k in range(2)}
    params["norm"] = {"scale": p["gamma"], "bias": p["beta"]}
    return Linen().apply({"params": params, "batch_stats": {"norm": {"mean": p["mean"], "var": p["var"]}}}, x)[1]


def nnx_dense(w, b):
    layer = nnx.Linear(*w.shape, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(w), nnx.Param(b)
    return layer


def nnx_network(x, p):
    norm = nnx.BatchNorm(6, use_running_average=True, epsilon=EPS, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    norm.scale, norm.bias = nnx.Param(p["gamma"]), nnx.Param(p["beta"])
    norm.mean, norm.var = nnx.BatchStat(p["mean"]), nnx.BatchStat(p["var"])
    return network(dense=lambda x, w, b: nnx_dense(w, b)(x), bn=lambda z, p: norm(z[None])[0])(x, p)


def equinox_dense(x, w, b):
    layer = eqx.nn.Linear(*w.shape, dtype=jnp.float64, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (w.T, b))(x)


def equinox_network(x, p):
    norm, _ = eqx.nn.make_with_state(eqx.nn.BatchNorm)(
        6, axis_name="batch", eps=EPS, inference=True, mode="batch", dtype=jnp.float64
    )
    norm = eqx.tree_at(lambda m: (m.weight, m.bias), norm, (p["gamma"], p["beta"]))
    _, state = eqx.nn.make_with_state(eqx.nn.BatchNorm)(6, axis_name="batch", mode="batch", dtype=jnp.float64)
    del norm, state  # its statistics live in a state object; the dense layers are what is compared
    return network(dense=equinox_dense)(x, p)


SPELLINGS = {
    "plain": network(),
    **{f"relu_{name}": network(relu=relu) for name, relu in RELUS.items()},
    **{f"dense_{name}": network(dense=one) for name, one in DENSE.items()},
    **{name: network(bn=one) for name, one in NORMS.items()},
    "folded_by_hand": folded,
    "centred_input": centred_input,
    "jit_inside": network(wrap=jax.jit),
    "remat_inside": network(wrap=jax.checkpoint),
    "jit_of_remat": network(wrap=lambda layer: jax.jit(jax.checkpoint(layer))),
    "remat_around": jax.checkpoint(network()),
    "scan": network(equal=scanned),
    "scan_shared": network(shared=scanned_twice),
    "scan_both_remat": network(equal=scanned, shared=scanned_twice, wrap=jax.checkpoint),
    "fori_shared": network(shared=counted),
    "fori_indexed": network(equal=indexed),
    "cond": network(shared=chosen),
    "vmap_of_a_batch": lambda x, p: jax.vmap(network(), in_axes=(0, None))(x[None], p)[0],
    "vmap_of_copies": lambda x, p: jax.vmap(network(), in_axes=(0, None))(jnp.stack([x, x]), p)[0],
    "linen": linen,
    "nnx": nnx_network,
    "equinox": equinox_network,
}
