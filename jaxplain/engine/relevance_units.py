"""The units of a program as rules see them.

They differ from those that name sites (`engine.units`): what is constant around a layer is folded in, a BatchNorm
ahead of it too; a sum of dense layers that feeds a nonlinearity is one; softmax and mean-centring are a unit each;
a shift or scale by arrays that no layer could take stands apart from the nonlinearity behind it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxplain import _jax
from jaxplain.engine import affine, control
from jaxplain.engine.affine import Layout, Term
from jaxplain.engine.patterns import patterns
from jaxplain.engine.rectifiers import Constants
from jaxplain.engine.trace import Atom, Op, Program, Value
from jaxplain.engine.units import Grouping, Unit, is_elementwise, scales, shifts_or_scales


class RelevanceGrouping(Grouping):
    """One pass over a program, like its parent's; see the module for how the units differ."""

    def __init__(self, program: Program, dependent: set[Value]):
        super().__init__(program, set())
        self.live = dependent

    def run(self) -> list[Unit]:
        """The units, each operation that depends on the input in one."""
        self.sources: set[Value] = set()
        self.variation, self.constants = affine.Variation(self.program), Constants(self.program)
        live_ops = [op for op in self.program.ops if op.outputs and self.live_operands(op)]
        for op in live_ops:
            if (kind := control.kind_of(op)) is not None:
                self.add(kind, [op])
        for op in live_ops:
            # A constant mask moves: what it hides has no share in what stands there instead.
            if op not in self.taken and op.primitive is _jax.SELECT and op.inputs[0] not in self.live:
                self.add("structural", [op])
        for pattern in patterns(self.program, self.live):
            self.sources.add(pattern.source)
            last = pattern.ops[-1]
            unit = Unit(pattern.kind, pattern.ops, (pattern.source,), last.outputs, axes=pattern.axes, shared=True)
            self.units.append(unit)
            self.taken[last] = pattern.kind
        for op in live_ops:  # ahead of layers: the division of a mean is the sum's own, not folded into a weight
            if op not in self.taken and op.primitive in _jax.SUM_OVER | {_jax.SCATTER_ADD}:
                self.add(
                    "sum", self.chain(op, lambda user, v: scales(user, v) and not self.constant_axes(user, v))
                )
        self.add_affine(live_ops)
        for op in live_ops:
            if op not in self.taken and self.is_layer(op):
                layer = self.chain(op, lambda user, v: shifts_or_scales(user, v) and self.is_layer(user))
                self.add("scale", layer)
        above, clusters = self.clusters([op for op in live_ops if op not in self.taken])
        for ops in clusters:
            line = all(affine.is_move(op) or self.is_line(op) for op in ops)
            self.add("scale" if line else "activation", ops, {v: above[v] for op in ops for v in op.outputs})
        for op in live_ops:
            if op not in self.taken:
                self.add(self.kind_of(op), [op])
        return self.units

    def kind_of(self, op: Op) -> str:
        """The kind of an operation that stands alone."""
        if op.primitive is _jax.SELECT:
            return "structural"  # its predicate is no float: it chooses, as an index does
        if op.primitive is _jax.SCATTER:
            return "structural"
        return super().kind_of(op)

    def escapes(self, value: Value, ops: Sequence[Op]) -> bool:
        """A pattern repeats operations of other units, so they must hand out what it starts from."""
        return value in self.sources or super().escapes(value, ops)

    def single(self, value: Atom) -> bool:
        """Whether one operation uses a value, and nothing outside."""
        return (
            isinstance(value, Value) and len(self.users.get(value, ())) == 1 and value not in self.program.outputs
        )

    def is_line(self, op: Op) -> bool:
        """Whether an operation shifts or scales one float by constants."""
        moving = self.live_operands(op)
        if len(moving) != 1 or not shifts_or_scales(op, moving[0]) or op.outputs[0].shape != moving[0].shape:
            return False
        return moving[0].is_float and op.outputs[0].is_float

    def is_layer(self, op: Op) -> bool:
        """Whether an operation shifts or scales by arrays, as a BatchNorm does that nothing could fold.

        Constants that are one known number belong to the nonlinearity around them, as in
        `hard_sigmoid(x) = relu6(x + 3) / 6`; so does what uses a value that others use, as the halves of a gelu.
        """
        if not self.is_line(op):
            return False
        (moving,) = self.live_operands(op)
        if all(self.constants.number(v) is not None for v in op.inputs if v is not moving):
            return False
        return not any(is_elementwise(user) for user in self.users[moving] if user is not op)

    def add_affine(self, live_ops: list[Op]) -> None:
        """Convolutions and dense layers with what is folded in, then sums of dense layers."""
        layouts: dict[Value, tuple[Op, Layout, list[Op]]] = {}
        for op in live_ops:
            if op in self.taken:
                continue
            if op.primitive in (_jax.CONV, _jax.DOT) and len(self.live_operands(op)) == 1:
                live = 0 if op.inputs[0] in self.live else 1
                before, after = self.before(op, live), self.after(op, live)
                (source,) = self.live_operands(before[0]) if before else (op.inputs[live],)
                assert isinstance(source, Value)
                term = Term(op, live, tuple(before), tuple(after), source)
                ops = [*before, op, *after]
                layouts[ops[-1].outputs[0]] = (op, Layout((term,), ops[-1].outputs[0]), ops)
                self.taken.update((o, "affine") for o in ops)
        for op in live_ops:
            adds = op.primitive in (_jax.ADD, _jax.SUB) and op not in self.taken
            if adds and all(v in layouts for v in op.inputs):
                self.join(op, layouts)
        for op, layout, ops in layouts.values():
            order = {o: k for k, o in enumerate(self.program.ops)}
            kind = "conv" if op.primitive is _jax.CONV else "dense"
            self.add(kind, sorted(ops, key=order.__getitem__), layout=layout)

    def join(self, op: Op, layouts) -> None:
        """One unit of two dense ones whose sum feeds a nonlinearity: `x @ W + h @ U + b` of an LSTM."""
        left, right = op.inputs
        parts = [layouts[left], layouts[right]]
        dense = all(core.primitive is _jax.DOT for core, _, _ in parts)
        shifted = all(not any(map(affine.is_move, layout.tail)) for _, layout, _ in parts)
        if left is right or not (dense and shifted and self.single(left) and self.single(right)):
            return
        total = op.outputs[0]
        tail = self.chain(
            op, lambda user, v: user.primitive is _jax.ADD or (user.primitive is _jax.SUB and user.inputs[0] is v)
        )[1:]
        if not self.feeds_activation(tail[-1].outputs[0] if tail else total, layouts):
            return
        minus = -1 if op.primitive is _jax.SUB else 1
        second = [dataclasses.replace(t, sign=minus * t.sign) for t in parts[1][1].terms]
        # The shifts within the parts stay where they are; only those of the last sum are followed.
        layout = Layout((*parts[0][1].terms, *second), total, tuple(tail))
        inner = [(p[1].tail, s) for p, s in zip(parts, (1, minus), strict=True) if p[1].tail]
        if inner:
            return
        ops = [*parts[0][2], *parts[1][2], op, *tail]
        del layouts[left], layouts[right]
        layouts[ops[-1].outputs[0]] = (parts[0][0], layout, ops)
        self.taken.update((o, "affine") for o in ops)

    def feeds_activation(self, value: Value, layouts) -> bool:
        """Whether a value goes, perhaps in pieces or with another layer added, into nothing but nonlinearities."""
        users = self.users.get(value, ())
        if not users or value in self.program.outputs:
            return False
        for user in users:
            if user.primitive in _jax.STRUCTURAL:
                if not all(self.feeds_activation(v, layouts) for v in user.outputs):
                    return False
            elif user.primitive in (_jax.ADD, _jax.SUB) and any(
                v in layouts for v in user.inputs if v is not value
            ):
                if not self.feeds_activation(user.outputs[0], layouts):
                    return False
            elif not is_elementwise(user) or len(set(self.live_operands(user))) > 1:
                return False
        return True

    def before(self, core: Op, live: int) -> list[Op]:
        """The constant scales and shifts ahead of a core that can be folded into its weight."""
        allowed = affine.axes_before(core, live)
        found: list[Op] = []
        kept = 0
        value = core.inputs[live]
        while isinstance(value, Value) and value in self.maker and self.single(value):
            op = self.maker[value]
            moving = self.live_operands(op)
            if op in self.taken or len(moving) != 1 or not moving[0].is_float:
                break
            found.append(op)
            if self.pads_with_zeros(op):
                kept = len(found)  # as a convolution's own padding, which no rule takes for an input
            elif not affine.is_move(op):
                same = moving[0].shape == op.outputs[0].shape
                if not (same and shifts_or_scales(op, moving[0])):
                    break
                axes = self.constant_axes(op, moving[0])
                for move in reversed(found[:-1]):
                    axes = affine.moved(move, axes) if affine.is_move_ahead(move) else axes
                if scales(op, moving[0]) and not axes <= allowed.keys():
                    break
                kept = len(found)
            value = moving[0]
        return found[:kept][::-1]

    def pads_with_zeros(self, op: Op) -> bool:
        """Whether an operation pads with zeros, around and not between, and cuts nothing off."""
        if op.primitive is not _jax.PAD:
            return False
        number = self.constants.number(op.inputs[1])
        if number is None or np.asarray(number) != 0:
            return False
        return all(low >= 0 and high >= 0 and between == 0 for low, high, between in op.params["padding_config"])

    def after(self, core: Op, live: int) -> list[Op]:
        """The constant scales and shifts behind a core that can be folded into its weight."""
        allowed = affine.axes_after(core, live)
        passed: list[Op] = []

        def folds(op: Op, value: Value) -> bool:
            if op in self.taken or not shifts_or_scales(op, value):
                return False
            if scales(op, value):
                axes = self.constant_axes(op, value)
                for move in reversed(passed):
                    axes = affine.moved(move, axes, back=True)
                if not axes <= allowed.keys():
                    return False
            return True

        def accept(op: Op, value: Value) -> bool:
            passed[:] = self.moves_between(core, value)
            return folds(op, value)

        found = self.chain(core, accept)[1:]
        end = found[-1].outputs[0] if found else core.outputs[0]
        # A negation ahead of a nonlinearity is the nonlinearity's: -min(-z, 0) is a ReLU of z.
        if end not in self.program.outputs and all(map(is_elementwise, self.users.get(end, ()))):
            while found and (found[-1].primitive is _jax.NEG or affine.is_move(found[-1])):
                found.pop()
        return found

    def moves_between(self, core: Op, value: Value) -> list[Op]:
        """The moves from a core's result to a value of its chain."""
        found: list[Op] = []
        while value is not core.outputs[0]:
            op = self.maker[value]
            (value,) = self.live_operands(op)
            if affine.is_move(op):
                found.append(op)
        return found[::-1]

    def constant_axes(self, op: Op, value: Value) -> set[int]:
        """Along which axes the constant operand of an operation varies."""
        return set().union(*(self.variation.axes(v) for v in op.inputs if v is not value))
