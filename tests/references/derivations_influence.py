"""Slow float64 derivations of curvature, influence and retraining, from the definitions, in numpy alone.

Derivatives that are not written out are complex steps, Im f(x + ih) / h: exact up to rounding, since nothing is
subtracted. Parameters are flat vectors in the order of the pytrees that the tests use: bias before kernel, layer
after layer.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Array = np.ndarray
TINY = 1e-30


class Net(NamedTuple):
    """A classifier: `logits(theta, x)` and `jacobian(theta, x)`, of shape (classes, parameters)."""

    logits: Callable[[Array, Array], Array]
    jacobian: Callable[[Array, Array], Array]
    size: int


def softmax_regression(num_features: int, num_classes: int) -> Net:
    """Logits b + x W: with phi = (1, x) the parameters are a matrix, its first row the bias."""

    def logits(theta, x):
        return np.append(1.0, x) @ theta.reshape(num_features + 1, num_classes)

    def jacobian(theta, x):
        return np.kron(np.append(1.0, x)[None], np.eye(num_classes))

    return Net(logits, jacobian, (num_features + 1) * num_classes)


def tanh_network(num_features: int, hidden: int, num_classes: int) -> Net:
    """Logits b2 + tanh(b1 + x W1) W2."""
    sizes = np.cumsum([hidden, num_features * hidden, num_classes, hidden * num_classes])

    def parts(theta):
        b1, w1, b2, w2 = np.split(theta, sizes[:-1])
        return b1, w1.reshape(num_features, hidden), b2, w2.reshape(hidden, num_classes)

    def logits(theta, x):
        b1, w1, b2, w2 = parts(theta)
        return b2 + np.tanh(b1 + x @ w1) @ w2

    def jacobian(theta, x):
        b1, w1, _, w2 = parts(theta)
        a = np.tanh(b1 + x @ w1)
        below = (w2 * (1 - a**2)[:, None]).T  # d logit_k / d (input of tanh)_j
        first = [np.append(row, np.outer(x, row)) for row in below]
        second = np.kron(np.append(1.0, a)[None], np.eye(num_classes))
        return np.hstack([np.array(first), second])

    return Net(logits, jacobian, int(sizes[-1]))


def probabilities(logits: Array) -> Array:
    return np.exp(logits) / np.exp(logits).sum()


def loss(net: Net, theta: Array, x: Array, y: int) -> Array:
    """Cross-entropy of softmax."""
    o = net.logits(theta, x)
    return np.log(np.exp(o).sum()) - o[y]


def gradient(net: Net, theta: Array, x: Array, y: int) -> Array:
    o = net.logits(theta, x)
    return net.jacobian(theta, x).T @ (probabilities(o) - np.eye(len(o))[y])


def complex_step(f: Callable[[Array], Array], x: Array) -> Array:
    """The derivatives of `f` by each entry of a vector, on the last axis."""
    return np.stack([f(x + 1j * TINY * e).imag / TINY for e in np.eye(x.size)], -1)


def hessian(net: Net, theta: Array, x: Array, y: int) -> Array:
    return complex_step(lambda theta: gradient(net, theta, x, y), theta)


def mixed(net: Net, theta: Array, x: Array, y: int) -> Array:
    """The gradient's derivative by the input, (parameters, features)."""
    return complex_step(lambda x: gradient(net, theta, x, y), x)


def gauss_newton(net: Net, theta: Array, x: Array, y: int) -> Array:
    """J^T (d^2 loss / d logits^2) J; for cross-entropy the middle is diag p - p p^T."""
    j, p = net.jacobian(theta, x), probabilities(net.logits(theta, x))
    return j.T @ (np.diag(p) - np.outer(p, p)) @ j


def fisher(net: Net, theta: Array, x: Array, y: int) -> Array:
    """The expected outer product of gradients, the labels the model's own."""
    p = probabilities(net.logits(theta, x))
    slopes = [gradient(net, theta, x, label) for label in range(len(p))]
    return sum(share * np.outer(g, g) for share, g in zip(p, slopes, strict=True))


def empirical_fisher(net: Net, theta: Array, x: Array, y: int) -> Array:
    g = gradient(net, theta, x, y)
    return np.outer(g, g)


KINDS = {
    "hessian": hessian,
    "gauss_newton": gauss_newton,
    "fisher": fisher,
    "empirical_fisher": empirical_fisher,
}


def each(function: Callable[..., Array], net: Net, theta: Array, xs: Array, ys: Array) -> Array:
    """What a function of an example gives, stacked over examples."""
    return np.stack([function(net, theta, x, int(y)) for x, y in zip(xs, ys, strict=True)])


def minimiser(
    num_classes: int,
    xs: Array,
    ys: Array,
    l2: float,
    weights: Array | None = None,
    share: float = 1.0,
    start: Array | float = 0.0,
) -> Array:
    """The flat theta of softmax regression that minimises sum_i w_i L_i + share l2/2 |theta|^2, by Newton steps.

    The weights are 1/n each if not given. Every step squares Newton's error: one from below 1e-9 is the last.
    """
    n = len(xs)
    weights = np.full(n, 1 / n) if weights is None else weights
    phi, targets = np.hstack([np.ones((n, 1)), xs]), np.eye(num_classes)[ys]
    d = phi.shape[1]
    pairs = (phi[:, :, None] * phi[:, None, :]).reshape(n, -1)
    theta = np.zeros(d * num_classes) + start
    for _ in range(30):
        o = phi @ theta.reshape(d, num_classes)
        p = np.exp(o) / np.exp(o).sum(1, keepdims=True)
        slope = (phi.T @ (weights[:, None] * (p - targets))).ravel() + share * l2 * theta
        middle = p[:, :, None] * np.eye(num_classes) - p[:, :, None] * p[:, None, :]
        bent = pairs.T @ (weights[:, None] * middle.reshape(n, -1))
        bent = bent.reshape(d, d, num_classes, num_classes).transpose(0, 2, 1, 3).reshape(theta.size, -1)
        theta = theta - np.linalg.solve(bent + share * l2 * np.eye(theta.size), slope)
        if np.abs(slope).max() < 1e-9:
            return theta
    raise ArithmeticError("no minimum was found")


def influence(curvature: Array, train_slopes: Array, test_slopes: Array) -> Array:
    """Koh and Liang 2017, eq. 2, for every pair: (test, train)."""
    return -test_slopes @ np.linalg.inv(curvature) @ train_slopes.T


def second_order_change(curvature: Array, removed_slope: Array, removed_curvature: Array) -> Array:
    """How theta moves when a group goes, to second order; both of the group are sums divided by n.

    The new minimiser solves (H - H_U) d = g_U up to third derivatives, and (H - H_U)^-1 = H^-1 + H^-1 H_U H^-1 +
    ...
    """
    inverse = np.linalg.inv(curvature)
    return inverse @ removed_slope + inverse @ removed_curvature @ inverse @ removed_slope


def newton_step(curvature: Array, removed_slope: Array, removed_curvature: Array) -> Array:
    """How theta moves in one Newton step of the objective without the group."""
    return np.linalg.solve(curvature - removed_curvature, removed_slope)


def from_eigenpairs(curvature: Array, damping: float, b: Array, rank: int, tail: float | None) -> Array:
    """(A + damping)^-1 b from A's largest eigenpairs; the rest has the curvature `tail`, or is dropped."""
    values, vectors = np.linalg.eigh(curvature)
    order = np.argsort(-np.abs(values))[:rank]
    kept = vectors[:, order]
    x = kept @ (kept.T @ b / (values[order] + damping))
    return x if tail is None else x + (b - kept @ (kept.T @ b)) / tail
