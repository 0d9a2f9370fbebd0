"""The plan of a program for methods that send relevance back: its units in the order in which they can run.

`units.group` names things; a rule needs more: effective weights, softmax and mean-centring as one unit, a shift
by a constant apart from the nonlinearity after it, and what is known before anything runs: which values carry
relevance, which are never negative, which affine units are first or last.
"""

import dataclasses
from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter
from itertools import repeat

from jaxplain import _jax
from jaxplain.engine import affine, control
from jaxplain.engine.affine import Layout, Term
from jaxplain.engine.patterns import Graph, patterns
from jaxplain.engine.rectifiers import Constants
from jaxplain.engine.trace import Atom, Op, Program, Value
from jaxplain.engine.units import Grouping, Unit, body_inputs, is_elementwise, scales, shifts_or_scales

Reach = Callable[[Program, Iterable[Value]], set[Value]]


def carrying(program: Program, live: Iterable[Value]) -> set[Value]:
    """The values that relevance can reach: floats that depend on the live inputs by some slope."""
    found = set(live)
    for op in program.ops:
        if op.primitive not in _jax.FLAT and not found.isdisjoint(op.operands):
            found.update(v for v in op.outputs if v.is_float)
    return found


def depending(program: Program, live: Iterable[Value]) -> set[Value]:
    """Every value that depends on the live inputs at all: what a difference from a reference can reach."""
    return program.dependent(live)


@dataclasses.dataclass(eq=False)
class Plan:
    """A program's units and plain operations, in an order in which they can run.

    `reached` holds the values that carry relevance (or a difference), `inner` the plans of bodies. For each
    affine unit, `first` and `last` tell that no other one stands before (after) it on some path.
    """

    program: Program
    steps: list["Unit | Op"]
    reached: set[Value]
    inner: dict[Op, tuple["Plan", ...]]
    graph: Graph
    owner: dict[Value, Unit]
    users: dict[Value, list["Unit | Op"]]
    first: set[Unit] = dataclasses.field(default_factory=set)
    last: set[Unit] = dataclasses.field(default_factory=set)

    def units(self) -> "Iterable[tuple[Plan, Unit]]":
        """All units, those of a body in place of the operation that runs it."""
        for step in self.steps:
            bodies = [p for op in step.ops for p in self.inner.get(op, ())] if isinstance(step, Unit) else []
            if bodies:
                for body in bodies:
                    yield from body.units()
            elif isinstance(step, Unit):
                yield self, step

    def carried(self, unit: Unit) -> tuple[Value, ...]:
        """The inputs of a unit that carry relevance."""
        return tuple(v for v in unit.inputs if v in self.reached)


def make_plan(program: Program, live: Iterable[Value], reach: Reach = carrying) -> Plan:
    """The plan of a program whose `live` inputs are explained."""
    live = set(live)
    plan = plan_of(program, live, reach)
    mark_ends(plan, live)
    return plan


def plan_of(program: Program, live: set[Value], reach: Reach) -> Plan:
    """The plan of a program or of a body, its ends not yet marked."""
    program = opened(program, live)
    dependent = program.dependent(live)
    reached = reach(program, live)
    units = RelevanceGrouping(program, live).run()
    # A pattern repeats operations that others may need, too: only its last one is its own.
    owned = {op for unit in units for op in (unit.ops[-1:] if unit.shared else unit.ops)}
    steps: list[Unit | Op] = [*units, *(op for op in program.ops if op not in owned)]
    maker = {v: step for step in steps for v in step.outputs}
    needs = {step: [maker[v] for v in operands(step) if v in maker] for step in steps}
    wanted = {v for v in program.outputs if isinstance(v, Value)}
    kept: set[Unit | Op] = {s for s in steps if isinstance(s, Op) and s.eqn.effects}
    todo = [maker[v] for v in wanted if v in maker] + list(kept)
    kept |= set(todo)
    while todo:
        for before in needs[todo.pop()]:
            if before not in kept:
                kept.add(before)
                todo.append(before)
    order = TopologicalSorter({step: needs[step] for step in steps if step in kept})
    ordered = list(order.static_order())
    users: dict[Value, list[Unit | Op]] = {}
    for step in ordered:
        for v in operands(step):
            users.setdefault(v, []).append(step)
    entered = (_jax.SCAN, _jax.REMAT, _jax.COND)
    inside = [op for step in ordered if isinstance(step, Unit) for op in step.ops if op.primitive in entered]
    inner = {op: tuple(map(plan_of, op.bodies, body_inputs(op, dependent, reach), repeat(reach))) for op in inside}
    owner = {v: s for s in ordered if isinstance(s, Unit) for v in s.outputs}
    return Plan(program, ordered, reached, inner, Graph(program, dependent), owner, users)


def operands(step: "Unit | Op") -> list[Value]:
    """All values that a step reads, constants of the program too."""
    if isinstance(step, Op):
        return list(step.operands)
    made = {v for op in step.ops for v in op.outputs}
    return list(dict.fromkeys([*step.inputs, *(v for op in step.ops for v in op.operands if v not in made)]))


def opened(program: Program, live: set[Value]) -> Program:
    """`program` with its functions with a custom derivative inlined, except those that act as one activation."""
    while True:
        dependent = program.dependent(live)
        chosen = {op for op in program.ops if op.bodies and op.primitive in _jax.CUSTOM and hides(op, dependent)}
        if not chosen:
            return program
        program = inlined(program, chosen)


def hides(op: Op, dependent: set[Value]) -> bool:
    """Whether a function with a custom derivative must be opened: it is no activation."""
    moving = {v for v in op.operands if v in dependent}
    return bool(moving) and (len(moving) > 1 or not is_elementwise(op))


def inlined(program: Program, chosen: set[Op]) -> Program:
    """`program` with the bodies of these operations in place of the calls. The names of results stay."""
    ops: list[Op] = []
    constants = dict(program.constants)
    renamed: dict[Value, Atom] = {}

    def rename(atoms, table):
        return tuple(table.get(v, v) if isinstance(v, Value) else v for v in atoms)

    for op in program.ops:
        if op not in chosen:
            ops.append(dataclasses.replace(op, inputs=rename(op.inputs, renamed)))
            continue
        (body,) = op.bodies
        constants |= body.constants
        # The call's own results keep their identity, so that a site among them is still found.
        table: dict[Value, Atom] = dict(zip(body.inputs, rename(op.inputs, renamed), strict=True))
        made = {v for inside in body.ops for v in inside.outputs}
        for result, inner in zip(op.outputs, body.outputs, strict=True):
            if isinstance(inner, Value) and inner in made and inner not in table:
                table[inner] = result
        for inside in body.ops:
            outputs = tuple(table.get(v, v) for v in inside.outputs)
            ops.append(dataclasses.replace(inside, inputs=rename(inside.inputs, table), outputs=outputs))
        results = zip(op.outputs, rename(body.outputs, table), strict=True)
        renamed |= {result: inner for result, inner in results if inner is not result}
    return Program(program.inputs, rename(program.outputs, renamed), ops, constants)


class RelevanceGrouping(Grouping):
    """Units as rules see them; see the module's docstring for how they differ from those that name sites."""

    def run(self) -> list[Unit]:
        """The units, each operation that depends on the input in one."""
        self.variation, self.constants = affine.Variation(self.program), Constants(self.program)
        live_ops = [op for op in self.program.ops if op.outputs and self.live_operands(op)]
        for op in live_ops:
            if (kind := control.kind_of(op)) is not None:
                self.add(kind, [op])
        for pattern in patterns(self.program, self.live):
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
                term = Term(op, live, tuple(before), tuple(after))
                ops = [*before, op, *after]
                layouts[ops[-1].outputs[0]] = (op, Layout((term,), ops[-1].outputs[0]), ops)
                self.taken.update((o, "affine") for o in ops)
            elif op.primitive in (_jax.ADD, _jax.SUB) and all(v in layouts for v in op.inputs):
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
        tail = self.chain(op, lambda user, v: user.primitive in _jax.SUM_OF_TWO and user.inputs[0] is v)[1:]
        if not self.feeds_activation(tail[-1].outputs[0] if tail else total):
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

    def feeds_activation(self, value: Value) -> bool:
        """Whether a value goes, perhaps in pieces, into nothing but nonlinearities."""
        users = self.users.get(value, ())
        if not users or value in self.program.outputs:
            return False
        for user in users:
            if user.primitive in _jax.STRUCTURAL:
                if not all(self.feeds_activation(v) for v in user.outputs):
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
            if not affine.is_move(op):
                same = moving[0].shape == op.outputs[0].shape
                if not (same and shifts_or_scales(op, moving[0])):
                    break
                axes = self.constant_axes(op, moving[0])
                for move in reversed(found[:-1]):
                    axes = affine.moved(move, axes) if affine.is_move(move) else axes
                if scales(op, moving[0]) and not axes <= allowed.keys():
                    break
                kept = len(found)
            value = moving[0]
        return found[:kept][::-1]

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

        return self.chain(core, accept)[1:]

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


def mark_ends(plan: Plan, live: set[Value]) -> None:
    """Find the first and the last affine units, by dependency and not by order of appearance."""
    down(plan, dict.fromkeys(live, False))
    up(plan, {v: False for v in plan.program.outputs if isinstance(v, Value)})


def down(plan: Plan, fresh: dict[Value, bool]) -> dict[Value, bool]:
    """Follow, from the inputs, which values are reached without an affine unit (`False`: none stands before)."""
    behind = dict(fresh)
    for step in plan.steps:
        if not isinstance(step, Unit):
            continue
        flags = [behind[v] for v in step.inputs if v in behind and v in plan.reached]
        if not flags:
            continue
        after = all(flags)
        if step.layout is not None:
            if not after:
                plan.first.add(step)
            after = True
        for op in step.ops:
            for body in plan.inner.get(op, ()):
                inputs = op.inputs[1:] if op.primitive is _jax.COND else op.inputs
                pairs = zip(body.program.inputs, inputs, strict=True)
                inner = down(body, {b: behind[v] for b, v in pairs if isinstance(v, Value) and v in behind})
                after = after or all(inner.get(v, True) for v in body.program.outputs if isinstance(v, Value))
        behind.update((v, after) for v in step.outputs)
    return behind


def up(plan: Plan, ends: dict[Value, bool]) -> dict[Value, bool]:
    """The same from the outputs: `False` where no affine unit stands after a value, on some path."""
    ahead = dict(ends)
    for step in reversed(plan.steps):
        if not isinstance(step, Unit):
            continue
        flags = [ahead[v] for v in step.outputs if v in ahead]
        if not flags:
            continue
        before = all(flags)
        if step.layout is not None:
            if not before:
                plan.last.add(step)
            before = True
        for op in step.ops:
            for body in plan.inner.get(op, ()):
                pairs = zip(body.program.outputs, op.outputs, strict=True)
                inner = up(body, {b: ahead[v] for b, v in pairs if isinstance(b, Value) and v in ahead})
                before = before or all(inner.get(v, True) for v in body.program.inputs if v in body.reached)
        for v in step.inputs:
            ahead[v] = ahead.get(v, True) and before
    return ahead
