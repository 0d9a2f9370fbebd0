"""Rewrites of a program before it is planned: what a rule must see through is inlined or spelled out."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain.engine.trace import Atom, Op, Program, Value
from jaxplain.engine.units import is_elementwise


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


def spelled_out(program: Program, *, differences: bool) -> Program:
    """`program` with implicit broadcasts made explicit, and stop_gradient without its own derivative.

    An elementwise operation may stretch axes of length 1, and single numbers. And what ends relevance is the rule:
    the derivative *of* the explanation is that of its values, which a stop_gradient inside (softmax has one) would
    falsify. A difference from a reference (`differences`) goes through it.
    """
    ops: list[Op] = []
    for op in program.ops:
        if op.primitive is _jax.STOP_GRADIENT and op.outputs[0].is_float:
            op = dataclasses.replace(op, function=same_value if differences else silenced)
        elif op.primitive in _jax.ELEMENTWISE:
            shape = op.outputs[0].shape
            inputs = list(op.inputs)
            for k, v in enumerate(inputs):
                if isinstance(v, Value) and v.shape != shape and len(v.shape) in (0, len(shape)):
                    wide = Value(shape, v.dtype)
                    params = {"broadcast_dimensions": tuple(range(len(v.shape))), "shape": shape}
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
