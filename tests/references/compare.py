"""How the comparisons with other libraries are made: cases compiled together, and one measure of distance."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from references.reader import Case, cases, network

PRECISIONS = {"float64": 1e-10, "float32": 1e-5}
QUICK_TO_COMPILE = {"xla_backend_optimization_level": 0}
Explain = Callable[[jax.Array, jax.Array], Any]


def score(case: Case) -> Callable[..., jax.Array]:
    """What every case explains: `f(x, label)`, the output of the network with that index."""
    return jxp.class_score(network(case.net))


def select(group: str, methods: Iterable[str]) -> list[Any]:
    """The cases of a group that one of these methods answers, as parameters with the cases' ids."""
    known = set(methods)
    return [pytest.param(case, id=case.id) for case in cases(group) if case.method in known]


def rows(case: Case, dtype: str) -> tuple[jax.Array, jax.Array]:
    """The examples of a case in a precision, and their labels; a case without labels gets label 0."""
    x = jnp.asarray(case.inputs["x"], dtype)
    return x, jnp.asarray(case.inputs.get("target", np.zeros(len(x), int)))


def by_row(explain: Mapping[str, Explain], asked: list[Case], dtype: str) -> dict[str, Any]:
    """The outputs of explainers by name, a row an example, of cases with the same examples: one program."""
    x, labels = rows(asked[0], dtype)
    assert all(case.inputs["x"] is asked[0].inputs["x"] for case in asked)
    assert all((rows(case, dtype)[1] == labels).all() for case in asked)
    together = jax.vmap(lambda x, label: {name: one(x, label) for name, one in explain.items()})
    return jax.jit(together, compiler_options=QUICK_TO_COMPILE)(x, labels)


def tolerance(output: dict[str, Any], dtype: str) -> float:
    """How far an answer may be off: in float32 the library itself may be off by more than 1e-5."""
    return max(PRECISIONS[dtype], 10 * output.get("f32_maxdev", 0.0) if dtype == "float32" else 0.0)


def assert_close(got: Any, want: Any, rtol: float, *, scale: float | None = None) -> None:
    """`got` is `want` up to `rtol` times the largest magnitude of `want`, or times `scale`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    assert np.isfinite(got).all()
    scale = float(np.abs(want).max()) if scale is None else scale
    assert scale > 0, "nothing to compare with"
    gap = np.abs(got - want).max()
    assert gap <= rtol * scale, f"off by {gap:.3g} on a scale of {scale:.3g}"
