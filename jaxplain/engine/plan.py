"""The plan of a program for methods that send relevance back: its units in the order in which they can run.

`units.group` names things; a rule needs more: effective weights, softmax and mean-centring as one unit, a shift
by a constant apart from the nonlinearity after it, and what is known before anything runs: which values carry
relevance, which are never negative, which affine units are first or last.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from graphlib import TopologicalSorter
from itertools import repeat

from jaxplain import _jax
from jaxplain.engine.patterns import Graph
from jaxplain.engine.relevance_units import RelevanceGrouping
from jaxplain.engine.rewrites import opened, spelled_out
from jaxplain.engine.trace import Atom, Op, Program, Value
from jaxplain.engine.units import Unit, body_inputs

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

    `reached` holds the values that carry relevance (or a difference), `inner` the plans of bodies: a cond's
    branches, a scan's body for its first `rounds`, for the next ones, and so on. Such copies differ in their marks
    alone: `first` and `last` hold the affine units before (after) which no other one stands on some path.
    """

    program: Program
    steps: list["Unit | Op"]
    reached: set[Value]
    inner: dict[Op, tuple["Plan", ...]]
    graph: Graph
    owner: dict[Value, Unit]
    users: dict[Value, list["Unit | Op"]]
    rounds: dict[Op, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    first: set[Unit] = dataclasses.field(default_factory=set)
    last: set[Unit] = dataclasses.field(default_factory=set)

    def entered(self, step: "Unit | Op") -> Op | None:
        """The scan, remat or cond of a unit whose bodies have plans."""
        return next((op for op in step.ops if op in self.inner), None) if isinstance(step, Unit) else None

    def units(self) -> "Iterable[tuple[Plan, Unit]]":
        """All units, those of a body in place of the operation that runs it."""
        for step in self.steps:
            op = self.entered(step)
            for body in self.inner[op] if op else ():
                yield from body.units()
            if op is None and isinstance(step, Unit):
                yield self, step

    def copy(self) -> "Plan":
        """A plan of the same steps whose marks can be set apart."""
        inner = {op: tuple(body.copy() for body in bodies) for op, bodies in self.inner.items()}
        return dataclasses.replace(
            self, inner=inner, rounds=dict(self.rounds), first=set(self.first), last=set(self.last)
        )

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
    program = spelled_out(opened(program, live), differences=reach is depending)
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


def mark_ends(plan: Plan, live: set[Value]) -> None:
    """Find the first and the last affine units, by dependency and not by order of appearance."""
    down(plan, dict.fromkeys(live, False))
    up(plan, {v: False for v in plan.program.outputs if isinstance(v, Value)})


def all_known(flags: Iterable[bool | None]) -> bool | None:
    """Whether all are set; None stands for what no path leads to."""
    known = [flag for flag in flags if flag is not None]
    return all(known) if known else None


def named(atoms: Sequence[Atom], flags: Sequence[bool | None]) -> dict[Value, bool]:
    """The known flags by value; a value that stands in several places is on a path if it is in one of them."""
    found: dict[Value, bool] = {}
    for v, flag in zip(atoms, flags, strict=True):
        if isinstance(v, Value) and flag is not None:
            found[v] = found.get(v, True) and flag
    return found


def flags_of(atoms: Sequence[Atom], known: dict[Value, bool]) -> list[bool | None]:
    """The flags of values, in order."""
    return [known.get(v) if isinstance(v, Value) else None for v in atoms]


def down(plan: Plan, fresh: dict[Value, bool]) -> dict[Value, bool]:
    """Follow, from the inputs, which values are reached without an affine unit (`False`: none stands before)."""
    behind = dict(fresh)
    for step in plan.steps:
        if not isinstance(step, Unit):
            continue
        entered = plan.entered(step)
        if entered is not None:
            behind |= named(entered.outputs, down_into(plan, entered, behind))
            continue
        after = all_known(behind.get(v) for v in step.inputs if v in plan.reached)
        if step.layout is not None and after is not None:
            if not after:
                plan.first.add(step)
            after = True
        behind |= named(step.outputs, [after] * len(step.outputs))
    return behind


def down_into(plan: Plan, op: Op, behind: dict[Value, bool]) -> list[bool | None]:
    """`down` through a scan, remat or cond: the flags of its results.

    A scan's rounds are gone through until a round leaves the carry as it found it; each that differs gets a copy
    of the body, so that the first of a stack of layers is first, and the others are not.
    """
    outer = op.inputs[1:] if op.primitive is _jax.COND else op.inputs
    given = flags_of(outer, behind)
    if op.primitive is not _jax.SCAN:
        branches = [(body, down(body, named(body.program.inputs, given))) for body in plan.inner[op]]
        return [all_known(c) for c in zip(*(flags_of(b.program.outputs, f) for b, f in branches), strict=True)]
    (body,), left = plan.inner[op], op.params["length"]
    start, carries = _jax.scan_counts(op.params, len(outer))
    end = start + carries
    phases: list[tuple[int, Plan]] = []
    rows: list[list[bool | None]] = []
    while not phases or left:
        one = body.copy()
        rows.append(flags_of(one.program.outputs, down(one, named(one.program.inputs, given))))
        rounds = left if rows[-1][:carries] == given[start:end] else min(left, 1)
        phases.append((rounds, one))
        left -= rounds
        given[start:end] = rows[-1][:carries]
    plan.rounds[op], plan.inner[op] = map(tuple, zip(*phases, strict=True))
    return [
        *rows[-1][:carries],
        *(all_known(column) for column in zip(*(row[carries:] for row in rows), strict=True)),
    ]


def up(plan: Plan, ends: dict[Value, bool]) -> dict[Value, bool]:
    """The same from the outputs: `False` where no affine unit stands after a value, on some path."""
    ahead = dict(ends)
    for step in reversed(plan.steps):
        if not isinstance(step, Unit):
            continue
        entered = plan.entered(step)
        if entered is not None:
            outer = entered.inputs[1:] if entered.primitive is _jax.COND else entered.inputs
            found = named(outer, up_into(plan, entered, ahead))
        else:
            before = all_known(ahead.get(v) for v in step.outputs)
            if step.layout is not None and before is not None:
                if not before:
                    plan.last.add(step)
                before = True
            found = named(step.inputs, [before] * len(step.inputs))
        ahead |= {v: flag and ahead.get(v, True) for v, flag in found.items()}
    return ahead


def up_into(plan: Plan, op: Op, ahead: dict[Value, bool]) -> list[bool | None]:
    """`up` through a scan, remat or cond: the flags of its operands; a scan's rounds from the last one back."""
    given = flags_of(op.outputs, ahead)
    if op.primitive is not _jax.SCAN:
        branches = [(body, up(body, named(body.program.outputs, given))) for body in plan.inner[op]]
        return [all_known(c) for c in zip(*(flags_of(b.program.inputs, f) for b, f in branches), strict=True)]
    start, carries = _jax.scan_counts(op.params, len(op.inputs))
    end = start + carries
    phases: list[tuple[int, Plan]] = []
    rows: list[list[bool | None]] = []
    for left, body in zip(reversed(plan.rounds[op]), reversed(plan.inner[op]), strict=True):
        done = False
        while not done:
            one = body.copy()
            rows.append(flags_of(one.program.inputs, up(one, named(one.program.outputs, given))))
            rounds = left if rows[-1][start:end] == given[:carries] else min(left, 1)
            phases.append((rounds, one))
            left -= rounds
            done = not left
            given[:carries] = rows[-1][start:end]
    plan.rounds[op], plan.inner[op] = map(tuple, zip(*reversed(phases), strict=True))
    columns = [all_known(column) for column in zip(*rows, strict=True)]
    return [*columns[:start], *rows[-1][start:end], *columns[end:]]
