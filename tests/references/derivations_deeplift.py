"""Slow float64 derivations of DeepLIFT (Shrikumar et al. 2017), forwards with all multipliers written out.

A `Secant` is a value with its reference and the matrix M of multipliers from every input: the contribution of
input i to value j is (x_i - x'_i) M_ij. Multipliers obey a chain rule: each operation gives those of its result.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from references.derivations_units import Affine, Array, Average, Max, Relu, Residual, Unit, winner

TINY = 1e-12
Function = Callable[[Array], Array]


@dataclass(frozen=True)
class Secant:
    """A value, its reference and the multipliers M[input, ...] that the inputs have for it."""

    v: Array
    v0: Array
    M: Array

    @property
    def delta(self) -> Array:
        return self.v - self.v0

    def __add__(self, other: "Secant") -> "Secant":
        return Secant(self.v + other.v, self.v0 + other.v0, self.M + other.M)

    def __getitem__(self, where: tuple | int | slice) -> "Secant":
        inner = where if isinstance(where, tuple) else (where,)
        return Secant(self.v[where], self.v0[where], self.M[(slice(None), *inner)])

    def linear(self, W: Array, b: Array | float = 0.0) -> "Secant":
        """x W + b, over the last axis."""
        return Secant(self.v @ W + b, self.v0 @ W + b, self.M @ W)

    def elementwise(self, f: Function, slope: Function) -> "Secant":
        """Rescale: the multiplier is dy / dx, and where dx is about 0 the slope halfway."""
        small = np.abs(self.delta) < TINY
        ratio = (f(self.v) - f(self.v0)) / np.where(small, 1.0, self.delta)
        return Secant(f(self.v), f(self.v0), self.M * np.where(small, slope((self.v + self.v0) / 2), ratio))

    def times(self, other: "Secant") -> "Secant":
        """A product as a game of two players: each factor's change counts at the mean of the other."""
        M = self.M * ((other.v + other.v0) / 2) + other.M * ((self.v + self.v0) / 2)
        return Secant(self.v * other.v, self.v0 * other.v0, M)

    def matmul(self, other: "Secant") -> "Secant":
        """A matrix product, as the sum of its products."""
        rows, columns = self.v.shape[0], other.v.shape[1]
        parts = []
        for i in range(rows):
            for j in range(columns):
                terms = self[i, :].times(other[:, j])
                parts.append((terms.v.sum(), terms.v0.sum(), terms.M.sum(-1)))
        shape = (rows, columns)
        v, v0 = (np.array([part[k] for part in parts]).reshape(shape) for k in (0, 1))
        return Secant(v, v0, np.stack([part[2] for part in parts], -1).reshape(-1, *shape))

    @property
    def transposed(self) -> "Secant":
        return Secant(self.v.T, self.v0.T, self.M.transpose(0, 2, 1))


def inputs(x: Array, baseline: Array) -> Secant:
    x, baseline = np.asarray(x, float), np.asarray(baseline, float)
    return Secant(x, baseline, np.eye(x.size).reshape(x.size, *x.shape))


def constant(value: Array, players: int) -> Secant:
    value = np.asarray(value, float)
    return Secant(value, value, np.zeros((players, *value.shape)))


def relu(z: Array) -> Array:
    return np.where(z > 0, z, 0.0)


def step(z: Array) -> Array:
    return np.where(z > 0, 1.0, 0.0)


def sigmoid(z: Array) -> Array:
    return 1 / (1 + np.exp(-z))


SIGMOID: tuple[Function, Function] = (sigmoid, lambda z: sigmoid(z) * (1 - sigmoid(z)))
TANH: tuple[Function, Function] = (np.tanh, lambda z: 1 - np.tanh(z) ** 2)
RECIPROCAL: tuple[Function, Function] = (lambda z: 1 / z, lambda z: -1 / z**2)


def softmax(s: Secant) -> Secant:
    """Over the last axis, of one row: each change of p is that of exp(x - log S) by Rescale.

    The change of log S, which all share, is the one with which the changes of p sum to 0: solved for and put in.
    """
    p, p0 = (np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in (s.v, s.v0))
    n = len(p)
    slope = np.array([p[i] if p[i] == p0[i] else (p[i] - p0[i]) / np.log(p[i] / p0[i]) for i in range(n)])
    J = np.zeros((n, n))
    for i in range(n):
        for j in range(n):  # dp_i / dx_j, with d log S = sum_j slope_j dx_j / sum slope
            J[i, j] = slope[i] * ((i == j) - slope[j] / slope.sum())
    return Secant(p, p0, s.M @ J.T)


def layernorm(x: Secant, scale: Array, bias: Array, eps: float) -> Secant:
    """Over the last axis, by its pieces: centring, square, mean, reciprocal root, product, affine."""
    n = x.v.shape[-1]
    d = x.linear(np.eye(n) - 1 / n)
    variance = d.times(d).linear(np.full((n, n), 1 / n))
    root = variance.elementwise(lambda z: (z + eps) ** -0.5, lambda z: -0.5 * (z + eps) ** -1.5)
    return d.times(root).linear(np.diag(scale), bias)


def cross_maximum(unit: Max, x: Secant) -> Secant:
    """Of y - y', the rise to max(y, y') is owed to the place of x's maximum, the fall from it to that of x''s."""
    v, v0, M = [], [], np.zeros((len(x.M), len(unit.windows)))
    for j, window in enumerate(unit.windows):
        here, there = winner(x.v, window), winner(x.v0, window)
        y, y0 = x.v[here], x.v0[there]
        v.append(y)
        v0.append(y0)
        for place, change in ((here, max(y, y0) - y0), (there, y - max(y, y0))):
            if change != 0:
                M[:, j] += x.M[:, place] * change / x.delta[place]
    return Secant(np.array(v), np.array(v0), M)


def first_place(unit: Max, x: Secant) -> Secant:
    """The gradient: everything to the place of x's maximum, whatever the reference. Not complete."""
    places = [winner(x.v, window) for window in unit.windows]
    v0 = np.array([x.v0[window].max() for window in unit.windows])
    return Secant(x.v[places], v0, x.M[:, places])


def reveal_cancel(x: Secant, unit: Affine, f: Function) -> Secant:
    """y_j = f(z_j), z = x W + b, with the parts of dz_j that push up and down told apart (section 3.5.3).

    dz+ and dz- are the sums of the positive and the negative w_ij dx_i. Then, with z' the reference,
    dy+ = ((f(z' + dz+) - f(z')) + (f(z' + dz- + dz+) - f(z' + dz-))) / 2 and dy- alike. What pushes up has the
    multiplier dy+ / dz+ (0 where dz+ is 0), what pushes down dy- / dz-, and an x_i that does not change half of
    each.
    """
    W, z, z0 = unit.W, x.v @ unit.W + unit.b, x.v0 @ unit.W + unit.b
    pushes = x.delta[:, None] * W
    up, down = np.where(pushes > 0, pushes, 0.0).sum(0), np.where(pushes < 0, pushes, 0.0).sum(0)
    rise = ((f(z0 + up) - f(z0)) + (f(z0 + down + up) - f(z0 + down))) / 2
    fall = ((f(z0 + down) - f(z0)) + (f(z0 + up + down) - f(z0 + up))) / 2
    of_up = np.where(up > 0, rise / np.where(up > 0, up, 1.0), 0.0)
    of_down = np.where(down < 0, fall / np.where(down < 0, down, 1.0), 0.0)
    multiplier = np.where(pushes > 0, of_up, np.where(pushes < 0, of_down, (of_up + of_down) / 2))
    return Secant(f(z), f(z0), x.M @ (W * multiplier))


def through(
    made: list[Unit],
    x: Secant,
    *,
    reveal: Callable[[Affine], bool] = lambda unit: False,
    maximum: Callable[[Max, Secant], Secant] = cross_maximum,
) -> Secant:
    """The units one after another. `reveal`: whether the ReLU behind an affine unit goes by RevealCancel."""
    following = [*made[1:], None]
    revealed = False
    for unit, after in zip(made, following, strict=True):
        if isinstance(unit, Affine):
            revealed = isinstance(after, Relu) and reveal(unit)
            x = reveal_cancel(x, unit, relu) if revealed else x.linear(unit.W, unit.b)
        elif isinstance(unit, Average):
            x = x.linear(unit.W)
        elif isinstance(unit, Max):
            x = maximum(unit, x)
        elif isinstance(unit, Residual):
            x = x + through(unit.body, x, reveal=reveal, maximum=maximum)
        else:
            assert isinstance(unit, Relu)
            x = x if revealed else x.elementwise(relu, step)
            revealed = False
    return x


def contributions(made: list[Unit], x: Array, baseline: Array, target: int, **how) -> Array:
    """(x - baseline) times the multipliers of the target's output."""
    start = inputs(np.ravel(x), np.ravel(baseline))
    M = through(made, start, **how).M[:, target]
    return (start.delta * M).reshape(np.shape(x))
