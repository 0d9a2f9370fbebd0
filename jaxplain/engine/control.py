"""Telling the engine about operations that it does not know: by primitive, or by function."""

import functools
from collections.abc import Callable
from typing import Any

import jax

from jaxplain import _jax
from jaxplain._errors import near
from jaxplain.engine.trace import Op

# What a declared operation may be, and so which rule serves it.
DECLARABLE = ("activation", "sum", "max", "structural", "product", "softmax", "normalisation")
_REGISTERED: dict[Any, str] = {}


def register_unit(primitive: Any, kind: str) -> None:
    """Say what kind of unit a primitive is, for all methods that send relevance back.

    Args:
        primitive: a JAX primitive, as an `UnsupportedOperation` names it.
        kind: "activation" (elementwise: relevance passes), "sum" (linear in its float operands together:
            relevance in proportion to what each adds), "max" and "structural" (relevance follows the gradient:
            it selects or moves elements), "product" (linear in each of two operands), "softmax", or
            "normalisation" (relevance passes as through a scale that is held constant).

    Returns:
        Nothing. The registry is the process's own; explaining functions traced before does not change.

    Raises:
        ValueError: there is no such kind.
        TypeError: it is no primitive.

    Example:
        >>> import jax, jaxplain as jxp
        >>> jxp.engine.register_unit(jax.lax.erf_p, "activation")
    """
    check_kind(kind)
    if not _jax.is_primitive(primitive):
        raise TypeError(f"register_unit takes a JAX primitive, not {type(primitive).__name__}")
    _REGISTERED[primitive] = kind


def unit(fn: Callable[..., Any], *, name: str, kind: str) -> Callable[..., Any]:
    """`fn` as one unit: methods that send relevance back do not look inside.

    Args:
        fn: a function of arrays that returns one array; what a kind promises, see `register_unit`, it must keep.
        name: what `coverage` calls it.
        kind: "activation", "sum", "max", "structural", "product", "softmax" or "normalisation".

    Returns:
        A function like `fn`, which behaves the same for everyone else: under jit, grad and vmap.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> smooth_sign = jxp.engine.unit(lambda x: x / (1 + jnp.abs(x)), name="softsign", kind="activation")
        >>> jxp.lrp(lambda x: (2 * smooth_sign(x)).sum(), jxp.rules.EPSILON)(jnp.array([1.0, -3.0])).round(4)
        Array([ 1. , -1.5], dtype=float32)
    """
    check_kind(kind)

    @functools.wraps(fn)
    def declared(*args, **kwargs):
        return fn(*args, **kwargs)

    declared.__name__ = declared.__qualname__ = f"{_jax.UNIT_PREFIX}{kind}:{name}"
    return jax.jit(declared)


def check_kind(kind: str) -> None:
    """An error for a kind that no declaration can have."""
    if kind not in DECLARABLE:
        raise ValueError(f"unknown kind {kind!r}: {near(str(kind), DECLARABLE, most=len(DECLARABLE))}")


def kind_of(op: Op) -> str | None:
    """The declared kind of an operation, or None."""
    if op.primitive in _REGISTERED:
        return _REGISTERED[op.primitive]
    return op.params["name"].split(":", 2)[1] if _jax.is_declared(op.eqn) else None
