"""Curvature operators against dense matrices from the definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from references import derivations_influence as by_hand
from references.compare import assert_close
from training.problems import (
    L2,
    as_tree,
    dense_of,
    flat,
    matrix,
    operator_of,
    output_loss,
    quick,
    regularizer,
    softmax_regression,
    tanh_network,
    with_eigenvalues,
)

from jaxplain import training


def make(problem, kind, **options):
    if kind == "gauss_newton":
        return training.gauss_newton(problem.predict, output_loss, **options)
    if kind == "fisher":
        return training.fisher(problem.predict, **options)
    return getattr(training, kind)(problem.loss, **options)


def test_the_derivations_agree_with_their_own_losses():
    for problem in (softmax_regression(), tanh_network()):
        x, y = problem.train["x"][1], int(problem.train["y"][1])
        slope = by_hand.complex_step(lambda t: by_hand.loss(problem.net, t, x, y), problem.theta)
        np.testing.assert_allclose(
            slope, by_hand.gradient(problem.net, problem.theta, x, y), rtol=1e-12, atol=1e-14
        )
        h = by_hand.hessian(problem.net, problem.theta, x, y)
        np.testing.assert_allclose(h, h.T, atol=1e-14)
        jacobian = by_hand.complex_step(lambda t: problem.net.logits(t, x), problem.theta)
        np.testing.assert_allclose(jacobian, problem.net.jacobian(problem.theta, x), atol=1e-14)
        example = jax.tree.map(lambda leaf: leaf[1], problem.train)
        np.testing.assert_allclose(
            problem.loss(problem.params, example), by_hand.loss(problem.net, problem.theta, x, y)
        )


@pytest.mark.parametrize(
    ("kind", "chunk_size"),
    [*((kind, size) for kind in by_hand.KINDS for size in (None, 4)), *(("hessian", size) for size in (5, 1, 99))],
)
def test_the_matrix(kind, chunk_size):
    """Of 10 examples, in chunks that divide and that do not."""
    problem = tanh_network()
    got = dense_of(make(problem, kind, chunk_size=chunk_size), problem.params, problem.train)
    assert_close(got, problem.curvature(kind, 0.0), 1e-12)


def test_the_four_kinds_differ_where_they_should():
    problem = tanh_network()
    h, g, f, e = (problem.curvature(kind, 0.0) for kind in by_hand.KINDS)
    np.testing.assert_allclose(g, f, atol=1e-13)
    assert np.linalg.eigvalsh(h)[0] < -1e-3
    assert np.linalg.eigvalsh(g)[0] > -1e-12
    assert np.abs(g - e).max() > 0.1 * np.abs(g).max()
    softmax = softmax_regression()
    np.testing.assert_allclose(softmax.curvature("hessian"), softmax.curvature("gauss_newton"), atol=1e-13)


@pytest.mark.parametrize("kind", by_hand.KINDS)
def test_regularizer_and_damping_are_added(kind):
    problem = softmax_regression()
    options = {"regularizer": regularizer, "chunk_size": 7}

    def damped(damping, params, data):
        operator = make(problem, kind, damping=damping, **options)(params, data)
        assert operator.num_examples == len(data["y"])
        v = operator.split.free
        return matrix(operator), operator.regularizer_gradient(), operator.regularizer_product(v)

    got, slope, product = quick(damped)(0.25, problem.params, problem.train)
    assert_close(got, problem.curvature(kind, L2 + 0.25), 1e-12)
    np.testing.assert_allclose(flat(slope), L2 * problem.theta, rtol=1e-12)
    np.testing.assert_allclose(flat(product), L2 * problem.theta, rtol=1e-12)


def test_damping_can_be_differentiated_and_mapped():
    a, b = with_eigenvalues([1.0, 2.0, 5.0]), np.array([1.0, -2.0, 0.5])
    solve = lambda damping: training.dense()(operator_of(a, damping), {"v": jnp.asarray(b)})[0]["v"]
    got, slope = quick(jax.vmap(lambda d: jax.jvp(solve, (d,), (jnp.ones_like(d),))))(np.array([0.1, 1.0]))
    for i, damping in enumerate((0.1, 1.0)):
        inverse = np.linalg.inv(a + damping * np.eye(3))
        assert_close(got[i], inverse @ b, 1e-12)
        assert_close(slope[i], -inverse @ inverse @ b, 1e-11)


def test_a_relative_damping_is_a_share_of_the_mean_eigenvalue():
    diagonal, a = np.diag([1.0, 2.0, 6.0, 0.0]), with_eigenvalues([0.5, 1.0, 2.0, 4.0])

    @quick
    def strengths(keys):
        exact = operator_of(diagonal, training.relative(0.5, key=keys[0])).damping
        operator = operator_of(a, training.relative(2.0, key=keys[0]))
        few = lambda key: operator_of(a, training.relative(2.0, key=key, num_samples=4)).damping
        return exact, matrix(operator), operator.damping, jax.vmap(few)(keys)

    exact, got, damping, drawn = strengths(jax.random.split(jax.random.key(1), 200))
    np.testing.assert_allclose(exact, 0.5 * 9 / 4, rtol=1e-12)
    np.testing.assert_allclose(got, a + damping * np.eye(4), atol=1e-12)
    assert abs(drawn.mean() - 2 * np.trace(a) / 4) < 5 * drawn.std() / np.sqrt(len(drawn))
    assert drawn.std() > 0


def test_a_relative_damping_counts_the_regulariser():
    """It is a share of the undamped matrix; the same probes see L2 times the identity exactly."""
    problem = softmax_regression()
    damping = training.relative(1.0, key=jax.random.key(3))

    def strengths(params, data):
        kinds = ({"regularizer": regularizer}, {})
        return [make(problem, "hessian", damping=damping, **o)(params, data).damping for o in kinds]

    with_r, without = quick(strengths)(problem.params, problem.train)
    np.testing.assert_allclose(with_r - without, L2, rtol=1e-9)


@pytest.mark.parametrize("kind", ["hessian", "fisher"])
def test_a_subset_of_the_parameters_is_a_block(kind):
    problem = tanh_network()
    chosen = make(problem, kind, only=lambda path: path.endswith("kernel"), regularizer=regularizer, chunk_size=4)
    names = ["layer1/bias"] * 3 + ["layer1/kernel"] * 9 + ["layer2/bias"] * 3 + ["layer2/kernel"] * 9
    on = np.array([name.endswith("kernel") for name in names])
    got = dense_of(chosen, problem.params, problem.train)
    assert_close(got, problem.curvature(kind)[np.ix_(on, on)], 1e-12)


def test_of_examples_is_a_weighted_sum_without_regulariser_and_damping():
    problem = softmax_regression()
    parts = by_hand.each(by_hand.hessian, problem.net, problem.theta, problem.train["x"], problem.train["y"])
    v = np.random.default_rng(0).normal(size=problem.theta.size)

    @quick
    def product(indices, weights, v):
        make_it = training.hessian(problem.loss, regularizer=regularizer, damping=3.0, chunk_size=2)
        return make_it(problem.params, problem.train).of_examples(indices, weights, v)

    got = product(np.array([3, 0, 3]), np.array([2.0, -1.0, 0.5]), as_tree(problem, v))
    assert_close(flat(got), (2.5 * parts[3] - parts[0]) @ v, 1e-12)


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton", "fisher drawn"])
def test_sampled_products_are_unbiased(kind):
    problem = softmax_regression()
    options = {"regularizer": regularizer, "damping": 0.3, "chunk_size": 7}
    if kind == "fisher drawn":
        kind, options = "fisher", {**options, "key": jax.random.key(7)}
    v = as_tree(problem, np.random.default_rng(1).normal(size=problem.theta.size))

    @quick
    def products(keys):
        operator = make(problem, kind, **options)(problem.params, problem.train)
        some = lambda key: ravel_pytree(operator.sampled(key, v, 4))[0]
        return jax.vmap(some)(keys), ravel_pytree(operator.matvec(v))[0]

    drawn, whole = map(np.asarray, products(jax.random.split(jax.random.key(2), 500)))
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert (error > 0).all()
    assert (np.abs(drawn.mean(0) - whole) < 5 * error).all()


def test_drawn_labels_give_the_fisher_matrix_on_average_and_stay_with_their_examples():
    problem = softmax_regression()
    drawn = lambda key, chunk: matrix(
        training.fisher(problem.predict, key=key, chunk_size=chunk)(problem.params, problem.train)
    )
    keys = jax.random.split(jax.random.key(0), 400)
    both = lambda keys: (jax.vmap(lambda key: drawn(key, None))(keys), drawn(keys[0], 7))
    many, in_chunks = map(np.asarray, quick(both)(keys))
    want, error = problem.curvature("fisher", 0.0), many.std(0) / np.sqrt(len(many))
    assert (np.abs(many.mean(0) - want) < 5 * error + 1e-12).all()
    assert np.linalg.eigvalsh(many[0])[0] > -1e-12
    assert np.abs(many[0] - want).max() > 1e-3
    np.testing.assert_allclose(in_chunks, many[0], atol=1e-13)


def test_the_fisher_of_several_decisions_is_their_sum():
    """Logits of shape (2, 3) are two independent decisions."""
    table = np.random.default_rng(0).normal(size=(2, 3, 4))
    logits = lambda w, x: jnp.einsum("dcp,p->dc", jnp.asarray(table), w * x)
    w, data = np.array([0.3, -0.2, 0.5, 0.1]), np.array([[1.0, 0.5, -1.0, 2.0]])
    want = np.zeros((4, 4))
    for decision in table:
        j = decision * data[0]
        p = by_hand.probabilities(j @ w)
        want += j.T @ (np.diag(p) - np.outer(p, p)) @ j
    sampled = lambda key: matrix(training.fisher(logits, key=key)(w, data))
    both = lambda keys: (matrix(training.fisher(logits)(w, data)), jax.vmap(sampled)(keys))
    got, drawn = map(np.asarray, quick(both)(jax.random.split(jax.random.key(0), 4000)))
    assert_close(got, want, 1e-12)
    # Two decisions drawn apart have no covariance on average.
    assert (np.abs(drawn.mean(0) - want) < 5 * drawn.std(0) / np.sqrt(len(drawn))).all()


@pytest.mark.parametrize("chunk_size", [None, 7])
def test_hvp(chunk_size):
    problem = tanh_network()
    v = np.random.default_rng(2).normal(size=problem.theta.size)
    product = quick(training.hvp(problem.loss, chunk_size=chunk_size))
    got = product(problem.params, problem.train, as_tree(problem, v))
    assert jax.tree.structure(got) == jax.tree.structure(problem.params)
    assert_close(flat(got), problem.curvature("hessian", 0.0) @ v, 1e-12)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_parameters_type_is_kept(dtype):
    """Of inputs in the parameters' type; the error is that of the type's rounding (2^-8 and 2^-24)."""
    problem = softmax_regression()
    v = np.random.default_rng(2).normal(size=problem.theta.size)

    def narrow(tree):
        return jax.tree.map(lambda x: jnp.asarray(x, dtype if x.dtype == np.float64 else x.dtype), tree)

    @quick
    def products(params, data, v):
        made = {
            kind: make(problem, kind, damping=0.5, regularizer=regularizer, chunk_size=7)(params, data)
            for kind in ("hessian", "fisher", "empirical_fisher")
        }
        drawn = made["fisher"].sampled(jax.random.key(0), v, 3)
        return {kind: operator.matvec(v) for kind, operator in made.items()}, drawn

    got, drawn = products(*map(narrow, (problem.params, problem.train, as_tree(problem, v))))
    assert {leaf.dtype for leaf in jax.tree.leaves((got, drawn))} == {jnp.dtype(dtype)}
    for kind, product in got.items():
        wide = np.asarray(flat(product), np.float64)
        assert_close(wide, problem.curvature(kind, L2 + 0.5) @ v, {"bfloat16": 5e-2, "float32": 2e-6}[dtype])


def test_parameters_of_mixed_types():
    problem = softmax_regression()
    mixed = {**problem.params, "bias": problem.params["bias"].astype(np.float32)}

    def loss(params, example):
        return problem.loss({**params, "bias": params["bias"].astype(jnp.float64)}, example)

    product = lambda params, v: training.hessian(loss, damping=L2)(params, problem.train).matvec(v)
    got = quick(product)(mixed, as_tree(problem, problem.theta))
    assert (got["bias"].dtype, got["kernel"].dtype) == (np.float32, np.float64)
    # The bias is rounded to float32.
    assert_close(flat(got), problem.curvature() @ problem.theta, 1e-6)
