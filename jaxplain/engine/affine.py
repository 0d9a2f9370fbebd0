r"""Affine units: convolutions and dense layers with everything constant around them folded in.

A unit computes $z = \\sum_k w_k \\ast x_k + b$. In the program that is a convolution or dot product (the core)
with constant scales, shifts and reshapes before and after it: a bias, a BatchNorm at inference on either side,
a division by $\\sqrt d$, and for an LSTM the sum of two products. A rule looks at signs of weights, so the scales
are folded: if the scale after the core is $s_o$ and the one before it $t_i$, the effective weight is
$w_{io}\\, t_i\\, s_o$. That works for a scale that varies along axes which the weight has, too; any other scale
ends the unit. The bias is what the unit computes at 0, which with padding may differ from place to place.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain.engine.trace import Atom, Literal, Op, Program, Value
from jaxplain.engine.units import moves_only

Array = Any
Read = Callable[[Atom], Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Term:
    """One product of an affine unit: its core, the explained operand's position, and what is folded in."""

    core: Op
    live: int
    before: tuple[Op, ...]  # from the unit's input to the core, in order
    after: tuple[Op, ...]
    source: Value  # what the term reads
    sign: int = 1  # -1 where another term has this one subtracted

    @property
    def weight(self) -> Atom:
        """The core's constant operand."""
        return self.core.inputs[1 - self.live]

    def fed(self, u: Array, weight: Array, read: Read, mode: str) -> Array:
        """The term's result for an input; `mode` as in `along`."""
        u = along(self.before, self.source, u, read, mode)
        pair = (u, weight) if self.live == 0 else (weight, u)
        return along(self.after, self.core.outputs[0], self.core.run(pair)[0], read, mode)

    def effective(self, read: Read, like: Array) -> Array:
        """The weight with all scales folded in; made to vary over a mesh as `like` does."""
        weight = read(self.weight)
        if any(not is_move(op) for op in self.after):
            raw = self.core.outputs[0]
            ones = _jax.varying_like(jnp.ones(raw.shape, raw.dtype), like)
            # The scales are a diagonal matrix behind a permutation: its transpose at ones is the diagonal.
            out, back = jax.vjp(lambda u: along(self.after, raw, u, read, "scales"), ones)
            (scale,) = back(_jax.varying_like(jnp.ones(out.shape, out.dtype), like))
            weight = weight * spread_over(weight, scale, axes_after(self.core, self.live))
        if not all(map(is_move_ahead, self.before)):
            ones = _jax.varying_like(jnp.ones(self.source.shape, self.source.dtype), like)
            scale = along(self.before, self.source, ones, read, "scales")
            weight = weight * self.scale_before(weight, scale)
        return -weight if self.sign < 0 else weight

    def scale_before(self, weight: Array, scale: Array) -> Array:
        """A scale of the core's operand as one of its weight."""
        groups = self.core.params.get("feature_group_count", 1)
        if groups == 1 or self.live != 0:
            return spread_over(weight, scale, axes_before(self.core, self.live))
        # The weight's input axis counts the channels of one group; its outputs come group by group.
        numbers = self.core.params["dimension_numbers"]
        out, into = numbers.rhs_spec[:2]
        channel = numbers.lhs_spec[1]
        row = scale[tuple(slice(None) if d == channel else 0 for d in range(scale.ndim))]
        table = jnp.repeat(row.reshape(groups, -1), weight.shape[out] // groups, axis=0)
        return spread_over(weight, table, {0: out, 1: into})

    def at_zero(self, read: Read, like: Array) -> Array:
        """What the term adds to the bias."""
        raw = self.core.outputs[0]
        if any(op.primitive in _jax.SUM_OF_TWO for op in self.before):
            zeros = _jax.varying_like(jnp.zeros(self.source.shape, self.source.dtype), like)
            return self.fed(zeros, read(self.weight), read, "all")
        zeros = _jax.varying_like(jnp.zeros(raw.shape, raw.dtype), like)
        return along(self.after, raw, zeros, read, "all")


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """The terms of an affine unit, and the shifts after their sum."""

    terms: tuple[Term, ...]
    joined: Value
    tail: tuple[Op, ...] = ()


@dataclasses.dataclass
class Affine:
    """An affine unit with its arrays, as a rule sees it: z = forward(inputs, weights) + bias.

    `nonnegative` tells which inputs are known never to be negative, `quiet` that the relevance that arrives is 0
    wherever z <= 0 (a ReLU follows). Both are known at trace time, and only save work.
    """

    layout: Layout
    inputs: Sequence[Array]
    output: Array
    read: Read
    nonnegative: tuple[bool, ...]
    quiet: bool

    @property
    def weights(self) -> list[Array]:
        """The effective weights, one a term."""
        return [term.effective(self.read, self.output) for term in self.layout.terms]

    @property
    def bias(self) -> Array:
        """What the unit computes at 0, in the shape of z."""
        parts = [term.sign * term.at_zero(self.read, self.output) for term in self.layout.terms]
        return along(self.layout.tail, self.layout.joined, sum(parts), self.read, "all")

    def forward(self, inputs: Sequence[Array], weights: Sequence[Array]) -> Array:
        """The products alone, without bias, for other inputs or other effective weights."""
        inputs = [_jax.varying_like(x, self.output) for x in inputs]
        triples = zip(self.layout.terms, inputs, weights, strict=True)
        parts = [term.fed(x, w, self.read, "moves") for term, x, w in triples]
        return along(self.layout.tail, self.layout.joined, sum(parts[1:], parts[0]), self.read, "moves")

    def backward(self, weights: Sequence[Array], s: Array) -> list[Array]:
        """The transpose of `forward` in its inputs."""
        _, back = jax.vjp(lambda *xs: self.forward(xs, weights), *self.inputs)
        return list(back(s))

    def opposed(self) -> "Affine":
        """The unit with all weights and the bias negated."""
        return _Opposed(self.layout, self.inputs, -self.output, self.read, self.nonnegative, quiet=False)


class _Opposed(Affine):
    @property
    def weights(self) -> list[Array]:
        return [-w for w in super().weights]

    @property
    def bias(self) -> Array:
        return -super().bias


def is_move(op: Op) -> bool:
    """Whether an operation of a chain changes no number."""
    return moves_only(op)


def is_move_ahead(op: Op) -> bool:
    """The same, ahead of a core, where no padding is found but with zeros."""
    return is_move(op) or op.primitive is _jax.PAD


def along(ops: Iterable[Op], start: Value, u: Array, read: Read, mode: str) -> Array:
    """Follow a chain from `start`: "all" of it, its "scales" without the shifts, or its "moves" alone."""
    at = start
    for op in ops:
        shift = op.primitive in _jax.SUM_OF_TWO
        if mode == "scales" and op.primitive is _jax.PAD:
            # Zeros in any scale: let it be that of their neighbours.
            u = jnp.pad(u, [pair[:2] for pair in op.params["padding_config"]], mode="edge")
        elif mode == "all" or is_move_ahead(op) or (mode == "scales" and not shift):
            u = op.run([u if v is at else read(v) for v in op.inputs])[0]
        elif mode == "scales" and op.primitive is _jax.SUB and op.inputs[1] is at:
            u = -u
        at = op.outputs[0]
    return u


def spread_over(weight: Array, scale: Array, axes: dict[int, int]) -> Array:
    """A scale given along axes of the core's input or output, as an array along those of the weight."""
    kept = sorted(axes, key=axes.__getitem__)
    picked = scale[tuple(slice(None) if d in axes else 0 for d in range(scale.ndim))]
    order = sorted(kept)
    picked = jnp.transpose(picked, [order.index(d) for d in kept])
    shape = [1] * weight.ndim
    for d in kept:
        shape[axes[d]] = scale.shape[d]
    return picked.reshape(shape).astype(weight.dtype)


def axes_after(core: Op, live: int) -> dict[int, int]:
    """Which axes of the core's result are axes of the weight: {axis of the result: axis of the weight}."""
    if core.primitive is _jax.CONV:
        if live != 0 or core.params["batch_group_count"] != 1:
            return {}
        return {_jax.conv_channel_axis(core.params): core.params["dimension_numbers"].rhs_spec[0]}
    (contract, batch), ranks = core.params["dimension_numbers"], [len(atom_shape(v)) for v in core.inputs]
    free = [[d for d in range(ranks[k]) if d not in (*contract[k], *batch[k])] for k in (0, 1)]
    start = len(batch[0]) + (len(free[0]) if live == 0 else 0)
    return dict(enumerate(batch[1 - live])) | {start + i: d for i, d in enumerate(free[1 - live])}


def axes_before(core: Op, live: int) -> dict[int, int]:
    """The same for the axes of the core's explained operand."""
    if core.primitive is _jax.CONV:
        numbers = core.params["dimension_numbers"]
        if live != 0 or core.params["batch_group_count"] != 1:
            return {}
        return {numbers.lhs_spec[1]: numbers.rhs_spec[1]}  # of a group; see `Term.scale_before`
    contract, batch = core.params["dimension_numbers"]
    return dict(zip((*contract[live], *batch[live]), (*contract[1 - live], *batch[1 - live]), strict=True))


def atom_shape(atom: Atom) -> tuple[int, ...]:
    """The shape of a value or a literal."""
    return atom.shape if isinstance(atom, Value) else tuple(np.shape(atom.value))


class Variation:
    """Along which axes the constants of a program may vary, from the broadcasts that made them."""

    def __init__(self, program: Program):
        self.maker = {v: op for op in program.ops for v in op.outputs}

    def axes(self, atom: Atom) -> set[int]:
        """The axes along which a constant is not known to be the same everywhere."""
        wide = {d for d, n in enumerate(atom_shape(atom)) if n > 1}
        op = None if isinstance(atom, Literal) else self.maker.get(atom)
        if op is None or not wide:
            return wide
        if op.primitive is _jax.BROADCAST and not is_move(op):
            placed = op.params["broadcast_dimensions"]
            return {placed[d] for d in self.axes(op.inputs[0])} & wide
        if is_move(op):
            return moved(op, self.axes(op.inputs[0]))
        if op.primitive in _jax.ELEMENTWISE:
            return set().union(*(self.axes(v) for v in op.inputs))
        return wide


def moved(op: Op, axes: set[int], *, back: bool = False) -> set[int]:
    """Axes of a reshape's operand as axes of its result, or back."""
    source, target = atom_shape(op.inputs[0]), op.outputs[0].shape
    if op.primitive is _jax.TRANSPOSE:
        order = op.params["permutation"]
        return {order[d] for d in axes} if back else {order.index(d) for d in axes}
    if source == target or op.primitive is _jax.PAD:
        return set(axes)
    return regrouped(target, source, axes) if back else regrouped(source, target, axes)


def regrouped(source: Sequence[int], target: Sequence[int], axes: set[int]) -> set[int]:
    """Axes that a row-major reshape may turn these into: those of the groups that they are in."""
    found: set[int] = set()
    i = j = 0
    while i < len(source) or j < len(target):
        left, right, a, b = [], [], 1, 1
        while a != b or not (left or right):
            if j == len(target) or (i < len(source) and a <= b):
                a, i = a * source[i], i + 1
                left.append(i - 1)
            else:
                b, j = b * target[j], j + 1
                right.append(j - 1)
        if axes.intersection(left):
            found |= {d for d in right if target[d] > 1}
    return found
