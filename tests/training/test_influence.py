"""Influence against dense formulas in numpy, and against retraining."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_influence as by_hand
from references.compare import assert_close
from training.problems import L2, as_tree, flat, output_loss, quick, regularizer, softmax_regression, tanh_network

from jaxplain import training
from jaxplain.training import _scores

N = 24
H = 1e-4  # the change of a weight in the test against retraining


def hessian(problem, **options):
    return training.hessian(problem.loss, regularizer=regularizer, **options)


@functools.cache
def answers():
    """Everything of one problem, in one program: influence with and without the regulariser, and its relatives."""
    problem = softmax_regression()
    common = {"curvature": hessian(problem), "solve": training.dense()}
    logit = lambda params, example: problem.predict(params, example)[0]

    @quick
    def compute(params, train, test):
        example = jax.tree.map(lambda leaf: leaf[5], train)
        new = {"x": train["x"][:4], "y": (train["y"][:4] + 1) % 3}
        old = jax.tree.map(lambda leaf: leaf[:4], train)
        one_test = jax.tree.map(lambda leaf: leaf[0], test)
        return {
            "plain": training.influence(problem.loss, **common)(params, train, test),
            "regularised": training.influence(problem.loss, include_regularizer=True, **common)(
                params, train, test
            ),
            "logit": training.influence(problem.loss, test_fn=logit, **common)(params, train, test),
            "self": training.self_influence(problem.loss, chunk_size=5, **common)(params, train),
            "self regularised": training.self_influence(problem.loss, include_regularizer=True, **common)(
                params, train
            ),
            "params": training.influence_on_params(problem.loss, **common)(params, train, example),
            "params regularised": training.influence_on_params(problem.loss, include_regularizer=True, **common)(
                params, train, example
            ),
            "perturbation": training.influence_of_perturbation(problem.loss, **common)(
                params, train, example, one_test
            ),
            "replacement": training.influence_of_replacement(problem.loss, **common)(
                params, train, old, new, test
            ),
        }

    return jax.tree.map(np.asarray, compute(problem.params, problem.train, problem.test))


def inputs(regularised=False):
    problem = softmax_regression()
    extra = L2 * problem.theta if regularised else 0
    return problem, problem.curvature(), problem.slopes(problem.train) + extra, problem.slopes(problem.test)


@pytest.mark.parametrize("regularised", [False, True])
def test_influence(regularised):
    _, h, train, test = inputs(regularised)
    values, info = answers()["regularised" if regularised else "plain"]
    assert_close(values, by_hand.influence(h, train, test), 1e-11)
    assert info.converged.shape == (3,)
    assert info.converged.all()


def test_another_function_of_the_test_example():
    problem, h, train, _ = inputs()
    slopes = [problem.net.jacobian(problem.theta, x)[0] for x in problem.test["x"]]
    assert_close(answers()["logit"][0], by_hand.influence(h, train, np.array(slopes)), 1e-11)


@pytest.mark.parametrize("regularised", [False, True])
def test_self_influence_is_not_negative_and_minus_the_influence_on_itself(regularised):
    _, h, train, _ = inputs(regularised)
    values, info = answers()["self regularised" if regularised else "self"]
    assert_close(values, np.einsum("np,pq,nq->n", train, np.linalg.inv(h), train), 1e-11)
    assert (values > 0).all()
    assert info.converged.shape == (N,)


@pytest.mark.parametrize("regularised", [False, True])
def test_influence_on_params(regularised):
    problem, h, train, _ = inputs(regularised)
    change, info = answers()["params regularised" if regularised else "params"]
    assert jax.tree.structure(change) == jax.tree.structure(problem.params)
    assert_close(flat(change), -np.linalg.solve(h, train[5]), 1e-11)
    assert info.converged


def test_removal_effect():
    values = np.array([[3.0, -6.0]])
    np.testing.assert_array_equal(training.removal_effect({"a": values}, 3)["a"], [[-1.0, 2.0]])


def test_influence_of_replacement():
    problem, h, train, test = inputs()
    changed = problem._replace(train={"x": problem.train["x"][:4], "y": (problem.train["y"][:4] + 1) % 3})
    moved = problem.slopes(changed.train) - train[:4]
    assert_close(answers()["replacement"][0], by_hand.influence(h, moved, test), 1e-11)


def retrained(weights=None, share=1.0, xs=None):
    """The test losses after training again."""
    problem = softmax_regression()
    xs = problem.train["x"] if xs is None else xs
    theta = by_hand.minimiser(3, xs, problem.train["y"], L2, weights, share, start=problem.theta)
    return by_hand.each(by_hand.loss, problem.net, theta, problem.test["x"], problem.test["y"])


def by_weight(regularised):
    """The derivative of test losses by each example's weight, times n, by retraining at 1 + H and 1 - H.

    With the mean over the kept examples both sides of the objective are multiplied by the sum of weights, which
    leaves the minimum where it is: sum_i w_i (L_i + R).
    """
    columns = []
    for k in range(N):
        ends = []
        for sign in (1, -1):
            weights = np.full(N, 1 / N)
            weights[k] += sign * H / N
            ends.append(retrained(weights, weights.sum() if regularised else 1.0))
        columns.append((ends[0] - ends[1]) / (2 * H) * N)
    return np.array(columns).T


def test_retraining_with_weights_of_1_plus_and_minus_a_little():
    """The objective meant decides: the other choice is visibly wrong, though full removal would hide it."""
    truth = {regularised: by_weight(regularised) for regularised in (False, True)}
    ours = {False: answers()["plain"][0], True: answers()["regularised"][0]}
    scale = np.abs(truth[False]).max(1, keepdims=True)
    for regularised in (False, True):
        # The central difference is off by H^2 times the third derivative of the path, and rounding / H.
        assert np.abs(ours[regularised] - truth[regularised]).max() <= 1e-6 * np.abs(truth[regularised]).max()
        large = np.abs(truth[regularised]) > 0.01 * scale
        off = np.abs(ours[regularised] - truth[regularised])[large] / np.abs(truth[regularised])[large]
        assert off.max() <= 1e-6
        wrong = np.abs(ours[not regularised] - truth[regularised])[large] / np.abs(truth[regularised])[large]
        assert wrong.max() > 0.1


def test_perturbation_against_retraining_with_a_moved_input():
    problem, h, _, test = inputs()
    values = answers()["perturbation"][0]
    assert values["y"] is None or "y" not in values
    by_formula = -test[0] @ np.linalg.solve(
        h, by_hand.mixed(problem.net, problem.theta, problem.train["x"][5], int(problem.train["y"][5]))
    )
    assert_close(values["x"], by_formula, 1e-11)
    truth = []
    for j in range(4):
        ends = []
        for sign in (1, -1):
            xs = problem.train["x"].copy()
            xs[5, j] += sign * H
            ends.append(retrained(xs=xs)[0])
        truth.append((ends[0] - ends[1]) / (2 * H) * N)
    # H^2 times a third derivative, and rounding / H.
    assert_close(values["x"], truth, 1e-5)


def test_replacement_against_moving_mass():
    """Moving a little mass from an example to its replacement, and training again."""
    problem = softmax_regression()
    xs, ys = np.vstack([problem.train["x"], problem.train["x"][:1]]), np.append(problem.train["y"], 0)
    ys[-1] = (problem.train["y"][0] + 1) % 3
    ends = []
    for sign in (1, -1):
        weights = np.append(np.full(N, 1 / N), 0.0)
        weights[[0, -1]] += np.array([-sign, sign]) * H / N
        theta = by_hand.minimiser(3, xs, ys, L2, weights)
        ends.append(by_hand.each(by_hand.loss, problem.net, theta, problem.test["x"], problem.test["y"]))
    assert_close(answers()["replacement"][0][:, 0], (ends[0] - ends[1]) / (2 * H) * N, 1e-6)


def test_chunks_order_and_solver_do_not_matter():
    problem = softmax_regression()
    order = np.random.default_rng(0).permutation(N)
    shuffled = jax.tree.map(lambda leaf: leaf[order], problem.train)
    want = answers()["plain"][0]
    in_chunks = training.influence(
        problem.loss, curvature=hessian(problem, chunk_size=7), solve=training.cg(tol=1e-12), chunk_size=7
    )
    got, info = quick(in_chunks)(problem.params, shuffled, problem.test)
    assert bool(info.converged.all())
    assert_close(np.asarray(got)[:, np.argsort(order)], want, 1e-9)


def test_the_default_is_the_hessian_by_conjugate_gradients():
    """Its tolerance is 1e-6."""
    problem = softmax_regression()
    whole = lambda params, example: problem.loss(params, example) + regularizer(params)
    got, info = quick(training.influence(whole, test_fn=problem.loss))(problem.params, problem.train, problem.test)
    assert_close(got, answers()["regularised"][0], 1e-5)
    assert (np.asarray(info.residual) <= 1e-6).all()


def test_many_queries_are_answered_as_few():
    problem = softmax_regression()
    many = jax.tree.map(lambda leaf: np.concatenate([leaf] * 11)[: _scores.MANY_QUERIES + 1], problem.test)
    assert len(many["y"]) >= _scores.MANY_QUERIES > 3
    explain = training.influence(problem.loss, curvature=hessian(problem), solve=training.dense(), chunk_size=5)
    got = quick(explain)(problem.params, problem.train, many)[0]
    assert_close(got, np.tile(answers()["plain"][0], (11, 1))[: len(got)], 1e-11)


@pytest.mark.parametrize("kind", ["gauss_newton", "hessian"])
def test_a_damped_network_and_a_subset_of_its_parameters(kind):
    problem = tanh_network()
    only = lambda path: path.startswith("layer2")
    damping = 0.7
    if kind == "hessian":
        curvature = training.hessian(problem.loss, damping=damping, only=only)
    else:
        curvature = training.gauss_newton(problem.predict, output_loss, damping=damping, only=only)
    explain = training.influence(problem.loss, curvature=curvature, solve=training.dense())
    got, _ = quick(explain)(problem.params, problem.train, problem.test)
    block = problem.curvature(kind, damping)[12:, 12:]
    want = by_hand.influence(block, problem.slopes(problem.train)[:, 12:], problem.slopes(problem.test)[:, 12:])
    assert_close(got, want, 1e-11)


def test_an_indefinite_hessian_warns_and_says_what_to_do():
    problem = tanh_network()
    explain = training.influence(problem.loss)
    with pytest.warns(training.SolveWarning, match=r"indefinite.*gauss_newton\(predict, output_loss\).*damping"):
        _, info = explain(problem.params, problem.train, problem.test)
    assert float(info.min_curvature.min()) < 0
    assert not bool(info.converged.all())


def test_two_calls_trace_the_loss_once():
    problem = softmax_regression()
    traces = []

    def loss(params, example):
        traces.append(1)
        return problem.loss(params, example)

    explain = training.influence(loss, curvature=training.hessian(loss, damping=1.0), solve=training.dense())
    explain(problem.params, problem.train, problem.test)
    first = len(traces)
    explain(jax.tree.map(lambda leaf: leaf * 0.5, problem.params), problem.train, problem.test)
    assert len(traces) == first <= 3  # curvature, test gradients, scores


@pytest.mark.parametrize("solver", [training.dense(), training.cg(tol=1e-13, max_steps=200)], ids=["dense", "cg"])
def test_jit_vmap_grad_and_jvp_of_scores(solver):
    """A score's derivative by the test input and by the parameters, against central differences."""
    problem = softmax_regression()
    explain = training.influence(problem.loss, curvature=hessian(problem), solve=solver)
    direction = as_tree(problem, np.random.default_rng(3).normal(size=problem.theta.size))

    def score(t, u):
        """The influence of example 2 on test example 0, parameters and the test input moved along a line."""
        params = jax.tree.map(lambda p, d: p + t * d, jax.tree.map(jnp.asarray, problem.params), direction)
        x = jnp.asarray(problem.test["x"])[:1] + u
        return explain(params, problem.train, {"x": x, "y": problem.test["y"][:1]})[0][0, 2]

    @quick
    def both(ts, us):
        values = jax.vmap(score)(ts, us)
        zero = jnp.zeros(())
        along = jax.jvp(score, (zero, zero), (jnp.ones(()), 2 * jnp.ones(())))[1]
        return values, jax.grad(score, (0, 1))(zero, zero), along

    step = 1e-5
    moves = step * np.array([0, 1, -1, 0, 0.0])
    values, slopes, along = both(moves, moves[[0, 3, 4, 1, 2]])
    np.testing.assert_allclose(values[0], answers()["plain"][0][0, 2], rtol=1e-10)
    # Central differences: 1e-10 of a third derivative, and rounding / 1e-5.
    np.testing.assert_allclose(slopes[0], (values[1] - values[2]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(slopes[1], (values[3] - values[4]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(along, slopes[0] + 2 * slopes[1], rtol=1e-9)


def test_a_solver_that_draws_takes_a_key_first():
    problem = softmax_regression()
    solver = training.lanczos(15, num_steps=15)  # all eigenpairs: as good as dense
    explain = training.influence(problem.loss, curvature=hessian(problem), solve=solver)
    got, info = quick(explain)(jax.random.key(0), problem.params, problem.train, problem.test)
    assert bool(info.converged.all())
    # The start vector spans the space up to rounding.
    assert_close(got, answers()["plain"][0], 1e-8)
