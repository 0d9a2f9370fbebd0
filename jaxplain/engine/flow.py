"""Running a plan with a policy: every unit computed in the policy's way, control flow re-emitted around it.

A policy turns one unit into arrays; it replaces the backward pass of the unit by a rule (`override`), and the
explanation is the ordinary `jax.vjp` of the run, in which the cotangent carries relevance or multipliers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import UnsupportedOperation
from jaxplain.engine.plan import Plan
from jaxplain.engine.trace import Atom, Literal, Op, Value
from jaxplain.engine.units import Unit
from jaxplain.engine.walk import made_by, split

Array = Any
Carrier = Any  # what stands for a value: its array, or a pair of arrays for a value and its reference
Taps = Mapping[Any, Array]


class Policy(Protocol):
    """How a method computes units. Values that are not reached are plain arrays."""

    def lift(self, carrier: Carrier) -> Carrier:
        """The form in which control flow carries what is reached, of a constant or of a carrier."""
        ...

    def bump(self, carrier: Carrier, amount: Array) -> Carrier:
        """The carrier of x + amount."""
        ...

    def plain(self, op: Op, operands: Sequence[Carrier]) -> list[Carrier]:
        """An operation that belongs to no unit."""
        ...

    def unit(self, unit: Unit, plan: Plan, read: Callable[[Atom], Carrier]) -> Sequence[Carrier]:
        """A unit's outputs."""
        ...

    def alike(self, one: Plan, other: Plan) -> bool:
        """Whether two copies of a plan, which differ in their first and last units, are run the same."""
        ...


def run(plan: Plan, policy: Policy, inputs: Sequence[Carrier], taps: Taps | None = None) -> list[Carrier]:
    """The outputs of a plan.

    `taps` are added on the way, so that their cotangents tell what arrives there: to a value, by the value
    itself; to what one unit alone reads, by (unit, position of the input).
    """
    taps = taps or {}
    env: dict[Value, Carrier] = dict(plan.program.constants)

    def put(value: Value, carrier: Carrier) -> None:
        env[value] = policy.bump(carrier, taps[value]) if value in taps and value in plan.reached else carrier

    def read(atom: Atom) -> Carrier:
        return atom.value if isinstance(atom, Literal) else env[atom]

    for value, carrier in zip(plan.program.inputs, inputs, strict=True):
        put(value, carrier)
    for step in plan.steps:
        if isinstance(step, Op):
            results = policy.plain(step, [read(v) for v in step.inputs])
        else:
            tapped = {v: taps[step, k] for k, v in enumerate(step.inputs) if (step, k) in taps}
            inside = tapping(policy, read, tapped) if tapped else read
            entered = plan.entered(step)
            if entered is not None:
                all_results = zip(entered.outputs, enter(entered, plan, policy, inside, taps), strict=True)
                results = [result for v, result in all_results if v in step.outputs]
            else:
                results = policy.unit(step, plan, inside)
        for value, carrier in zip(step.outputs, results, strict=True):
            put(value, carrier)
    return [read(v) for v in plan.program.outputs]


def tapping(policy: Policy, read: Callable[[Atom], Carrier], tapped: Taps) -> Callable[[Atom], Carrier]:
    """`read`, with what one unit reads changed."""
    return lambda atom: policy.bump(read(atom), tapped[atom]) if atom in tapped else read(atom)


def enter(op: Op, plan: Plan, policy: Policy, read: Callable[[Atom], Carrier], taps: Taps) -> list[Carrier]:
    """Run a scan, a remat or a cond with its body run by the policy."""
    bodies = plan.inner[op]

    def lifted(carriers: Sequence[Carrier], reached: Sequence[bool]) -> list[Carrier]:
        return [policy.lift(c) if on else c for c, on in zip(carriers, reached, strict=True)]

    outer = list(op.inputs)
    if op.primitive is _jax.COND:
        if outer[0] in plan.reached:
            raise UnsupportedOperation(
                f"the cond at {op.place} chooses its branch by the explained input, so that the input and its "
                "reference may take different branches; compute both branches and choose with jnp.where"
            )
        given = [read(v) for v in outer[1:]]
        flags = [v in body.reached for body in bodies[:1] for v in body.program.inputs]
        given = lifted(given, flags)

        def branch(body):
            def run_branch(*arrays):
                outputs = run(body, policy, arrays, taps)
                return settled(policy, outputs, [v in plan.reached for v in op.outputs])

            return run_branch

        return list(jax.lax.switch(read(outer[0]), [branch(body) for body in bodies], *given))
    body = bodies[0]
    flags = [v in body.reached for v in body.program.inputs]
    given = lifted([read(v) for v in outer], flags)
    ends = [v in plan.reached for v in op.outputs]
    if op.primitive is _jax.REMAT:

        def run_remat(arrays):
            return settled(policy, run(body, policy, arrays, taps), ends)

        options = {k: op.params[k] for k in ("policy", "prevent_cse")}
        return jax.checkpoint(run_remat, **options)(given)
    num_consts, num_carry = _jax.scan_counts(op.params, len(outer))
    consts, carry, xs = split(given, num_consts, num_carry)
    ends = [*flags[num_consts : num_consts + num_carry], *ends[num_carry:]]
    here = [v for v in taps if isinstance(v, Value) and jnp.ndim(taps[v]) > 0 and v in values_of(body)]
    rows = (xs, [taps[v] for v in here])
    params = {k: op.params[k] for k in ("reverse", "unroll")}
    pieces, done, length = [], 0, op.params["length"]
    for rounds, phase in phases_of(plan, op, policy):

        def step(carry, item, phase=phase):
            x, slices = item
            known = {**taps, **dict(zip(here, slices, strict=True))}
            outputs = settled(policy, run(phase, policy, [*consts, *carry, *x], known), ends)
            return outputs[:num_carry], outputs[num_carry:]

        begin = length - done - rounds if params["reverse"] else done
        part = rows if rounds == length else jax.tree.map(lambda a: a[begin : begin + rounds], rows)
        carry, ys = jax.lax.scan(step, carry, part, length=rounds, **params)
        pieces.append(ys)
        done += rounds
    if params["reverse"]:
        pieces.reverse()
    ys = pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
    results = [*carry, *ys]
    # A carry is lifted where the body makes it depend on the input; outside, all results of the scan are.
    return [policy.lift(c) if v in plan.reached else c for v, c in zip(op.outputs, results, strict=True)]


def phases_of(plan: Plan, op: Op, policy: Policy) -> list[tuple[int, Plan]]:
    """A scan's rounds, and the plan that runs them: neighbours that the policy treats alike are one phase."""
    phases: list[tuple[int, Plan]] = []
    for rounds, body in zip(plan.rounds[op], plan.inner[op], strict=True):
        if phases and policy.alike(phases[-1][1], body):
            phases[-1] = (phases[-1][0] + rounds, body)
        else:
            phases.append((rounds, body))
    return phases


def settled(policy: Policy, outputs: list[Carrier], ends: Sequence[bool]) -> list[Carrier]:
    """A body's outputs in the form that every branch, or every round, shares."""
    return [policy.lift(c) if on else c for c, on in zip(outputs, ends, strict=True)]


def values_of(plan: Plan) -> set[Value]:
    """All values that a plan makes, those of its bodies too."""
    found = set(made_by(plan.program))
    for bodies in plan.inner.values():
        for body in bodies:
            found |= values_of(body)
    return found


def override(forward: Callable[..., Any], backward: Callable[..., Any], xs: Any, aux: Any) -> Any:
    """`forward(xs, aux)`, whose cotangents for `xs` are `backward(xs, aux, ys, cotangents)`.

    What the rule needs is an argument or a residual, never a closure: only then are derivatives of the
    explanation right. Under further differentiation the residuals are those of the true forward pass.
    """

    @jax.custom_vjp
    def unit(xs, aux):
        return forward(xs, aux)

    def fwd(xs, aux):
        ys = forward(xs, aux)
        return ys, (xs, aux, ys)

    def bwd(residuals, cotangents):
        xs, aux, ys = residuals
        sent = backward(xs, aux, ys, cotangents)
        return jax.tree.map(lambda r, x: r.astype(x.dtype), sent, xs), None

    unit.defvjp(fwd, bwd)
    return unit(xs, aux)


def function_of(unit: Unit) -> tuple[Callable[..., list[Array]], tuple[Value, ...]]:
    """(a unit's function of its inputs and its constants, those constants)."""
    if unit.kind == "softmax" and unit.axes:
        return (lambda xs, aux: [jax.nn.softmax(xs[0], axis=unit.axes)]), ()
    made = {v for op in unit.ops for v in op.outputs}
    constants = dict.fromkeys(v for op in unit.ops for v in op.operands if v not in made and v not in unit.inputs)

    def function(xs: Sequence[Array], aux: Sequence[Array]) -> list[Array]:
        env = dict(zip(unit.inputs, xs, strict=True)) | dict(zip(constants, aux, strict=True))
        for op in unit.ops:
            operands = [v.value if isinstance(v, Literal) else env[v] for v in op.inputs]
            env.update(zip(op.outputs, op.run(operands), strict=True))
        return [env[v] for v in unit.outputs]

    return function, tuple(constants)
