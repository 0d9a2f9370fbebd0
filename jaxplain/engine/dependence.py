"""Which inputs a value can depend on, told from a program's operations and not from numbers.

The program is walked backwards with one boolean an element: whether what is asked about can depend on it. Every
operation hands its results' booleans to its operands: elementwise ones as they are, reductions and sorts to all
that they run over, convolutions and dot products through ones in the place of weights. What is moved follows
the derivative of the move, taken of arrays of zeros. Booleans are made anew at every operation, so that nothing
underflows however deep the program is. Only what tells places is ever computed from the arguments: constant
indices, masks, and the loop counters that they come from.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import UnsupportedOperation
from jaxplain.engine.control import kind_of
from jaxplain.engine.trace import Atom, Literal, Op, Program, Value, convert
from jaxplain.engine.units import body_inputs, is_elementwise
from jaxplain.engine.walk import made_by, split, values_inside

Mask = jax.Array  # booleans of the shape of a value


class Constants:
    """Values that do not depend on the explained input, each computed when it is first asked for."""

    def __init__(self, program: Program, given: Mapping[Value, Any]):
        self.program = program
        self.env = {**program.constants, **given}

    def __call__(self, atom: Atom) -> Any:
        """The array of one."""
        if isinstance(atom, Literal):
            return atom.value
        if atom not in self.env:
            for op in self.program.needed([atom], self.env.keys()):
                self.env.update(zip(op.outputs, op.run([self(v) for v in op.inputs]), strict=True))
        return self.env[atom]


class Masks(dict[Value, Mask]):
    """What is known of each value: whether something asked about can depend on its elements."""

    def join(self, atom: Atom, mask: Mask) -> None:
        """Elements that count besides those known."""
        if isinstance(atom, Value):
            self[atom] = self[atom] | mask if atom in self else mask

    def of(self, value: Value | Atom) -> Mask:
        """The mask of a value, False where nothing is known of it."""
        found = self.get(value) if isinstance(value, Value) else None
        return nothing(value) if found is None else found


def sources(
    program: Program,
    live: Iterable[Value],
    given: Mapping[Value, Any],
    asked: Mapping[Value, Mask],
    inside: Mapping[Value, Mask] | None = None,
) -> Masks:
    """Which elements of the `live` inputs the `asked` elements can depend on.

    Args:
        program: the program.
        live: the inputs to tell of.
        given: arrays for the others.
        asked: elements of the program's own values.
        inside: elements of values inside scans and remats, with a leading axis of rounds for each scan.

    Returns:
        Masks of the live inputs and of what lies between.

    Raises:
        UnsupportedOperation: an operation on the way is not known.
    """
    inside = inside or {}
    reached = program.dependent(live)
    constant = Constants(program, given)
    masks = Masks(asked)
    for op in reversed(program.ops):
        here = {v: mask for v, mask in inside.items() if op.bodies and v in values_inside(op)}
        if reached.isdisjoint(op.operands) or (masks.keys().isdisjoint(op.outputs) and not here):
            continue
        results = [masks.of(v) for v in op.outputs]
        flags = [isinstance(v, Value) and v in reached for v in op.inputs]
        for atom, flag, mask in zip(
            op.inputs, flags, operands_of(op, results, flags, constant, here), strict=True
        ):
            if flag:
                masks.join(atom, mask)
    return masks


def operands_of(
    op: Op, results: list[Mask], live: list[bool], constant: Constants, inside: Mapping[Value, Mask]
) -> Sequence[Mask]:
    """The masks of an operation's operands from those of its results; of those not live, anything."""
    kind = op.primitive
    if op.bodies and kind is not _jax.WHILE and not (kind in _jax.CUSTOM and is_elementwise(op)):
        return through_body(op, results, live, constant, inside)
    if _jax.is_declared(op.eqn):
        body = convert(_jax.body_of(op.eqn), op.scope)
        return run_body(body, op.inputs, live, constant, results, {})
    if is_elementwise(op) or kind in _jax.ELEMENTWISE_TOO or kind_of(op) == "activation":
        return elementwise(op, results[0], live, constant)
    if kind in (_jax.CONV, _jax.DOT):
        return bilinear(op, results[0])
    if kind in _jax.REDUCTIONS:
        kept = jnp.expand_dims(results[0], op.params["axes"])
        return [jnp.broadcast_to(kept, op.operands[0].shape)]
    if kind in _jax.WINDOWS:
        names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
        options = [op.params[name] for name in names]
        return sent_back(lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, *options), op.inputs, results)
    if kind in _jax.CUMULATIVE:
        options = {name: op.params[name] for name in ("axis", "reverse")}
        return sent_back(lambda x: jax.lax.cumsum(x, **options), op.inputs, results)
    if kind in _jax.SORTS:
        axis = op.params.get("dimension", op.params.get("axis", -1))
        return whole_axes(op, results, (axis,))
    if kind is _jax.FFT:
        return whole_axes(op, results, tuple(range(-len(op.params["fft_lengths"]), 0)))
    if kind in _jax.MOVES:
        return moved(op, results, live, constant)
    raise UnsupportedOperation(
        f"which inputs the results of {op.name} at {op.place} depend on is not known; write what it does with "
        "array operations, or begin behind it: h, g = jaxplain.slice_at(f, at), and explain g"
    )


def elementwise(op: Op, result: Mask, live: list[bool], constant: Constants) -> list[Mask]:
    """Each operand's element is that of the result; a constant choice counts for what it chooses."""
    masks = [result] * len(op.inputs)
    if op.primitive is _jax.SELECT and not live[0]:
        chosen = jnp.asarray(constant(op.inputs[0])).astype(jnp.int32)
        masks = [result] + [result & (chosen == case) for case in range(len(op.inputs) - 1)]
    return [fitting(mask, shape_of(v)) for v, mask in zip(op.inputs, masks, strict=True)]


def fitting(mask: Mask, shape: tuple[int, ...]) -> Mask:
    """The mask of an operand that was broadcast: a scalar, or an array with axes of size 1."""
    if shape == ():
        return mask.any()
    wider = [k for k, (have, want) in enumerate(zip(mask.shape, shape, strict=True)) if have != want]
    return mask.any(wider, keepdims=True) if wider else mask


def bilinear(op: Op, result: Mask) -> Sequence[Mask]:
    """A convolution or dot product: through ones in the place of the other operand."""
    if op.primitive is _jax.DOT:
        options = {"dimension_numbers": op.params["dimension_numbers"]}
        function = jax.lax.dot_general
    else:
        names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers")
        options = {name: op.params[name] for name in (*names, "feature_group_count", "batch_group_count")}
        function = jax.lax.conv_general_dilated
    return sent_back(lambda a, b: function(a, b, **options), op.inputs, [result], fill=1.0)


def whole_axes(op: Op, results: list[Mask], axes: tuple[int, ...]) -> list[Mask]:
    """Every result depends on all that shares its place on the other axes."""
    met = results[0].any(axes, keepdims=True)
    for result in results[1:]:
        met = met | result.any(axes, keepdims=True)
    return [jnp.broadcast_to(met, shape_of(v)) for v in op.inputs]


def moved(op: Op, results: list[Mask], live: list[bool], constant: Constants) -> Sequence[Mask]:
    """Elements that keep their values: back to where they came from."""
    where = range(len(op.inputs))[_jax.INDICES.get(op.primitive, slice(0, 0))]
    if any(live[k] for k in where):  # the input itself says where from: it may be anywhere
        met = jnp.stack([result.any() for result in results]).any()
        return [jnp.broadcast_to(met, shape_of(v)) for v in op.inputs]
    places = {k: constant(op.inputs[k]) for k in where}
    movable = [k for k in range(len(op.inputs)) if k not in where]

    def move(*arrays):
        return op.run([places[k] if k in places else arrays[movable.index(k)] for k in range(len(op.inputs))])

    sent = sent_back(move, [op.inputs[k] for k in movable], results)
    return [nothing(v) if k in places else sent[movable.index(k)] for k, v in enumerate(op.inputs)]


def sent_back(
    function: Callable[..., Any], inputs: Sequence[Atom], results: list[Mask], fill: float = 0.0
) -> list[Mask]:
    """Which operands the derivative of a linear function leads to."""
    arrays = [jnp.full(shape_of(v), fill, jnp.float32) for v in inputs]
    outputs, back = jax.vjp(function, *arrays)
    leaves, structure = jax.tree.flatten(outputs)
    carried = [mask.astype(leaf.dtype) for mask, leaf in zip(results, leaves, strict=True)]
    # Sums of ones: half of one leaves room for the rounding of a fast convolution.
    return [slope > 0.5 for slope in back(jax.tree.unflatten(structure, carried))]


def through_body(
    op: Op, results: list[Mask], live: list[bool], constant: Constants, inside: Mapping[Value, Mask]
) -> Sequence[Mask]:
    """Through what a scan, a cond, a remat or a function with its own derivative runs."""
    if op.primitive is _jax.SCAN:
        return through_scan(op, results, live, constant, inside)
    if op.primitive is not _jax.COND:
        return run_body(op.bodies[0], op.inputs, live, constant, results, inside)

    def branch(body):
        return lambda: run_body(body, op.inputs[1:], live[1:], constant, results, {})

    met = jnp.stack([result.any() for result in results]).any()
    if not live[0]:
        return [met, *jax.lax.switch(constant(op.inputs[0]), [branch(body) for body in op.bodies])]
    taken = [branch(body)() for body in op.bodies]
    return [met, *(jnp.stack(masks).any(0) for masks in zip(*taken, strict=True))]


def run_body(
    body: Program,
    inputs: Sequence[Atom],
    live: Sequence[bool],
    constant: Callable[[Any], Any],
    results: Sequence[Mask],
    inside: Mapping[Value, Mask],
) -> list[Mask]:
    """The masks of what a body is called with, from those of what it returns."""
    own = made_by(body)
    asked = Masks({v: mask for v, mask in inside.items() if v in own})
    for atom, mask in zip(body.outputs, results, strict=True):
        asked.join(atom, mask)
    pairs = list(zip(body.inputs, inputs, live, strict=True))
    given = {v: constant(atom) for v, atom, on in pairs if not on}
    masks = sources(body, [v for v, _, on in pairs if on], given, asked, inside)
    return [masks.of(v) if on else nothing(v) for v, _, on in pairs]


def through_scan(
    op: Op, results: list[Mask], live: list[bool], constant: Constants, inside: Mapping[Value, Mask]
) -> list[Mask]:
    """The rounds in reverse; constant carries, such as a loop counter, are run forwards first."""
    (body,) = op.bodies
    num_consts, num_carry = _jax.scan_counts(op.params, len(op.inputs))
    (marked,) = body_inputs(op, {v for v, on in zip(op.inputs, live, strict=True) if on and isinstance(v, Value)})
    consts, carry, xs = split(body.inputs, num_consts, num_carry)
    outer = dict(zip(body.inputs, op.inputs, strict=True))
    fixed = {v: constant(outer[v]) for v in consts if v not in marked}
    held = [v for v in carry if v not in marked]
    rows = [v for v in xs if v not in marked]
    row_values = [constant(outer[v]) for v in rows]
    length, reverse = op.params["length"], op.params["reverse"]

    def round_of(values: list[Any], items: list[Any]) -> dict[Value, Any]:
        return {**fixed, **dict(zip(held, values, strict=True)), **dict(zip(rows, items, strict=True))}

    def forward(values, items):
        known = Constants(body, round_of(values, items))
        return [known(body.outputs[carry.index(v)]) for v in held], values

    start = [jnp.asarray(constant(outer[v])) for v in held]
    _, history = jax.lax.scan(forward, start, row_values, length=length, reverse=reverse)
    names = list(inside)

    def back(later, item):
        after, of_consts = later
        values, items, of_ys, seeds = item
        known = round_of(values, items)
        seen = dict(zip(names, seeds, strict=True))
        flags = [v in marked for v in body.inputs]
        masks = run_body(body, body.inputs, flags, known.__getitem__, [*after, *of_ys], seen)
        new_consts, before, of_xs = split(masks, num_consts, num_carry)
        return (before, [a | b for a, b in zip(of_consts, new_consts, strict=True)]), of_xs

    first = (results[:num_carry], [nothing(v) for v in consts])
    items = (history, row_values, results[num_carry:], [inside[v] for v in names])
    (of_carry, of_consts), of_xs = jax.lax.scan(back, first, items, length=length, reverse=not reverse)
    return [*of_consts, *of_carry, *of_xs]


def nothing(atom: Atom) -> Mask:
    """False for every element."""
    return jnp.zeros(shape_of(atom), bool)


def shape_of(atom: Atom) -> tuple[int, ...]:
    """The shape of an operand."""
    return atom.shape if isinstance(atom, Value) else jnp.shape(atom.value)
