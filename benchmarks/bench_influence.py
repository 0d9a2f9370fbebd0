"""What influence costs, in units of one gradient of the mean loss over the same examples.

What bounds it: a gradient is a forward and a backward pass, about 3 forward passes of flops. A Hessian-vector
product differentiates both along a direction, 2.5 gradients; with the gradient linearised once, a product in a
solver's loop reuses the first. A Gauss-Newton product is a forward derivative and its transpose behind a forward
pass. A query's scan is one forward derivative.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row, temporary_bytes
from jaxplain import training
from jaxplain.training import _scores
from jaxplain.training._vectors import split


class Case(NamedTuple):
    """A classifier of pictures with parameters and data."""

    name: str
    predict: Callable[..., jax.Array]
    params: Any
    data: tuple[jax.Array, jax.Array]

    def loss(self, params: Any, example: Any) -> jax.Array:
        """Cross-entropy of one example."""
        return self.output_loss(self.predict(params, example), example)

    @staticmethod
    def output_loss(logits: jax.Array, example: Any) -> jax.Array:
        """Cross-entropy of logits."""
        return -jax.nn.log_softmax(logits)[example[1]]


def draw(rng: np.random.Generator, *shape: int) -> jax.Array:
    return jnp.asarray(rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1])), jnp.float32)


def mlp(total: int = 512) -> Case:
    rng = np.random.default_rng(0)
    params = [draw(rng, 784, 256), draw(rng, 256, 256), draw(rng, 256, 10)]

    def predict(params, example):
        h = example[0].reshape(-1)
        for w in params[:-1]:
            h = jnp.tanh(h @ w)
        return h @ params[-1]

    return Case("MLP 784-256-256-10", predict, params, pictures(rng, total))


def cnn(total: int = 128) -> Case:
    rng = np.random.default_rng(0)
    params = [draw(rng, 3, 3, 1, 16), draw(rng, 3, 3, 16, 32), draw(rng, 1568, 10)]

    def predict(params, example):
        h = example[0][None]
        for kernel in params[:-1]:
            options: Any = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
            h = jax.nn.softplus(jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", **options))
            h = jax.lax.reduce_window(h, 0.0, jax.lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        return h.reshape(-1) @ params[-1]

    return Case("CNN 28x28", predict, params, pictures(rng, total))


def pictures(rng: np.random.Generator, total: int) -> tuple[jax.Array, jax.Array]:
    x = jnp.asarray(rng.normal(size=(total, 28, 28, 1)), jnp.float32)
    return x, jnp.asarray(rng.integers(0, 10, size=total))


def run() -> list[Row]:
    # On CPUs XLA runs small convolutions in a loop 10 to 18 times slower: end to end only the MLP counts.
    rows = solving(mlp())
    for case in (mlp(), cnn()):
        rows += [*products(case), *scans(case)]
    return rows


def batch_gradient(case: Case) -> Callable[..., Any]:
    def objective(params, data):
        return jax.vmap(case.loss, (None, 0))(params, data).mean()

    return jax.jit(jax.grad(objective))


def products(case: Case) -> list[Row]:
    """One product with each matrix, all examples at once."""
    v = jax.tree.map(jnp.ones_like, case.params)
    given = {
        "gradient": lambda: slope(case.params, case.data),
        "Hessian product": lambda: hessian(case.params, case.data, v),
        "Gauss-Newton product": lambda: newton(case.params, case.data, v),
    }
    slope, hessian = batch_gradient(case), jax.jit(jxp.hvp(case.loss))
    matrix = training.gauss_newton(case.predict, case.output_loss)
    newton = jax.jit(lambda params, data, v: matrix(params, data).matvec(v))
    seconds = interleaved(given)
    claims = {"Hessian product": "at most 2.7", "Gauss-Newton product": "at most 1.8"}
    return [
        ratio_row(f"{name}, {case.name}", seconds[name], "gradient", seconds["gradient"], claim=claim)
        for name, claim in claims.items()
    ]


def scans(case: Case) -> list[Row]:
    """Scores of all examples against k directions, by forward derivatives and by one gradient an example."""
    free, total = split(case.params), len(case.data[1])
    slope = batch_gradient(case)
    given: dict[Any, Callable[[], Any]] = {"gradient": lambda: slope(case.params, case.data)}
    limits = _scores.MANY_QUERIES
    compiled = {}
    for queries in (1, 8, 32):
        directions = jax.tree.map(lambda leaf: jnp.ones((queries, *leaf.shape), leaf.dtype), case.params)
        for way, limit in (("forward", 1 << 30), ("one gradient each", 0)):
            _scores.MANY_QUERIES = limit  # which of the two ways is traced
            function = lambda d: _scores.scores(case.loss, free, case.data, d, 64)  # noqa: E731
            compiled[queries, way] = jax.jit(function).lower(directions).compile()
            given[queries, way] = lambda f=compiled[queries, way], d=directions: f(d)
            if queries == 1:
                size = temporary_bytes(function, directions) / 2**20
                print(
                    f"{case.name}: scan by {way}: {size:.1f} MiB of temporaries for {total} examples, 64 at once"
                )
    _scores.MANY_QUERIES = limits
    seconds = interleaved(given, rounds=5)
    return [
        ratio_row(
            f"scan of {key[0]} queries by {key[1]}, {case.name}",
            seconds[key],
            "gradient",
            seconds["gradient"],
            claim="at most 1.15" if key == (1, "forward") else "",
        )
        for key in given
        if key != "gradient"
    ]


def solving(case: Case) -> list[Row]:
    """Influence by conjugate gradients from end to end, against the flops of what it does."""
    test = jax.tree.map(lambda leaf: leaf[:4], case.data)
    matrix = training.gauss_newton(case.predict, case.output_loss, damping=0.01)
    explain = jax.jit(jxp.influence(case.loss, curvature=matrix, solve=training.cg(max_steps=10, tol=0.0)))
    slope = batch_gradient(case)
    given = {
        "gradient": lambda: slope(case.params, case.data),
        "influence": lambda: explain(case.params, case.data, test)[0],
    }
    # A product needs, for each query, a forward derivative (two thirds of a gradient) and its transpose (as much).
    steps = int(explain(case.params, case.data, test)[1].num_steps.max()) + 2
    claim = f"{steps} products for 4 queries: about {4 * steps * 4 / 3 + 1:.0f}"
    seconds = interleaved(given, rounds=3)
    name = f"influence of 4 queries by cg, {case.name}"
    return [ratio_row(name, seconds["influence"], "gradient", seconds["gradient"], claim=claim)]
