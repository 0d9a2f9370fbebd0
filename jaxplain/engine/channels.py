"""Which axis of a value holds channels, as far as the convolutions of a program tell.

A convolution names the channel axes of its input and its output. From there they are followed down and up:
through elementwise operations, pooling, transposes, concatenations, slices, dense layers, and reshapes, which
may split the axis into several (group normalisation) and join them again: what is followed is a block of axes.
"""

from math import prod

from jaxplain import _jax
from jaxplain.engine.trace import Op, Program, Value
from jaxplain.engine.units import is_elementwise

Block = tuple[int, int]  # from the first of the axes to behind the last


def channel_axes(program: Program) -> dict[Value, int]:
    """The channel axis of every value for which it is known and is one axis."""
    blocks = spread(program, {})
    return {value: start for value, (start, stop) in blocks.items() if stop == start + 1}


def all_channels_last(program: Program) -> bool:
    """Whether every convolution has its channels last: then a value that nothing is known of has, too."""
    for body, _ in program.walk():
        for op in body.ops:
            if op.primitive is _jax.CONV:
                last = len(op.outputs[0].shape) - 1
                if {_jax.conv_channel_axis(op.params), _jax.conv_input_channel_axis(op.params)} != {last}:
                    return False
    return True


def spread(program: Program, known: dict[Value, Block]) -> dict[Value, Block]:
    """Follow channel axes down, up, and down again through a program."""
    blocks = dict(known)
    for _ in range(2):
        for op in program.ops:
            if op.outputs:
                down(op, blocks)
        for op in reversed(program.ops):
            if op.outputs:
                up(op, blocks)
    return blocks


def down(op: Op, blocks: dict[Value, Block]) -> None:
    """From the operands of an operation to its results."""
    out = op.outputs[0]
    if op.primitive is _jax.CONV:
        axis = _jax.conv_channel_axis(op.params)
        blocks[out] = (axis, axis + 1)
        return
    if op.bodies and op.primitive not in _jax.CUSTOM | {_jax.WHILE}:
        for body in op.bodies:
            inner = spread(body, body_blocks(op, body, blocks))
            for value, made in zip(op.outputs, body.outputs, strict=False):
                # The results of a scan beyond its carries have an axis of iterations in front.
                if made in inner and made.shape == value.shape:
                    blocks.setdefault(value, inner[made])
        return
    source = next(
        (v for v in op.operands if v in blocks and (not is_elementwise(op) or v.shape == out.shape)), None
    )
    if source is None or out in blocks:
        return
    found = follow(op, blocks[source], source, out)
    if found is not None:
        blocks[out] = found


def up(op: Op, blocks: dict[Value, Block]) -> None:
    """From the results of an operation to its operands."""
    out = op.outputs[0]
    if op.primitive is _jax.CONV:
        axis = _jax.conv_input_channel_axis(op.params)
        if isinstance(op.inputs[0], Value):
            blocks.setdefault(op.inputs[0], (axis, axis + 1))
        return
    if op.primitive in (_jax.REMAT, _jax.COND):
        operands = op.inputs[1:] if op.primitive is _jax.COND else op.inputs
        for body in op.bodies:
            inner = spread(body, {m: blocks[v] for v, m in zip(op.outputs, body.outputs, strict=True)
                                  if v in blocks and isinstance(m, Value)})  # fmt: skip
            for atom, value in zip(operands, body.inputs, strict=True):
                if isinstance(atom, Value) and value in inner:
                    blocks.setdefault(atom, inner[value])
        return
    if out not in blocks:
        return
    for value in op.operands:
        if value in blocks:
            continue
        if op.primitive is _jax.TRANSPOSE:
            order = op.params["permutation"]
            axes = [order[k] for k in range(*blocks[out])]
            if axes == list(range(axes[0], axes[0] + len(axes))):
                blocks[value] = (axes[0], axes[-1] + 1)
        elif (is_elementwise(op) and value.shape == out.shape) or same_rank(op, value, out):
            blocks[value] = blocks[out]
        elif op.primitive in _jax.STRUCTURAL:
            found = regrouped(out.shape, blocks[out], value.shape)
            if found is not None:
                blocks[value] = found


def follow(op: Op, block: Block, source: Value, out: Value) -> Block | None:
    """Where a block of the operand's axes is in the result."""
    start, stop = block
    if op.primitive is _jax.TRANSPOSE:
        axes = sorted(list(op.params["permutation"]).index(k) for k in range(start, stop))
        return (axes[0], axes[-1] + 1) if axes == list(range(axes[0], axes[-1] + 1)) else None
    if op.primitive is _jax.BROADCAST:
        axes = [op.params["broadcast_dimensions"][k] for k in range(start, stop)]
        return (axes[0], axes[-1] + 1) if axes == list(range(axes[0], axes[-1] + 1)) else None
    if op.primitive is _jax.DOT:
        return through_dot(op, block, source)
    if (
        "axes" in op.params
        and op.primitive in _jax.SUM_OVER | _jax.MAX_OVER
        and len(out.shape) < len(source.shape)
    ):
        gone = set(op.params["axes"])
        if not gone.isdisjoint(range(start, stop)):
            return None
        shift = sum(k < start for k in gone)
        return start - shift, stop - shift
    if is_elementwise(op) or same_rank(op, source, out):
        return block
    return regrouped(source.shape, block, out.shape) if op.primitive in _jax.STRUCTURAL else None


def same_rank(op: Op, source: Value, out: Value) -> bool:
    """Whether an operation pools, joins, cuts or pads along axes that stay what they are."""
    kept = _jax.SUM_OVER | _jax.MAX_OVER | (_jax.STRUCTURAL - _jax.RESHAPES - {_jax.BROADCAST, _jax.GATHER})
    moves = op.primitive in kept or (op.primitive in _jax.RESHAPES and source.shape == out.shape)
    return moves and len(source.shape) == len(out.shape) and op.primitive is not _jax.TRANSPOSE


def through_dot(op: Op, block: Block, source: Value) -> Block | None:
    """A dense layer over channels puts its features where the weights' free axis goes."""
    (contract, batch) = op.params["dimension_numbers"]
    side = 0 if op.inputs[0] is source else 1
    if block[1] != block[0] + 1 or batch[0]:
        return None
    free = [[k for k in range(len(v.shape)) if k not in contract[j]] for j, v in enumerate(op.operands)]
    if block[0] in contract[side]:
        return None if len(free[1 - side]) != 1 else shifted(0 if side == 1 else len(free[0]))
    place = free[side].index(block[0]) + (len(free[0]) if side == 1 else 0)
    return shifted(place)


def shifted(axis: int) -> Block:
    """One axis as a block."""
    return axis, axis + 1


def regrouped(old: tuple[int, ...], block: Block, new: tuple[int, ...]) -> Block | None:
    """The axes of a reshaped array that hold what `block` held: as many elements, with as many before."""
    if prod(old) != prod(new):
        return None
    before, inside = prod(old[: block[0]]), prod(old[slice(*block)])
    if inside == 1:
        return None
    for start in range(len(new)):
        if prod(new[:start]) == before and new[start] > 1:
            for stop in range(start + 1, len(new) + 1):
                if prod(new[start:stop]) == inside:
                    return start, stop
    return None


def body_blocks(op: Op, body: Program, blocks: dict[Value, Block]) -> dict[Value, Block]:
    """What is known of the inputs of a body that have the shape of the operands (a scan's slices do not)."""
    operands = op.inputs[1:] if op.primitive is _jax.COND else op.inputs
    return {
        value: blocks[atom]
        for atom, value in zip(operands, body.inputs, strict=True)
        if isinstance(atom, Value) and atom in blocks and atom.shape == value.shape
    }
