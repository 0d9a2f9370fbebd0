"""Solvers against numpy: the answer, and what the info says of it."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_influence as by_hand
from references.compare import assert_close
from training.problems import (
    L2,
    as_tree,
    flat,
    operator_of,
    quick,
    regularizer,
    softmax_regression,
    with_eigenvalues,
)

from jaxplain import training

VALUES = [0.2, 0.5, 1.0, 2.0, 3.5, 6.0]
DAMPING = 0.1
RIGHT = np.random.default_rng(5).normal(size=(3, 6)) * np.array([[1.0], [1e3], [1e-6]])


def solve_all(solver, a, right, damping=DAMPING, key=None):
    """(x, info) of all right-hand sides under one `vmap`, in one program."""

    def run(a, right, damping, key):
        operator = operator_of(a, damping)
        keyed = (key,) if solver.needs_key else ()
        x, info = jax.vmap(lambda b: solver(*keyed, operator, {"v": b}))(right)
        return x["v"], info

    return jax.tree.map(np.asarray, quick(run)(a, right, damping, jax.random.key(0) if key is None else key))


def residuals(a, damping, x, right):
    """|b - A x| / |b| in numpy, 0 of nothing."""
    left = right - x @ (a + damping * np.eye(len(a)))
    size = np.linalg.norm(right, axis=1)
    return np.where(size > 0, np.linalg.norm(left, axis=1) / np.where(size > 0, size, 1), 0)


EXACT = {
    "dense": (training.dense(), 1e-12),
    "dense in chunks": (training.dense(chunk_size=4), 1e-12),
    "cg": (training.cg(tol=1e-13), 1e-11),
    "preconditioned cg": (training.cg(tol=1e-13, preconditioner=training.nystrom_preconditioner(3)), 1e-11),
    "lanczos": (training.lanczos(6), 1e-11),
    "nystrom": (training.nystrom(6), 1e-11),
    "neumann": (training.neumann(num_steps=900), 1e-11),
    "neumann with a scale": (training.neumann(num_steps=900, scale=4.0), 1e-11),
    # Of a single example every batch is the data set, so that the iteration is Neumann's.
    "lissa": (training.lissa(num_steps=1600, batch_size=1), 1e-8),
}


@pytest.mark.parametrize("name", EXACT)
def test_the_answer_and_its_residual(name):
    """Right-hand sides of very different size, each solved as if alone."""
    solver, rtol = EXACT[name]
    a, right = with_eigenvalues(VALUES), RIGHT
    x, info = solve_all(solver, a, right)
    want = np.linalg.solve(a + DAMPING * np.eye(6), right.T).T
    for got, wanted in zip(x, want, strict=True):
        assert_close(got, wanted, rtol)
    # The residual is rounding here, and rounds differently in numpy.
    np.testing.assert_allclose(
        info.residual, residuals(a, DAMPING, x, right), atol=max(1e-14, rtol / 100), rtol=1e-3
    )
    assert info.converged.all()
    assert not (info.min_curvature < 0).any()
    assert {leaf.shape[0] for leaf in info} == {3}
    assert info.num_steps.dtype.kind == "i"


@pytest.mark.parametrize("name", ["dense", "cg", "lanczos", "neumann", "lissa"])
def test_nothing_on_the_right_hand_side(name):
    """A test example without a gradient: 0, and solved."""
    x, info = solve_all(EXACT[name][0], with_eigenvalues(VALUES), np.vstack([np.zeros(6), RIGHT[0]]))
    np.testing.assert_array_equal(x[0], 0)
    assert info.residual[0] == 0
    assert info.converged.all()


@pytest.mark.parametrize(
    "solver",
    [
        training.cg(max_steps=3, tol=1e-12),
        training.neumann(num_steps=5),
        training.lanczos(2),
        training.nystrom(2),
        training.lissa(num_steps=20, batch_size=1),
    ],
    ids=["cg", "neumann", "lanczos", "nystrom", "lissa"],
)
def test_the_residual_of_an_unfinished_solve_is_the_true_one(solver):
    a = with_eigenvalues(VALUES)
    x, info = solve_all(solver, a, RIGHT)
    np.testing.assert_allclose(info.residual, residuals(a, DAMPING, x, RIGHT), rtol=1e-10)
    assert not info.converged.any()
    assert (info.residual > 0.01).all()


def test_every_right_hand_side_of_cg_stops_by_itself():
    a = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    right = np.array([[0, 1.0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1], [0] * 6])
    x, info = solve_all(training.cg(tol=1e-10), a, right, damping=0.0)
    np.testing.assert_array_equal(info.num_steps, [1, 2, 6, 0])
    assert info.converged.all()
    assert_close(x, right / np.arange(1.0, 7), 1e-10)
    loose, loose_info = solve_all(training.cg(tol=0.3), a, right, damping=0.0)
    assert loose_info.num_steps[2] < 6
    assert (loose_info.residual <= 0.3).all()
    np.testing.assert_allclose(loose_info.residual, residuals(a, 0.0, loose, right), atol=1e-13)


def test_cg_restarts_its_residual():
    """Over many restarts of a badly conditioned system, the info has the true residual, not the recurrence's."""
    a = with_eigenvalues(np.logspace(-3, 2, 40))
    right = np.random.default_rng(0).normal(size=(1, 40))
    x, info = solve_all(training.cg(max_steps=400, tol=1e-9), a, right, damping=0.0)
    assert info.converged.all()
    assert info.num_steps[0] > 60
    np.testing.assert_allclose(info.residual, residuals(a, 0.0, x, right), rtol=1e-3)


def test_the_preconditioner_saves_steps():
    a = with_eigenvalues(np.r_[np.logspace(0, 4, 20), np.full(20, 0.01)])
    right = np.random.default_rng(0).normal(size=(2, 40))
    plain = solve_all(training.cg(tol=1e-8), a, right, damping=0.01)[1]
    sketch = training.nystrom_preconditioner(25)
    faster = solve_all(training.cg(tol=1e-8, preconditioner=sketch), a, right, damping=0.01)[1]
    assert faster.converged.all()
    assert (faster.num_steps <= 10).all()
    assert (plain.num_steps > 40).all()


@pytest.mark.parametrize("name", ["cg", "dense", "lanczos"])
def test_ritz_values_are_eigenvalues(name):
    solver = {"cg": training.cg(max_steps=9, tol=1e-12), "dense": training.dense(), "lanczos": training.lanczos(6)}
    info = solve_all(solver[name], with_eigenvalues(VALUES), RIGHT)[1]
    for row, least in zip(info.ritz_values, info.min_curvature, strict=True):
        np.testing.assert_allclose(row[:6], np.array(VALUES) + DAMPING, rtol=1e-7)
        assert np.isnan(row[6:]).all()
        assert least >= VALUES[0] + DAMPING - 1e-9


def test_few_steps_of_cg_know_the_ends_of_the_spectrum():
    values = np.linspace(1, 10, 30)
    info = solve_all(training.cg(max_steps=12, tol=0.0), with_eigenvalues(values), np.ones((1, 30)), damping=0.0)[
        1
    ]
    ritz = info.ritz_values[0]
    assert ((ritz > 1 - 1e-9) & (ritz < 10 + 1e-9)).all()
    assert (np.diff(ritz) > 0).all()
    assert ritz[-1] > 9.5


@pytest.mark.parametrize("name", ["cg", "dense", "lanczos"])
def test_an_indefinite_matrix_is_flagged(name):
    solver = {"cg": training.cg(), "dense": training.dense(), "lanczos": training.lanczos(6)}[name]
    a = with_eigenvalues([-1.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    x, info = solve_all(solver, a, RIGHT)
    assert (info.min_curvature < 0).all()
    assert np.isfinite(x).all()
    if name == "cg":
        assert not info.converged.any()
    enough = solve_all(solver, a, RIGHT, damping=2.0)[1]
    assert (enough.min_curvature > 0).all()
    assert enough.converged.all()


def test_a_sketch_of_an_indefinite_matrix_says_so():
    """It has no square root: no answer, and why; conjugate gradients then do without."""
    a = with_eigenvalues([-1.0, 0.5, 1.0, 2.0, 3.0, 4.0])
    x, info = solve_all(training.nystrom(6), a, RIGHT)
    assert np.isnan(x).all()
    np.testing.assert_allclose(info.min_curvature, -1 + DAMPING, rtol=1e-9)
    sketch = training.nystrom_preconditioner(6)
    _, plain = solve_all(training.cg(), a, RIGHT)
    _, info = solve_all(training.cg(preconditioner=sketch), a, RIGHT)
    assert (info.min_curvature < 0).all()
    np.testing.assert_allclose(info.min_curvature, plain.min_curvature, rtol=1e-9)
    assert not info.converged.any()


def test_no_step_is_no_answer():
    """Where the first direction has no positive curvature x = 0 would read as no influence."""
    x, info = solve_all(training.cg(), np.diag([-1.0, 2.0]), np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    assert np.isnan(x[0]).all()
    assert info.min_curvature[0] == -1 + DAMPING
    np.testing.assert_allclose(x[1:], [[0, 1 / (2 + DAMPING)], [0, 0]])
    np.testing.assert_array_equal(info.converged, [False, True, True])


@pytest.mark.parametrize("solver", [training.dense(), training.cg(tol=1e-13)], ids=["dense", "cg"])
def test_derivatives_are_those_of_the_solution_also_where_eigenvalues_meet(solver):
    """d/dt of c A(t)^-1 b with A = t I + E, E symmetric: -c A^-1 A^-1 b, and -c A^-1 E' A^-1 b by its entries."""
    b, c = np.array([1.0, 2.0, -1.0]), np.array([0.5, 1.0, 3.0])

    def value(t, e):
        a = t * jnp.eye(3) + (e + e.T) / 2
        return c @ solver(operator_of(a), {"v": jnp.asarray(b)})[0]["v"]

    by_t, by_e = quick(jax.grad(value, (0, 1)))(jnp.asarray(2.0), jnp.zeros((3, 3)))
    np.testing.assert_allclose(by_t, -c @ b / 4, rtol=1e-12)
    np.testing.assert_allclose(by_e, -(np.outer(c, b) + np.outer(b, c)) / 8, rtol=1e-12)
    bent = quick(jax.hessian(value))(jnp.asarray(2.0), jnp.zeros((3, 3)))
    np.testing.assert_allclose(bent, 2 * c @ b / 8, rtol=1e-12)


def test_a_direction_of_no_curvature_stops_cg():
    right = np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    x, info = solve_all(training.cg(), np.diag([1.0, 1.0, 0.0]), right, damping=0.0)
    assert np.isfinite(x).all()
    np.testing.assert_array_equal(info.converged, [False, True])
    assert info.min_curvature[0] >= 0


@pytest.mark.parametrize("tail", [True, False])
@pytest.mark.parametrize("damping", [0.1, 0.0])
def test_lanczos_is_the_eigenpairs_and_a_tail(tail, damping):
    a = with_eigenvalues([-3.0, 0.2, 0.5, 1.0, 2.0, 6.0])
    x, info = solve_all(training.lanczos(3, tail=tail, num_steps=6), a, RIGHT, damping)
    # Of A without damping 6, -3 and 2 are the largest; without a damping the tail has the smallest positive one.
    rest = (damping or 2.0) if tail else None
    for got, b in zip(x, RIGHT, strict=True):
        assert_close(got, by_hand.from_eigenpairs(a, damping, b, 3, rest), 1e-9)
    np.testing.assert_allclose(info.ritz_values[0], np.array([-3.0, 2.0, 6.0]) + damping, rtol=1e-9)


def test_nystrom_is_exact_up_to_its_rank():
    a = with_eigenvalues([0, 0, 0, 1.0, 2.0, 6.0])
    x, info = solve_all(training.nystrom(3), a, RIGHT)
    want = np.linalg.solve(a + DAMPING * np.eye(6), RIGHT.T).T
    # The identity that is added before the root is taken, and taken away after, leaves rounding.
    for got, wanted in zip(x, want, strict=True):
        assert_close(got, wanted, 1e-8)
    np.testing.assert_allclose(info.ritz_values[0], np.array([1.0, 2.0, 6.0]) + DAMPING, rtol=1e-8)


def test_the_answer_of_lissa_depends_on_neither_scale_nor_the_place_of_the_damping():
    """(A, damping) and (A + damping, 0) are one matrix; only how fast the answer comes may differ."""
    a, b = with_eigenvalues(VALUES), {"v": jnp.asarray(RIGHT[0])}

    @quick
    def answers(scales):
        def one(scale, base, damping):
            solver = training.lissa(num_steps=3000, batch_size=1, scale=scale)
            return solver(jax.random.key(0), operator_of(base, damping), b)[0]["v"]

        inside = jax.vmap(lambda s: one(s, a, DAMPING))(scales)
        return jnp.vstack([inside, one(scales[0], a + DAMPING * np.eye(6), 0.0)[None]])

    got = answers(np.array([7.0, 14.0, 25.0]))
    # The largest scale still carries (1 - 0.3 / 25)^1500 of the start.
    assert_close(got, np.tile(np.linalg.solve(a + DAMPING * np.eye(6), RIGHT[0]), (4, 1)), 1e-6)


def test_lissa_with_drawn_batches_is_near_and_averages_the_tail():
    problem = softmax_regression()
    b = problem.slopes(problem.test)[0]
    make = training.hessian(problem.loss, regularizer=regularizer, damping=0.2)

    @quick
    def answers(key):
        operator = make(problem.params, problem.train)
        x, info = training.lissa(num_steps=1500, batch_size=4, scale=6.0)(key, operator, as_tree(problem, b))

        def step(u, key):
            product = operator.sampled(key, u, 4)
            return jax.tree.map(lambda u, b, av: u + (b - av) / 6.0, u, as_tree(problem, b), product), None

        zero = jax.tree.map(jnp.asarray, as_tree(problem, 0 * b))
        return x, info, jax.lax.scan(step, zero, jax.random.split(key, 1500))[0]

    want = np.linalg.solve(problem.curvature(damping=L2 + 0.2), b)
    off = lambda x: np.linalg.norm(flat(x) - want) / np.linalg.norm(want)
    errors = []
    for seed in range(3):
        x, info, last = answers(jax.random.key(seed))
        errors.append((off(x), off(last)))
        assert bool(info.converged)
        assert float(info.residual) < 0.1
    averaged, last = np.median(errors, axis=0)
    assert averaged < 0.05
    assert last > 2 * averaged


@pytest.mark.parametrize("name", ["lissa", "neumann"])
def test_too_small_a_scale_diverges_to_nan(name):
    make = {
        "lissa": lambda: training.lissa(num_steps=200, batch_size=1, scale=2.0),
        "neumann": lambda: training.neumann(num_steps=200, scale=2.0),
    }
    x, info = solve_all(make[name](), with_eigenvalues(VALUES), RIGHT)
    assert np.isnan(x).all()
    assert not info.converged.any()
    assert not (info.residual < 1).any()


def test_a_right_hand_side_that_is_not_finite_gives_nan():
    right = np.array([[1.0, np.nan, 1.0], [np.inf, 1.0, 1.0], [1.0, 1.0, 1.0]])
    solvers = [training.cg(), training.dense(), training.lanczos(3)]
    for solver in solvers:
        x, info = solve_all(solver, np.diag([1.0, 2.0, 3.0]), right, damping=0.0)
        assert np.isnan(x[:2]).any(1).all()
        assert not info.converged[:2].any()
        assert info.converged[2]
        assert_close(x[2], 1 / np.arange(1.0, 4), 1e-5)  # cg's own tolerance


def test_a_singular_matrix_is_not_called_solved_by_dense():
    x, info = solve_all(training.dense(), np.diag([1.0, 0.0, 2.0]), np.ones((1, 3)), damping=0.0)
    assert not info.converged[0]
    assert not np.isfinite(x).all()


def test_warnings_are_of_what_is_known():
    info = training.SolveInfo(
        *map(jnp.asarray, ([0.5, 1e-9], [7, 3], [False, True], [0.1, 0.2])), jnp.ones((2, 1))
    )
    with pytest.warns(training.SolveWarning, match=r"1 of 2 systems.*up to 0\.5.*after 7 steps.*damp more"):
        training.warn_about(info)
    with pytest.warns(training.SolveWarning, match=r"indefinite.*-0\.3.*gauss_newton.*damping"):
        training.warn_about(info._replace(min_curvature=jnp.asarray([-0.3, 1.0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(training.warn_about, info)


def test_every_solver_is_one_trace(recwarn):
    """A loss is traced a fixed number of times, however many steps and right-hand sides there are."""
    traces = []

    def loss(w, z):
        traces.append(1)
        return 0.5 * z * (w @ w)

    for solver in (training.cg(max_steps=50), training.dense(), training.neumann(num_steps=50)):
        counts = []
        for queries in (1, 7):
            traces.clear()
            one = lambda b, solver=solver: solver(training.hessian(loss)(jnp.ones(3), jnp.ones(2)), b)
            jax.eval_shape(jax.vmap(one), jnp.ones((queries, 3)))
            counts.append(len(traces))
        assert counts[0] == counts[1] <= 3
    assert not recwarn.list


SIZES = {
    "cg": training.cg(),
    "neumann": training.neumann(num_steps=6000),
    "lissa": training.lissa(num_steps=20_000, batch_size=3, tol=0.1),
}


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1e12, 1e20])
@pytest.mark.parametrize("name", SIZES)
def test_very_small_and_large_right_hand_sides_in_float32(name, scale):
    loss = lambda w, x: jnp.square(w @ x) / 2
    data = jnp.diag(jnp.asarray([1.0, 0.1, 0.01], jnp.float32))
    operator = training.hessian(loss, damping=1e-3)(jnp.ones(3, jnp.float32), data)
    b = jnp.full(3, scale, jnp.float32)
    solver = SIZES[name]
    x, info = quick(lambda key, b: solver(*[key] * solver.needs_key, operator, b))(jax.random.key(0), b)
    exact = scale / (np.square([1.0, 0.1, 0.01]) / 3 + 1e-3)
    # float32; LiSSA by its drawn batches, 3 of the 3 examples with replacement
    np.testing.assert_allclose(np.asarray(x, np.float64) / exact, 1, rtol=0.15 if name == "lissa" else 2e-4)
    assert info.converged


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_solvers_that_factorise_keep_16_bits(dtype):
    loss = lambda w, x: jnp.square(w @ x) / 2
    data = jnp.diag(jnp.asarray([1.0, 0.5, 0.25], dtype))
    operator = training.hessian(loss, damping=0.125)(jnp.ones(3, dtype), data)
    b = jnp.ones(3, dtype)
    exact = 1 / (np.square([1.0, 0.5, 0.25]) / 3 + 0.125)
    for solver in (training.dense(), training.lanczos(3), training.nystrom(3), training.cg()):
        x, _ = solver(*[jax.random.key(0)] * solver.needs_key, operator, b)
        assert x.dtype == dtype
        np.testing.assert_allclose(np.asarray(x, np.float64), exact, rtol=0.05)  # 8 bits


def test_rounding_is_not_called_indefinite():
    """Softmax is singular along one shift: an eigenvalue of -4e-8 says nothing of the problem."""
    info = training.SolveInfo(*map(jnp.asarray, (1e-7, 1, True, -4e-8)), jnp.asarray([-4e-8, 1.0], jnp.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        training.warn_about(info)
    with pytest.warns(training.SolveWarning, match="indefinite"):
        training.warn_about(info._replace(min_curvature=jnp.asarray(-1e-2)))
