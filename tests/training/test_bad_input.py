"""Bad input to what `jaxplain.training` offers: an error that says what to type, or a field of the info."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training.problems import operator_of, softmax_regression

from jaxplain import training

PROBLEM = softmax_regression()
PARAMS, TRAIN, TEST, LOSS = PROBLEM.params, PROBLEM.train, PROBLEM.test, PROBLEM.loss
KEY = jax.random.key(0)
MASK = np.arange(24) < 3
ONE = jax.tree.map(lambda leaf: leaf[0], TRAIN)


def calls(loss=LOSS, **options):
    """Every way to ask, as functions of (params, train); the curvature is the Hessian."""
    similar = {name: value for name, value in options.items() if name in ("only", "chunk_size")}
    return {
        "influence": lambda p, z: training.influence(loss, **options)(p, z, TEST),
        "on params": lambda p, z: training.influence_on_params(loss, **options)(p, z, ONE),
        "self": training.self_influence(loss, **options),
        "perturbation": lambda p, z: training.influence_of_perturbation(loss, **options)(p, z, ONE, ONE),
        "replacement": lambda p, z: training.influence_of_replacement(loss, **options)(p, z, TEST, TEST, TEST),
        "group": lambda p, z: training.group_influence(loss, **options)(p, z, MASK, TEST),
        "newton": lambda p, z: training.newton_step_removal(loss, **options)(p, z, TEST),
        "grad_dot": lambda p, z: training.grad_dot(loss, **similar)(p, z, TEST),
        "grad_cos": lambda p, z: training.grad_cos(loss, **similar)(p, z, TEST),
        "tracin": lambda p, z: training.tracin(loss, **similar)(
            jax.tree.map(lambda leaf: np.asarray(leaf)[None], p), np.ones(1), z, TEST
        ),
        "hvp": lambda p, z: training.hvp(loss, **similar)(p, z, p),
        "hessian": lambda p, z: training.hessian(loss)(p, z).matvec(p),
        "empirical_fisher": lambda p, z: training.empirical_fisher(loss)(p, z).matvec(p),
    }


every_call = pytest.mark.parametrize("name", calls())


@every_call
def test_no_examples(name):
    empty = jax.tree.map(lambda leaf: leaf[:0], TRAIN)
    with pytest.raises(ValueError, match="holds no examples"):
        calls()[name](PARAMS, empty)


@every_call
def test_a_ragged_data_set(name):
    with pytest.raises(ValueError, match=r"different numbers of examples.*24.*23"):
        calls()[name](PARAMS, {**TRAIN, "y": TRAIN["y"][:23]})


@every_call
def test_a_single_example_instead_of_a_data_set(name):
    with pytest.raises(ValueError, match=r"no leading axis of examples; a single example is x\[None\]"):
        calls()[name](PARAMS, {**TRAIN, "y": TRAIN["y"][0]})


@pytest.mark.parametrize("name", ["influence", "replacement", "group", "newton", "grad_dot", "tracin"])
def test_a_single_test_example(name):
    explain = {
        "influence": lambda t: training.influence(LOSS)(PARAMS, TRAIN, t),
        "replacement": lambda t: training.influence_of_replacement(LOSS)(PARAMS, TRAIN, TEST, TEST, t),
        "group": lambda t: training.group_influence(LOSS)(PARAMS, TRAIN, MASK, t),
        "newton": lambda t: training.newton_step_removal(LOSS)(PARAMS, TRAIN, t),
        "grad_dot": lambda t: training.grad_dot(LOSS)(PARAMS, TRAIN, t),
        "tracin": lambda t: training.tracin(LOSS)(jax.tree.map(lambda v: v[None], PARAMS), np.ones(1), TRAIN, t),
    }[name]
    with pytest.raises(ValueError, match=r"test.*(no leading axis of examples|different numbers of examples)"):
        explain(ONE)
    with pytest.raises(ValueError, match="test holds no examples"):
        explain(jax.tree.map(lambda leaf: leaf[:0], TEST))


@every_call
@pytest.mark.parametrize("output", ["vector", "state", "integer"])
def test_a_loss_that_is_no_float_scalar(name, output):
    loss, error, message = {
        "vector": (PROBLEM.predict, ValueError, r"loss_fn\(params, example\).*shape \(3,\)"),
        "state": (lambda p, z: (LOSS(p, z), {}), TypeError, r"loss_fn\(params, example\).*tuple.*training mode"),
        "integer": (lambda p, z: z["y"], TypeError, r"loss_fn\(params, example\).*a float.*int"),
    }[output]
    with pytest.raises(error, match=message):
        calls(loss)[name](PARAMS, TRAIN)


@pytest.mark.parametrize("method", ["gauss_newton", "regularizer", "test_fn"])
def test_other_functions_are_named_in_the_error(method):
    vector = lambda *args: jnp.ones(2)
    run = {
        "gauss_newton": lambda: training.gauss_newton(PROBLEM.predict, vector)(PARAMS, TRAIN).matvec(PARAMS),
        "regularizer": lambda: training.hessian(LOSS, regularizer=vector)(PARAMS, TRAIN).matvec(PARAMS),
        "test_fn": lambda: training.influence(LOSS, test_fn=vector)(PARAMS, TRAIN, TEST),
    }[method]
    with pytest.raises(ValueError, match={"gauss_newton": "output_loss"}.get(method, method) + r".*shape \(2,\)"):
        run()


@every_call
def test_integer_parameters(name):
    with pytest.raises(TypeError, match=r"parameter step is int\d\d of shape \(\).*only="):
        calls()[name]({**PARAMS, "step": np.array(3)}, TRAIN)


@pytest.mark.parametrize("name", sorted(calls().keys() - {"hessian", "empirical_fisher"}))  # asked below
def test_chunk_size_0(name):
    with pytest.raises(ValueError, match="chunk_size must be a whole number of at least 1, not 0"):
        calls(chunk_size=0)[name](PARAMS, TRAIN)


def test_options_of_a_curvature():
    none = r"only= accepts none of the 2 parameters; their paths are bias, kernel"
    for make in (partial(training.hessian, LOSS), partial(training.fisher, PROBLEM.predict)):
        with pytest.raises(ValueError, match=none):
            make(only=lambda path: "weight" in path)(PARAMS, TRAIN)
        with pytest.raises(ValueError, match="chunk_size must be"):
            make(chunk_size=0)
    with pytest.raises(ValueError, match=none):
        training.grad_dot(LOSS, only=lambda path: False)(PARAMS, TRAIN, TEST)
    with pytest.raises(TypeError, match=r"fisher draws random samples.*key"):
        training.fisher(PROBLEM.predict, key=3)
    with pytest.raises(TypeError, match=r"relative draws random samples.*key"):
        training.relative(0.1, key=None)
    with pytest.raises(ValueError, match="num_samples"):
        training.relative(0.1, key=KEY, num_samples=0)


@pytest.mark.parametrize("solve", ["cg", "dense", "lissa", "neumann", "lanczos", "nystrom"])
def test_a_solver_that_was_not_called(solve):
    with pytest.raises(TypeError, match=rf"solve is {solve} itself.*solve={solve}\("):
        training.influence(LOSS, solve=getattr(training, solve))


@pytest.mark.parametrize("solve", ["cg", None, 3, training.Solver])
def test_what_is_no_solver(solve):
    with pytest.raises(TypeError, match=r"solve must be a solver such as cg\(\), not"):
        training.influence(LOSS, solve=solve)


def test_counts_of_a_solver():
    for make in (
        lambda: training.cg(max_steps=0),
        lambda: training.dense(chunk_size=0),
        lambda: training.lissa(num_steps=0, batch_size=1),
        lambda: training.lissa(num_steps=1, batch_size=0),
        lambda: training.lissa(num_steps=1, batch_size=1, repeats=0),
        lambda: training.neumann(num_steps=2.5),
        lambda: training.lanczos(0),
        lambda: training.nystrom(-1),
        lambda: training.nystrom_preconditioner(0),
    ):
        with pytest.raises(ValueError, match="must be a whole number of at least 1"):
            make()
    with pytest.raises(ValueError, match="num_steps=3 products cannot give rank=4"):
        training.lanczos(4, num_steps=3)


def test_a_forgotten_key():
    explain = training.influence(LOSS, solve=training.lissa(num_steps=2, batch_size=1))
    with pytest.raises(TypeError, match=r"influence draws random samples: its first argument is a key"):
        explain(PARAMS, TRAIN, TEST)
    with pytest.raises(TypeError, match=r"called as solve\(key, operator, b\), but it got 2"):
        training.lissa(num_steps=2, batch_size=1)(operator_of(np.eye(2)), {"v": jnp.ones(2)})
    with pytest.raises(TypeError, match=r"called as solve\(operator, b\), but it got 3"):
        training.cg()(KEY, operator_of(np.eye(2)), {"v": jnp.ones(2)})


def test_a_key_too_many():
    """A solver that draws nothing takes none; the error must not be about data."""
    with pytest.raises(TypeError):
        training.influence(LOSS)(KEY, PARAMS, TRAIN, TEST)


def test_too_many_parameters_for_a_dense_matrix():
    with pytest.raises(ValueError, match=r"15 x 15.*cg\(\).*only=.*max_parameters=10"):
        training.influence(LOSS, solve=training.dense(max_parameters=10))(PARAMS, TRAIN, TEST)
    with pytest.raises(ValueError, match=r"15 x 15.*max_parameters=10"):
        training.newton_step_removal(LOSS, max_parameters=10)(PARAMS, TRAIN, TEST)


def test_newton_step_removal_does_not_speak_of_a_solver_it_has_not():
    """It takes no `solve`: an error that says "dense() would form" or "use cg()" cannot be followed."""
    with pytest.raises(ValueError) as caught:
        training.newton_step_removal(LOSS, max_parameters=10)(PARAMS, TRAIN, TEST)
    assert not re.search(r"dense\(\)|cg\(\)", str(caught.value))


def test_the_regulariser_must_be_known():
    for method in (
        training.influence,
        training.influence_on_params,
        training.self_influence,
        training.group_influence,
    ):
        with pytest.raises(
            ValueError, match=r"include_regularizer.*curvature=hessian\(loss_fn, regularizer=...\)"
        ):
            method(LOSS, include_regularizer=True)
    with pytest.raises(ValueError, match=r"include_regularizer.*curvature"):
        training.newton_step_removal(LOSS, include_regularizer=True)


def test_groups():
    with pytest.raises(ValueError, match="order must be 1 or 2, not 3"):
        training.group_influence(LOSS, order=3)
    with pytest.raises(ValueError, match=r"group_mask has shape \(5,\), but there are 24"):
        training.group_influence(LOSS)(PARAMS, TRAIN, MASK[:5], TEST)
    with pytest.raises(ValueError, match=r"one flag a training example.*np.isin\(np.arange"):
        training.group_influence(LOSS)(PARAMS, TRAIN, np.arange(24), TEST)


def test_a_replacement_for_each():
    fewer = jax.tree.map(lambda leaf: leaf[:2], TEST)
    with pytest.raises(ValueError, match="old holds 3 examples, new 2"):
        training.influence_of_replacement(LOSS)(PARAMS, TRAIN, TEST, fewer, TEST)


def test_an_example_without_floats_cannot_be_perturbed():
    loss = lambda w, z: 0.5 * (w - z.astype(w.dtype)) ** 2
    with pytest.raises(TypeError, match="no float leaves"):
        training.influence_of_perturbation(loss)(np.array(1.0), np.array([1, 3]), np.array(1), np.array(2))


def test_not_one_rate_for_each_checkpoint():
    stacked = jax.tree.map(lambda leaf: leaf[None], PARAMS)
    with pytest.raises(ValueError, match=r"1 checkpoints, but learning_rates has shape \(2,\)"):
        training.tracin(LOSS)(stacked, np.ones(2), TRAIN, TEST)


def test_no_checkpoints_are_not_called_examples():
    stacked = jax.tree.map(lambda leaf: leaf[None][:0], PARAMS)
    with pytest.raises(ValueError) as caught:
        training.tracin(LOSS)(stacked, np.ones(0), TRAIN, TEST)
    assert "example" not in str(caught.value)


def test_a_kernel_that_does_not_fit():
    explain = training.representer_points(lambda z: z["x"], lambda o, z: o[0], l2=0.1)
    with pytest.raises(ValueError, match=r"features\(example\) has shape \(4,\) and the kernel \(3, 2\)"):
        explain(np.ones((3, 2)), TRAIN, TEST)


def test_parameters_and_vector_of_different_structure():
    with pytest.raises(ValueError):
        training.hvp(LOSS)(PARAMS, TRAIN, {"kernel": PARAMS["kernel"]})


def test_num_train():
    with pytest.raises(ValueError, match="num_train must be a whole number of at least 1, not 0"):
        training.removal_effect(np.ones(3), 0)


@pytest.mark.parametrize("solve", ["cg", "dense"])
@pytest.mark.parametrize("where", ["train", "test"])
def test_a_loss_that_is_not_finite(solve, where):
    """NaN, and a system that is not called solved; never a number that looks like an answer."""
    loss = lambda w, z: 0.5 * jnp.sum((w - z) ** 2)
    data = {"train": np.array([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), "test": np.array([[1.0, 1.0], [2.0, 0.0]])}
    data[where][1, 0] = np.nan
    explain = training.influence(lambda w, z: loss(w, z) * jnp.exp(w[0] * z[0]), solve=getattr(training, solve)())
    with pytest.warns(training.SolveWarning, match="not solved"):
        values, info = explain(np.array([0.1, 0.2]), data["train"], data["test"])
    bad = np.array([True, True]) if where == "train" else np.array([False, True])
    assert np.isnan(np.asarray(values)[bad]).all()
    assert not np.asarray(info.converged)[bad].any()
    assert np.isfinite(np.asarray(values)[~bad]).all()
