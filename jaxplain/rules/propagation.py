r"""How relevance goes through every kind of unit, under a table of rules.

| unit | relevance |
|---|---|
| conv, dense | by the table's rule |
| scale (a standalone shift or scale by constants), sum, average pooling | in proportion: epsilon |
| activation, normalisation by a detached statistic | passes |
| max, structural | follows the element that was chosen or moved |
| product | a gate takes nothing; two signals share equally: $R_a = a \\, (\\partial z / \\partial a) \\, R / 2z$ |
| softmax p of x | $R_i = x_i (R_i - p_i \\sum_j R_j)$ (Achtibat et al. 2024, eq. 13), or nothing if detached |
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import UnsupportedOperation
from jaxplain.engine import flow, signs
from jaxplain.engine.affine import Affine
from jaxplain.engine.flow import function_of, override
from jaxplain.engine.patterns import is_statistic, of_the_same
from jaxplain.engine.plan import Plan
from jaxplain.engine.trace import Atom, Literal, Op, Value
from jaxplain.engine.units import Unit
from jaxplain.rules.stabilize import divided
from jaxplain.rules.tables import Rules, UnitView

Array = Any
Read = Callable[[Atom], Array]


@dataclasses.dataclass(eq=False)
class Propagation:
    """The policy of `lrp`: values are plain arrays, cotangents are relevance."""

    rules: Rules
    names: dict[Value, list[str]] = dataclasses.field(default_factory=dict)
    _known: dict[Plan, "Known"] = dataclasses.field(default_factory=dict)

    def lift(self, carrier: Array) -> Array:
        return carrier

    def bump(self, carrier: Array, amount: Array) -> Array:
        return carrier + amount.astype(carrier.dtype)

    def plain(self, op: Op, operands: Sequence[Array]) -> list[Array]:
        return op.run(operands)

    def view(self, unit: Unit, plan: Plan) -> UnitView:
        """What selectors see of a unit."""
        cores = [op for op in unit.ops if op.primitive in (_jax.CONV, _jax.DOT)] if unit.layout else list(unit.ops)
        begin = unit.ops.index(cores[0])
        named = [self.names.get(v, []) for op in unit.ops[begin:] for v in op.outputs]
        named += [self.names.get(v, []) for v in moved_on(plan, unit.outputs)]
        scopes = dict.fromkeys("/".join(op.scope) for op in cores if op.scope)
        names = tuple(dict.fromkeys([name for names in named for name in names] + list(scopes)))
        return UnitView(unit.kind, names, unit in plan.first, unit in plan.last, cores[0].place)

    def known(self, plan: Plan) -> "Known":
        """What is known of a plan before it runs, computed once."""
        if plan not in self._known:

            def proportional(unit):
                return self.is_proportional(unit, plan)

            self._known[plan] = Known(signs.nonnegative(plan), signs.quiet(plan, proportional))
        return self._known[plan]

    def alike(self, one: Plan, other: Plan) -> bool:
        """Whether the same rules serve two copies of a plan, which differ in their first and last units."""
        for op in one.inner:
            if op in one.rounds:  # a scan: what counts is how it would be run
                phases = flow.phases_of(one, op, self), flow.phases_of(other, op, self)
                if [n for n, _ in phases[0]] != [n for n, _ in phases[1]]:
                    return False
                bodies = [[body for _, body in some] for some in phases]
            else:
                bodies = [one.inner[op], other.inner[op]]
            if not all(map(self.alike, *bodies)):
                return False
        layers = [step for step in one.steps if isinstance(step, Unit) and step.layout is not None]
        return all(
            self.rules.rule_of(self.view(unit, one)) is self.rules.rule_of(self.view(unit, other))
            for unit in layers
        )

    def is_proportional(self, unit: Unit, plan: Plan) -> bool:
        """Whether a unit gives each input relevance in proportion to its value."""
        if unit.layout is not None:
            return self.rules.rule_of(self.view(unit, plan)).proportional
        return unit.kind in ("sum", "scale") and not is_shift_of_one(unit, plan)

    def unit(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Array]:
        carried = plan.carried(unit)
        if carried and any(jnp.issubdtype(v.dtype, jnp.complexfloating) for v in unit.outputs):
            raise unsupported(unit, "LRP")
        if not carried or self.rules.tangent or plan.reached.isdisjoint(unit.outputs):
            return run_plainly(unit, read)
        if unit.layout is not None:
            return [self.affine(unit, plan, read)]
        match unit.kind:
            case "sum" | "scale" if is_shift_of_one(unit, plan):
                return self.passed(unit, plan, read)  # the rest is behind stop_gradient: a shift by no one's share
            case "sum" | "scale":
                return self.linear(unit, plan, read)
            case "activation" | "normalisation":
                return self.passed(unit, plan, read)
            case "max" | "structural":
                return run_plainly(unit, read)
            case "softmax":
                return self.softmax(unit, plan, read)
            case "product":
                return self.product(unit, plan, read)
        raise unsupported(unit, "LRP")

    def affine(self, unit: Unit, plan: Plan, read: Read) -> Array:
        """A convolution or dense layer by the table's rule."""
        function, constants = function_of(unit)
        layout = unit.layout
        terms = [term.source for term in layout.terms]
        known = self.known(plan)
        nonnegative = tuple(v in known.nonnegative for v in terms)
        quiet = unit.outputs[0] in known.quiet
        rule = self.rules.rule_of(self.view(unit, plan))

        def forward(xs, aux):
            # A value that two terms read comes twice; both are the same array.
            by_value = dict(zip(terms, xs, strict=True))
            return function([by_value[v] for v in unit.inputs], aux[0])[0]

        def backward(xs, aux, z, relevance):
            env = dict(zip(constants, aux[0], strict=True))

            def lookup(atom):
                return atom.value if isinstance(atom, Literal) else env[atom]

            return tuple(aux[1].relevance(Affine(layout, xs, z, lookup, nonnegative, quiet), relevance))

        return override(forward, backward, tuple(map(read, terms)), (tuple(map(read, constants)), rule))

    def linear(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Array]:
        """In proportion to what each input adds, constants included."""
        forward, xs, aux = split_function(unit, plan, read)

        def backward(xs, aux, ys, relevance):
            _, back = jax.vjp(lambda *xs: forward(xs, aux[0]), *xs)
            (slopes,) = [back([divided(r, y, aux[1]) for r, y in zip(relevance, ys, strict=True)])]
            return tuple(x * c for x, c in zip(xs, slopes, strict=True))

        return override(lambda xs, aux: forward(xs, aux[0]), backward, xs, (aux, self.rules.eps))

    def passed(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Array]:
        """What the outputs receive is the input's."""
        forward, xs, aux = split_function(unit, plan, read)
        carries = [v in plan.reached for v in unit.outputs]

        def backward(xs, aux, ys, relevance):
            parts = [r for r, on in zip(relevance, carries, strict=True) if on]
            total = sum(parts[1:], parts[0]) if parts else jnp.zeros_like(xs[0])
            return (jnp.broadcast_to(total, xs[0].shape), *(jnp.zeros_like(x) for x in xs[1:]))

        return override(forward, backward, xs, aux)

    def softmax(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Array]:
        """The first-order expansion of the softmax at x, or nothing."""
        detached = self.rules.softmax == "detach" and feeds_products(plan, unit)
        forward, xs, aux = split_function(unit, plan, read)

        def backward(xs, aux, ys, relevance):
            if detached:
                return (jnp.zeros_like(xs[0]),)
            (x,), (p,), (r,) = xs, ys, relevance
            if unit.axes:
                sent = r - p * r.sum(unit.axes, keepdims=True)
            else:
                _, back = jax.vjp(lambda x: forward([x], aux)[0], x)
                (sent,) = back(divided(r, p, 0.0))
            # A masked logit, -inf, has p = 0 and carries nothing.
            return (jnp.where(jnp.isfinite(x), x, 0) * sent,)

        return override(forward, backward, xs, aux)

    def product(self, unit: Unit, plan: Plan, read: Read) -> Sequence[Array]:
        """A product or quotient of two values."""
        (op,) = unit.ops
        flags = self.shares_of(op, plan)
        xs, aux = [read(v) for v in op.inputs], self.rules.eps

        def forward(xs, aux):
            return op.run(xs)

        def backward(xs, aux, ys, relevance):
            (r,), (z,) = relevance, ys
            parts = sum(flags)
            if op.primitive in _jax.PRODUCT_OF_TWO and all(x.shape == z.shape for x in xs):
                # Elementwise, a factor's share of z is all or half of it: no division, nothing lost to eps.
                return [r / parts if on else jnp.zeros_like(x) for x, on in zip(xs, flags, strict=True)]
            _, back = jax.vjp(lambda *xs: op.run(xs)[0], *xs)
            slopes = back(divided(r, parts * z, aux))
            return [x * c if on else jnp.zeros_like(x) for x, c, on in zip(xs, slopes, flags, strict=True)]

        return override(forward, backward, xs, aux)

    def shares_of(self, op: Op, plan: Plan) -> list[bool]:
        """Which of a product's two factors take a share of its relevance."""
        carries = [v in plan.reached for v in op.inputs]
        if not all(carries) or op.primitive not in _jax.PRODUCT_OF_TWO | {_jax.DOT, _jax.CONV}:
            return carries
        detach = self.rules.normalisation == "detach"
        if op.primitive is _jax.DIV:
            if not (is_statistic(plan.graph, op.inputs[1]) and of_the_same(plan.graph, *op.inputs[::-1])):
                raise UnsupportedOperation(
                    f"div at {op.place} divides by a value that depends on the explained input and is no "
                    "statistic of it, so what share the divisor takes is not defined; declare the function around "
                    "it one unit: jaxplain.engine.unit(fn, name=..., kind='normalisation')"
                )
            if detach:
                return [True, False]
            raise UnsupportedOperation(
                f"div at {op.place}: normalisation='share' is defined for products, and this is a quotient; "
                "multiply by the reciprocal, or use normalisation='detach'"
            )
        if self.rules.softmax == "detach":
            weights = [is_softmax(plan, v) for v in op.inputs]
            if any(weights) and not all(weights):
                return [not w for w in weights]
        if op.primitive is _jax.MUL:
            pairs = zip(op.inputs, op.inputs[::-1], strict=True)
            scales = [
                is_statistic(plan.graph, v) and inverts(plan, v) and of_the_same(plan.graph, v, w)
                for v, w in pairs
            ]
            if detach and any(scales) and not all(scales):
                return [not s for s in scales]
            left, right = (signs.gate_strength(plan, v) for v in op.inputs)
            if self.rules.product == "gate" and left != right:
                return [left < right, right < left]
        return carries


@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a plan before it runs: see `engine.signs`."""

    nonnegative: set[Value]
    quiet: set[Value]


def run_plainly(unit: Unit, read: Read) -> list[Array]:
    """A unit as it is: its derivative moves relevance."""
    function, constants = function_of(unit)
    return function([read(v) for v in unit.inputs], [read(v) for v in constants])


def split_function(unit: Unit, plan: Plan, read: Read):
    """(function of what carries relevance and of the rest, what carries it, the rest)."""
    function, constants = function_of(unit)
    carried = plan.carried(unit)
    others = [v for v in unit.inputs if v not in carried]

    def forward(xs, aux):
        given = dict(zip(carried, xs, strict=True)) | dict(zip([*others, *constants], aux, strict=True))
        return function([given[v] for v in unit.inputs], [given[v] for v in constants])

    return forward, tuple(map(read, carried)), tuple(map(read, [*others, *constants]))


def moved_on(plan: Plan, values: Sequence[Value]) -> list[Value]:
    """What reshapes and tags alone make of values: a name put there names the unit."""
    found: list[Value] = []
    todo = list(values)
    while todo:
        for user in plan.users.get(todo.pop(), ()):
            if isinstance(user, Unit) and all(op.primitive in _jax.RESHAPES for op in user.ops):
                found += user.outputs
                todo += user.outputs
    return found


def is_shift_of_one(unit: Unit, plan: Plan) -> bool:
    """Whether a unit adds, to one value that carries relevance, another that depends on x but carries none."""
    alone = len(plan.carried(unit)) == 1 and len(unit.inputs) > 1
    return alone and unit.ops[0].primitive in _jax.SUM_OF_TWO


def feeds_products(plan: Plan, unit: Unit) -> bool:
    """Whether a value goes into products alone, perhaps reshaped: a softmax that is the output does not."""
    todo, seen = list(unit.outputs), set()
    while todo:
        value = todo.pop()
        if value in plan.program.outputs:
            return False
        for user in plan.users.get(value, ()):
            if isinstance(user, Op) or user.kind == "product" or user in seen:
                continue
            if user.kind != "structural":
                return False
            seen.add(user)
            todo += user.outputs
    return True


def is_softmax(plan: Plan, atom: Atom) -> bool:
    """Whether a factor is a softmax, perhaps reshaped."""
    value, _ = plan.graph.behind_moves(atom)
    unit = plan.owner.get(value) if isinstance(value, Value) else None
    return unit is not None and unit.kind == "softmax"


def inverts(plan: Plan, atom: Atom) -> bool:
    """Whether a statistic was turned upside down on the way: a scale to normalise by, not the norm itself."""
    while isinstance(atom, Value):
        atom, _ = plan.graph.behind_moves(atom)
        op = plan.graph.maker.get(atom) if isinstance(atom, Value) else None
        if op is None or op.primitive not in _jax.ELEMENTWISE:
            return False
        moving = [v for v in op.operands if v in plan.graph.live]
        if len(moving) != 1:
            return False
        if op.primitive is _jax.RSQRT or (op.primitive is _jax.DIV and op.inputs[1] is moving[0]):
            return True
        if op.primitive is _jax.INTEGER_POW and op.params["y"] < 0:
            return True
        if op.primitive is _jax.POW and isinstance(op.inputs[1], Literal) and op.inputs[1].value < 0:
            return True
        atom = moving[0]
    return False


def unsupported(unit: Unit, method: str) -> UnsupportedOperation:
    """The error for a unit that no rule covers."""
    op = unit.ops[0]
    if op.primitive is _jax.WHILE:
        hint = "write the loop with lax.scan, or fori_loop with fixed bounds and reverse=False: then it is a scan"
    else:
        hint = (
            f"if it acts like a known kind, say so: jaxplain.engine.register_unit(primitive, kind) with the "
            f"primitive {op.name!r}, or declare the function: jaxplain.engine.unit(fn, name=..., kind=...)"
        )
    where = f" in {'/'.join(op.scope)}" if op.scope else ""
    return UnsupportedOperation(f"{method} has no rule for {op.name} at {op.place}{where}; {hint}")
