"""What sampled Shapley values cost, in units of the model evaluations that they ask for.

The baseline is the jitted forward in its best batch, times the number of evaluations over that batch: nothing that
evaluates the model so often can be quicker. What comes on top is filling in the background, drawing coalitions and
the regression.
"""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row, temporary_bytes

PLAYERS, WIDTH, BATCHES = 50, 1024, (128, 256, 512)


def model() -> tuple[Any, jax.Array]:
    """(A network of 50 inputs, one input)."""
    rng = np.random.default_rng(0)
    sizes = [PLAYERS, WIDTH, WIDTH, 1]
    weights = [jnp.asarray(rng.normal(size=(a, b)) / np.sqrt(a), jnp.float32) for a, b in pairwise(sizes)]

    def f(x):
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return (x @ weights[-1])[0]

    return f, jnp.asarray(rng.normal(size=PLAYERS), jnp.float32)


def run() -> list[Row]:
    f, x = model()
    forward = jax.jit(jax.vmap(f))
    inputs = {size: jnp.broadcast_to(x, (size, PLAYERS)) for size in BATCHES}
    seconds = interleaved({size: lambda size=size: forward(inputs[size]) for size in BATCHES}, rounds=5)
    best = min(BATCHES, key=lambda size: float(np.median(seconds[size])) / size)
    background, key = jnp.zeros((1, PLAYERS)), jax.random.key(0)
    budget, orders, few = 2048, 42, 512
    explain = {
        "kernel_shap": (jxp.kernel_shap(f, background, budget=budget, chunk_size=best), budget),
        "permutation_shap": (
            jxp.permutation_shap(f, background, num_permutations=orders, chunk_size=best),
            orders * (PLAYERS - 1) + 2,
        ),
        "gaussian_process_shap": (
            jxp.gaussian_process_shap(f, background, budget=few, chunk_size=best),
            few,
        ),
    }
    compiled = {name: jax.jit(each) for name, (each, _) in explain.items()}
    given = {name: lambda name=name: compiled[name](key, x).value for name in explain}
    seconds = interleaved({"forward": lambda: forward(inputs[best]), **given}, rounds=15)
    rows = []
    for name, (_, count) in explain.items():
        needed = seconds["forward"] * count / best
        claim = "" if name == "gaussian_process_shap" else "at most 1.15"
        rows.append(
            ratio_row(f"{name}, {count} evaluations", seconds[name], f"forward x{best}", needed, claim=claim)
        )
    for count in (512, 4096):
        each = jxp.kernel_shap(f, background, budget=count, chunk_size=best)
        print(f"kernel_shap, budget {count}: {temporary_bytes(each, key, x) / 2**20:.1f} MiB of temporaries")
    return rows
