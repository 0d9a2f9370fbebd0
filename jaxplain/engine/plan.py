"""The plan of a program for methods that send relevance back: its units in the order in which they can run.

`units.group` names things; a rule needs more: effective weights, softmax and mean-centring as one unit, a shift
by a constant apart from the nonlinearity after it, and what is known before anything runs: which values carry
relevance, which are never negative, which affine units are first or last.
"""

import dataclasses
from collections.abc import Callable, Iterable
from functools import partial
from graphlib import TopologicalSorter
from itertools import repeat

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain.engine.patterns import Graph
from jaxplain.engine.relevance_units import RelevanceGrouping
from jaxplain.engine.trace import Atom, Op, Program, Value
from jaxplain.engine.units import Unit, body_inputs, is_elementwise

Reach = Callable[[Program, Iterable[Value]], set[Value]]


def carrying(program: Program, live: Iterable[Value]) -> set[Value]:
    """The values that relevance can reach: floats that depend on the live inputs by some slope."""
    found = set(live)
    for op in program.ops:
        if op.primitive not in _jax.FLAT and not found.isdisjoint(op.operands):
            found.update(v for v in results_reached(op, found, carrying) if v.is_float)
    return found


def depending(program: Program, live: Iterable[Value]) -> set[Value]:
    """Every value that depends on the live inputs at all: what a difference from a reference can reach."""
    found = set(live)
    for op in program.ops:
        if not found.isdisjoint(op.operands):
            found.update(results_reached(op, found, depending))
    return found


def results_reached(op: Op, found: set[Value], reach: Reach) -> list[Value]:
    """The results of an operation that what is found reaches: of a scan, remat or cond, not all may be."""
    if op.primitive not in (_jax.SCAN, _jax.REMAT, _jax.COND) or not op.bodies:
        return list(op.outputs)
    if op.primitive is _jax.COND and op.inputs[0] in found:
        return list(op.outputs)
    flags = [False] * len(op.outputs)
    for body, marked in zip(op.bodies, body_inputs(op, found, reach), strict=True):
        inside = reach(body, marked)
        flags = [on or v in inside for on, v in zip(flags, body.outputs, strict=True)]
        if op.primitive is _jax.SCAN:
            consts, carries = _jax.scan_counts(op.params, len(op.inputs))
            for k in range(carries):
                flags[k] = flags[k] or body.inputs[consts + k] in marked
    return [v for v, on in zip(op.outputs, flags, strict=True) if on]


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
    program = spelled_out(opened(program, live), reach)
    dependent = depending(program, live)
    reached = reach(program, live)
    units = RelevanceGrouping(program, dependent).run()
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
    if step.kind == "softmax" and step.axes:
        return list(step.inputs)  # it is computed from what it starts from alone
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


def spelled_out(program: Program, reach: Reach) -> Program:
    """`program` with implicit broadcasts made explicit, and stop_gradient without its own derivative.

    An elementwise operation may stretch axes of length 1. And what ends relevance is the rule: the derivative *of*
    the explanation is that of its values, which a stop_gradient inside (softmax has one) would falsify.
    """
    ops: list[Op] = []
    for op in program.ops:
        if op.primitive is _jax.STOP_GRADIENT and op.outputs[0].is_float:
            op = dataclasses.replace(op, function=same_value if reach is depending else silenced)
        elif op.primitive in _jax.ELEMENTWISE:
            shape = op.outputs[0].shape
            inputs = list(op.inputs)
            for k, v in enumerate(inputs):
                if isinstance(v, Value) and v.shape != shape and len(v.shape) == len(shape):
                    wide = Value(shape, v.dtype)
                    params = {"broadcast_dimensions": tuple(range(len(shape))), "shape": shape}
                    stretch = partial(jnp.broadcast_to, shape=shape)
                    ops.append(
                        Op(
                            _jax.BROADCAST,
                            params,
                            (v,),
                            (wide,),
                            op.scope,
                            op.eqn,
                            op.stack,
                            (),
                            stretch,
                            op.caller,
                        )
                    )
                    inputs[k] = wide
            op = dataclasses.replace(op, inputs=tuple(inputs))
        ops.append(op)
    return dataclasses.replace(program, ops=ops)


def same_value(x: jax.Array) -> jax.Array:
    """The identity."""
    return x


@jax.custom_vjp
def silenced(x: jax.Array) -> jax.Array:
    """The identity, through which relevance does not pass: the rule's derivative is 0, that of its value 1."""
    return x


silenced.defvjp(lambda x: (x, x), lambda x, _: (jnp.zeros_like(x),))


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
