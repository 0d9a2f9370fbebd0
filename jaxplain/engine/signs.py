"""What is known of a program before it runs: signs, and where relevance must be zero.

A rule that treats positive and negative contributions apart needs half the convolutions where the input is known
never to be negative, as after a ReLU, and the gamma rule needs half of them where a ReLU follows.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain.engine.plan import Plan
from jaxplain.engine.rectifiers import Constants, classify, follow
from jaxplain.engine.trace import Atom, Literal, Op, Value
from jaxplain.engine.units import Unit

ALWAYS = _jax.NEVER_NEGATIVE
KEEPS = (_jax.STRUCTURAL - {_jax.PAD}) | _jax.SUM_OVER | _jax.MAX_OVER | {_jax.STOP_GRADIENT}
TOGETHER = {_jax.ADD, _jax.MUL, _jax.DIV, _jax.PAD, _jax.SELECT} | _jax.MAX_OF_TWO


def nonnegative(plan: Plan) -> set[Value]:
    """The values of a plan's program, bodies apart, that are never negative."""
    program, found = plan.program, set()
    constants = Constants(program)

    def is_known(atom: Atom) -> bool:
        if isinstance(atom, Value) and atom in found:
            return True
        number = constants.number(atom) if isinstance(atom, Literal) or atom not in plan.graph.live else None
        return number is not None and bool(np.asarray(number) >= 0)

    for op in program.ops:
        floats = [v for v in op.inputs if is_float(v)]
        if op.primitive in ALWAYS or is_even_power(op) or (op.primitive in _jax.CUSTOM and rectifies(op)):
            found.update(op.outputs)
        elif op.primitive is _jax.MAX:
            found.update(op.outputs if any(map(is_known, op.inputs)) else ())
        elif (
            # Indices and predicates are no floats; a cast from integers has no float at all, and tells nothing.
            (op.primitive in KEEPS | TOGETHER and floats and all(map(is_known, floats)))
            or (op.primitive is _jax.CLAMP and is_known(op.inputs[0]))
            or (op.primitive is _jax.SELECT and any(rectified(plan, constants, v) for v in op.outputs))
        ):
            found.update(op.outputs)
    return found


def is_float(atom: Atom) -> bool:
    """Whether an operand is a float."""
    return atom.is_float if isinstance(atom, Value) else jnp.issubdtype(np.asarray(atom.value).dtype, jnp.floating)


def is_even_power(op: Op) -> bool:
    """Whether an operation takes an even power."""
    return op.primitive is _jax.INTEGER_POW and op.params["y"] % 2 == 0


def rectifies(op: Op) -> bool:
    """Whether a function with its own derivative is a ReLU, as `jax.nn.relu` is."""
    (body,) = op.bodies or (None,)
    if body is None or len(op.inputs) != 1 or len(op.outputs) != 1 or not isinstance(body.outputs[0], Value):
        return False
    shape = classify(body, Constants(body), body.inputs[0], body.outputs[0])
    return shape is not None and shape.left == 0


def rectified(plan: Plan, constants: Constants, value: Value) -> bool:
    """Whether a value is a ReLU of the root of its activation unit."""
    unit = plan.owner.get(value)
    if unit is None or unit.kind != "activation" or not unit.inputs[0].is_float:
        return False
    shape = classify(plan.program, constants, unit.inputs[0], value)
    return shape is not None and shape.left == 0


def gate_strength(plan: Plan, atom: Atom) -> int:
    """2 for a sigmoid, hard or soft; 1 for a swish or gelu, which is a value times a sigmoid of it; else 0.

    Found by trying it out: the nonlinearity, or its ratio to its input, stays between 0 and 1 and reaches both;
    the ratio must be near a half at 0, or a ReLU would count.
    """
    value, _ = plan.graph.behind_moves(atom, _jax.SLICES)
    unit = plan.owner.get(value) if isinstance(value, Value) else None
    if unit is None or unit.kind != "activation" or len(unit.inputs) != 1 or not unit.inputs[0].is_float:
        return 0
    probes = np.concatenate([-PROBES[::-1], PROBES])
    with jax.ensure_compile_time_eval():
        env = {unit.inputs[0]: jnp.asarray(probes, unit.inputs[0].dtype)}
        answers = follow(plan.program, Constants(plan.program), env, value)
        if answers is None or np.shape(answers) != probes.shape:
            return 0
        answers = np.asarray(answers, np.float64)
    ratio = answers / probes
    near = ratio[np.abs(probes) == PROBES[0]]
    return 2 if spans_unit(answers) else int(spans_unit(ratio) and bool((np.abs(near - 0.5) < 0.1).all()))


PROBES = 2.0 ** np.arange(-6, 7)


def spans_unit(answers: np.ndarray) -> bool:
    """Whether answers stay between 0 and 1, and their ends come near both."""
    inside = (answers >= -1e-6).all() and (answers <= 1 + 1e-6).all()
    ends = sorted((answers[0], answers[-1]))
    return bool(inside and ends[0] < 1e-3 and ends[1] > 1 - 1e-3)


def quiet(plan: Plan, proportional) -> set[Value]:
    """The values at which relevance is 0 wherever they are 0 or less, because ReLUs follow.

    `proportional(unit)` tells whether a unit's rule gives an input relevance in proportion to its value. What
    the output starts with is not assumed to be in proportion.
    """
    constants = Constants(plan.program)
    silent: dict[Value, bool] = {}  # relevance is 0 where the value is 0

    def is_silent(value: Value) -> bool:
        if value not in silent:
            silent[value] = False  # until shown: there are no cycles but the scans', which are not entered
            users = plan.users.get(value, ())
            ends = value in plan.program.outputs
            silent[value] = not ends and bool(users) and all(map(passes_nothing, users))
        return silent[value]

    def passes_nothing(step: Unit | Op) -> bool:
        if isinstance(step, Op):
            return True
        if step.kind in ("max", "structural") and all(op.primitive not in _jax.MAX_OF_TWO for op in step.ops):
            return all(is_silent(v) for v in step.outputs)
        if step.kind == "activation":
            return all(rectified(plan, constants, v) and is_silent(v) for v in step.outputs)
        return proportional(step)

    found = set()
    for step in reversed(plan.steps):
        for value in step.outputs if isinstance(step, Unit) else ():
            is_silent(value)
    for value in silent:
        users = [u for u in plan.users.get(value, ()) if isinstance(u, Unit)]
        if value in plan.program.outputs or not users:
            continue
        if all(u.kind == "activation" and passes_nothing(u) for u in users):
            found.add(value)
    return found
