"""Everything that depends on a version of JAX, or on `jax.extend`; nothing else in jaxplain does.

`tests/test_jax_contract.py` holds one test a fact. Read from JAX 0.10 to 0.12:

- `ClosedJaxpr` became an alias of `Jaxpr` in 0.11, so both are opened by attribute.
- `Primitive.get_bind_params` returns one dict since 0.9.2, ready for `bind`.
- scan's parameters are counts up to 0.10 (`num_consts`, `num_carry`) and private trees from 0.11 (`ft_in`).
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.extend import core as jex_core
from jax.extend import source_info_util
from jax.extend.core import primitives as prim

# Calls that change nothing but where their body stands: they are inlined.
INLINED = {prim.jit_p, prim.call_p, prim.closed_call_p}
REMAT = prim.remat_p
SCAN = prim.scan_p
COND = prim.cond_p
WHILE = prim.while_p
NAME = prim.name_p
CUSTOM = {prim.custom_jvp_call_p, prim.custom_vjp_call_p}
_RANDOM = {
    prim.random_bits_p,
    prim.random_fold_in_p,
    prim.random_gamma_p,
    prim.random_seed_p,
    prim.random_split_p,
    prim.rng_bit_generator_p,
    prim.rng_uniform_p,
    prim.threefry2x32_p,
}


def open_jaxpr(jaxpr: Any) -> tuple[Any, list[Any]]:
    """(jaxpr, constants) of a closed or an open jaxpr."""
    return getattr(jaxpr, "jaxpr", jaxpr), list(getattr(jaxpr, "consts", ()))


def body_of(eqn: Any) -> Any | None:
    """The jaxpr that a call equation runs on its own operands, or None if it is no such call."""
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        body = eqn.params.get(key)
        if body is not None and len(open_jaxpr(body)[0].invars) == len(eqn.invars):
            return body
    return None


def branches_of(eqn: Any) -> tuple[Any, ...]:
    """The jaxprs of a `cond` (its branches) or a `while` (condition, body)."""
    if eqn.primitive is COND:
        return tuple(eqn.params["branches"])
    if eqn.primitive is WHILE:
        return (eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"])
    return ()


def is_literal(atom: Any) -> bool:
    """Whether a jaxpr's operand is a literal: it then has `.val`."""
    return isinstance(atom, jex_core.Literal)


def is_random(primitive: Any) -> bool:
    """Whether a primitive draws random bits: two equal draws are then still two."""
    return primitive in _RANDOM


def scan_counts(params: dict[str, Any], num_operands: int) -> tuple[int, int]:
    """(number of constants, number of carries) of a scan equation."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].update(list(range(num_operands))).unpack()
    return len(list(consts)), len(list(carry))


def name_stack(eqn: Any, outer: Any) -> Any:
    """The equation's name stack below `outer`; the stack of an inner jaxpr is relative to its caller's."""
    inner = eqn.source_info.name_stack
    return inner if outer is None else outer + inner


def source_line(eqn: Any) -> str:
    """`file:line (function)` of the user's code that made an equation."""
    return source_info_util.summarize(eqn.source_info)


def bind(eqn: Any, stack: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation on `operands`, in its own context and under its own names."""
    params = eqn.primitive.get_bind_params(eqn.params)
    names = source_info_util.current_name_stack() + stack
    with source_info_util.user_context(eqn.source_info.traceback, name_stack=names), eqn.ctx.manager:
        out = eqn.primitive.bind(*operands, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def is_tracer(value: Any) -> bool:
    """Whether `value` is abstract, inside a transformation."""
    return isinstance(value, jax.core.Tracer)
