r"""The rules of affine units: how the relevance R of $z = \\sum_i x_i w_i + b$ goes to its inputs.

Every rule is a small record of its numbers, which may be traced (so that gamma can be mapped over or fitted), with
one method in the form of its paper. A unit shows a rule its `inputs`, `output`, effective `weights` and `bias`,
`forward` with other inputs or weights, and the transpose `backward`. With $P$ for positive and $N$ for negative
parts, the positive contributions are $z^P = x^P w^P + x^N w^N$, the negative ones $z^N = x^P w^N + x^N w^P$.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from jaxplain.engine.affine import Affine
from jaxplain.rules.stabilize import divided, shared_out

Array = Any
Bias = Literal["share", "ignore"]


def record(cls: type) -> Any:
    """A frozen dataclass whose numbers are leaves of a pytree; `bias` says how to treat it and is none."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    return jax.tree_util.register_dataclass(
        cls, data_fields=[n for n in names if n != "bias"], meta_fields=[n for n in names if n == "bias"]
    )


def plus(x: Array) -> Array:
    """The positive part."""
    return jnp.maximum(x, 0)


def minus(x: Array) -> Array:
    """The negative part."""
    return jnp.minimum(x, 0)


def scaled(xs: Sequence[Array], cs: Sequence[Array]) -> list[Array]:
    """Array by array, the product."""
    return [x * c for x, c in zip(xs, cs, strict=True)]


def added(*lists: Sequence[Array]) -> list[Array]:
    """Array by array, the sum of lists."""
    return [sum(parts[1:], parts[0]) for parts in zip(*lists, strict=True)]


def contributions(unit: Affine, *, negative: bool = False) -> Array:
    """The sum of the positive (or negative) contributions, without bias."""
    same, other = (minus, plus) if negative else (plus, minus)
    weights = unit.weights
    parts = [plus(x) for x in unit.inputs], [same(w) for w in weights]
    total = unit.forward(*parts)
    if not all(unit.nonnegative):
        rest = [jnp.zeros_like(x) if on else minus(x) for x, on in zip(unit.inputs, unit.nonnegative, strict=True)]
        total = total + unit.forward(rest, [other(w) for w in weights])
    return total


def shares(unit: Affine, s: Array, *, negative: bool = False) -> list[Array]:
    """To each input, the sum over outputs of its positive (or negative) contributions times s."""
    same, other = (minus, plus) if negative else (plus, minus)
    weights = unit.weights
    sent = scaled([plus(x) for x in unit.inputs], unit.backward([same(w) for w in weights], s))
    if not all(unit.nonnegative):
        sent = added(sent, scaled([minus(x) for x in unit.inputs], unit.backward([other(w) for w in weights], s)))
    return sent


@record
class Epsilon:
    """R_i = sum_j x_i w_ij / (z_j + eps sign z_j) R_j."""

    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = True

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        z = unit.output if self.bias == "share" else unit.output - unit.bias
        return scaled(unit.inputs, unit.backward(unit.weights, divided(R, z, self.eps)))


@record
class Gamma:
    """Where z > 0, contributions c + gamma c^P over their sum; where z < 0, c + gamma c^N over theirs."""

    gamma: Any
    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = True

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        ignore = self.bias == "ignore"
        b = jnp.zeros((), unit.output.dtype) if ignore else unit.bias
        z = unit.output - unit.bias if ignore else unit.output
        gamma = jnp.asarray(self.gamma, z.dtype)
        if unit.quiet and all(unit.nonnegative) and not ignore:
            # R is 0 where z <= 0, and x has no negative part: one product with the changed weight is enough.
            weights = [w + gamma * plus(w) for w in unit.weights]
            bottom = unit.forward(unit.inputs, weights) + b + gamma * plus(b)
            return scaled(unit.inputs, unit.backward(weights, divided(R, bottom, self.eps)))
        zp = contributions(unit) + plus(b)
        bottom = z + gamma * jnp.where(z > 0, zp, z - zp)
        s = jnp.where(z == 0, 0, divided(R, bottom, self.eps))
        sp, sn = jnp.where(z > 0, s, 0), jnp.where(z > 0, 0, s)
        # c^N = c - c^P, so two products serve: R = c (s + gamma s_n) + gamma c^P (s_p - s_n).
        whole = scaled(unit.inputs, unit.backward(unit.weights, s + gamma * sn))
        return added(whole, shares(unit, gamma * (sp - sn)))


@record
class AlphaBeta:
    """R_i = sum_j (alpha c^P_ij / z^P_j - beta c^N_ij / z^N_j) R_j, the bias with its sign among them."""

    alpha: Any
    beta: Any
    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = True

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        b = jnp.zeros((), unit.output.dtype) if self.bias == "ignore" else unit.bias
        zp = contributions(unit) + plus(b)
        zn = contributions(unit, negative=True) + minus(b)
        alpha, beta = (jnp.asarray(v, unit.output.dtype) for v in (self.alpha, self.beta))
        positive = shares(unit, shared_out(alpha * R, zp, self.eps))
        # -zn >= 0, so that the stabiliser pushes it away from 0.
        return added(positive, shares(unit, shared_out(beta * R, -zn, self.eps), negative=True))


@record
class ZPlus:
    """R_i = sum_j c^P_ij / z^P_j R_j."""

    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = True

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        zp = contributions(unit)
        zp = zp if self.bias == "ignore" else zp + plus(unit.bias)
        return shares(unit, shared_out(R, zp, self.eps))


@record
class ZBox:
    """R_i = sum_j (x_i w_ij - l_i w^P_ij - h_i w^N_ij) / (their sum over i) R_j, for inputs between l and h."""

    low: Any
    high: Any
    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = False

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        low, high = ([box_side(v, x) for x in unit.inputs] for v in (self.low, self.high))
        weights = unit.weights
        wp, wn = [plus(w) for w in weights], [minus(w) for w in weights]
        # Of z: its products; and with the bias shared, b - b^P - b^N = 0 is left of it.
        z = unit.output - unit.bias
        bottom = z - unit.forward(low, wp) - unit.forward(high, wn)
        s = divided(R, bottom, self.eps)
        # x w - l w^P - h w^N = (x - h) w + (h - l) w^P: two products in place of three
        whole = scaled([x - h for x, h in zip(unit.inputs, high, strict=True)], unit.backward(weights, s))
        return added(whole, scaled([h - v for h, v in zip(high, low, strict=True)], unit.backward(wp, s)))


@record
class WSquare:
    """R_i = sum_j w_ij^2 / (sum_i w_ij^2 [+ b_j^2]) R_j."""

    eps: Any
    bias: Bias = "share"
    proportional: ClassVar[bool] = False

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        squares = [w * w for w in unit.weights]
        bottom = unit.forward([jnp.ones_like(x) for x in unit.inputs], squares)
        bottom = bottom if self.bias == "ignore" else bottom + unit.bias**2
        return unit.backward(squares, divided(R, bottom, self.eps))


@record
class Flat:
    """R_i = sum_j R_j / (number of inputs of j)."""

    eps: Any
    proportional: ClassVar[bool] = False

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        ones = [jnp.ones_like(w) for w in unit.weights]
        bottom = unit.forward([jnp.ones_like(x) for x in unit.inputs], ones)
        return unit.backward(ones, divided(R, bottom, self.eps))


@record
class Passing:
    """R_i = R_j: a unit whose input and output have the same shape."""

    proportional: ClassVar[bool] = False

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        shapes = {x.shape for x in unit.inputs}
        if shapes != {R.shape} or len(unit.inputs) != 1:
            raise ValueError(
                f"passing() needs a unit whose input and output have the same shape, but they have "
                f"{sorted(shapes)} and {R.shape}; use another rule there: rules_for(default, {{selector: rule}})"
            )
        return [R]


@record
class Opposed:
    """Another rule on the unit with its weights negated: the dual run of contrastive excitation backprop."""

    rule: Any
    proportional: ClassVar[bool] = True

    def relevance(self, unit: Affine, R: Array) -> list[Array]:
        return self.rule.relevance(unit.opposed(), R)


Rule = Epsilon | Gamma | AlphaBeta | ZPlus | ZBox | WSquare | Flat | Passing | Opposed


def box_side(value: Any, x: Array) -> Array:
    """A bound in the shape of the input that it bounds."""
    try:
        return jnp.broadcast_to(jnp.asarray(value, x.dtype), x.shape)
    except ValueError:
        raise ValueError(
            f"a bound of z_box has shape {jnp.shape(value)} where the unit's input has {x.shape}; give a number, "
            "or an array of that shape"
        ) from None
