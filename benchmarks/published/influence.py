"""How well influence predicts retraining, on scikit-learn's digits: `python -m benchmarks.published.influence`.

For the `TOP` training examples of largest influence on a test loss the model is retrained without each, until
nothing moves. Printed are the correlation R, the slope of the truth on the prediction, the relative error of the
prediction, and the relative residual of the solve: R alone hides errors of scale. Medians over seeds and the three
test points that the model gets most wrong (Koh and Liang 2017, section 4).
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits

import jaxplain as jxp
from jaxplain import metrics, training

SEEDS, TRAIN, TEST, TOP = range(5), 1000, 3, 100
Params = dict[str, jax.Array]


class Problem(NamedTuple):
    """A model, trained to a minimum: everything as functions of flat parameters too."""

    loss: Callable[..., jax.Array]
    regularizer: Callable[..., jax.Array]
    params: Params
    train: Any
    test: Any
    inverse: jax.Array  # of the Hessian at the minimum
    slope: float  # what is left of the gradient there


def linear(params: Params, x: jax.Array) -> jax.Array:
    """Softmax regression."""
    return x @ params["w"] + params["b"]


def mlp(params: Params, x: jax.Array) -> jax.Array:
    """One hidden layer of tanh."""
    return linear(params, jnp.tanh(x @ params["w0"] + params["b0"]))


def start(predict: Callable[..., jax.Array], seed: int) -> Params:
    """Parameters to start from."""
    rng = np.random.default_rng(seed)
    if predict is linear:
        return {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    first = {"w0": jnp.asarray(rng.normal(size=(64, 12)) / 8), "b0": jnp.zeros(12)}
    return {**first, "w": jnp.asarray(rng.normal(size=(12, 10)) / 3), "b": jnp.zeros(10)}


def fitted(predict: Callable[..., jax.Array], l2: float, seed: int, train: int = TRAIN) -> Problem:
    """A model trained by damped Newton steps, and the test points that it gets most wrong."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    data = [(jnp.asarray(x[i] / 16.0), jnp.asarray(y[i])) for i in (order[:train], order[train:])]

    def loss(params: Params, example: Any) -> jax.Array:
        return -jax.nn.log_softmax(predict(params, example[0]))[example[1]]

    def regularizer(params: Params) -> jax.Array:
        return l2 / 2 * sum((jnp.square(leaf).sum() for leaf in jax.tree.leaves(params)), jnp.zeros(()))

    flat, unravel = ravel_pytree(start(predict, seed))

    def objective(theta: jax.Array) -> jax.Array:
        params = unravel(theta)
        return jax.vmap(loss, (None, 0))(params, data[0]).mean() + regularizer(params)

    @jax.jit
    def newton(theta: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def step(state: Any, _: Any) -> tuple[Any, None]:
            theta, damping = state
            slope, bent = jax.grad(objective)(theta), jax.hessian(objective)(theta)
            values, vectors = jnp.linalg.eigh(bent)
            moved = theta - vectors @ ((vectors.T @ slope) / (jnp.abs(values) + damping))
            better = objective(moved) < objective(theta)
            small = jnp.linalg.norm(slope) < 1e-6
            moved = jnp.where(better | small, moved, theta)
            return (moved, jnp.where(better, damping / 5, damping * 5) * ~small), None

        go_on = lambda s: (jnp.linalg.norm(jax.grad(objective)(s[0])) > 1e-9) & (s[2] < 300)  # noqa: E731
        following = lambda s: (*step((s[0], s[1]), None)[0], s[2] + 1)  # noqa: E731
        theta, _, _ = jax.lax.while_loop(go_on, following, (theta, jnp.asarray(1e-2), 0))
        return theta, jax.hessian(objective)(theta), jnp.linalg.norm(jax.grad(objective)(theta))

    theta, bent, slope = newton(flat)
    params = unravel(theta)
    wrong = jnp.argsort(-jax.vmap(loss, (None, 0))(params, data[1]))[:TEST]
    test = jax.tree.map(lambda leaf: leaf[wrong], data[1])
    return Problem(loss, regularizer, params, data[0], test, jnp.linalg.inv(bent), float(slope))


def retrained(problem: Problem, masks: jax.Array, steps: int = 40) -> tuple[jax.Array, float]:
    """(test losses (subsets, tests) after retraining with these weights, the largest gradient left)."""
    theta, unravel = ravel_pytree(problem.params)
    total = masks.shape[1]

    def train_fn(_: Any, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        def objective(theta: jax.Array) -> jax.Array:
            params = unravel(theta)
            losses = jax.vmap(problem.loss, (None, 0))(params, problem.train)
            return (losses * weights).sum() / total + problem.regularizer(params)

        def step(state: Any, _: Any) -> tuple[Any, None]:
            theta, length = state
            moved = theta - length * (problem.inverse @ jax.grad(objective)(theta))
            better = objective(moved) <= objective(theta)
            length = jnp.where(better, jnp.minimum(2 * length, 1), length / 4)
            return (jnp.where(better, moved, theta), length), None

        (end, _length), _ = jax.lax.scan(step, (theta, jnp.asarray(1.0)), length=steps)
        left = jnp.linalg.norm(jax.grad(objective)(end))
        return jax.vmap(problem.loss, (None, 0))(unravel(end), problem.test), left

    losses, slopes = jax.jit(metrics.subset_retraining(train_fn, chunk_size=32))(jax.random.key(0), masks)
    return losses, float(slopes.max())


def compared(predicted: jax.Array, actual: jax.Array) -> tuple[float, float, float]:
    """(R, slope of the truth on the prediction, relative error)."""
    p, a = np.asarray(predicted), np.asarray(actual)
    error = np.linalg.norm(p - a) / np.linalg.norm(a)
    return float(np.corrcoef(p, a)[0, 1]), float(p @ a / (p @ p)), float(error)


def leave_one_out_study(
    predict: Callable[..., jax.Array], l2: float, damping: float = 0.0
) -> dict[str, np.ndarray]:
    """Rows (R, slope, error, residual) of every method, one a seed and test point."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in SEEDS:
        problem = fitted(predict, l2, seed, TRAIN if predict is linear else 400)
        total = len(problem.train[1])
        curvature = training.hessian(problem.loss, regularizer=problem.regularizer, damping=damping)
        given = (problem.params, problem.train, problem.test)
        explain = jxp.influence(problem.loss, curvature=curvature, solve=training.dense())
        values, info = explain(*given)
        found: dict[str, tuple[Any, Any]] = {"influence": (jxp.removal_effect(values, total), info.residual)}
        newton = jxp.newton_step_removal(problem.loss, curvature=curvature, chunk_size=50)
        steps, step_info = newton(*given)
        found["Newton step"] = (steps, step_info.residual)
        found["gradient dot product"] = (jxp.grad_dot(problem.loss)(*given) / total, np.nan)
        top = jnp.argsort(-jnp.abs(values), axis=1)[:, :TOP]
        chosen = jnp.unique(top)
        masks = jnp.ones((len(chosen) + 1, total)).at[jnp.arange(len(chosen)), chosen].set(0)
        losses, left = retrained(problem, masks, steps=40 if predict is linear else 150)
        changes = (losses[:-1] - losses[-1:]).T
        print(f"seed {seed}: gradient left {problem.slope:.1e}, {left:.1e} after retraining", file=sys.stderr)
        for name, (effects, residual) in found.items():
            for k in range(TEST):
                figures = compared(effects[k, top[k]], changes[k, jnp.searchsorted(chosen, top[k])])
                rows.setdefault(name, []).append((*figures, float(np.max(residual))))
    return {name: np.array(values) for name, values in rows.items()}


def group_study(l2: float) -> dict[str, np.ndarray]:
    """The same for random groups of a tenth and of a fifth of the training examples."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in SEEDS:
        problem = fitted(linear, l2, seed)
        rng = np.random.default_rng(seed)
        masks = {share: jnp.asarray(rng.uniform(size=(30, TRAIN)) < share) for share in (0.1, 0.2)}
        curvature = training.hessian(problem.loss, regularizer=problem.regularizer)
        for share, groups in masks.items():
            kept = jnp.concatenate([1.0 - groups, jnp.ones((1, TRAIN))])
            losses, _ = retrained(problem, kept, steps=120)
            changes = losses[:-1] - losses[-1:]
            for order in (1, 2):
                explain = jxp.group_influence(
                    problem.loss, order=order, curvature=curvature, solve=training.cg(tol=1e-8)
                )
                one = lambda mask: explain(problem.params, problem.train, mask, problem.test)  # noqa: E731
                values, info = jax.lax.map(one, groups)
                for k in range(TEST):
                    figures = compared(jxp.removal_effect(values[:, k], TRAIN), changes[:, k])
                    name = f"groups of {share:.0%}, order {order}"
                    rows.setdefault(name, []).append((*figures, float(info.residual.max())))
    return {name: np.array(values) for name, values in rows.items()}


def lissa_study(l2: float) -> dict[str, np.ndarray]:
    """LiSSA's relative error of H^-1 g; the slope is the share of systems that it calls solved."""
    rows = []
    for seed in SEEDS:
        problem = fitted(linear, l2, seed)
        operator = training.hessian(problem.loss, regularizer=problem.regularizer)(problem.params, problem.train)
        slopes = jax.vmap(lambda z: jax.grad(problem.loss)(problem.params, z))(problem.test)
        solver = training.lissa(num_steps=2000, batch_size=50)
        x, info = jax.jit(jax.vmap(solver.prepare(jax.random.key(seed), operator)))(slopes)
        exact, _ = jax.vmap(training.dense().prepare(None, operator))(slopes)
        for k in range(TEST):
            one, other = (ravel_pytree(jax.tree.map(lambda leaf: leaf[k], tree))[0] for tree in (x, exact))
            error = jnp.linalg.norm(one - other) / jnp.linalg.norm(other)
            rows.append((np.nan, float(info.converged[k]), float(error), float(info.residual[k])))
    return {"LiSSA, 2000 steps of 50 (slope: share called solved)": np.array(rows)}


def main() -> None:
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    studies = {
        "softmax regression, l2 .01": lambda: leave_one_out_study(linear, 0.01),
        "softmax regression, l2 .001": lambda: leave_one_out_study(linear, 0.001),
        "tanh MLP, l2 .01, damping .001": lambda: leave_one_out_study(mlp, 0.01, 0.001),
        "softmax regression, l2 .01, groups": lambda: group_study(0.01),
        "softmax regression, l2 .01, solver": lambda: lissa_study(0.01),
        "softmax regression, l2 .001, solver": lambda: lissa_study(0.001),
    }
    table = Table("problem", "method", "R", "slope", "error", "residual", "worst R", "worst error")
    for problem, study in studies.items():
        for method, figures in study().items():
            print(problem, method, np.round(np.median(figures, 0), 4), file=sys.stderr)
            middle, low, high = np.median(figures, 0), figures[:, 0].min(), figures[:, 2].max()
            cells = [f"{v:.4f}" for v in middle[:2]] + [f"{middle[2]:.3f}", f"{middle[3]:.1e}"]
            table.add_row(problem, method, *cells, f"{low:.4f}", f"{high:.3f}")
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
