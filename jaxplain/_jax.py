"""Everything that depends on a version of JAX, or on `jax.extend`; nothing else in jaxplain does.

`tests/test_jax_contract.py` holds one test a fact. Read from JAX 0.10 to 0.12:

- `ClosedJaxpr` became an alias of `Jaxpr` in 0.11, so both are opened by attribute.
- `Primitive.get_bind_params` returns one dict since 0.9.2, ready for `bind`.
- scan's parameters are counts up to 0.10 (`num_consts`, `num_carry`) and private trees from 0.11 (`ft_in`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
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


def marks_varying(eqn: Any) -> bool:
    """Whether an equation only tells `shard_map` that a value varies over the mesh.

    JAX exports no name for that primitive, so it is made once more, where it was found, and compared.
    """
    if eqn.primitive in KNOWN or "axes" not in eqn.params:
        return False
    mark = jax.make_jaxpr(lambda x: jax.lax.pcast(x, tuple(eqn.params["axes"]), to="varying"))
    (made,) = open_jaxpr(mark(0.0))[0].eqns
    return eqn.primitive is made.primitive


def vary_together(tree: Any, *others: Any) -> Any:
    """`tree`, its arrays marked as varying over every mesh axis that one of them or of `others` varies over.

    Inside `shard_map` a gradient by a value that is the same on all devices is summed over them. An explanation of
    what each device holds must not be: what it differentiates by has to vary as the rest does.
    """
    axes = {axis for leaf in jax.tree.leaves((tree, others)) for axis in _mesh_axes(leaf)}

    def mark(leaf: Any) -> Any:
        if not isinstance(leaf, float | jax.Array | np.ndarray | np.generic):
            return leaf
        missing = tuple(sorted(axes - set(_mesh_axes(leaf))))
        return jax.lax.pcast(jnp.asarray(leaf), missing, to="varying") if missing else leaf

    return jax.tree.map(mark, tree) if axes else tree


def varies(tree: Any) -> bool:
    """Whether a leaf differs between the devices of a mesh, inside `shard_map`."""
    return any(_mesh_axes(leaf) for leaf in jax.tree.leaves(tree))


def _mesh_axes(leaf: Any) -> tuple[str, ...]:
    """The mesh axes that a value varies over: `.mat.varying` of its type, which was `.vma` before 0.10."""
    if not is_tracer(leaf):
        return ()
    kind = jax.typeof(leaf)
    return tuple(getattr(getattr(kind, "mat", kind), "varying", getattr(kind, "vma", ())))


def evaluate_plainly(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    """Run one equation on known arrays at trace time, outside of whatever mesh it was traced in."""
    out = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return list(out) if eqn.primitive.multiple_results else [out]


def is_tracer(value: Any) -> bool:
    """Whether `value` is abstract, inside a transformation."""
    return isinstance(value, Tracer)


# --- What primitives do, by object: keyed by name, a renamed primitive would silently change class. ---

CONV = prim.conv_general_dilated_p
DOT = prim.dot_general_p

SUM_OF_TWO = {prim.add_p, prim.sub_p, prim.add_jaxvals_p}
PRODUCT_OF_TWO = {prim.mul_p, prim.div_p}
MAX_OF_TWO = {prim.max_p, prim.min_p}
SUM_OVER = {prim.reduce_sum_p, prim.reduce_window_sum_p, prim.cumsum_p}
MAX_OVER = {
    prim.reduce_max_p,
    prim.reduce_min_p,
    prim.reduce_window_max_p,
    prim.reduce_window_min_p,
    prim.cummax_p,
    prim.cummin_p,
}
RESHAPES = {
    prim.reshape_p,
    prim.squeeze_p,
    prim.transpose_p,
    prim.convert_element_type_p,
    prim.copy_p,
    prim.name_p,
    prim.reduce_precision_p,
    prim.sharding_constraint_p,
    prim.device_put_p,
}
STRUCTURAL = RESHAPES | {
    prim.broadcast_in_dim_p,
    prim.concatenate_p,
    prim.dynamic_slice_p,
    prim.dynamic_update_slice_p,
    prim.gather_p,
    prim.pad_p,
    prim.rev_p,
    prim.slice_p,
    jax.lax.split_p,
    jax.lax.stack_p,
    prim.sort_p,
    prim.top_k_p,
}
ELEMENTWISE = SUM_OF_TWO | PRODUCT_OF_TWO | MAX_OF_TWO | {
    prim.abs_p, prim.acos_p, prim.acosh_p, prim.asin_p, prim.asinh_p, prim.atan2_p, prim.atan_p, prim.atanh_p,
    prim.bessel_i0e_p, prim.bessel_i1e_p, prim.cbrt_p, prim.ceil_p, prim.clamp_p, prim.cos_p, prim.cosh_p,
    prim.digamma_p, prim.erf_inv_p, prim.erf_p, prim.erfc_p, prim.exp2_p, prim.exp_p, prim.expm1_p, prim.floor_p,
    prim.integer_pow_p, prim.lgamma_p, prim.log1p_p, prim.log_p, prim.logistic_p, prim.neg_p, prim.pow_p,
    prim.rem_p, prim.round_p, prim.rsqrt_p, prim.select_n_p, prim.sign_p, prim.sin_p, prim.sinh_p, prim.sqrt_p,
    prim.square_p, prim.stop_gradient_p, prim.tan_p, prim.tanh_p,
    prim.eq_p, prim.ne_p, prim.lt_p, prim.le_p, prim.gt_p, prim.ge_p, prim.not_p, prim.and_p, prim.or_p,
    prim.is_finite_p, prim.convert_element_type_p, prim.copy_p,
}  # fmt: skip
ADD, SUB, MUL, DIV = prim.add_p, prim.sub_p, prim.mul_p, prim.div_p
EXP, LOG, SQRT, RSQRT, POW = prim.exp_p, prim.log_p, prim.sqrt_p, prim.rsqrt_p, prim.pow_p
STOP_GRADIENT, ABS, NEG = prim.stop_gradient_p, prim.abs_p, prim.neg_p
# Their results do not change with small changes of the operand: relevance ends there.
FLAT = {prim.floor_p, prim.ceil_p, prim.round_p, prim.sign_p, STOP_GRADIENT}
JIT = prim.jit_p
UNIT_PREFIX = "jaxplain.unit:"  # begins the name of a jitted function that is one unit
NEGATION, CAST = prim.neg_p, prim.convert_element_type_p
REDUCE_SUM, WINDOW_SUM, REDUCE_MAX = prim.reduce_sum_p, prim.reduce_window_sum_p, prim.reduce_max_p
SCATTER, SCATTER_ADD = prim.scatter_p, prim.scatter_add_p
CLAMP, MAX, PAD, INTEGER_POW = prim.clamp_p, prim.max_p, prim.pad_p, prim.integer_pow_p
MIN = {prim.min_p, prim.reduce_min_p, prim.reduce_window_min_p, prim.cummin_p}
SORTS = {prim.sort_p, prim.top_k_p}
NEVER_NEGATIVE = {
    prim.exp_p, prim.exp2_p, prim.logistic_p, prim.abs_p, prim.square_p, prim.sqrt_p, prim.rsqrt_p, prim.cosh_p,
}  # fmt: skip
SELECT = prim.select_n_p
SLICE = prim.slice_p
TRANSPOSE, BROADCAST, GATHER = prim.transpose_p, prim.broadcast_in_dim_p, prim.gather_p
SLICES = {prim.slice_p, prim.dynamic_slice_p, prim.gather_p, jax.lax.split_p}
# What moves every element to a place of its own: parts of a difference stay parts.
CARRIES_PARTS = RESHAPES | {prim.broadcast_in_dim_p, prim.slice_p, prim.rev_p, prim.gather_p, jax.lax.split_p}
# Linear in all their live operands together.
LINEAR = (STRUCTURAL - {prim.sort_p, prim.top_k_p}) | SUM_OF_TWO | SUM_OVER | {NEGATION}


# What no rule for relevance covers, and which inputs a result depends on is plain all the same.
ELEMENTWISE_TOO = {
    prim.complex_p, prim.conj_p, prim.imag_p, prim.real_p, prim.xor_p, prim.shift_left_p,
    prim.shift_right_arithmetic_p, prim.shift_right_logical_p,
}  # fmt: skip
REDUCTIONS = {
    prim.reduce_sum_p, prim.reduce_max_p, prim.reduce_min_p, prim.reduce_prod_p, prim.reduce_and_p,
    prim.reduce_or_p, prim.reduce_xor_p, prim.argmax_p, prim.argmin_p,
}  # fmt: skip
WINDOWS = {prim.reduce_window_sum_p, prim.reduce_window_max_p, prim.reduce_window_min_p}
CUMULATIVE = {prim.cumsum_p, prim.cummax_p, prim.cummin_p, prim.cumprod_p, prim.cumlogsumexp_p}
FFT = prim.fft_p
MOVES = (STRUCTURAL - SORTS) | {
    prim.scatter_p, prim.scatter_add_p, jax.lax.optimization_barrier_p, jax.lax.tile_p,
}  # fmt: skip
# The operands that say where to move from or to, not what.
INDICES = {
    prim.gather_p: slice(1, 2),
    prim.dynamic_slice_p: slice(1, None),
    prim.dynamic_update_slice_p: slice(2, None),
    prim.scatter_p: slice(1, 2),
    prim.scatter_add_p: slice(1, 2),
}


def conv_channel_axis(params: dict[str, Any]) -> int:
    """The axis of a convolution's output that holds its channels."""
    return params["dimension_numbers"].out_spec[1]


def conv_input_channel_axis(params: dict[str, Any]) -> int:
    """The axis of a convolution's input that holds its channels."""
    return params["dimension_numbers"].lhs_spec[1]


# Every primitive that JAX names: what is not among them is a kernel, a callback or a stranger.
KNOWN = {p for p in vars(prim).values() if isinstance(p, jex_core.Primitive)} | {
    jax.lax.optimization_barrier_p,
    jax.lax.split_p,
    jax.lax.stack_p,
    jax.lax.tile_p,
}


def is_primitive(value: Any) -> bool:
    """Whether `value` is a JAX primitive."""
    return isinstance(value, jex_core.Primitive)


def is_declared(eqn: Any) -> bool:
    """Whether an equation is a call that `engine.unit` declared to be one unit: it is not inlined."""
    name = eqn.params.get("name") if eqn.primitive is JIT else None
    return isinstance(name, str) and name.startswith(UNIT_PREFIX)


def varying_like(array: Any, like: Any) -> Any:
    """`array` marked as varying over the mesh axes that `like` does, inside `shard_map`; as it is elsewhere.

    Operations that are run again, as they were traced, do not insert that mark by themselves.
    """
    missing = varying_axes(like) - varying_axes(array)
    return jax.lax.pcast(array, tuple(missing), to="varying") if missing else array


def varying_axes(array: Any) -> frozenset[Any]:
    """The mesh axes that an array varies over; the attribute changed its name in JAX 0.10."""
    kind = jax.typeof(array)
    axes = getattr(kind, "vma", None)
    if axes is None:
        axes = getattr(getattr(kind, "manual_axis_type", None), "varying", ())
    return frozenset(axes)
