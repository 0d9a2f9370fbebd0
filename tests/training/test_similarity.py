"""Gradient similarity, TracIn and representer points, against loops."""

import functools

import jax
import numpy as np
import pytest
from references import derivations_influence as by_hand
from references.compare import assert_close
from training.problems import L2, as_tree, output_loss, quick, softmax_regression, tanh_network

from jaxplain import training


def last_layer(path):
    return path.startswith("layer2")


@functools.cache
def slopes(theta_scale=1.0):
    problem = tanh_network()
    problem = problem._replace(theta=theta_scale * problem.theta)
    return problem.slopes(problem.train), problem.slopes(problem.test)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_dot_and_cosine(chunk_size):
    problem = tanh_network()
    train, test = slopes()

    @quick
    def both(*args):
        methods = (training.grad_dot, training.grad_cos)
        return [m(problem.loss, chunk_size=chunk_size, only=o)(*args) for m in methods for o in (None, last_layer)]

    dot, dot_last, cosine, cosine_last = both(problem.params, problem.train, problem.test)
    for d, c, cut in ((dot, cosine, 0), (dot_last, cosine_last, 12)):
        want = np.array([[sum(a * b) for b in train[:, cut:]] for a in test[:, cut:]])
        sizes = np.outer(*(np.linalg.norm(g[:, cut:], axis=1) for g in (test, train)))
        assert_close(d, want, 1e-12)
        assert_close(c, want / sizes, 1e-12)


def test_cosine_with_no_gradient_is_0():
    loss = lambda w, z: z * w**2
    got = training.grad_cos(loss)(np.array(1.0), np.array([0.0, 2.0, -3.0]), np.array([1.0]))
    np.testing.assert_array_equal(got, [[0, 1, -1]])


@pytest.mark.parametrize("only", [None, last_layer])
def test_tracin_is_a_sum_over_checkpoints(only):
    problem = tanh_network()
    factors, rates = (0.5, 1.0, -0.3), np.array([0.1, 0.02, 0.4])
    params = [as_tree(problem, factor * problem.theta) for factor in factors]
    checkpoints = jax.tree.map(lambda *leaves: np.stack(leaves), *params)
    got = quick(training.tracin(problem.loss, only=only, chunk_size=3))(
        checkpoints, rates, problem.train, problem.test
    )
    want, cut = np.zeros((2, 10)), 12 if only else 0
    for factor, rate in zip(factors, rates, strict=True):
        train, test = slopes(factor)
        want += rate * test[:, cut:] @ train[:, cut:].T
    assert_close(got, want, 1e-12)


def test_representer_points_add_up_to_the_logits_at_the_minimum():
    problem = softmax_regression()
    kernel = problem.theta.reshape(5, 3)
    features = lambda z: jax.numpy.append(1.0, z["x"])
    points = quick(training.representer_points(features, output_loss, l2=L2))(kernel, problem.train, problem.test)
    assert points.shape == (3, 24, 3)
    logits = np.array([problem.net.logits(problem.theta, x) for x in problem.test["x"]])
    assert_close(points.sum(1), logits, 1e-11)
    p = by_hand.probabilities(problem.net.logits(problem.theta, problem.train["x"][2]))
    alpha = -(p - np.eye(3)[problem.train["y"][2]]) / (L2 * 24)
    similarity = 1 + problem.train["x"][2] @ problem.test["x"][1]
    assert_close(points[1, 2], alpha * similarity, 1e-12)
