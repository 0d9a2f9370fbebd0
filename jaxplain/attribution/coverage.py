"""Which rule served which unit, how much relevance came in, went on, and stayed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._tree import Scalar, check_argnums, check_scalar, named_after
from jaxplain.attribution.lrp import planned
from jaxplain.engine import flow
from jaxplain.engine.plan import Plan
from jaxplain.engine.trace import trace
from jaxplain.engine.units import Unit
from jaxplain.rules.propagation import Propagation
from jaxplain.rules.tables import EPSILON_PLUS, as_table


class CoverageRow(NamedTuple):
    """One unit. `leak` is what came in and did not go on: the share of biases, and what eps absorbed."""

    place: str
    kind: str
    rule: str
    relevance_in: float
    relevance_out: float
    leak: float


class CoverageTable(tuple[CoverageRow, ...]):
    """The units of a function from its output to its input; prints as a table.

    `start` is the relevance at the output, `end` its sum over the explained input: `start == end + total leak`.
    """

    start: float
    end: float

    def __repr__(self) -> str:
        header = ("kind", "rule", "in", "out", "leak", "place")
        cells = [
            (row.kind, row.rule, *(f"{v:.4g}" for v in (row.relevance_in, row.relevance_out, row.leak)), row.place)
            for row in self
        ]
        widths = [max(len(line[k]) for line in (header, *cells)) for k in range(5)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[5]])
            for line in (header, *cells)
        ]
        leak = sum(row.leak for row in self)
        return "\n".join([*lines, f"output {self.start:.6g} = input {self.end:.6g} + leak {leak:.6g}"])


def coverage(
    f: Scalar,
    rules: Any = EPSILON_PLUS,
    *,
    init: Any = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., CoverageTable]:
    """Every unit between the input and the output: its rule, the relevance in and out, and where it leaks.

    Args:
        f: `f(x, *args)` returns a float scalar.
        rules: a rule for every affine unit, or a table, as for `lrp`.
        init: the relevance to start from, in place of f(x).
        argnums: which positional argument(s) to explain, as in `jax.grad`.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `table(x, *args)`: rows (place, kind, rule, relevance_in, relevance_out, leak), from the output down,
        those of a scan summed over its rounds. It is made of Python numbers, so it cannot be returned from jit.

    Raises:
        UnsupportedOperation: no rule covers an operation between the input and the output.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves, or `rules` is no rule.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([[1.0, -2.0], [3.0, 1.0]]) @ x + 1.0).sum()
        >>> table = jxp.coverage(f, jxp.rules.epsilon(0.0))(jnp.array([3.0, 1.0]))
        >>> [(row.kind, round(row.relevance_in, 3), round(row.leak, 3)) for row in table]
        [('sum', 13.0, 0.0), ('activation', 13.0, 0.0), ('dense', 13.0, 2.0)]
        >>> print(round(table.start, 3), round(table.end, 3))
        13.0 11.0

    When not to trust it: that nothing leaks shows that the books balance, not that the attribution is meaningful.

    Source: the conservation property of Bach et al. 2015, eq. 2, unit by unit.
    """
    table, argnums = as_table(rules), check_argnums(argnums)

    @named_after(f, "coverage")
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True)
        plan, policy = planned(traced, table)
        found: dict[Unit, list[Plan]] = {}  # a unit in a scan is in one plan for each phase of the scan
        for p, unit in plan.units():
            if p.carried(unit):
                found.setdefault(unit, []).append(p)
        dtype = jnp.result_type(float)
        taps: dict[Any, jax.Array] = {}
        for unit, (p, *_) in found.items():
            taps |= {v: jnp.zeros((), dtype) for v in unit.outputs if v in p.reached}
            taps |= {(unit, k): jnp.zeros((), dtype) for k, v in enumerate(unit.inputs) if v in p.reached}
        taps |= {v: jnp.zeros((), dtype) for v in traced.live}
        keys = list(taps)

        @jax.jit
        def flows(probes, inputs):
            def run(probes):
                return flow.run(plan, policy, inputs, dict(zip(keys, probes, strict=True)))[0]

            y, back = jax.vjp(run, probes)
            start = y if init is None else check_scalar(init).astype(y.dtype)
            return start, back(start)[0]

        start, sums = flows(list(taps.values()), traced.args)
        arrived = {key: float(value) for key, value in zip(keys, sums, strict=True)}
        rows = CoverageTable(row(plans, unit, policy, arrived) for unit, plans in reversed(found.items()))
        rows.start, rows.end = float(start), sum(arrived[v] for v in traced.live)
        return rows

    return explain


def row(plans: Sequence[Plan], unit: Unit, policy: Propagation, arrived: dict[Any, float]) -> CoverageRow:
    """The row of one unit."""
    plan = plans[0]
    came = sum(arrived[v] for v in unit.outputs if v in plan.reached)
    went = sum(arrived[unit, k] for k, v in enumerate(unit.inputs) if v in plan.reached)
    view = policy.view(unit, plan)
    names = ", ".join(view.names[:1])
    place = f"{names} {view.place}" if names else view.place
    rules = dict.fromkeys(rule_name(p, unit, policy) for p in plans)
    return CoverageRow(place, unit.kind, ", ".join(rules), came, went, came - went)


def rule_name(plan: Plan, unit: Unit, policy: Propagation) -> str:
    """What a unit does with relevance, in a word or two."""
    table = policy.rules
    if table.tangent:
        return "derivative"
    if unit.layout is not None:
        rule = table.rule_of(policy.view(unit, plan))
        return type(rule).__name__
    if unit.kind == "product":
        op = unit.ops[0]
        flags = policy.shares_of(op, plan)
        factor = op.primitive in _jax.PRODUCT_OF_TWO
        return "shares equally" if all(flags) else "to the signal" if factor else "in proportion"
    if unit.kind == "softmax":
        return table.softmax
    kinds = {"sum": "in proportion", "scale": "in proportion", "max": "to the winner", "structural": "moves"}
    return kinds.get(unit.kind, "passes")
