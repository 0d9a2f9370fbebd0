"""The program of a function: traced once, flattened, in classes of our own.

`trace(f, ...)` runs `jax.make_jaxpr` and rewrites the result as a `Program`: operations in order, calls inlined,
equal operations merged, dead ones dropped. The rest of the engine sees `Value`, `Op` and `Program` only, so
that JAX's changing internals stay in `_jax.py`; nothing here ever builds a jaxpr.

What is inlined and what stays whole:

- `jit` and other plain calls are inlined.
- `remat` and `scan` stay one `Op` with a `body`; they are re-emitted with `jax.checkpoint` and `lax.scan` when
  something inside is captured or planted, and run as they are otherwise.
- `cond` and `while` stay one `Op` with bodies that can be listed but not entered.
- functions with a custom derivative (`custom_jvp`, `custom_vjp`) stay whole: inlining one would replace its
  derivative. `jax.nn.relu` is one.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._tree import check_scalar, float_leaves, positions


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Value:
    """One intermediate value: what an operation returns, an input, or a constant."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def is_float(self) -> bool:
        """Whether it can carry a derivative."""
        return jnp.issubdtype(self.dtype, jnp.floating)


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Literal:
    """A number written into the program."""

    value: Any


Atom = Value | Literal


@dataclasses.dataclass(eq=False)
class Op:
    """One operation: a primitive with its parameters, operands and results.

    `scope` is the path of names (module path, `jax.named_scope`) that it was traced under, `bodies` the
    programs that a scan, remat, cond or while runs.
    """

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Value, ...]
    scope: tuple[str, ...]
    eqn: Any
    stack: Any
    bodies: "tuple[Program, ...]" = ()
    function: Callable[..., Any] | None = None  # runs in place of the primitive
    caller: Any = None  # the call that it was inlined from
    edited: bool = False  # whether an operation inside a body has been replaced

    @property
    def name(self) -> str:
        """The primitive's name, for people to read: never to decide by."""
        return self.primitive.name

    @property
    def operands(self) -> tuple[Value, ...]:
        """The inputs that are values."""
        return tuple(v for v in self.inputs if isinstance(v, Value))

    @property
    def place(self) -> str:
        """`file:line (function)` of the user's code."""
        here = _jax.source_line(self.eqn)
        return here or (self.caller and _jax.source_line(self.caller)) or "an operation inside JAX"

    def run(self, operands: Sequence[Any]) -> list[Any]:
        """Evaluate on arrays, one for each input."""
        if self.function is not None:
            return [self.function(*operands)]
        return _jax.bind(self.eqn, self.stack, operands)


@dataclasses.dataclass(eq=False)
class Program:
    """Operations in the order they run."""

    inputs: tuple[Value, ...]
    outputs: tuple[Atom, ...]
    ops: list[Op]
    constants: dict[Value, Any]

    def dependent(self, live: Iterable[Value]) -> set[Value]:
        """Every value that depends on one of `live`, these included."""
        found = set(live)
        for op in self.ops:
            if not found.isdisjoint(op.operands):
                found.update(op.outputs)
        return found

    def needed(self, targets: Iterable[Atom], given: Set[Value], *, effects: bool = False) -> list[Op]:
        """The operations that compute `targets` from `given`, inputs and constants; and those with effects."""
        wanted = {v for v in targets if isinstance(v, Value)} - given
        kept = []
        for op in reversed(self.ops):
            if not wanted.isdisjoint(op.outputs) or (effects and op.eqn.effects):
                kept.append(op)
                wanted.update(v for v in op.operands if v not in given)
        return kept[::-1]

    def values(self) -> "Iterator[Value]":
        """All values in the order in which they are computed, those inside a body before its results."""
        yield from self.inputs
        for op in self.ops:
            for body in op.bodies:
                yield from body.values()
            yield from op.outputs

    def walk(self) -> "Iterator[tuple[Program, tuple[Op, ...]]]":
        """This program and those inside its operations, each with the operations around it."""
        yield self, ()
        for op in self.ops:
            for body in op.bodies:
                for program, around in body.walk():
                    yield program, (op, *around)


@dataclasses.dataclass(eq=False)
class Trace:
    """A traced function: its program and how its arguments and result map onto it."""

    program: Program
    args: list[Any]  # arrays for `program.inputs`
    live: tuple[Value, ...]  # the inputs that are explained
    weights: dict[Value, tuple[str, ...]]  # the path of each parameter in its pytree
    out_tree: Any
    explained: Any  # the explained argument's float leaves, None elsewhere: a tuple of arguments
    argnums: int | tuple[int, ...]

    def like_explained(self, leaves: Sequence[Any]) -> Any:
        """Arrays for the live inputs, in the structure of the explained argument."""
        tree = jax.tree.unflatten(jax.tree.structure(self.explained), leaves)
        return tree if isinstance(self.argnums, tuple) else tree[0]

    def result(self, outputs: Sequence[Any]) -> Any:
        """The function's own result from the program's flat outputs."""
        return jax.tree.unflatten(self.out_tree, outputs)


def trace(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    argnums: int | tuple[int, ...] = 0,
    params: Any = None,
    scalar: bool = False,
    tokens: bool = False,
) -> Trace:
    """Trace `f(*args, **kwargs)` with the float leaves of `args[argnums]` live.

    Arrays among the arguments become inputs of the program. Everything else (Python integers, strings, None)
    stays what it is, so that a Python label is still checked as one. Parameters are named by their path in an
    argument, or, when `f` closes over them, by their path in `params`, which holds the same array objects.
    `tokens` allows an explained argument without floats: its integer arrays are then live, to find sites by.
    """
    where = positions(argnums, len(args))
    given = _jax.vary_together(tuple(args[i] for i in where), args, kwargs)
    tokens = tokens and not any(is_float_leaf(leaf) for leaf in jax.tree.leaves(given))
    if tokens:
        explained = jax.tree.map(lambda leaf: None, given)
        given = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, given)
    else:
        explained = float_leaves(given)
    full = list(args)
    for i, own, leaves in zip(where, given, explained, strict=True):
        full[i] = jax.tree.map(lambda a, b: a if b is None else b, own, leaves, is_leaf=lambda v: v is None)
    paths, structure = jax.tree_util.tree_flatten_with_path((tuple(full), kwargs))
    arrays = {k: leaf for k, (_, leaf) in enumerate(paths) if is_input(leaf)}

    def flat(*given):
        leaves = [leaf for _, leaf in paths]
        for k, value in zip(arrays, given, strict=True):
            leaves[k] = value
        inner_args, inner_kwargs = jax.tree.unflatten(structure, leaves)
        out = f(*inner_args, **inner_kwargs)
        return check_scalar(out) if scalar else out

    closed, shape = jax.make_jaxpr(flat, return_shape=True)(*arrays.values())
    program = simplified(convert(closed))
    inputs = dict(zip(arrays, program.inputs, strict=True))
    live, weights = [], {}
    for k, value in inputs.items():
        (kind, position, *path) = paths[k][0]
        is_explained = getattr(kind, "idx", None) == 0 and position.idx in where
        if is_explained and (value.is_float or tokens):
            live.append((where.index(position.idx), value))
        elif path:
            weights[value] = path_words(path)
    live = [value for _, value in sorted(live, key=lambda pair: pair[0])]  # as argnums has them
    name_closed_over(program, params, weights)
    return Trace(
        program,
        list(arrays.values()),
        tuple(live),
        weights,
        jax.tree.structure(shape),
        explained,
        argnums,
    )


def name_closed_over(program: Program, params: Any, weights: dict[Value, tuple[str, ...]]) -> None:
    """Name the constants of a program that are leaves of `params`.

    JAX keeps its own arrays and tracers as they are, and copies numpy's: those are told by their numbers.
    """
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    by_identity = {id(leaf): path_words(path) for path, leaf in leaves}
    copied = [(path_words(path), leaf) for path, leaf in leaves if isinstance(leaf, np.ndarray)]
    for body, _ in program.walk():
        for value, array in body.constants.items():
            if id(array) in by_identity:
                weights[value] = by_identity[id(array)]
            elif copied and not _jax.is_tracer(array):
                same = [path for path, leaf in copied if leaf.shape == value.shape and np.array_equal(leaf, array)]
                if len(same) == 1:
                    weights[value] = same[0]


def is_float_leaf(leaf: Any) -> bool:
    """Whether a leaf is a float, so that it could be explained."""
    return isinstance(leaf, float) or jnp.issubdtype(getattr(leaf, "dtype", int), jnp.floating)


def is_input(leaf: Any) -> bool:
    """Whether an argument's leaf becomes an input: JAX arrays and numpy floats; numpy integers may be shapes."""
    return isinstance(leaf, jax.Array) or (isinstance(leaf, np.ndarray) and leaf.dtype.kind not in "biuUSO")


def path_words(path: Sequence[Any]) -> tuple[str, ...]:
    """A pytree path as words. The leaves of NNX end in an attribute `value`, which names nothing."""
    words = jax.tree_util.keystr(tuple(path), simple=True, separator="\0").split("\0")
    of_variable = words[-1] == "value" and not isinstance(path[-1], jax.tree_util.DictKey)
    return tuple(words[:-1] if len(words) > 1 and of_variable else words)


MARKS = ("jvp", "vmap", "transpose", "linearize", "jit", "remat", "checkpoint")


def scope_words(stack: Any) -> tuple[str, ...]:
    """A name stack as words, without the marks of transformations: `jvp(Net)/Conv_0` is `Net`, `Conv_0`."""
    words = []
    for word in str(stack).split("/"):
        while word.endswith(")") and word.startswith(tuple(f"{mark}(" for mark in MARKS)):
            mark, word = word[:-1].split("(", 1)
            if mark == "transpose":  # an operation of a backward pass: its module did not call it
                return ()
        words.append(word)
    return tuple(word for word in words if word)


def convert(closed: Any, outer_scope: tuple[str, ...] = ()) -> Program:
    """Rewrite a jaxpr as a program, calls inlined."""
    jaxpr, consts = _jax.open_jaxpr(closed)
    table: dict[Any, Atom] = {}
    constants: dict[Value, Any] = {}
    ops: list[Op] = []

    def fresh(var: Any) -> Value:
        value = Value(tuple(getattr(var.aval, "shape", ())), getattr(var.aval, "dtype", None))
        table[var] = value
        return value

    def read(atom: Any) -> Atom:
        return Literal(atom.val) if _jax.is_literal(atom) else table[atom]

    def constant(var: Any, array: Any) -> None:
        constants[fresh(var)] = array

    def emit(inner: Any, stack: Any, caller: Any) -> None:
        for eqn in inner.eqns:
            names = _jax.name_stack(eqn, stack)
            body = _jax.body_of(eqn)
            if eqn.primitive in _jax.INLINED and body is not None and not _jax.is_declared(eqn):
                inner_jaxpr, inner_consts = _jax.open_jaxpr(body)
                for var, array in zip(inner_jaxpr.constvars, inner_consts, strict=True):
                    constant(var, array)
                # A jaxpr may be called twice: its variables are bound anew each time.
                for var, atom in zip(inner_jaxpr.invars, eqn.invars, strict=True):
                    table[var] = read(atom)
                emit(inner_jaxpr, names, eqn if _jax.source_line(eqn) else caller)
                results = [read(atom) for atom in inner_jaxpr.outvars]
                table.update(zip(eqn.outvars, results, strict=True))
                continue
            scope = outer_scope + scope_words(names)
            calls = eqn.primitive in _jax.CUSTOM | {_jax.SCAN, _jax.REMAT} and body is not None
            bodies = tuple(convert(b, scope) for b in ((body,) if calls else _jax.branches_of(eqn)))
            operands = tuple(read(atom) for atom in eqn.invars)
            outputs = tuple(fresh(var) for var in eqn.outvars)
            ops.append(
                Op(eqn.primitive, dict(eqn.params), operands, outputs, scope, eqn, names, bodies, None, caller)
            )

    for var, array in zip(jaxpr.constvars, consts, strict=True):
        constant(var, array)
    inputs = tuple(fresh(var) for var in jaxpr.invars)
    emit(jaxpr, None, None)
    return Program(inputs, tuple(read(atom) for atom in jaxpr.outvars), ops, constants)


def simplified(program: Program) -> Program:
    """Merge equal operations and drop dead ones.

    `jnp.where(x @ W > 0, x @ W, 0)` computes `x @ W` twice; to a rule, or to a name, that is one value. What
    two modules compute stays two values, or planting one would plant the other.
    """
    renamed: dict[Value, Atom] = {}
    seen: dict[Any, Op] = {}
    ops = []
    for op in program.ops:
        inputs = tuple(renamed.get(v, v) if isinstance(v, Value) else v for v in op.inputs)
        op = dataclasses.replace(op, inputs=inputs, bodies=tuple(map(simplified, op.bodies)))
        key = identity(op)
        if key is not None and key in seen:
            renamed.update(zip(op.outputs, seen[key].outputs, strict=True))
            continue
        if key is not None:
            seen[key] = op
        ops.append(op)
    outputs = tuple(renamed.get(v, v) if isinstance(v, Value) else v for v in program.outputs)
    merged = Program(program.inputs, outputs, ops, program.constants)
    merged.ops = merged.needed(outputs, set(), effects=True)
    return merged


def identity(op: Op) -> Any | None:
    """A key that equal operations share; None for what must not be merged."""
    if op.bodies or op.eqn.effects or _jax.is_random(op.primitive) or op.primitive in _jax.CUSTOM | {_jax.NAME}:
        return None
    atoms = []
    for v in op.inputs:
        if isinstance(v, Value):
            atoms.append(v)
        elif np.ndim(v.value) == 0:
            atoms.append((str(getattr(v.value, "dtype", type(v.value))), str(v.value)))
        else:
            return None
    try:
        key = (op.primitive, op.scope, tuple(sorted(op.params.items())), tuple(atoms))
        hash(key)
    except TypeError:
        return None
    return key
