"""One small network of dense layers, written in many ways: what `test_invariance` compares.

Five hidden layers with BatchNorm at inference (some scales negative) and a ReLU: one of its own, two of equal
shape, and one used twice; then a head. Each layer of a network may be spelled its own way.
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
    arrays = {
        k: rng.normal(size=shape) / np.sqrt(shape[-2] if len(shape) > 1 else 2) for k, shape in shapes.items()
    }
    return {k: np.abs(a) + 0.5 if k.startswith("var") else a for k, a in arrays.items()}


def parameters(seed):
    p = draw(seed, w1=(5, 6), ws=(2, 6, 6), wt=(6, 6), wo=(6, 3), bo=(3,), b=(4, 6))
    norms = draw(seed + 1, mean=(4, 6), var=(4, 6), gamma=(4, 6), beta=(4, 6))
    return {**p, **norms, "gamma": norms["gamma"] * 4, "beta": norms["beta"] + 0.5}


P = parameters(3)
X = np.random.default_rng(1).uniform(-2, 2, size=5)
NORM = ("mean", "var", "gamma", "beta")


def bn(z, n):
    return (z - n["mean"]) / jnp.sqrt(n["var"] + EPS) * n["gamma"] + n["beta"]


def dense(x, w, b):
    return x @ w + b


def weights(p):
    """(weight, bias, norm) of each of the five hidden layers."""
    rows = [{k: p[k][i] for k in NORM} | {"b": p["b"][i]} for i in range(4)]
    kernels = [p["w1"], p["ws"][0], p["ws"][1], p["wt"]]
    layers = [(w, r.pop("b"), r) for w, r in zip(kernels, rows, strict=True)]
    return [*layers, layers[-1]]


def network(relus=(jax.nn.relu,), denses=(dense,), norms=(bn,), wrap=lambda layer: layer):
    """`f(x, p)` whose layers take turns in these spellings."""

    def f(x, p):
        for k, (w, b, n) in enumerate(weights(p)):
            relu, dense, norm = (options[k % len(options)] for options in (relus, denses, norms))
            layer = wrap(lambda x, w, b, n: relu(norm(dense(x, w, b), n)))
            x = layer(x, w, b, n)
        return denses[-1](x, p["wo"], p["bo"])[1]

    return f


def middle(equal, shared, wrap=lambda layer: layer):
    """`f(x, p)` with the equal layers, and the shared one, in some form of loop."""

    def f(x, p):
        layer = wrap(lambda x, w, b, n: jax.nn.relu(bn(dense(x, w, b), n)))
        (first, _, _, last, _) = weights(p)
        x = layer(x, *first)
        stacked = p["ws"], p["b"][1:3], {k: p[k][1:3] for k in NORM}
        x = shared(equal(x, layer, stacked), layer, last)
        return dense(x, p["wo"], p["bo"])[1]

    return f


@jax.custom_jvp
def own_relu(x):
    return jnp.maximum(x, 0)


own_relu.defjvp(lambda x, t: (own_relu(*x), jnp.where(x[0] > 0, t[0], 0)))


@jax.custom_vjp
def kept_relu(x):
    return jnp.where(x > 0, x, 0)


kept_relu.defvjp(lambda x: (kept_relu(x), x > 0), lambda on, g: (jnp.where(on, g, 0),))

RELUS = [
    lambda x: jnp.where(x > 0, x, 0),
    lambda x: jnp.maximum(x, 0),
    lambda x: jnp.clip(x, 0, None),
    lambda x: x * (x > 0).astype(x.dtype),
    lambda x: (x + jnp.abs(x)) / 2,
    lambda x: jnp.where(x <= 0, 0, x),
    lambda x: jnp.maximum(jnp.zeros_like(x), x),
    lambda x: x * jnp.heaviside(x, 0.0),
    lambda x: jax.lax.select(x > 0, x, jnp.zeros_like(x)),
    lambda x: jax.nn.leaky_relu(x, 0.0),
    lambda x: x - jnp.minimum(x, 0),
    own_relu,
    lambda x: jax.nn.relu(jax.ad_checkpoint.checkpoint_name(x, "between")),
    lambda x: jax.nn.relu(x.reshape(2, 3)).reshape(6),
    jax.vmap(jax.nn.relu),
]


def columns(x, w, b):
    return jax.vmap(lambda column, shift: x @ column + shift, in_axes=(1, 0))(w, b)


def bias_on_reshaped(x, w, b):
    return ((x @ w).reshape(1, -1) + b.reshape(1, -1)).reshape(-1)


DENSES = [
    lambda x, w, b: jnp.einsum("i,ij->j", x, w) + b,
    lambda x, w, b: b + jnp.einsum("ij,i->j", w, x),
    lambda x, w, b: jnp.dot(w.T, x) + b,
    lambda x, w, b: jnp.tensordot(w, x, ((0,), (0,))) + b,
    bias_on_reshaped,
    lambda x, w, b: x @ w - (-b),
    lambda x, w, b: (x.reshape(1, -1) @ w + b.reshape(1, -1))[0],
    columns,
    lambda x, w, b: (x @ (w * 2.0)) / 2.0 + b,
    lambda x, w, b: (x * 4.0) @ (w * 0.25) + b,
    lambda x, w, b: 0.5 * (x @ (w * 2.0) + 2.0 * b),
    lambda x, w, b: -(x @ (-w) - b),
]


def scale(n):
    return n["gamma"] / jnp.sqrt(n["var"] + EPS)


def in_shape(*shape):
    return lambda z, n: bn(z.reshape(shape), {k: v.reshape(shape) for k, v in n.items()}).reshape(6)


NORMS = [
    lambda z, n: (z - n["mean"]) * (jax.lax.rsqrt(n["var"] + EPS) * n["gamma"]) + n["beta"],
    lambda z, n: z * scale(n) + (n["beta"] - n["mean"] * scale(n)),
    lambda z, n: n["gamma"] * (z - n["mean"]) * (n["var"] + EPS) ** -0.5 + n["beta"],
    lambda z, n: jax.nn.standardize(z, None, n["mean"], n["var"], EPS) * n["gamma"] + n["beta"],
    in_shape(1, 6),
    in_shape(2, 3),
    jax.vmap(bn),
]


def loop(x, layer, stacked):
    for k in range(2):
        x = layer(x, *jax.tree.map(lambda v: v[k], stacked))
    return x


def twice(x, layer, last):
    return layer(layer(x, *last), *last)


def scan(x, layer, stacked):
    return jax.lax.scan(lambda x, one: (layer(x, *one), None), x, stacked)[0]


def scan_shared(x, layer, last):
    return jax.lax.scan(lambda x, _: (layer(x, *last), None), x, length=2)[0]


def fori(x, layer, stacked):
    return jax.lax.fori_loop(0, 2, lambda i, x: layer(x, *jax.tree.map(lambda v: v[i], stacked)), x)


def cond(x, layer, last):
    return jax.lax.cond(last[1][0] < 100, lambda x: twice(x, layer, last), lambda x: x, x)


def folded(x, p):
    """BatchNorm folded by hand."""
    for w, b, n in weights(p):
        x = jax.nn.relu(x @ (w * scale(n)[None]) + (b - n["mean"]) * scale(n) + n["beta"])
    return dense(x, p["wo"], p["bo"])[1]


def bn_before(x, p):
    """The first layer's weight divided by a scale of the input, its bias less a shift: a BatchNorm ahead."""
    s, t = jnp.arange(1.0, 6.0) - 2.5, jnp.arange(5.0)
    first = {**p, "w1": p["w1"] / s[:, None], "b": p["b"].at[0].add(-(t / s) @ p["w1"])}
    return network()(x * s + t, first)


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        def layer(name):
            norm = nn.BatchNorm(
                use_running_average=True, epsilon=EPS, param_dtype=jnp.float64, name=f"norm_{name}"
            )
            dense = nn.Dense(6, param_dtype=jnp.float64, name=name)
            return lambda x: nn.relu(norm(dense(x)))

        for name in "012":
            x = layer(name)(x)
        shared = layer("3")
        return nn.Dense(3, param_dtype=jnp.float64, name="head")(shared(shared(x)))


def linen(x, p):
    rows = dict(zip("0123", weights(p), strict=False))
    params = {k: {"kernel": w, "bias": b} for k, (w, b, _) in rows.items()}
    params |= {f"norm_{k}": {"scale": n["gamma"], "bias": n["beta"]} for k, (_, _, n) in rows.items()}
    params["head"] = {"kernel": p["wo"], "bias": p["bo"]}
    stats = {f"norm_{k}": {"mean": n["mean"], "var": n["var"]} for k, (_, _, n) in rows.items()}
    return Linen().apply({"params": params, "batch_stats": stats}, x)[1]


def nnx_dense(x, w, b):
    layer = nnx.Linear(*w.shape, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    layer.kernel, layer.bias = nnx.Param(w), nnx.Param(b)
    return layer(x)


def nnx_norm(z, n):
    norm = nnx.BatchNorm(6, use_running_average=True, epsilon=EPS, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    norm.scale, norm.bias = nnx.Param(n["gamma"]), nnx.Param(n["beta"])
    norm.mean, norm.var = nnx.BatchStat(n["mean"]), nnx.BatchStat(n["var"])
    return norm(z)


def equinox_dense(x, w, b):
    layer = eqx.nn.Linear(*w.shape, dtype=jnp.float64, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.weight, m.bias), layer, (w.T, b))(x)


def in_turns(*wraps):
    """A wrapper that takes turns."""
    turn = iter(range(1000))
    return wraps[next(turn) % len(wraps)]


SPELLINGS = {
    "plain": network(),
    "mixed_1": network(relus=RELUS[:5], denses=DENSES[:6], norms=NORMS[:5]),
    "mixed_2": network(relus=RELUS[5:10], denses=DENSES[6:], norms=NORMS[5:]),
    "mixed_3": network(relus=RELUS[10:]),
    "expanded_norm": network(norms=[lambda z, n: bn(z[None], jax.tree.map(lambda v: v[None], n))[0]]),
    "minus_min": network(relus=[lambda x: -jnp.minimum(-x, 0)]),
    "folded_by_hand": folded,
    "bn_before": bn_before,
    "jit_and_remat_inside": network(wrap=in_turns(jax.jit, jax.checkpoint)),
    "remat_around": jax.checkpoint(network()),
    "scan_remat_jit": middle(scan, scan_shared, wrap=lambda layer: jax.jit(jax.checkpoint(layer))),
    "fori_cond": middle(fori, cond),
    "vmap_of_a_batch": lambda x, p: jax.vmap(network(), in_axes=(0, None))(jnp.stack([x, x]), p)[0],
    "linen": linen,
    "nnx": network(denses=[nnx_dense], norms=[nnx_norm]),
    "equinox": network(denses=[equinox_dense]),
}
