"""A small transformer block and a small LSTM, each written in many ways: what `test_invariance` compares."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from engine.spellings_dense import draw
from flax import nnx

import jaxplain as jxp

R = jxp.rules
EPS = 1e-3
HEADS, WIDTH = 2, 4

# --- attention -------------------------------------------------------------------------------------------------

ATTENTION_P = draw(
    5, wq=(8, 8), bq=(8,), wk=(8, 8), bk=(8,), wv=(8, 8), bv=(8,), wp=(8, 8), bp=(8,), g=(8,), b=(8,), wo=(8, 3)
)
ATTENTION_X = np.random.default_rng(6).normal(size=(5, 8))


def norm(x, g, b):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + EPS) * g[None] + b[None]


def scores(q, k):
    return jnp.einsum("thd,shd->hts", q, k) / np.sqrt(WIDTH)


def attend(q, k, v, softmax=lambda s: jax.nn.softmax(s, -1), scores=scores):
    return jnp.einsum("hts,shd->thd", softmax(scores(q, k)), v)


def transformer(attend=attend, norm=norm, project=lambda x, w, b: x @ w + b[None]):
    def f(x, p):
        h = norm(x, p["g"], p["b"])
        q, k, v = (project(h, p[f"w{n}"], p[f"b{n}"]).reshape(-1, HEADS, WIDTH) for n in "qkv")
        x = x + project(attend(q, k, v).reshape(-1, HEADS * WIDTH), p["wp"], p["bp"])
        return (norm(x, p["g"], p["b"]).mean(0) @ p["wo"])[1]

    return f


def by_hand(s):
    e = jnp.exp(s - jax.lax.stop_gradient(s.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


SOFTMAXES = {
    "softmax_by_hand": by_hand,
    "softmax_no_shift": lambda s: jnp.exp(s) / jnp.exp(s).sum(-1, keepdims=True),
    "softmax_shift_live": lambda s: (
        jnp.exp(s - s.max(-1)[..., None]) / jnp.exp(s - s.max(-1)[..., None]).sum(-1)[..., None]
    ),
    "softmax_times_inverse": lambda s: jnp.exp(s) * (1 / jnp.exp(s).sum(-1, keepdims=True)),
    "softmax_log": lambda s: jnp.exp(jax.nn.log_softmax(s, -1)),
    "softmax_logsumexp": lambda s: jnp.exp(s - jax.nn.logsumexp(s, -1, keepdims=True)),
    "softmax_einsum": lambda s: jnp.exp(s) / jnp.einsum("hts->ht", jnp.exp(s))[..., None],
    "softmax_rows": jax.vmap(jax.vmap(jax.nn.softmax)),
    "softmax_of_equinox_axes": lambda s: jnp.moveaxis(jax.nn.softmax(jnp.moveaxis(s, -1, 0), 0), 0, -1),
}


def over_heads(q, k, v):
    one = lambda q, k, v: jax.nn.softmax(q @ k.T / np.sqrt(WIDTH), -1) @ v
    return jax.vmap(one, in_axes=1, out_axes=1)(q, k, v)


def over_queries(q, k, v):
    return jax.lax.scan(lambda _, row: (None, attend(row[None], k, v)[0]), None, q)[1]


def query_first(q, k, v):
    """The scale on the queries: it is folded into their layer."""
    return jnp.einsum("hts,shd->thd", jax.nn.softmax(jnp.einsum("thd,shd->hts", q / np.sqrt(WIDTH), k), -1), v)


def norm_var(x, g, b):
    return (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + EPS) * g[None] + b[None]


def norm_moments(x, g, b):
    mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(square - mean**2 + EPS) * g[None] + b[None]


def norm_linen(x, g, b):
    layer = nn.LayerNorm(epsilon=EPS, param_dtype=jnp.float64)
    return layer.apply({"params": {"scale": g, "bias": b}}, x)


def norm_linen_two_pass(x, g, b):
    layer = nn.LayerNorm(epsilon=EPS, param_dtype=jnp.float64, use_fast_variance=False)
    return layer.apply({"params": {"scale": g, "bias": b}}, x)


def norm_nnx(x, g, b):
    layer = nnx.LayerNorm(8, epsilon=EPS, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    layer.scale, layer.bias = nnx.Param(g), nnx.Param(b)
    return layer(x)


def norm_equinox(x, g, b):
    layer = eqx.tree_at(lambda m: (m.weight, m.bias), eqx.nn.LayerNorm(8, eps=EPS, dtype=jnp.float64), (g, b))
    return jax.vmap(layer)(x)


def linen_attention(x, p):
    def kernel(n):
        return {"kernel": p[f"w{n}"].reshape(8, HEADS, WIDTH), "bias": p[f"b{n}"].reshape(HEADS, WIDTH)}

    layer = nn.MultiHeadDotProductAttention(num_heads=HEADS, param_dtype=jnp.float64)
    params = {"query": kernel("q"), "key": kernel("k"), "value": kernel("v")}
    params["out"] = {"kernel": p["wp"].reshape(HEADS, WIDTH, 8), "bias": p["bp"]}
    h = norm(x, p["g"], p["b"])
    x = x + layer.apply({"params": params}, h, h)
    return (norm(x, p["g"], p["b"]).mean(0) @ p["wo"])[1]


ATTENTION = {
    "plain": transformer(),
    **{
        name: transformer(lambda q, k, v, one=one: attend(q, k, v, softmax=one)) for name, one in SOFTMAXES.items()
    },
    "masked_by_infinity": transformer(
        lambda q, k, v: attend(q, jnp.concatenate([k, k[:1]]), jnp.concatenate([v, v[:1]]), softmax=last_off)
    ),
    "over_heads": transformer(over_heads),
    "over_queries": transformer(over_queries),
    "query_first": transformer(query_first),
    "dot_product_attention": transformer(jax.nn.dot_product_attention),
    "linen_attention": linen_attention,
    "projections_by_einsum": transformer(project=lambda x, w, b: jnp.einsum("ti,ij->tj", x, w) + b[None]),
    "projections_by_rows": transformer(project=lambda x, w, b: jax.vmap(lambda row: w.T @ row + b)(x)),
    "norm_var": transformer(norm=norm_var),
    "norm_moments": transformer(norm=norm_moments),
    "norm_standardize": transformer(
        norm=lambda x, g, b: jax.nn.standardize(x, -1, epsilon=EPS) * g[None] + b[None]
    ),
    "norm_rows": transformer(norm=lambda x, g, b: jax.vmap(lambda row: norm(row[None], g, b)[0])(x)),
    "norm_linen": transformer(norm=norm_linen),
    "norm_linen_two_pass": transformer(norm=norm_linen_two_pass),
    "norm_nnx": transformer(norm=norm_nnx),
    "norm_equinox": transformer(norm=norm_equinox),
}


def last_off(s):
    """A softmax whose last key is masked."""
    return jax.nn.softmax(jnp.where((jnp.arange(s.shape[-1]) < s.shape[-1] - 1)[None, None], s, -jnp.inf), -1)


def attention_methods(baseline):
    """Without a stabiliser, so that where a scale stands does not matter."""
    exact = R.rules_for(R.epsilon(0.0), product="uniform", eps=0.0)
    return {
        "attention": lambda f: jxp.lrp(f, exact),
        "attention_detached": lambda f: jxp.lrp(f, R.rules_for(R.epsilon(0.0), softmax="detach", eps=0.0)),
        "rescale": lambda f: jxp.deep_lift(f, jnp.asarray(baseline)),
    }


# --- LSTM ------------------------------------------------------------------------------------------------------

LSTM_P = draw(7, W=(3, 16), U=(4, 16), b=(16,), wo=(4, 2))
LSTM_X = np.random.default_rng(8).normal(size=(4, 3))


def gates(z, c):
    i, f, g, o = jnp.split(z, 4)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def summed(x, h, p):
    return x @ p["W"] + h @ p["U"] + p["b"]


def lstm(z=summed, gates=gates, loop="python", wrap=lambda step: step):
    def f(x, p):
        def step(h, c, row):
            return gates(z(row, h, p), c)

        step = wrap(step)
        h, c = jnp.zeros(4), jnp.zeros(4)
        if loop == "python":
            for row in x:
                h, c = step(h, c, row)
        else:
            (h, c), _ = jax.lax.scan(lambda hc, row: (step(*hc, row), None), (h, c), x)
        return (h @ p["wo"])[0]

    return f


def separate(x, h, p):
    """One product a gate."""
    parts = zip(*(jnp.split(p[k], 4, -1) for k in "WUb"), strict=True)
    return jnp.concatenate([x @ W + h @ U + b for W, U, b in parts])


def separate_gates(x, p):
    def step(hc, row):
        h, c = hc
        parts = zip(*(jnp.split(p[k], 4, -1) for k in "WUb"), strict=True)
        i, f, g, o = (row @ W + h @ U + b for W, U, b in parts)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    (h, _), _ = jax.lax.scan(step, (jnp.zeros(4), jnp.zeros(4)), x)
    return (h @ p["wo"])[0]


def concatenated(x, h, p):
    return jnp.concatenate([x, h]) @ jnp.concatenate([p["W"], p["U"]]) + p["b"]


def lstm_linen(x, p):
    cell = nn.LSTMCell(4, param_dtype=jnp.float64)
    params = {}
    for k, n in enumerate("ifgo"):
        rows = slice(4 * k, 4 * k + 4)
        params[f"i{n}"] = {"kernel": p["W"][:, rows]}
        params[f"h{n}"] = {"kernel": p["U"][:, rows], "bias": p["b"][rows]}
    carry = (jnp.zeros(4), jnp.zeros(4))
    for row in x:
        carry, h = cell.apply({"params": params}, carry, row)
    return (h @ p["wo"])[0]


def lstm_equinox(x, p):
    cell = eqx.nn.LSTMCell(3, 4, dtype=jnp.float64, key=jax.random.key(0))
    cell = eqx.tree_at(lambda m: (m.weight_ih, m.weight_hh, m.bias), cell, (p["W"].T, p["U"].T, p["b"]))
    state = (jnp.zeros(4), jnp.zeros(4))
    for row in x:
        state = cell(row, state)
    return (state[0] @ p["wo"])[0]


def sigmoid_by_tanh(z, c):
    sigmoid = lambda x: 0.5 * (jnp.tanh(x / 2) + 1)
    i, f, g, o = jnp.split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    return sigmoid(o) * jnp.tanh(c), c


def sigmoid_by_exp(z, c):
    sigmoid = lambda x: 1 / (1 + jnp.exp(-x))
    i, f, g, o = jnp.split(z, 4)
    c = c * sigmoid(f) + jnp.tanh(g) * sigmoid(i)
    return sigmoid(o) * jnp.tanh(c), c


def sliced_gates(z, c):
    i, f, g, o = (z[4 * k : 4 * k + 4] for k in range(4))
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def joint_sigmoid(z, c):
    """The three sigmoids at once, and the gates in rows of a matrix."""
    rows = z.reshape(4, 4)
    on = jax.nn.sigmoid(rows[np.array([0, 1, 3])])
    c = on[1] * c + on[0] * jnp.tanh(rows[2])
    return on[2] * jnp.tanh(c), c


LSTM = {
    "plain": lstm(),
    "scan": lstm(loop="scan"),
    "scan_remat": lstm(loop="scan", wrap=jax.checkpoint),
    "concatenated": lstm(concatenated),
    "concatenated_scan": lstm(concatenated, loop="scan"),
    "bias_first": lstm(lambda x, h, p: x @ p["W"] + p["b"] + h @ p["U"]),
    "recurrent_first": lstm(lambda x, h, p: h @ p["U"] + (x @ p["W"] + p["b"])),
    "weight_first": lstm(lambda x, h, p: p["W"].T @ x + p["U"].T @ h + p["b"]),
    "two_biases": lstm(lambda x, h, p: (x @ p["W"] + p["b"] / 4) + (h @ p["U"] + 0.75 * p["b"])),
    "separate": separate_gates,
    "separate_concatenated": lstm(separate),
    "sigmoid_by_tanh": lstm(gates=sigmoid_by_tanh),
    "sigmoid_by_exp": lstm(gates=sigmoid_by_exp, loop="scan"),
    "sliced_gates": lstm(gates=sliced_gates),
    "joint_sigmoid": lstm(gates=joint_sigmoid, loop="scan"),
    "linen": lstm_linen,
    "equinox": lstm_equinox,
}


def lstm_methods(baseline):
    tables = {
        "epsilon": R.EPSILON,
        "z_plus": R.Z_PLUS,
        "alpha_beta": R.alpha_beta(),
        "gamma": R.gamma(),
        "attention": R.ATTENTION,
    }
    return {
        **{f"lrp_{name}": lambda f, table=table: jxp.lrp(f, table) for name, table in tables.items()},
        "rescale": lambda f: jxp.deep_lift(f, jnp.asarray(baseline)),
    }
