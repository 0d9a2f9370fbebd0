"""Odd functions for the relevance engine: what each computes, and what is known of its explanation.

A case may give, for LRP-0 (`epsilon(0)`: gates, detached statistics):
- `same`: a function with the same value whose gradient times input is LRP-0 (statistics and gates held by
  `stop_gradient`); the function itself if it is piecewise linear and has no bias;
- `power`: gradient times input divided by this (2 for a bilinear form whose factors share equally);
- `bias`: whether constants keep some of the relevance, so that the sum over x is not f(x);
- `conserves`: False for the softmax rule of attention, which does not, by its formula;
- `smooth`: False where the function's own `stop_gradient` makes its derivative another than that of its values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

rng = np.random.default_rng(0)
W = rng.normal(size=(6, 6))
V = rng.normal(size=(6, 6))
w = rng.normal(size=6)
M3 = rng.normal(size=(6, 6, 6))
VECTOR = rng.normal(size=6)
IMAGE = rng.normal(size=(6, 6, 4))
TOKENS = rng.normal(size=(5, 6))
POSITIVE = np.abs(VECTOR) + 0.3
relu = jax.nn.relu
fixed = lax.stop_gradient


class Case(NamedTuple):
    f: Callable[..., Any]
    x: Any
    same: Callable[..., Any] | None = None
    power: int = 1
    bias: bool = False
    conserves: bool = True
    smooth: bool = True


CASES: dict[str, Case] = {}


def case(x, same=None, *, power=1, linear=False, **known):
    """Adds a function to the cases; `linear`: piecewise, and without bias."""

    def add(f):
        CASES[f.__name__.strip("_")] = Case(f, x, f if linear or power > 1 else same, power, **known)
        return f

    return add


def conv(x, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers} | options
    return lax.conv_general_dilated(x[None], kernel, **options)[0]


def kernel(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape) / np.sqrt(np.prod(shape[:-1]))


def rng_matrix(n):
    return np.random.default_rng(n).normal(size=(n, n))
