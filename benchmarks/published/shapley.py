"""How near sampled Shapley values come on Diabetes: `python -m benchmarks.published.shapley`.

The setting of Musco and Witter (2025): scikit-learn's ten features, boosted trees, missing features at the mean,
error |phi^ - phi|^2 / |phi|^2 against enumeration, over rows and keys. Published at 80 evaluations (means): Kernel
SHAP .0124, Permutation SHAP .0094, Leverage SHAP .0031. Of every estimator mean, quartiles and by how much its
standard errors exceed its errors.
"""

import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor

from jaxplain import shapley

PLAYERS, ROWS, KEYS, BUDGETS = 10, 50, 20, (50, 80, 200, 400)


def tables() -> jax.Array:
    """The values of all coalitions (rows, 2^10): trees of depth 4, learning rate .3, as in the paper."""
    data: Any = load_diabetes()
    x, y = data.data, data.target
    model = GradientBoostingRegressor(n_estimators=100, max_depth=4, learning_rate=0.3, random_state=0).fit(x, y)
    masks = np.arange(2**PLAYERS)[:, None] >> np.arange(PLAYERS) & 1
    rows = np.random.default_rng(0).choice(len(x), ROWS, replace=False)
    return jnp.asarray(np.array([model.predict(np.where(masks, x[k], x.mean(0))) for k in rows]))


def game_of(values: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """The game with these values, bit i of the index being player i."""
    powers = 2 ** jnp.arange(PLAYERS)
    return lambda mask: values[(mask.astype(int) * powers).sum()]


def estimators(budget: int) -> dict[str, Callable[..., Any]]:
    """Every estimator, with at most this many evaluations."""
    orders = max(2, (budget - 2) // (PLAYERS - 1) // 2 * 2)
    return {
        "kernel, unpaired": lambda v: shapley.kernel(v, PLAYERS, budget=budget, paired=False),
        "kernel": lambda v: shapley.kernel(v, PLAYERS, budget=budget),
        "leverage, unpaired": lambda v: shapley.kernel(
            v, PLAYERS, budget=budget, paired=False, sampling="leverage"
        ),
        "leverage": lambda v: shapley.kernel(v, PLAYERS, budget=budget, sampling="leverage"),
        "permutation": lambda v: shapley.permutation(v, PLAYERS, num_permutations=orders),
        "Gaussian process": lambda v: shapley.gaussian_process(v, PLAYERS, budget=budget),
    }


def main() -> None:
    """Print the table."""
    jax.config.update("jax_enable_x64", True)
    values = tables()
    exact = jax.jit(jax.vmap(lambda t: shapley.exact(game_of(t), PLAYERS)))(values)
    keys = jax.random.split(jax.random.key(0), KEYS)
    table = Table("evaluations", "estimator", "mean", "quartile", "median", "quartile", "claimed / true error")
    for budget in BUDGETS:
        for name, make in estimators(budget).items():
            estimate = jax.lax.map(lambda t: jax.vmap(make(game_of(t)))(keys), values)
            off = estimate.value - exact[:, None]
            error = (off**2).sum(-1) / (exact**2).sum(-1)[:, None]
            claimed = jnp.sqrt((estimate.std_error**2).sum() / (off**2).sum())
            low, middle, high = np.quantile(error, [0.25, 0.5, 0.75])
            figures = [float(error.mean()), low, middle, high]
            print(budget, name, np.round(figures, 6), file=sys.stderr, flush=True)
            table.add_row(str(budget), name, *(f"{f:.2g}" for f in figures), f"{float(claimed):.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
