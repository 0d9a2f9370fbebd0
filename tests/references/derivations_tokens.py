"""Slow float64 derivations of LRP and DeepLIFT on the LSTM (N6) and the attention block (N7).

LSTM: Arras et al. 2017 and 2019. Attention: Achtibat et al. 2024 (AttnLRP), Ali et al. 2022 (CP-LRP: attention
weights are constants). DeepLIFT by the pieces of `derivations_deeplift`.
"""

from typing import NamedTuple

import numpy as np

from references import derivations_deeplift as secant
from references.derivations_deeplift import Secant, sigmoid
from references.derivations_lrp import stabilised
from references.derivations_units import Array
from references.reader import networks, weights


def parameters(net: str) -> dict[str, Array]:
    return {name: np.asarray(w, float) for name, w in weights(net).items()}


class Shares(NamedTuple):
    """What an LSTM case asks for. `product`: how gate times signal is shared."""

    product: str = "all"
    eps: float = 1e-3
    bias_share: float = 0.0
    eps_share: float = 0.0


def linear(x: Array, W: Array, b: Array, R: Array, how: Shares) -> Array:
    """R_i of z_j = sum_i x_i W_ij + b_j.

    R_{i<-j} = (x_i W_ij + (eps_share eps sign z_j + bias_share b_j) / N) / (z_j + eps sign z_j) R_j.
    """
    z = x @ W + b
    signs = np.where(z >= 0, 1.0, -1.0)
    spread = (how.eps_share * how.eps * signs + how.bias_share * b) / len(x)
    return ((x[:, None] * W + spread) / stabilised(z, how.eps) * R).sum(1)


def split(gate: Array, signal: Array, R: Array, how: Shares) -> tuple[Array, Array]:
    """The relevance of the gate and of the signal of a product."""
    if how.product == "all":
        return 0 * R, R
    if how.product == "half":
        return R / 2, R / 2
    if how.product == "abs":
        gate, signal = np.abs(gate), np.abs(signal)
    total = stabilised(gate + signal, how.eps)
    return gate / total * R, signal / total * R


def lstm_lrp(x: Array, target: int, how: Shares) -> dict[str, Array]:
    """Relevance of the input, and what stays in the initial states."""
    p, size = parameters("N6"), networks()["N6"]["layers"][0]["hidden"]
    W = np.concatenate([p["lstm.kernel_ih"], p["lstm.kernel_hh"]])
    b = p["lstm.bias_ih"] + p["lstm.bias_hh"]
    hidden, cell, steps = np.zeros(size), np.zeros(size), []
    for token in x:
        below = np.concatenate([token, hidden])
        enter, keep, new, show = np.split(below @ W + b, 4)
        enter, keep, new, show = sigmoid(enter), sigmoid(keep), np.tanh(new), sigmoid(show)
        now = keep * cell + enter * new
        steps.append((below, cell, enter, keep, new, show, now))
        hidden, cell = show * np.tanh(now), now
    logits = hidden @ p["fc.kernel"] + p["fc.bias"]
    R = np.where(np.arange(len(logits)) == target, logits, 0.0)
    R_hidden, R_cell = linear(hidden, p["fc.kernel"], p["fc.bias"], R, how), np.zeros(size)
    found = np.zeros(x.shape)
    twice = np.concatenate([np.eye(size), np.eye(size)])
    for t in reversed(range(len(x))):
        below, cell, enter, keep, new, show, now = steps[t]
        R_show, R_now = split(show, np.tanh(now), R_hidden, how)
        parts = np.concatenate([keep * cell, enter * new])
        kept, entered = np.split(linear(parts, twice, np.zeros(size), R_cell + R_now, how), 2)
        R_keep, R_cell = split(keep, cell, kept, how)
        R_enter, R_new = split(enter, new, entered, how)
        R_below = linear(below, W, b, np.concatenate([R_enter, R_keep, R_new, R_show]), how)
        found[t], R_hidden = R_below[: x.shape[1]], R_below[x.shape[1] :]
    return {"attr": found, "rest_h": R_hidden, "rest_c": R_cell}


def softmax(scores: Array) -> Array:
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def bilinear(A: Array, B: Array, R: Array, eps: float) -> tuple[Array, Array]:
    """C = A B: each term A_ij B_jk of C_ik sends A_ij B_jk R_ik / 2 C_ik to each of its factors."""
    twice = stabilised(2 * (A @ B), eps)
    R_A, R_B = np.zeros(A.shape), np.zeros(B.shape)
    for i in range(A.shape[0]):
        for j in range(A.shape[1]):
            for k in range(B.shape[1]):
                term = A[i, j] * B[j, k] / twice[i, k] * R[i, k]
                R_A[i, j] += term
                R_B[j, k] += term
    return R_A, R_B


def attention_lrp(x: Array, target: int, *, detach: bool = False, eps: float = 0.0) -> Array:
    """Relevance of the tokens of N7, from the target's logit.

    The normalisation's deviation is a constant, softmax passes s_j (R_j - a_j sum_k R_k) or, detached, nothing:
    then all of a A V goes to V. Every other sum is shared in proportion, biases and eps in the denominator.
    """
    p = parameters("N7")
    rows = Shares(eps=eps)
    each = lambda v, W, b, R: np.stack([linear(r, W, b, q, rows) for r, q in zip(v, R, strict=True)])
    n = x.shape[1]
    centring, nothing = np.eye(n) - 1 / n, np.zeros(n)
    centred = x @ centring
    root = np.sqrt((centred**2).mean(-1) + networks()["N7"]["layers"][0]["body"][0]["eps"])
    standard = centred / root[:, None]
    normal = standard * p["blk.ln.scale"] + p["blk.ln.bias"]
    query, key, value = (normal @ p[f"blk.attn.w{k}"] + p[f"blk.attn.b{k}"] for k in "qkv")
    scores = query @ key.T / np.sqrt(key.shape[1])
    shares = softmax(scores)
    mixed = shares @ value
    added = mixed @ p["blk.attn.wo"] + p["blk.attn.bo"]
    tokens = x + added
    pooled = tokens.mean(0)
    logits = pooled @ p["fc.kernel"] + p["fc.bias"]

    R = np.where(np.arange(len(logits)) == target, logits, 0.0)
    R = linear(pooled, p["fc.kernel"], p["fc.bias"], R, rows)
    R = tokens / len(tokens) / stabilised(pooled, eps) * R
    R_direct, R_added = x / stabilised(tokens, eps) * R, added / stabilised(tokens, eps) * R
    R_mixed = each(mixed, p["blk.attn.wo"], p["blk.attn.bo"], R_added)
    R_normal = np.zeros(x.shape)
    if detach:
        R_value = np.zeros(x.shape)
        for i in range(len(x)):
            for j in range(len(x)):
                R_value[j] += shares[i, j] * value[j] / stabilised(mixed[i], eps) * R_mixed[i]
    else:
        R_shares, R_value = bilinear(shares, value, R_mixed, eps)
        R_scores = scores * (R_shares - shares * R_shares.sum(-1, keepdims=True))
        R_query, R_key = bilinear(query, key.T, R_scores, eps)
        R_normal += each(normal, p["blk.attn.wq"], p["blk.attn.bq"], R_query)
        R_normal += each(normal, p["blk.attn.wk"], p["blk.attn.bk"], R_key.T)
    R_normal += each(normal, p["blk.attn.wv"], p["blk.attn.bv"], R_value)
    R_standard = each(standard, np.diag(p["blk.ln.scale"]), p["blk.ln.bias"], R_normal)
    return R_direct + each(x, centring, nothing, R_standard)


def lstm_secant(x: Array, baseline: Array) -> Secant:
    """N6 with its multipliers."""
    p, size = parameters("N6"), networks()["N6"]["layers"][0]["hidden"]
    start = secant.inputs(x, baseline)
    hidden = cell = secant.constant(np.zeros(size), x.size)
    for t in range(len(x)):
        gates = start[t].linear(p["lstm.kernel_ih"], p["lstm.bias_ih"])
        gates = gates + hidden.linear(p["lstm.kernel_hh"], p["lstm.bias_hh"])
        enter, keep, new, show = (gates[k * size : (k + 1) * size] for k in range(4))
        entered = enter.elementwise(*secant.SIGMOID).times(new.elementwise(*secant.TANH))
        cell = keep.elementwise(*secant.SIGMOID).times(cell) + entered
        hidden = show.elementwise(*secant.SIGMOID).times(cell.elementwise(*secant.TANH))
    return hidden.linear(p["fc.kernel"], p["fc.bias"])


def attention_secant(x: Array, baseline: Array) -> Secant:
    """N7 with its multipliers."""
    p = parameters("N7")
    start = secant.inputs(x, baseline)
    eps = networks()["N7"]["layers"][0]["body"][0]["eps"]
    normal = secant.layernorm(start, p["blk.ln.scale"], p["blk.ln.bias"], eps)
    query, key, value = (normal.linear(p[f"blk.attn.w{k}"], p[f"blk.attn.b{k}"]) for k in "qkv")
    root = np.sqrt(key.v.shape[1])
    scores = query.matmul(key.transposed).linear(np.eye(len(x)) / root)
    shares = rows_of(scores)
    mixed = shares.matmul(value).linear(p["blk.attn.wo"], p["blk.attn.bo"])
    tokens = start + mixed
    n = len(x)
    pooled = Secant(tokens.v.mean(0), tokens.v0.mean(0), sum(tokens.M[:, t] for t in range(n)) / n)
    return pooled.linear(p["fc.kernel"], p["fc.bias"])


def rows_of(scores: Secant) -> Secant:
    """The softmax of each row."""
    rows = [secant.softmax(scores[i]) for i in range(len(scores.v))]
    v, v0 = np.stack([row.v for row in rows]), np.stack([row.v0 for row in rows])
    return Secant(v, v0, np.stack([row.M for row in rows], axis=1))


def deep_lift(network: Secant, x: Array, baseline: Array, target: int) -> Array:
    """Contributions to the target's output, of a network with its multipliers."""
    return (x - baseline) * network.M[..., target].reshape(x.shape)
