r"""How differences from a reference go through every kind of unit: the rules of DeepLIFT.

A value is carried with its reference, the cotangent is a multiplier m, and the contribution of an input is
$(x - x') m$. Every rule keeps the sum: $\\sum_i m_{x_i} \\Delta x_i = m_y \\Delta y$.

| unit | multiplier |
|---|---|
| conv, dense, scale, sum, structural | the derivative (Linear) |
| activation | $m_y \\Delta y / \\Delta x$ (Rescale), or by its positive and negative parts (RevealCancel) |
| max | the change goes to the winner that made it: x's if y grew, the reference's if it fell |
| product a b | $m_a = m_y (b + b')/2$, the Shapley value of two players; a / b is a times 1/b |
| softmax | exp by Rescale, and the sum to one, exactly: see `through_softmax` |
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import UnsupportedOperation
from jaxplain.engine.affine import Affine
from jaxplain.engine.flow import function_of, override
from jaxplain.engine.plan import Plan
from jaxplain.engine.trace import Atom, Op
from jaxplain.engine.trace import Literal as Number
from jaxplain.engine.units import Unit
from jaxplain.rules.messages import minus, plus
from jaxplain.rules.propagation import unsupported

Array = Any


class Pair(NamedTuple):
    """A value, its reference, and, behind an affine unit, the positive and negative parts of the difference."""

    x: Array
    ref: Array
    up: Array | None = None
    down: Array | None = None


Read = Callable[[Atom], Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Differences:
    """The policy of `deep_lift`: values that depend on the input are pairs, cotangents are multipliers."""

    rule: Literal["rescale", "reveal_cancel"] = "rescale"

    def lift(self, carrier: Any) -> Pair:
        return Pair(carrier.x, carrier.ref) if isinstance(carrier, Pair) else Pair(carrier, carrier)

    def bump(self, carrier: Pair, amount: Array) -> Pair:
        return carrier._replace(x=carrier.x + amount.astype(carrier.x.dtype), up=None, down=None)

    def plain(self, op: Op, operands: Sequence[Any]) -> list[Any]:
        if any(isinstance(v, Pair) for v in operands):  # it has an effect and no result: a print
            op.run([v.x if isinstance(v, Pair) else v for v in operands])
            return []
        return op.run(operands)

    def alike(self, one: Plan, other: Plan) -> bool:
        return True  # no rule depends on what stands before or after

    def unit(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Any]:
        function, constants = function_of(unit)
        carriers = [read(v) for v in unit.inputs]
        aux = tuple(map(read, constants))
        if not any(isinstance(c, Pair) for c in carriers):
            return function(carriers, aux)
        if any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in (*unit.inputs, *unit.outputs)):
            raise unsupported(unit, "DeepLIFT")
        pairs = [c if isinstance(c, Pair) else self.lift(c) for c in carriers]
        if any(v.is_float for v in unit.outputs) and not all(
            v.is_float for v, c in zip(unit.inputs, carriers, strict=True) if isinstance(c, Pair)
        ):
            op = unit.ops[0]
            raise UnsupportedOperation(
                f"{op.name} at {op.place} is steered by an index or a mask that depends on the explained input: "
                "the input and its reference may go different ways, between which DeepLIFT has no multiplier; use "
                "jnp.maximum or a smooth choice, or integrated_gradients"
            )
        multiply: Callable[..., Any]
        if not any(v.is_float for v in unit.outputs) or is_linear(unit):
            if self.rule == "reveal_cancel" and unit.layout is not None:
                return [self.parted(unit, pairs, read)]
            if self.rule == "reveal_cancel" and is_bare_sum(unit):
                return [self.parted_sum(unit, pairs, read)]
            return self.linear(unit, function, pairs, aux)
        match unit.kind:
            case "activation":
                if pairs[0].up is not None and self.rule == "reveal_cancel":
                    return self.revealed(function, pairs[0], aux, len(unit.outputs))
                multiply = rescaled(function)
            case "max":
                smaller = any(op.primitive in _jax.MIN for op in unit.ops)
                multiply = crossed(function, smaller)
            case "product":
                multiply = shared(unit.ops[0])
                op = unit.ops[0]
                pairs = [self.lift(read(v)) for v in op.inputs]
                function, aux = (lambda xs, aux: op.run(xs)), ()
            case "softmax" if unit.axes:
                multiply = through_softmax(unit.axes)
            case _:
                raise unsupported(unit, "DeepLIFT")
        xs, refs = tuple(p.x for p in pairs), tuple(p.ref for p in pairs)
        outs = function(refs, aux)

        def backward(xs, given, ys, ms):
            refs, outs, aux = given
            return tuple(multiply(xs, refs, ys, outs, aux, ms))

        ys = override(lambda xs, given: function(xs, given[2]), backward, xs, (refs, outs, aux))
        return [Pair(y, out) for y, out in zip(ys, outs, strict=True)]

    def linear(self, unit: Unit, function: Callable[..., Any], pairs: list[Pair], aux: Any) -> list[Pair]:
        """The derivative is the rule. Moves carry the parts of a difference on."""
        ys, outs = function([p.x for p in pairs], aux), function([p.ref for p in pairs], aux)
        parts: list[list[Any]] = [[None] * len(ys)] * 2
        alone = unit.kind == "structural" and len(pairs) == 1 and pairs[0].up is not None
        if alone and unit.ops[0].primitive in _jax.CARRIES_PARTS:
            parts = [function([pairs[0].up], aux), function([pairs[0].down], aux)]
        return [Pair(*four) for four in zip(ys, outs, *parts, strict=True)]

    def parted(self, unit: Unit, pairs: list[Pair], read: Read) -> Pair:
        r"""An affine unit that also tells the positive and the negative contributions to its difference.

        Shrikumar et al. 2017, section 3.5.1: an input's multiplier is $\\sum_j w_{ij} m_j^\\pm$, with the sign
        that $w_{ij} \\Delta x_i$ has, and the mean of both where $\\Delta x_i = 0$.
        """
        function, constants = function_of(unit)
        layout = unit.layout
        terms = [term.source for term in layout.terms]
        by_value = dict(zip(unit.inputs, pairs, strict=True))
        aux = tuple(map(read, constants))
        out = function([p.ref for p in pairs], aux)[0]
        refs = tuple(by_value[v].ref for v in terms)

        def affine(xs, y, aux):
            env = dict(zip(constants, aux, strict=True))

            def lookup(atom):
                return atom.value if isinstance(atom, Number) else env[atom]

            return Affine(layout, xs, y, lookup, (False,) * len(terms), quiet=False)

        def forward(xs, given):
            refs, out, aux = given
            y = function([dict(zip(terms, xs, strict=True))[v] for v in unit.inputs], aux)[0]
            this = affine(xs, y, aux)
            change = [x - ref for x, ref in zip(xs, refs, strict=True)]
            weights = this.weights
            up = this.forward([plus(d) for d in change], [plus(w) for w in weights])
            up = up + this.forward([minus(d) for d in change], [minus(w) for w in weights])
            return y, up, (y - out) - up

        def backward(xs, given, ys, ms):
            refs, _, aux = given
            plain, up, down = ms
            this = affine(xs, ys[0], aux)
            weights = this.weights
            wp, wn = [plus(w) for w in weights], [minus(w) for w in weights]
            same = [a + b for a, b in zip(this.backward(wp, up), this.backward(wn, down), strict=True)]
            other = [a + b for a, b in zip(this.backward(wn, up), this.backward(wp, down), strict=True)]
            direct = this.backward(weights, plain)
            sides = zip(xs, refs, same, other, direct, strict=True)
            return tuple(picked(x - ref, s, o) + m for x, ref, s, o, m in sides)

        y, up, down = override(forward, backward, tuple(by_value[v].x for v in terms), (refs, out, aux))
        return Pair(y, out, up, down)

    def parted_sum(self, unit: Unit, pairs: list[Pair], read: Read) -> Pair:
        """The same for a sum or a difference, whose weights are 1 and -1."""
        (op,) = unit.ops
        pairs = [self.lift(read(v)) for v in op.inputs]
        signs = [1, -1 if op.primitive is _jax.SUB else 1][: len(pairs)]
        refs = [p.ref for p in pairs]
        (out,) = op.run(refs)

        def forward(xs, given):
            refs, out = given
            (y,) = op.run(xs)
            change = [x - ref for x, ref in zip(xs, refs, strict=True)]
            (up,) = op.run([plus(d) if s > 0 else minus(d) for d, s in zip(change, signs, strict=True)])
            return y, up, (y - out) - up

        def backward(xs, given, ys, ms):
            _, back = jax.vjp(lambda *xs: op.run(xs)[0], *xs)
            sides = zip(xs, given[0], *(back(m) for m in ms), signs, strict=True)
            return [plain + picked((x - ref) * s, up, down) for x, ref, plain, up, down, s in sides]

        y, up, down = override(forward, backward, [p.x for p in pairs], (refs, out))
        return Pair(y, out, up, down)

    def revealed(self, function: Callable[..., Any], pair: Pair, aux: Any, count: int) -> list[Pair]:
        r"""RevealCancel, Shrikumar et al. 2017, section 3.5.3.

        With $d^\\pm$ the parts of the input's difference, $\\Delta y^+ = \\frac12 [g(x' + d^+) - g(x') +
        g(x' + d^+ + d^-) - g(x' + d^-)]$, and $\\Delta y^-$ alike.
        """
        outs = function([pair.ref], aux)

        def forward(parts, given):
            up, down = parts
            ref, _outs, aux = given
            return function([ref + (up + down)], aux)

        def backward(parts, given, ys, ms):
            up, down = parts
            ref, outs, aux = given
            risen, fallen = function([ref + up], aux), function([ref + down], aux)
            sent = [jnp.zeros_like(up), jnp.zeros_like(down)]
            for m, y, out, high, low in zip(ms, ys, outs, risen, fallen, strict=True):
                if not jnp.issubdtype(y.dtype, jnp.floating):
                    continue
                changes = (high - out + y - low) / 2, (low - out + y - high) / 2
                for k, (change, part) in enumerate(zip(changes, (up, down), strict=True)):
                    # A part that is not there is given no multiplier: nothing hangs on it.
                    none = part == 0
                    sent[k] = sent[k] + jnp.where(none, 0, m * change / jnp.where(none, 1, part))
            return tuple(sent)

        ys = override(forward, backward, (pair.up, pair.down), (pair.ref, outs, aux))
        return [Pair(y, out) for y, out in zip(ys, outs, strict=True)]


def is_linear(unit: Unit) -> bool:
    """Whether the derivative is the rule; sorting only looks linear."""
    moves = unit.kind == "structural" and not any(op.primitive in _jax.SORTS for op in unit.ops)
    return moves or unit.kind in ("conv", "dense", "scale", "sum")


def is_bare_sum(unit: Unit) -> bool:
    """Whether a unit adds, subtracts or sums up, and nothing else."""
    return unit.kind == "sum" and len(unit.ops) == 1 and unit.ops[0].primitive in _jax.SUM_OF_TWO | _jax.SUM_OVER


def picked(change: Array, positive: Array, negative: Array) -> Array:
    """By the sign of a contribution's difference; the mean where there is none."""
    return jnp.where(change > 0, positive, jnp.where(change < 0, negative, (positive + negative) / 2))


def tiny(dtype: Any) -> float:
    """Below it a difference is taken for none, and its quotient for a derivative."""
    return {8: 1e-12, 4: 1e-7}.get(jnp.dtype(dtype).itemsize, 1e-3)


def rescaled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Rescale: the mean slope between reference and input; at no difference, the slope half-way."""

    def multiply(xs, refs, ys, outs, aux, ms):
        (x,), (ref,) = xs, refs
        change = x - ref
        near = jnp.abs(change) < tiny(x.dtype)
        half = ref + change / 2
        slopes = jax.jvp(lambda x: function([x], aux), (half,), (jnp.ones_like(half),))[1]
        total = jnp.zeros_like(x)
        for m, y, out, slope in zip(ms, ys, outs, slopes, strict=True):
            if jnp.issubdtype(y.dtype, jnp.floating):
                quotient = ((y - out).astype(x.dtype)) / jnp.where(near, 1, change)
                total = total + m.astype(x.dtype) * jnp.where(near, slope.astype(x.dtype), quotient)
        return [total]

    return multiply


def crossed(function: Callable[..., Any], smaller: bool) -> Callable[..., Any]:
    """Max-pooling by the cross-maximum max(y, y'): what rose above y' came from x's winner, the rest from y''s.

    A winner that changed y has itself changed, by at least as much: the quotients are safe.
    """

    def multiply(xs, refs, ys, outs, aux, ms):
        _, from_x = jax.vjp(lambda *xs: function(xs, aux), *xs)
        _, from_ref = jax.vjp(lambda *xs: function(xs, aux), *refs)
        changes = [m * (y - out) for m, y, out in zip(ms, ys, outs, strict=True)]
        own = [(y < out) if smaller else (y > out) for y, out in zip(ys, outs, strict=True)]
        given = from_x([jnp.where(on, c, 0) for on, c in zip(own, changes, strict=True)])
        taken = from_ref([jnp.where(on, 0, c) for on, c in zip(own, changes, strict=True)])
        sent = []
        for x, ref, a, b in zip(xs, refs, given, taken, strict=True):
            none = x == ref
            sent.append(jnp.where(none, 0, (a + b) / jnp.where(none, 1, x - ref)))
        return sent

    return multiply


def shared(op: Op) -> Callable[..., Any]:
    """A product: each factor by the mean of the other's two values."""

    def multiply(xs, refs, ys, outs, aux, ms):
        (a, b), (a0, b0), (m,) = xs, refs, ms
        if op.primitive is _jax.DIV:
            _, back = jax.vjp(lambda a, r: a * r, (a + a0) / 2, (1 / b + 1 / b0) / 2)
            to_a, to_reciprocal = back(m)
            return [to_a, -to_reciprocal / (b * b0)]
        _, back = jax.vjp(lambda a, b: op.run([a, b])[0], (a + a0) / 2, (b + b0) / 2)
        return back(m)

    return multiply


def through_softmax(axes: tuple[int, ...]) -> Callable[..., Any]:
    r"""Softmax p of x, by Rescale through exp and the sum to one that both states share.

    With $\ell_i = \Delta p_i / \Delta \log p_i$, the logarithmic mean of $p_i$ and $p'_i$, Rescale of the
    exponential says $\Delta p_i = \ell_i (\Delta x_i - \Delta \log S)$. Since $\sum_i \Delta p_i = 0$, exactly
    $\Delta \log S = \sum_i \ell_i \Delta x_i / \sum_i \ell_i$, so
    $m_{x_j} = \ell_j (m_{p_j} - \sum_i m_{p_i} \ell_i / \sum_i \ell_i)$. It is the derivative where p = p', and no
    shift of the logits matters. (Taking exp, sum and quotient one by one, with one shift for both states, is as
    exact on paper; but $S / S'$ then grows like exp of the shift between the states, and contributions with it:
    3e16 on a transformer whose output changed by 2.)
    """

    def multiply(xs, refs, ys, outs, aux, ms):
        (x,), (ref,), (p,), (p0,), (m,) = xs, refs, ys, outs, ms
        dead = ~(jnp.isfinite(x) & jnp.isfinite(ref))  # a masked logit, -inf
        log_p, log_p0 = (jnp.where(dead, 0, v - jax.nn.logsumexp(v, axis=axes, keepdims=True)) for v in (x, ref))
        change = log_p - log_p0
        small = jnp.abs(change) < 1e-2
        near = jnp.exp((log_p + log_p0) / 2) * (1 + change**2 / 24 * (1 + change**2 / 80))
        mean = jnp.where(dead, 0, jnp.where(small, near, (p - p0) / jnp.where(small, 1, change)))
        return [mean * (m - (m * mean).sum(axes, keepdims=True) / mean.sum(axes, keepdims=True))]

    return multiply
