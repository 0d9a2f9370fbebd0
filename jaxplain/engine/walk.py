"""Evaluating a program, with values captured or planted on the way, and cutting it in two."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain.engine.trace import Atom, Literal, Op, Program, Value


class Mix(NamedTuple):
    """Elements of a value to be replaced when it is computed: where `chosen`, by those of `instead`."""

    chosen: Any
    instead: Any


def evaluate(
    program: Program,
    inputs: Sequence[Any],
    *,
    wanted: Set[Value] = frozenset(),
    planted: Mapping[Value, Any] | None = None,
    mixed: Mapping[Value, Mix] | None = None,
) -> tuple[list[Any], dict[Value, Any]]:
    """(the outputs, the wanted values), with the planted values in place of the computed ones.

    A value inside a scan has a leading axis of iterations, one for each scan around it. Of mixed values each
    iteration computes its own from what the iterations before it made of theirs.
    """
    planted, mixed = planted or {}, mixed or {}
    env = {**program.constants, **dict(zip(program.inputs, inputs, strict=True)), **planted}
    touched = wanted | planted.keys() | mixed.keys()
    entered = {op for op in program.ops if op.bodies and (op.edited or not touched.isdisjoint(values_inside(op)))}
    sought = [*program.outputs, *(v for v in made_by(program) if v in wanted)]
    sought += [v for op in entered for v in op.outputs]
    captured = {}
    for op in program.needed(sought, set(planted), effects=True):
        operands = [read(env, v) for v in op.inputs]
        if op in entered:
            results, inside = enter(op, operands, wanted, planted, mixed)
            captured |= inside
        else:
            results = op.run(operands)
        for v, result in zip(op.outputs, results, strict=True):
            if v in mixed:
                result = jnp.where(mixed[v].chosen, mixed[v].instead, result)
            if v not in planted:
                env[v] = result
    captured |= {v: env[v] for v in wanted if v in env}
    return [read(env, v) for v in program.outputs], captured


def enter(
    op: Op,
    operands: list[Any],
    wanted: Set[Value],
    planted: Mapping[Value, Any],
    mixed: Mapping[Value, Mix],
) -> tuple[list[Any], dict[Value, Any]]:
    """Run a scan, a remat or a cond with its body evaluated by us."""
    if op.primitive is _jax.COND:  # only its operations are replaced: its values have no place to go
        index, *rest = operands
        branches = [lambda *arrays, b=b: evaluate(b, arrays)[0] for b in op.bodies]
        return list(jax.lax.switch(index, branches, *rest)), {}
    (body,) = op.bodies
    here = values_inside(op)
    # JAX sees lists in a fixed order: its pytrees sort dictionary keys, and values have no order.
    captured_here = [v for v in here if v in wanted]
    planted_here = [v for v in planted if v in here]
    mixed_here = [v for v in mixed if v in here]
    arrays_here = [planted[v] for v in planted_here], [mixed[v] for v in mixed_here]

    def run_body(operands, arrays):
        values, mixes = arrays
        inside, mixed = dict(zip(planted_here, values, strict=True)), dict(zip(mixed_here, mixes, strict=True))
        outputs, captured = evaluate(body, operands, wanted=set(captured_here), planted=inside, mixed=mixed)
        return outputs, [captured[v] for v in captured_here]

    if op.primitive is _jax.REMAT:
        policy, prevent_cse = op.params["policy"], op.params["prevent_cse"]
        remat = jax.checkpoint(run_body, policy=policy, prevent_cse=prevent_cse)
        outputs, captured = remat(operands, arrays_here)
        return outputs, dict(zip(captured_here, captured, strict=True))

    num_consts, num_carry = _jax.scan_counts(op.params, len(operands))
    consts, init, xs = split(operands, num_consts, num_carry)

    def step(carry, item):
        x, arrays = item
        outputs, captured = run_body([*consts, *carry, *x], arrays)
        return outputs[:num_carry], (outputs[num_carry:], captured)

    params = {k: op.params[k] for k in ("length", "reverse", "unroll")}
    carry, (ys, captured) = jax.lax.scan(step, init, (xs, arrays_here), **params)
    return [*carry, *ys], dict(zip(captured_here, captured, strict=True))


class Override(NamedTuple):
    """A function of other values of the program, to compute one of them by."""

    inputs: tuple[Value, ...]
    function: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Cut:
    """A program in two halves, each with only the operations it needs.

    `site(inputs) -> z` and `rest(inputs) -> values`, or both at once as `before`; then
    `after(z, values) -> outputs`. The rest are the values that the second half needs and that do not depend on
    z; `bypass` says how many of them depend on the explained input: 0 when z is a bottleneck. `reaches` says
    whether an output depends on z at all.
    """

    site: Callable[[Sequence[Any]], Any]
    rest: Callable[[Sequence[Any]], list[Any]]
    before: Callable[[Sequence[Any]], tuple[Any, list[Any]]]
    after: Callable[[Any, list[Any]], list[Any]]
    bypass: int
    reaches: bool


def cut(program: Program, site: Value, live: Set[Value]) -> Cut:
    """Cut a program at one of its values, or at one inside a scan (then z holds all its iterations)."""
    if site not in made_by(program):

        def capture(inputs):
            return evaluate(program, inputs, wanted={site})[1][site]

        def replant(z, inputs):
            return evaluate(program, inputs, planted={site: z})[0]

        def both(inputs):
            return capture(inputs), list(inputs)

        return Cut(capture, list, both, replant, bypass=len(live), reaches=True)

    below = program.dependent({site})
    after_ops = [op for op in program.needed(program.outputs, {site}) if not below.isdisjoint(op.operands)]
    uses = dict.fromkeys(v for op in after_ops for v in op.operands)
    uses |= dict.fromkeys(v for v in program.outputs if isinstance(v, Value))
    bypassing = [v for v in uses if v not in below and v not in program.constants]

    def compute(values, inputs):
        env = {**program.constants, **dict(zip(program.inputs, inputs, strict=True))}
        run(program.needed(values, set()), env)
        return [env[v] for v in values]

    def before(inputs):
        z, *values = compute([site, *bypassing], inputs)
        return z, values

    def after(z, values):
        env = {**program.constants, **dict(zip(bypassing, values, strict=True)), site: z}
        run(after_ops, env)
        return [read(env, v) for v in program.outputs]

    reached = program.dependent(live)
    return Cut(
        lambda inputs: compute([site], inputs)[0],
        lambda inputs: compute(bypassing, inputs),
        before,
        after,
        bypass=sum(v in reached for v in bypassing),
        reaches=not below.isdisjoint(v for v in program.outputs if isinstance(v, Value)),
    )


def run(ops: Sequence[Op], env: dict[Value, Any]) -> None:
    """Run operations in order, reading from and writing to `env`."""
    for op in ops:
        env.update(zip(op.outputs, op.run([read(env, v) for v in op.inputs]), strict=True))


def read(env: Mapping[Value, Any], atom: Atom) -> Any:
    """An operand's array."""
    return atom.value if isinstance(atom, Literal) else env[atom]


def made_by(program: Program) -> Set[Value]:
    """The inputs and results of a program's own operations."""
    return {*program.inputs, *(v for op in program.ops for v in op.outputs)}


def values_inside(op: Op) -> Set[Value]:
    """Every value that is made inside an operation's bodies, at any depth."""
    return {v for body in op.bodies for program, _ in body.walk() for v in made_by(program)}


def split(values: Sequence[Any], first: int, second: int) -> tuple[list[Any], list[Any], list[Any]]:
    """The first, the next, and the remaining values."""
    return list(values[:first]), list(values[first : first + second]), list(values[first + second :])


def inlined(program: Program, target: Op) -> Program:
    """`program` with the body of one of its remats in place of the call, so that it can be cut inside."""
    ops, renamed = [], {}

    def rename(atoms):
        return tuple(renamed.get(v, v) if isinstance(v, Value) else v for v in atoms)

    constants = dict(program.constants)
    for op in program.ops:
        if op is not target:
            ops.append(dataclasses.replace(op, inputs=rename(op.inputs)))
            continue
        (body,) = op.bodies
        constants |= body.constants
        inner = dict(zip(body.inputs, rename(op.inputs), strict=True))
        for inside in body.ops:
            swapped = tuple(inner.get(v, v) if isinstance(v, Value) else v for v in inside.inputs)
            ops.append(dataclasses.replace(inside, inputs=swapped))
        results = (inner.get(v, v) if isinstance(v, Value) else v for v in body.outputs)
        renamed |= dict(zip(op.outputs, results, strict=True))
    return Program(program.inputs, rename(program.outputs), ops, constants)


def replaced(program: Program, overrides: Mapping[Value, Override]) -> Program:
    """`program` in which overridden values are computed by functions, at any depth.

    This is how a method changes the backward pass: the function is a `jax.custom_vjp` whose forward gives the
    same value. What only led to an overridden value is dead and left out.
    """
    ops, found = [], False
    for op in program.ops:
        override = next((overrides[v] for v in op.outputs if v in overrides), None)
        if override is not None:
            op = dataclasses.replace(op, inputs=override.inputs, function=override.function, bodies=())
            found = True
        elif op.primitive in (_jax.SCAN, _jax.REMAT, _jax.COND):
            bodies = tuple(replaced(body, overrides) for body in op.bodies)
            if any(new is not old for new, old in zip(bodies, op.bodies, strict=True)):
                op = dataclasses.replace(op, bodies=bodies, edited=True)
                found = True
        ops.append(op)
    return dataclasses.replace(program, ops=ops) if found else program
