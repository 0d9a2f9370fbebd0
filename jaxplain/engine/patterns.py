"""Compound functions that JAX traces as several operations: softmax, mean-centring, normalising statistics.

They are recognised by the shape of the graph, never by names: a softmax is an exponential divided by its own
sum, with or without a shift by the maximum; a normalising statistic is a square root of sums over the value that
it divides.
"""

from collections.abc import Iterator, Set
from typing import Any, NamedTuple

from jaxplain import _jax
from jaxplain.engine.trace import Atom, Literal, Op, Program, Value


class Pattern(NamedTuple):
    """Operations that compute `ops[-1].outputs[0]` as one function of `source`, over `axes` of it."""

    kind: str
    ops: tuple[Op, ...]
    source: Value
    axes: tuple[int, ...]


class Graph:
    """Who makes and who uses the values of a program."""

    def __init__(self, program: Program, live: set[Value]):
        self.program = program
        self.live = live
        self.maker = {v: op for op in program.ops for v in op.outputs}

    def made_by(self, atom: Atom, primitives) -> Op | None:
        """The operation that made a value, if it is one of these."""
        op = None if isinstance(atom, Literal) else self.maker.get(atom)
        return op if op is not None and op.primitive in primitives else None

    def behind_moves(self, atom: Atom, also: Set[Any] = frozenset()) -> tuple[Atom, tuple[Op, ...]]:
        """The value that reshapes and broadcasts made this one of, and those operations in order."""
        passed: list[Op] = []
        while (op := self.made_by(atom, MOVES | also)) is not None:
            moving = [v for v in op.inputs if isinstance(v, Value) and v in self.live]
            if len(moving) != 1:
                break
            passed.append(op)
            atom = moving[0]
        return atom, tuple(reversed(passed))


MOVES = _jax.RESHAPES | {_jax.BROADCAST}


def patterns(program: Program, live: set[Value]) -> Iterator[Pattern]:
    """The softmaxes and mean-centrings of a program."""
    graph = Graph(program, live)
    for op in program.ops:
        if op.primitive in (_jax.DIV, _jax.MUL):
            found = softmax(graph, op)
        elif op.primitive is _jax.EXP:
            found = softmax_of_logs(graph, op)
        elif op.primitive is _jax.SUB:
            found = centring(graph, op)
        else:
            found = None
        if found is not None:
            yield found


def softmax(graph: Graph, last: Op) -> Pattern | None:
    """exp(x - m) / sum(exp(x - m)), or times the sum's inverse; m is the same along the summed axes, or none."""
    top, bottom = last.inputs
    below, moves = graph.behind_moves(bottom)
    if last.primitive is _jax.MUL:
        inverse = graph.made_by(below, {_jax.DIV})
        if inverse is None or not isinstance(inverse.inputs[0], Literal) or inverse.inputs[0].value != 1:
            return None
        below, inner = graph.behind_moves(inverse.inputs[1])
        moves = (*inner, inverse, *moves)
    total, power = graph.made_by(below, {_jax.REDUCE_SUM}), graph.made_by(top, {_jax.EXP})
    if total is None or power is None or not is_along(moves, total):
        return None
    axes = tuple(total.params["axes"])
    (source,) = power.inputs
    mask = graph.made_by(total.inputs[0], {_jax.SELECT})  # softmax(where=mask)
    if total.inputs[0] is not top and (mask is None or mask.inputs[0] in graph.live or top not in mask.inputs):
        return None
    source = unshifted(graph, source, axes)
    if not isinstance(source, Value) or source not in graph.live:
        return None
    if total.inputs[0] is not top:
        # Only if the same mask hid the logits before is the masked sum the sum of what is left.
        hidden = graph.made_by(source, {_jax.SELECT})
        if mask is None or hidden is None or hidden.inputs[0] is not mask.inputs[0]:
            return None
    return Pattern("softmax", (last,), source, axes) if source.shape == last.outputs[0].shape else None


def unshifted(graph: Graph, atom: Atom, axes: tuple[int, ...]) -> Atom:
    """X of x - m, with m the same along the axes: no shift changes a softmax, whatever it was computed from."""
    shifted = graph.made_by(atom, {_jax.SUB})
    constant = shifted is not None and set(axes) <= same_along(graph, shifted.inputs[1])
    return shifted.inputs[0] if shifted is not None and constant else atom


def softmax_of_logs(graph: Graph, last: Op) -> Pattern | None:
    """exp(u - log sum exp u), with the sum taken of exp(u - m) and m added to its logarithm, or not."""
    less = graph.made_by(last.inputs[0], {_jax.SUB})
    if less is None:
        return None
    u, bottom = less.inputs
    below, moves = graph.behind_moves(bottom)
    added = graph.made_by(below, {_jax.ADD})
    below, more = graph.behind_moves(below if added is None else added.inputs[0])
    logarithm = graph.made_by(below, {_jax.LOG})
    if logarithm is None:
        return None
    below, inner = graph.behind_moves(logarithm.inputs[0], {_jax.ABS})
    total = graph.made_by(below, {_jax.REDUCE_SUM})
    power = None if total is None else graph.made_by(total.inputs[0], {_jax.EXP})
    if total is None or power is None or not is_along((*inner, *more, *moves), total):
        return None
    summed, axes = power.inputs[0], tuple(total.params["axes"])
    if added is not None:
        shifted = graph.made_by(summed, {_jax.SUB})
        if shifted is None:
            return None
        taken, given = (graph.behind_moves(v)[0] for v in (shifted.inputs[1], added.inputs[1]))
        if taken is not given:
            return None
        summed = shifted.inputs[0]
    source = unshifted(graph, u, axes)
    if summed is not u or not isinstance(source, Value) or source not in graph.live:
        return None
    return Pattern("softmax", (last,), source, axes) if source.shape == last.outputs[0].shape else None


def same_along(graph: Graph, atom: Atom) -> set[int]:
    """The axes along which broadcasts made a value the same; all of them for a number."""
    if isinstance(atom, Literal):
        return set(range(8))
    same = {d for d, n in enumerate(atom.shape) if n == 1}
    op = graph.maker.get(atom)
    if not atom.shape:
        return set(range(8))
    if op is None:
        return same
    if op.primitive is _jax.BROADCAST:
        placed, inner = op.params["broadcast_dimensions"], same_along(graph, op.inputs[0])
        return {d for d in range(len(atom.shape)) if d not in placed or placed.index(d) in inner}
    if op.primitive in _jax.ELEMENTWISE and op.primitive is not _jax.SELECT:
        return set.intersection(*(same_along(graph, v) for v in op.inputs)) | same
    return same


def centring(graph: Graph, sub: Op) -> Pattern | None:
    """X minus its mean: one linear map of x, or relevance would be divided by a mean that is nearly 0."""
    x, mean = sub.inputs
    below, moves = graph.behind_moves(mean)
    scale = graph.made_by(below, {_jax.DIV, _jax.MUL})
    scales: tuple[Op, ...] = ()
    if scale is not None:
        moving = [v for v in scale.operands if v in graph.live]
        if len(moving) != 1 or (scale.primitive is _jax.DIV and scale.inputs[0] is not moving[0]):
            return None
        below, inner = graph.behind_moves(moving[0])
        scales = (*inner, scale)
    total = graph.made_by(below, {_jax.REDUCE_SUM})
    if total is None or total.inputs[0] is not x or not isinstance(x, Value) or x not in graph.live:
        return None
    if not is_along((*scales, *moves), total):
        return None
    return Pattern("sum", (total, *scales, *moves, sub), x, tuple(total.params["axes"]))


def is_along(moves: tuple[Op, ...], total: Op) -> bool:
    """Whether moves bring a sum over axes back to the places that it was summed over.

    The axes that the sum kept must come back where they were. Operations other than moves keep the shape.
    """
    rank = len(total.operands[0].shape)
    if not total.outputs[0].shape and all(op.outputs[0].shape == () for op in moves):
        return True  # one sum of all, a number
    where: list[int | None] = [d for d in range(rank) if d not in total.params["axes"]]
    for op in moves:
        shape = op.outputs[0].shape
        source = next(v for v in op.operands if len(v.shape) == len(where))
        if op.primitive is _jax.BROADCAST:
            placed = op.params["broadcast_dimensions"]
            where = [where[placed.index(d)] if d in placed else None for d in range(len(shape))]
        elif op.primitive is _jax.TRANSPOSE:
            where = [where[d] for d in op.params["permutation"]]
        elif source.shape != shape:
            kept = [(d, n) for d, n in zip(where, source.shape, strict=True) if n > 1]
            if [n for _, n in kept] != [n for n in shape if n > 1]:
                return False
            left = iter(kept)
            where = [next(left)[0] if n > 1 else None for n in shape]
    wide = total.operands[0].shape
    return len(where) == rank and all(d in (k, None) or wide[k] == 1 for k, d in enumerate(where))


def is_statistic(graph: Graph, atom: Atom) -> bool:
    """Whether a factor is a root of sums, as in x / sqrt(mean(x**2)), or a sum or maximum of magnitudes.

    Its relevance is then that of a normaliser. Everything on the way up to the sums must be elementwise in them
    or a move: a factor that a layer computed carries a signal of its own.
    """
    seen: set[Value] = set()
    reduced = False

    def look(atom: Atom) -> bool:
        nonlocal reduced
        if isinstance(atom, Literal) or atom not in graph.live or atom in seen:
            return True
        seen.add(atom)
        op = graph.maker.get(atom)
        if op is None:
            return False
        if op.primitive in STATISTICS:
            reduced = True
            return True
        if op.primitive in _jax.ELEMENTWISE | MOVES or op.primitive in _jax.CUSTOM:
            return all(look(v) for v in op.inputs)
        return False

    return look(atom) and reduced


def of_the_same(graph: Graph, statistic: Atom, other: Atom) -> bool:
    """Whether a statistic was taken of values that the other factor is computed from."""
    through = _jax.ELEMENTWISE | MOVES | STATISTICS
    return not above(graph, statistic, through).isdisjoint(above(graph, other, None))


def above(graph: Graph, atom: Atom, through: Set[Any] | None) -> set[Value]:
    """The live values that one is computed from, itself included, up through some operations (None: all)."""
    found: set[Value] = set()
    todo = [atom]
    while todo:
        value = todo.pop()
        if isinstance(value, Literal) or value in found or value not in graph.live:
            continue
        found.add(value)
        op = graph.maker.get(value)
        if op is not None and (through is None or op.primitive in through or op.primitive in _jax.CUSTOM):
            todo += op.inputs
    return found


STATISTICS = {_jax.REDUCE_SUM, _jax.REDUCE_MAX, _jax.WINDOW_SUM}
