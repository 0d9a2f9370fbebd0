"""What relevance methods cost in units of `jax.grad` of the same jitted network.

What bounds them is the count of convolutions (or matrix products) in a pass, of which the gradient needs 2:
epsilon 2; z+ 3 where the input is never negative; gamma 3 there, if a ReLU follows; alpha-beta 5; z-box 3;
flat 2; DeepLIFT 3 (2 if the reference is shared by a batch); RevealCancel 8.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row
from benchmarks.networks import lite0
from benchmarks.relevance_networks import CONVOLUTIONAL, SEQUENTIAL, Case

R = jxp.rules
Make = Callable[[Any], Any]

IMAGES: dict[str, tuple[Make, str]] = {
    "guided_backprop": (jxp.guided_backprop, "at most 1.05"),
    "deconvnet": (jxp.deconvnet, "at most 1.05"),
    "lrp epsilon": (lambda f: jxp.lrp(f, R.EPSILON), "at most 1.1"),
    "lrp EPSILON_PLUS_FLAT": (lambda f: jxp.lrp(f, R.EPSILON_PLUS_FLAT), "at most 1.65"),
    "lrp epsilon_gamma_box": (lambda f: jxp.lrp(f, R.epsilon_gamma_box(-3.0, 3.0)), "at most 1.65"),
    "lrp EPSILON_ALPHA2_BETA1": (lambda f: jxp.lrp(f, R.EPSILON_ALPHA2_BETA1), "at most 2.5"),
    "deep_lift, a reference an example": (None, "at most 1.7"),  # type: ignore[dict-item]
    "deep_lift, a shared reference": (jxp.deep_lift, "at most 1.4"),
    "deep_lift reveal_cancel": (lambda f: jxp.deep_lift(f, rule="reveal_cancel"), "at most 5.5"),
}
SEQUENCES: dict[str, dict[str, tuple[Make, str]]] = {
    "transformer block": {
        "lrp epsilon": (lambda f: jxp.lrp(f, R.EPSILON), "at most 1.3"),
        "deep_lift, a shared reference": (jxp.deep_lift, "at most 1.8"),
    },
    "LSTM by scan": {
        "lrp epsilon": (lambda f: jxp.lrp(f, R.EPSILON), "at most 1.9"),
        "deep_lift, a shared reference": (jxp.deep_lift, "at most 2.0"),
    },
}


def run() -> list[Row]:
    rows = []
    for make in CONVOLUTIONAL:
        rows += measured(make(), IMAGES)
    net = lite0()
    photo = Case("lite0 224x224", lambda x: net.logits(x)[net.label], jnp.stack([net.x, net.x[::-1]]))
    rows += measured(photo, IMAGES, rounds=9)
    for make in SEQUENTIAL:
        case = make()
        rows += measured(case, SEQUENCES[case.name])
    return rows


def measured(case: Case, methods: dict[str, tuple[Make, str]], rounds: int = 15) -> list[Row]:
    """Rows for one network: run time, and compile time, in units of those of the gradient."""
    given = {"jax.grad": jax.vmap(jax.grad(case.f))}
    for name, (make, _) in methods.items():
        given[name] = jax.vmap(make(case.f)) if make else each_its_own(case)
    compiled, seconds = {}, {}
    for name, function in given.items():
        start = time.perf_counter()
        lowered = jax.jit(function).lower(case.xs)
        traced = time.perf_counter() - start
        compiled[name] = lowered.compile()
        seconds[name] = (traced, time.perf_counter() - start)
    for name, (traced, total) in seconds.items():
        print(f"{case.name}: {name}: traced in {traced:.2f} s, compiled in {total / seconds['jax.grad'][1]:.2f} x")
    times = interleaved({n: (lambda run=run: run(case.xs)) for n, run in compiled.items()}, rounds)
    return [
        ratio_row(f"{name}, {case.name}", times[name], "jax.grad", times["jax.grad"], claim=claim)
        for name, (_, claim) in methods.items()
    ]


def each_its_own(case: Case) -> Any:
    """DeepLIFT from a reference that differs from example to example."""
    return jax.vmap(jxp.deep_lift(case.f, lambda x: 0.1 * x[::-1]))
