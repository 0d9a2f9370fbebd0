"""Two small problems with answers in numpy: softmax regression at its minimum, a tanh network anywhere."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from references import derivations_influence as by_hand

from jaxplain import training

L2 = 0.05
# These programs run once: XLA's emitters of fused loops take half of the time to compile and save nothing.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


class Problem(NamedTuple):
    """A model, its data, and `net`, the same model in numpy; `theta` is `params` in one vector."""

    predict: Callable[[Any, Any], jax.Array]
    params: Any
    theta: np.ndarray
    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]
    net: by_hand.Net

    def loss(self, params, example):
        return output_loss(self.predict(params, example), example)

    def slopes(self, data):
        """The gradients of a data set, from the derivations."""
        return by_hand.each(by_hand.gradient, self.net, self.theta, data["x"], data["y"])

    def curvature(self, kind="hessian", damping=L2):
        """The mean curvature in numpy, with a multiple of the identity."""
        args = (self.net, self.theta, self.train["x"], self.train["y"])
        return by_hand.each(by_hand.KINDS[kind], *args).mean(0) + damping * np.eye(self.theta.size)


def output_loss(logits, example):
    return jax.nn.logsumexp(logits) - logits[example["y"]]


def regularizer(params):
    return 0.5 * L2 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))


def linear(params, example):
    return params["bias"] + example["x"] @ params["kernel"]


def two_layers(params, example):
    return linear(params["layer2"], {"x": jnp.tanh(linear(params["layer1"], example))})


def examples(rng, n, num_features, num_classes):
    return {"x": rng.normal(size=(n, num_features)), "y": rng.integers(0, num_classes, n)}


def as_layer(theta, num_features, width):
    return {"bias": theta[:width], "kernel": theta[width:].reshape(num_features, width)}


@functools.cache
def softmax_regression(n=24, num_features=4, num_classes=3) -> Problem:
    """At the minimum of the mean loss plus the regulariser."""
    rng = np.random.default_rng(0)
    train, test = (examples(rng, size, num_features, num_classes) for size in (n, 3))
    theta = by_hand.minimiser(num_classes, train["x"], train["y"], L2)
    net = by_hand.softmax_regression(num_features, num_classes)
    return Problem(linear, as_layer(theta, num_features, num_classes), theta, train, test, net)


@functools.cache
def tanh_network(n=10, num_features=3, hidden=3, num_classes=3) -> Problem:
    """At random parameters, where the Hessian is indefinite."""
    rng = np.random.default_rng(1)
    train, test = (examples(rng, size, num_features, num_classes) for size in (n, 2))
    net = by_hand.tanh_network(num_features, hidden, num_classes)
    theta = rng.normal(size=net.size)
    cut = hidden * (num_features + 1)
    first, second = as_layer(theta[:cut], num_features, hidden), as_layer(theta[cut:], hidden, num_classes)
    return Problem(two_layers, {"layer1": first, "layer2": second}, theta, train, test, net)


def matrix(operator):
    """An operator as a matrix, column by column, in one program; not symmetrised."""
    flat, unravel = ravel_pytree(operator.split.free)
    column = lambda v: ravel_pytree(operator.matvec(unravel(v)))[0]
    return jax.vmap(column, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))


def dense_of(make, params, data):
    """The matrix of a curvature at parameters, compiled once."""
    return np.asarray(quick(lambda p, z: matrix(make(p, z)))(params, data))


def as_tree(problem, vector):
    """A flat vector as a pytree like the parameters."""
    leaves, structure = jax.tree.flatten(problem.params)
    parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return jax.tree.unflatten(
        structure, [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    )


def quick(function):
    """`jax.jit` with little optimisation."""
    return jax.jit(function, compiler_options=QUICK)


def flat(tree):
    """A pytree as a flat numpy vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def operator_of(a, damping=0.0, n=1):
    """An operator whose undamped matrix is `a`, over the parameters {"v": zeros}: loss v A v / 2."""
    a = jnp.asarray(a)
    quadratic = lambda params, z: 0.5 * z * (params["v"] @ (a @ params["v"]))
    make = training.hessian(quadratic, damping=damping)
    return make({"v": jnp.zeros(len(a), a.dtype)}, jnp.ones(n, a.dtype))


def with_eigenvalues(values, seed=0):
    """A symmetric matrix with these eigenvalues."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(len(values),) * 2))[0]
    return (basis * np.asarray(values, float)) @ basis.T
