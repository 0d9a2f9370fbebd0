"""Finding ReLUs, however they are written, by trying them out.

A step of an activation unit is a function of one number. If its constants are numbers written in the program,
that function can be run at trace time, on a handful of numbers, and what it is can be read from the answers:
`relu(x)`, `maximum(x, 0)`, `where(x > 0, x, 0)`, `x * (x > 0)`, the lower half of `clip(x, 0, 6)` and a leaky
ReLU all have a slope on the right, a smaller one on the left, and 0 at 0. No list of spellings can be complete.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._errors import UnsupportedOperation
from jaxplain.engine.trace import Atom, Literal, Op, Program, Trace, Value
from jaxplain.engine.units import Unit, body_inputs, group, is_elementwise

# Small enough to see a threshold, large enough to see a cap, uneven enough to see a rounding; exact in bfloat16.
SIZES = np.sort(np.concatenate([2.0 ** np.arange(-20, 21), 1.640625 * 2.0 ** np.arange(-20, 20, 3)]))


class Shape(NamedTuple):
    """`y = min(slope * x, top)` for x > 0, and `y = left * x` for x <= 0."""

    slope: float
    left: float
    top: float


class Rectifier(NamedTuple):
    """v is a rectifier of u."""

    u: Value
    v: Value
    shape: Shape


def rectifiers(trace: Trace) -> list[Rectifier]:
    """All ReLUs that depend on the explained input, at any depth.

    Raises:
        UnsupportedOperation: something that cannot be looked into, or not be changed inside, may hold one.
    """
    return list(search(trace.program, set(trace.live)))


def search(program: Program, live: set[Value]) -> Iterator[Rectifier]:
    """The rectifiers of a program and of the bodies in it."""
    constants = Constants(program)
    reached = program.dependent(live)
    for unit in group(program, live):
        yield from longest(program, constants, unit)
        for op in unit.ops:
            if op.primitive in (_jax.SCAN, _jax.REMAT, _jax.COND):
                for body, marked in zip(op.bodies, body_inputs(op, reached), strict=True):
                    yield from search(body, marked)
            elif unit.kind != "activation":
                refuse_hidden(op)


def longest(program: Program, constants: "Constants", unit: Unit) -> Iterator[Rectifier]:
    """The rectifiers of an activation unit, each as long as it can be.

    `min(max(x, 0), 6)` is one, not a ReLU and a cap: so that it is treated as `jax.nn.relu6` is. What others
    use in between must be kept, and ends one.
    """
    for end in unit.outputs:
        v = end
        while v in unit.above:
            line = [unit.above[v]]
            while line[-1] in unit.above and line[-1] not in unit.outputs:
                line.append(unit.above[line[-1]])
            for u in reversed(line):
                shape = classify(program, constants, u, v) if u.is_float and v.is_float else None
                if shape is not None:
                    yield Rectifier(u, v, shape)
                    break
            else:
                u = unit.above[v]
            v = u
            if v in unit.outputs:
                break


def refuse_hidden(op: Op) -> None:
    """An error for an operation with a ReLU inside that cannot be reached, or that cannot be looked into."""
    for body in op.bodies:
        if any(True for _ in search(body, set(body.inputs))):
            raise UnsupportedOperation(
                f"{op.name} at {op.place} has a ReLU inside, where its backward pass cannot be changed: "
                "take the custom derivative off, or use lax.scan in place of a while loop"
            )
    if op.primitive not in _jax.KNOWN and not _jax.marks_varying(op.eqn):
        raise UnsupportedOperation(
            f"{op.name} at {op.place} cannot be looked into, so a ReLU inside would keep its plain gradient; "
            "write it in jax.numpy for the explanation"
        )


class Constants:
    """The numbers that constant values of a program hold, where they hold the same number everywhere."""

    def __init__(self, program: Program):
        self.arrays = program.constants
        self.maker = {v: op for op in program.ops for v in op.outputs}

    def number(self, atom: Atom) -> Any:
        """The number as a scalar array, or None if it varies or is not known at trace time."""
        if isinstance(atom, Literal):
            return uniform(atom.value)
        if atom in self.arrays:
            return uniform(self.arrays[atom])
        op = self.maker.get(atom)
        if op is None:
            return None
        if moves_only(op):
            return self.number(op.inputs[0])
        if not is_elementwise(op):
            return None
        numbers = [self.number(v) for v in op.inputs]
        with jax.ensure_compile_time_eval():
            return None if any(n is None for n in numbers) else apply(op, numbers)[0]


def uniform(array: Any) -> Any:
    """The one number that a known array holds everywhere, else None."""
    if _jax.is_tracer(array) or np.size(array) == 0:
        return None
    known = np.asarray(array)
    return known.flat[0] if (known == known.flat[0]).all() else None


def moves_only(op: Op) -> bool:
    """Whether an operation changes the shape, or the bookkeeping, but no number."""
    moves = op.primitive in _jax.RESHAPES | {_jax.BROADCAST} and op.primitive is not _jax.CAST
    return moves or _jax.marks_varying(op.eqn)


def apply(op: Op, operands: list[Any]) -> list[Any]:
    """Run an elementwise operation on numbers or vectors of probes."""
    if op.primitive in _jax.CUSTOM:
        (body,) = op.bodies
        env: dict[Value, Any] = dict(zip(body.inputs, operands, strict=True))
        constants = Constants(body)
        return [follow(body, constants, env, v) for v in body.outputs]
    if moves_only(op):
        return [operands[0]]
    if op.primitive is _jax.CAST and op.operands and op.operands[0].is_float and op.outputs[0].is_float:
        return [None]
    shape = np.broadcast_shapes(*(np.shape(v) for v in operands))
    return _jax.evaluate_plainly(op.eqn, [jnp.broadcast_to(jnp.asarray(v), shape) for v in operands])


def follow(program: Program, constants: Constants, env: dict[Value, Any], atom: Atom) -> Any:
    """The value of `atom` as a function of those in `env`; None if it takes anything not known."""
    if isinstance(atom, Value) and atom in env:
        return env[atom]
    number = constants.number(atom)
    if number is not None:
        return number
    if isinstance(atom, Literal):
        return None
    op = constants.maker.get(atom)
    if op is None or not (is_elementwise(op) or moves_only(op)):
        return None
    operands = [follow(program, constants, env, v) for v in op.inputs]
    if any(v is None for v in operands):
        return None
    env.update(zip(op.outputs, apply(op, operands), strict=True))
    return env[atom]  # None after a cast between floats, which rounds


def classify(program: Program, constants: Constants, u: Value, v: Value) -> Shape | None:
    """The shape of v as a function of u if it is a rectifier, else None."""
    if u.dtype != v.dtype:
        return None  # a cast rounds: what is before it and after it are different steps
    half = jnp.finfo(u.dtype).maxexp <= 16  # float16 holds neither the smallest nor the largest
    sizes = SIZES[(SIZES >= 2**-3) & (SIZES <= 2**14)] if half else SIZES
    probes = np.concatenate([-sizes, [0.0], sizes])
    with jax.ensure_compile_time_eval():
        answers = follow(program, constants, {u: jnp.asarray(probes, u.dtype)}, v)
        if answers is None or np.shape(answers) != probes.shape:
            return None
        answers = np.asarray(answers, np.float64)
    left, (zero,), right = np.split(answers, [len(sizes), len(sizes) + 1])
    slope, below = right[0] / sizes[0], left[0] / -sizes[0]
    top = right[-1] if right[-1] < 0.99 * slope * sizes[-1] else np.inf
    close = 4 * float(jnp.finfo(u.dtype).eps)
    fits = np.allclose(right, np.minimum(slope * sizes, top), rtol=close, atol=0)
    fits = fits and np.allclose(left, -below * sizes, rtol=close, atol=0)
    # A leaky slope is the lesser part: x + relu(x), whose slopes are 1 and 2, is a sum with a way around.
    return Shape(float(slope), float(below), float(top)) if fits and zero == 0 and 0 <= below < slope / 2 else None
