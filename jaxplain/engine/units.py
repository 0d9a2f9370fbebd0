"""Units: what a rule, or a name like "the last convolution", acts on.

Raw operations are too small: a dense layer is a dot product, a broadcast and an addition, gelu is eight
operations. `group` collects them:

- **conv, dense**: a convolution or dot product with one live operand, and the constant additions and scalings
  that follow it (bias, BatchNorm at inference), with the reshapes between them;
- **activation**: the largest cluster of elementwise operations with one live input: relu in any spelling, gelu
  in its eight operations, silu;
- **sum**: a sum of live values (residual), reduce_sum, average pooling with its division;
- **product**: two live factors: gates, attention;
- **max**: max-pooling, reduce_max, the larger of two live values;
- **structural**: moves elements without changing them: reshape, slice, gather, a constant mask;
- **scan, remat, cond, while, custom**: control flow, and functions with a custom derivative that are not
  elementwise;
- **other**: none of these.

*Live* means: depends on the explained input. A weight is whatever is not live.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

from jaxplain import _jax
from jaxplain.engine.trace import Op, Program, Value


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """Operations that act as one: from `inputs` (live values of other units) to `outputs`.

    Of an activation, `above` tells for each of its values the nearest one that it is a function of.
    """

    kind: str
    ops: tuple[Op, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    above: dict[Value, Value] = dataclasses.field(default_factory=dict)
    layout: Any = None  # of an affine unit: what `engine.affine` folds
    axes: tuple[int, ...] = ()  # of a softmax
    shared: bool = False  # whether its operations, but the last, may serve other units too


class Grouping:
    """One pass over a program; each operation ends up in exactly one unit."""

    def __init__(self, program: Program, live: set[Value]):
        self.program = program
        self.live = program.dependent(live)
        self.users: dict[Value, list[Op]] = {}
        for op in program.ops:
            for value in dict.fromkeys(op.operands):
                self.users.setdefault(value, []).append(op)
        self.maker = {value: op for op in program.ops for value in op.outputs}
        self.taken: dict[Op, str] = {}
        self.units: list[Unit] = []

    def live_operands(self, op: Op) -> list[Value]:
        """With repeats: `x @ x` has two."""
        return [v for v in op.operands if v in self.live]

    def add(
        self, kind: str, ops: Sequence[Op], above: dict[Value, Value] | None = None, *, layout: Any = None
    ) -> None:
        """Make a unit of these operations."""
        made = {v for op in ops for v in op.outputs}
        inputs = dict.fromkeys(v for op in ops for v in self.live_operands(op) if v not in made)
        outside = [v for op in ops for v in op.outputs if self.escapes(v, ops)]
        self.units.append(Unit(kind, tuple(ops), tuple(inputs), tuple(outside), above or {}, layout))
        self.taken.update((op, kind) for op in ops)

    def escapes(self, value: Value, ops: Sequence[Op]) -> bool:
        """Whether something outside these operations needs a value."""
        return value in self.program.outputs or any(user not in ops for user in self.users.get(value, ()))

    def chain(self, seed: Op, arithmetic) -> list[Op]:
        """`seed` and the single-user operations after it, up to the last that `arithmetic` accepts."""
        ops, end, value = [seed], 1, seed.outputs[0]
        while len(self.users.get(value, ())) == 1 and value not in self.program.outputs:
            (user,) = self.users[value]
            if user in self.taken:
                break
            if moves_only(user):
                ops.append(user)
            elif (
                user.outputs
                and self.live_operands(user) == [value]
                and user.outputs[0].shape == value.shape
                and arithmetic(user, value)
            ):
                ops.append(user)
                end = len(ops)
            else:
                break
            value = user.outputs[0]
        return ops[:end]

    def run(self) -> list[Unit]:
        """The units, in the order in which they begin."""
        live_ops = [op for op in self.program.ops if op.outputs and self.live_operands(op)]
        for op in live_ops:
            if op in self.taken:
                continue
            if op.primitive in (_jax.CONV, _jax.DOT) and len(self.live_operands(op)) == 1:
                kind = "conv" if op.primitive is _jax.CONV else "dense"
                self.add(kind, self.chain(op, shifts_or_scales))
            elif op.primitive in _jax.SUM_OVER:
                self.add("sum", self.chain(op, scales))
        above, clusters = self.clusters([op for op in live_ops if op not in self.taken])
        for ops in clusters:
            self.add("activation", ops, {v: above[v] for op in ops for v in op.outputs})
        for op in live_ops:
            if op not in self.taken:
                self.add(self.kind_of(op), [op])
        order = {op: k for k, op in enumerate(self.program.ops)}
        return sorted(self.units, key=lambda unit: order[unit.ops[0]])

    def clusters(self, candidates: list[Op]) -> tuple[dict[Value, Value], list[list[Op]]]:
        """Elementwise operations by the one live value that all of them are a function of.

        The value that a candidate's result is an elementwise function of is found by walking up: an operation
        with several live operands belongs to the nearest value that all of them are functions of.
        """
        above: dict[Value, Value] = {}  # the nearest value that a value is an elementwise function of

        def ancestors(value: Value) -> list[Value]:
            line = [value]
            while line[-1] in above:
                line.append(above[line[-1]])
            return line

        for op in candidates:
            if not is_elementwise(op):
                continue
            operands = list(dict.fromkeys(self.live_operands(op)))
            lines = [ancestors(v) for v in operands]
            common = [v for v in lines[0] if all(v in line for line in lines[1:])]
            if common and op.outputs[0].shape == common[0].shape:
                above[op.outputs[0]] = common[0]
        roots: dict[Value, list[Op]] = {}
        for op in candidates:
            if op.outputs[0] in above:
                roots.setdefault(ancestors(op.outputs[0])[-1], []).append(op)
        # A cluster of nothing but casts is structural.
        return above, [ops for ops in roots.values() if any(op.primitive not in _jax.RESHAPES for op in ops)]

    def kind_of(self, op: Op) -> str:
        """The kind of an operation that stands alone."""
        several = len(self.live_operands(op)) > 1
        named = {_jax.SCAN: "scan", _jax.REMAT: "remat", _jax.COND: "cond", _jax.WHILE: "while"}
        if op.primitive in named:
            return named[op.primitive]
        if op.primitive in _jax.CUSTOM:
            return "custom"
        if op.primitive in _jax.MAX_OVER or (several and op.primitive in _jax.MAX_OF_TWO):
            return "max"
        if op.primitive in _jax.SUM_OF_TWO and several:
            return "sum"
        if op.primitive in _jax.PRODUCT_OF_TWO | {_jax.CONV, _jax.DOT} and several:
            return "product"
        masks = op.primitive is _jax.SELECT and op.inputs[0] not in self.live
        if op.primitive in _jax.STRUCTURAL or masks:
            return "structural"
        return "other"


def group(program: Program, live: set[Value]) -> list[Unit]:
    """The units of a program (not of its bodies), in the order in which they begin."""
    return Grouping(program, live).run()


def moves_only(op: Op) -> bool:
    """Whether an operation gives the same numbers another shape; `x[None]` does, and `x[0]` of a single row."""
    same = bool(op.outputs) and op.primitive in (_jax.BROADCAST, _jax.SLICE)
    return op.primitive in _jax.RESHAPES or (same and prod(op.operands[0].shape) == prod(op.outputs[0].shape))


def scales(op: Op, live: Value) -> bool:
    """Whether an operation multiplies or divides its one live operand by constants."""
    return op.primitive is _jax.MUL or (op.primitive is _jax.DIV and op.inputs[0] is live)


def shifts_or_scales(op: Op, live: Value) -> bool:
    """Whether an operation adds to, negates or scales its one live operand by constants."""
    return op.primitive in _jax.SUM_OF_TWO | {_jax.NEGATION} or scales(op, live)


def is_elementwise(op: Op) -> bool:
    """Whether each output element depends on the operands' elements at the same place only."""
    if op.primitive in _jax.CUSTOM and op.bodies:
        # A function with its own derivative is elementwise if all it does is.
        (body,) = op.bodies
        same = all(v.shape in ((), op.outputs[0].shape) for v in body.inputs)
        return same and len(op.outputs) == 1 and all(is_elementwise(inner) for inner in body.ops)
    return op.primitive in _jax.ELEMENTWISE or _jax.marks_varying(op.eqn)


def body_inputs(
    op: Op, marked: set[Value], reach: Callable[[Program, Iterable[Value]], set[Value]] = Program.dependent
) -> list[set[Value]]:
    """For each body of an operation, its inputs that stand for `marked` operands.

    A scan's carry is marked when it is so at the start or becomes so in any round: a fixpoint. `reach` tells
    what marked values mark.
    """
    flags = [isinstance(v, Value) and v in marked for v in op.inputs]
    if op.primitive is _jax.COND:
        return [{v for v, on in zip(body.inputs, flags[1:], strict=True) if on} for body in op.bodies]
    if op.primitive is _jax.SCAN:
        (body,) = op.bodies
        consts, carries = _jax.scan_counts(op.params, len(op.inputs))
        while True:
            found = {v for v, on in zip(body.inputs, flags, strict=True) if on}
            reached = reach(body, found)
            grown = [flags[consts + k] or body.outputs[k] in reached for k in range(carries)]
            if grown == flags[consts : consts + carries]:
                return [found]
            flags[consts : consts + carries] = grown
    if op.primitive is _jax.WHILE:
        return [set() for _ in op.bodies]
    return [{v for v, on in zip(body.inputs, flags, strict=True) if on} for body in op.bodies]


def bottlenecks(program: Program, live: set[Value]) -> set[Value]:
    """Values through which everything flows from the live inputs to the outputs."""
    reached = {v for v in program.dependent(live) if v.is_float}
    ops = [op for op in program.needed(program.outputs, set()) if not reached.isdisjoint(op.operands)]
    last_use = {v: k for k, op in enumerate(ops) for v in op.operands if v in reached}
    last_use.update((v, len(ops)) for v in program.outputs if isinstance(v, Value) and v in reached)
    found, open_values = set(), {v for v in live if v in last_use}
    for k, op in enumerate(ops):
        open_values.update(v for v in op.outputs if v in last_use and v in reached)
        open_values = {v for v in open_values if last_use[v] > k}
        if len(open_values) == 1:
            found |= open_values
    return found
