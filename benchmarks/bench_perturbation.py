"""Occlusion, RISE and LIME cost the evaluations that they need, and their memory does not grow with them.

What bounds it: n forward passes in the batch that suits the machine best. Masks cost a few passes over the input,
and RISE's sums as many; LIME's fit (M + 1 unknowns) is small beside them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row, temporary_bytes
from benchmarks.networks import Net, lite0, small_cnn

CHUNKS = {"small CNN 64x64": (1, 4, 16, 64), "lite0 224x224": (1, 2, 4)}
BUDGET = {"small CNN 64x64": 256, "lite0 224x224": 36}
Score = Callable[[jax.Array], jax.Array]


def methods(f: Score, net: Net, size: int, budget: int) -> dict[str, tuple[Callable[[jax.Array], Any], int]]:
    """Each method on a budget, as a function of the input, with the number of evaluations that it needs."""
    side = net.x.shape[0]
    along = int(np.sqrt(budget))
    window = -(-side // along)
    places = -(-side // window)
    squares = np.arange(side) * 4 // side
    groups = squares[:, None] * 4 + squares[None]
    key = jax.random.key(0)
    occlusion = jxp.occlusion(f, window=(window, window), chunk_size=size)
    rise = jxp.rise(f, num_masks=budget, chunk_size=size)
    lime = jxp.lime(f, groups=groups, num_samples=budget, chunk_size=size)
    return {
        "occlusion": (occlusion, places**2 + 1),
        "rise": (lambda x: rise(key, x), budget + 1),
        "lime": (lambda x: lime(key, x), budget),
    }


def run() -> list[Row]:
    rows = []
    for net in (small_cnn(), lite0()):

        def score(x, net=net):
            return net.logits(x)[net.label]

        rows += costs(net, score)
        if net.name.startswith("small"):
            memory(net, score)
    return rows


def costs(net: Net, score: Score) -> list[Row]:
    """Each method in its best chunk against one evaluation in its best batch, times how many it needs."""
    budget, needs = BUDGET[net.name], {}
    points = jnp.linspace(0, 1, budget)[:, None, None, None] * net.x[None]
    candidates: dict[Any, Callable[[], Any]] = {}
    for size in CHUNKS[net.name]:
        many = jax.jit(lambda points, size=size: jax.lax.map(score, points, batch_size=size))
        candidates["forward", size] = lambda many=many: many(points)
        for name, (explain, needed) in methods(score, net, size, budget).items():
            ours, needs[name] = jax.jit(explain), needed
            candidates[name, size] = lambda ours=ours: ours(net.x)
    seconds = interleaved(candidates, rounds=3 if net.name.startswith("lite0") else 9)

    def best(kind: str) -> tuple[np.ndarray, int]:
        sizes = [size for name, size in seconds if name == kind]
        size = min(sizes, key=lambda size: float(np.median(seconds[kind, size])))
        return seconds[kind, size], size

    forward, batch = best("forward")
    rows = []
    for name, needed in needs.items():
        took, size = best(name)
        what = f"{name}, {needed} evaluations in chunks of {size}, {net.name}"
        against = f"as many forward passes in batches of {batch}"
        rows.append(ratio_row(what, took, against, forward * (needed / budget), claim="at most 1.15"))
    return rows


def memory(net: Net, score: Score) -> None:
    """Temporary memory at two budgets and one chunk size."""
    for name in ("occlusion", "rise", "lime"):
        sizes = [
            temporary_bytes(methods(score, net, 8, budget)[name][0], net.x) / 2**20 for budget in (256, 1024, 4096)
        ]
        print(f"{name}, chunks of 8, {net.name}: " + ", ".join(f"{size:.2f}" for size in sizes) + " MiB")
