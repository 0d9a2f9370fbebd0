"""Groups and leave-one-out by a Newton step, against numpy and against retraining."""

import functools

import jax
import numpy as np
import pytest
from references import derivations_influence as by_hand
from references.compare import assert_close
from training.problems import L2, quick, regularizer, softmax_regression

from jaxplain import training

N = 24
GROUP = np.isin(np.arange(N), [0, 3, 9, 10, 17])  # a fifth
WEIGHTS = np.linspace(-0.5, 1.0, N)


@functools.cache
def answers():
    problem = softmax_regression()
    curvature = training.hessian(problem.loss, regularizer=regularizer)
    options = {"curvature": curvature, "solve": training.dense()}

    @quick
    def compute(params, train, test, masks):
        def of(order, regularised):
            chunk_size = 7 if regularised else None
            explain = training.group_influence(
                problem.loss, order=order, include_regularizer=regularised, chunk_size=chunk_size, **options
            )
            return jax.vmap(lambda mask: explain(params, train, mask, test))(masks)

        def without(regularised):
            chunk_size = None if regularised else 5
            explain = training.newton_step_removal(
                problem.loss,
                curvature=curvature,
                include_regularizer=regularised,
                tol=1e-10,
                chunk_size=chunk_size,
            )
            return explain(params, train, test)

        return {
            "influence": training.influence(problem.loss, **options)(params, train, test)[0],
            **{f"order {order}": [of(order, r) for r in (False, True)] for order in (1, 2)},
            "newton": [without(r) for r in (False, True)],
        }

    masks = np.stack([GROUP.astype(float), WEIGHTS])
    return jax.tree.map(np.asarray, compute(problem.params, problem.train, problem.test, masks))


def parts(regularised):
    """(H, gradients, Hessians of examples, test gradients), the regulariser's shares among them if asked."""
    problem = softmax_regression()
    data = (problem.train["x"], problem.train["y"])
    bent = by_hand.each(by_hand.hessian, problem.net, problem.theta, *data)
    slopes = problem.slopes(problem.train)
    if regularised:
        bent, slopes = bent + L2 * np.eye(15), slopes + L2 * problem.theta
    return problem.curvature(), slopes, bent, problem.slopes(problem.test)


def losses_of(theta):
    problem = softmax_regression()
    return by_hand.each(by_hand.loss, problem.net, theta, problem.test["x"], problem.test["y"])


@functools.cache
def without(removed, regularised):
    """What retraining without some examples changes of the test losses."""
    problem = softmax_regression()
    weights = np.where(np.isin(np.arange(N), removed), 0.0, 1 / N)
    share = weights.sum() if regularised else 1.0
    theta = by_hand.minimiser(3, *problem.train.values(), L2, weights, share, start=problem.theta)
    return losses_of(theta) - losses_of(problem.theta)


def test_first_order_is_the_sum():
    got, info = answers()["order 1"][False]
    assert_close(got, np.stack([GROUP, WEIGHTS]) @ answers()["influence"].T, 1e-11)
    assert info.converged.shape == (2, 1)


@pytest.mark.parametrize("regularised", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_the_formula(order, regularised):
    h, slopes, bent, test = parts(regularised)
    got, info = answers()[f"order {order}"][regularised]
    for values, weights in zip(got, (GROUP.astype(float), WEIGHTS), strict=True):
        removed, removed_bent = weights @ slopes / N, np.tensordot(weights, bent, 1) / N
        change = by_hand.second_order_change(h, removed, removed_bent * (order == 2))
        assert_close(values, -N * test @ change, 1e-11)
    assert info.converged.shape == (2, order)
    assert info.converged.all()


@pytest.mark.parametrize("regularised", [False, True])
def test_second_order_is_nearer_to_retraining(regularised):
    truth = without(tuple(np.flatnonzero(GROUP)), regularised)
    off = {}
    for order in (1, 2):
        predicted = training.removal_effect(answers()[f"order {order}"][regularised][0][0], N)
        off[order] = np.linalg.norm(predicted - truth) / np.linalg.norm(truth)
    assert off[2] < 0.75 * off[1]


@pytest.mark.parametrize("regularised", [False, True])
def test_newton_step_removal(regularised):
    """Against the dense formula, and to retraining several times nearer than influence."""
    h, slopes, bent, _ = parts(regularised)
    effects, info = answers()["newton"][regularised]
    theta = softmax_regression().theta
    moved = [theta + by_hand.newton_step(h, slopes[k] / N, bent[k] / N) for k in range(N)]
    want = np.array([losses_of(one) for one in moved]).T - losses_of(theta)[:, None]
    assert_close(effects, want, 1e-9)
    assert info.converged.shape == (N,)
    assert info.converged.all()
    # One example's curvature has the rank of the outputs less one; a share of R takes a few steps more.
    assert info.num_steps.max() <= (7 if regularised else 3)
    truth = np.array([without((k,), regularised) for k in range(N)]).T
    plain = -answers()["influence"] / N if not regularised else None
    if plain is not None:
        assert np.linalg.norm(effects - truth) < np.linalg.norm(plain - truth) / 4
    assert np.linalg.norm(effects - truth) < 0.1 * np.linalg.norm(truth)


def test_newton_step_removal_is_exact_for_least_squares():
    """Ridge regression; retraining is a linear solve."""
    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(12, 3)), "t": rng.normal(size=12)}
    test = {"x": rng.normal(size=(2, 3)), "t": rng.normal(size=2)}
    loss = lambda w, z: 0.5 * (z["x"] @ w - z["t"]) ** 2
    ridge = lambda w: 0.5 * L2 * (w @ w)
    curvature = training.hessian(loss, regularizer=ridge)

    def fit(weights, share=1.0):
        a = data["x"].T @ (weights[:, None] * data["x"]) + share * L2 * np.eye(3)
        w = np.linalg.solve(a, data["x"].T @ (weights * data["t"]))
        return w, 0.5 * (test["x"] @ w - test["t"]) ** 2

    whole, before = fit(np.full(12, 1 / 12))
    for regularised in (False, True):
        explain = training.newton_step_removal(
            loss, curvature=curvature, include_regularizer=regularised, tol=1e-13
        )
        effects, _ = quick(explain)(whole, data, test)
        for k in range(12):
            weights = np.where(np.arange(12) == k, 0.0, 1 / 12)
            after = fit(weights, 11 / 12 if regularised else 1.0)[1]
            np.testing.assert_allclose(np.asarray(effects)[:, k], after - before, rtol=1e-9)


def test_curvature_that_turns_indefinite_without_an_example_is_flagged():
    """H is positive, but only by one example: without it nothing holds the parameter."""
    loss = lambda w, z: 0.5 * z * w**2
    data = np.array([5.0, -1.0, -1.0])
    with pytest.warns(training.SolveWarning, match="indefinite"):
        _, info = training.newton_step_removal(loss)(np.array(1.0), data, data[:1])
    np.testing.assert_array_equal(np.asarray(info.converged), [False, True, True])
    assert float(info.min_curvature[0]) < 0
