"""Sites: naming one value inside a network, in whatever library it is written.

A site is named, in this order, by

1. a tag: `jaxplain.tag(value, "name")`, or `jax.ad_checkpoint.checkpoint_name`, which it is;
2. the module path that Flax linen, Haiku and `jax.named_scope` leave in the program: the value that leaves the
   module;
3. the path of the weight, in an argument of `f` or in `params=`: `"conv1/kernel"` is what the operation that
   uses it returns, `"conv1"` the result of the last operation that uses any of conv1's weights (so after the
   bias). This is what names the layers of Flax NNX and Equinox;
4. kind and position: `nth("conv", -1)`, `last_conv()`.

A path may be shortened to its end, `"conv1"` for `"Net/conv1"`, where that is unique. A name that belongs to
several values takes an index: `"Dense_0:1"` is the second. Anything missing or ambiguous is an error that lists
the near names.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterator

from jaxplain import _jax
from jaxplain._errors import SiteError, near
from jaxplain.engine.channels import channel_axes
from jaxplain.engine.trace import Op, Program, Trace, Value
from jaxplain.engine.units import Unit, body_inputs, bottlenecks, group


@dataclasses.dataclass(frozen=True)
class Nth:
    """The `index`-th unit of a kind, in the order of the program; negative from the end."""

    kind: str
    index: int


@dataclasses.dataclass(frozen=True)
class LastConv:
    """The last convolutional activation through which everything flows."""


At = str | Nth | LastConv
KINDS = (
    "conv",
    "dense",
    "activation",
    "sum",
    "product",
    "max",
    "structural",
    "scan",
    "remat",
    "custom",
    "other",
)


def nth(kind: str, index: int) -> Nth:
    """A site by kind and position: the output of the `index`-th unit of a kind.

    Args:
        kind: "conv", "dense", "activation", "sum", "product", "max", ... (see `list_sites`).
        index: from 0, or negative from the end. Units inside a scan count once.

    Returns:
        A site for `at=`.

    Raises:
        ValueError: there is no such kind. When used, `SiteError` if there are too few of them.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.tanh(jnp.tanh(x) @ jnp.ones((2, 2))).sum()
        >>> y, values = jxp.capture(f, jxp.nth("activation", 0))(jnp.zeros(2))
        >>> list(values.values())
        [Array([0., 0.], dtype=float32)]
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}: {near(kind, KINDS, most=len(KINDS))}")
    return Nth(kind, index)


def last_conv() -> LastConv:
    """A site: the last convolutional activation through which everything flows, Grad-CAM's default.

    It is the last value with channels and at least one spatial axis longer than 1 that a convolution, an
    activation, a product or a residual sum returns, such that no path from the input to the output avoids it: in
    a residual network the last block's output, not a convolution inside a branch.

    Returns:
        A site for `at=`.

    Example:
        >>> import jaxplain as jxp
        >>> jxp.last_conv()
        LastConv()
    """
    return LastConv()


@dataclasses.dataclass(frozen=True)
class Site:
    """One value inside a traced function: a row of `list_sites`."""

    value: Value
    around: tuple[Op, ...]  # the scans and remats it is in
    kind: str
    op: Op

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the captured value: iterations of the scans around it come first."""
        lengths = tuple(op.params["length"] for op in self.around if op.primitive is _jax.SCAN)
        return lengths + self.value.shape


@dataclasses.dataclass
class Scene:
    """All that can be named in a traced function."""

    sites: dict[Value, Site]
    units: list[tuple[Unit, tuple[Op, ...]]]
    tags: dict[str, list[Value]]
    scopes: dict[str, list[Value]]
    weights: dict[str, list[Value]]
    closed: dict[str, str]  # names of what is no site -> why not

    def names(self) -> dict[Value, list[str]]:
        """The names of each value that are unique, or made so by an index."""
        found: dict[Value, list[str]] = {}
        for table in (self.tags, self.scopes, self.weights):
            for name, values in table.items():
                for k, value in enumerate(values):
                    found.setdefault(value, []).append(name if len(values) == 1 else f"{name}:{k}")
        return found


def survey(trace: Trace) -> Scene:
    """Find everything in a traced function that has a name or a kind."""
    scene = Scene({}, [], {}, {}, {}, {})
    consumed: dict[tuple[str, ...], list[Value]] = {}
    origin = {value: frozenset([path]) for value, path in trace.weights.items()}

    def visit(program: Program, live: set[Value], origin, around: tuple[Op, ...], depth: int) -> None:
        reached = program.dependent(live)
        units = group(program, live)
        owner = {v: unit for unit in units for op in unit.ops for v in op.outputs}
        maker = {v: op for op in program.ops for v in op.outputs}

        def place(value: Value) -> bool:
            if value not in reached or not value.is_float or value not in maker:
                return False
            scene.sites.setdefault(value, Site(value, around, owner[value].kind, maker[value]))
            return True

        for unit in units:
            scene.units.append((unit, around))
            for value in unit.outputs:
                place(value)
            for op in unit.ops:
                if op.primitive is _jax.NAME and place(op.outputs[0]):
                    scene.tags.setdefault(op.params["name"], []).append(op.outputs[0])
                for body, marked in zip(op.bodies, body_inputs(op, reached), strict=True):
                    if op.primitive in (_jax.SCAN, _jax.REMAT):
                        passed = passed_on(op, body, origin)
                        visit(body, marked, passed, (*around, op), len(op.scope))
                    else:
                        note_closed(scene, op)
        for op in program.ops:
            if op.primitive is _jax.NAME and op.outputs[0] not in scene.sites:
                scene.closed[op.params["name"]] = "does not depend on the explained argument, or is not a float"
        for name, value in leaving(program, reached, depth):
            if place(value):
                scene.scopes.setdefault(name, []).append(value)
        for path, value in consumers(program, reached, origin):
            if place(value):
                consumed.setdefault(path, []).append(value)

    visit(trace.program, set(trace.live), origin, (), 0)
    position = {value: k for k, value in enumerate(trace.program.values())}
    for table in (scene.tags, scene.scopes, consumed):
        for values in table.values():
            values.sort(key=position.__getitem__)
    scene.units.sort(key=lambda entry: min(position[v] for op in entry[0].ops for v in op.outputs))
    scene.weights = weight_names(consumed, position)
    return scene


def leaving(program: Program, reached: set[Value], depth: int) -> Iterator[tuple[str, Value]]:
    """(module path, value) for every live value that leaves a module, one call of the module after another.

    A call is a run of consecutive operations under the path; paths no longer than `depth` words enclose the
    whole program.
    """
    used_at: dict[Value, list[int]] = {}
    for k, op in enumerate(program.ops):
        for value in op.operands:
            used_at.setdefault(value, []).append(k)
    for value in program.outputs:
        if isinstance(value, Value):
            used_at.setdefault(value, []).append(len(program.ops))

    calls: dict[tuple[str, ...], list[range]] = {}
    for k, op in enumerate(program.ops):
        for length in range(depth + 1, len(op.scope) + 1):
            spans = calls.setdefault(op.scope[:length], [])
            if spans and spans[-1].stop == k:
                spans[-1] = range(spans[-1].start, k + 1)
            else:
                spans.append(range(k, k + 1))
    for path, spans in calls.items():
        for span in spans:
            for k in span:
                for value in program.ops[k].outputs:
                    if value in reached and any(use not in span for use in used_at.get(value, ())):
                        yield "/".join(path), value


def consumers(program: Program, reached: set[Value], origin) -> Iterator[tuple[tuple[str, ...], Value]]:
    """(weight path, result) for every live operation that uses a weight, perhaps reshaped or rescaled before."""
    origin = dict(origin)
    for op in program.ops:
        paths = frozenset().union(*(origin.get(v, ()) for v in op.operands if v not in reached))
        if not paths:
            continue
        if op.primitive in (_jax.SCAN, _jax.REMAT):
            continue  # what uses the weight is inside
        if reached.isdisjoint(op.operands):
            origin.update((v, paths) for v in op.outputs)
        else:
            yield from ((path, op.outputs[0]) for path in sorted(paths))


def passed_on(op: Op, body: Program, origin):
    """Where the weights that an operation is given come in, inside its body."""
    inside = {b: origin[a] for b, a in zip(body.inputs, op.inputs, strict=True) if a in origin}
    return {v: p for v, p in origin.items() if v in body.constants} | inside


def weight_names(
    consumed: dict[tuple[str, ...], list[Value]], position: dict[Value, int]
) -> dict[str, list[Value]]:
    """Names by weight path: each leaf, and each layer that holds leaves, called as often as its leaves are."""
    names = {"/".join(path): values for path, values in consumed.items()}
    layers: dict[tuple[str, ...], list[list[Value]]] = {}
    for path, values in consumed.items():
        if len(path) > 1:
            layers.setdefault(path[:-1], []).append(values)
    for path, leaves in layers.items():
        if len({len(values) for values in leaves}) == 1:
            calls = zip(*leaves, strict=True)
            names.setdefault("/".join(path), [max(call, key=position.__getitem__) for call in calls])
    return names


def note_closed(scene: Scene, op: Op) -> None:
    """Remember the names inside an operation that cannot be entered, to explain it when one is asked for."""
    what = "a function with a custom derivative" if op.primitive in _jax.CUSTOM else f"a {op.name}"
    why = (
        f"is inside {what} at {op.place}, which cannot be entered; tag what it returns: jaxplain.tag(value, name)"
    )
    for body in op.bodies:
        for program, _ in body.walk():
            for inner in program.ops:
                if inner.primitive is _jax.NAME:
                    scene.closed[inner.params["name"]] = why
                for length in range(len(op.scope) + 1, len(inner.scope) + 1):
                    scene.closed["/".join(inner.scope[:length])] = why


def resolve(trace: Trace, at: At) -> Site:
    """The one site that `at` names, else a `SiteError` that lists the near ones."""
    scene = survey(trace)
    if isinstance(at, LastConv):
        return find_last_conv(trace, scene)
    if isinstance(at, Nth):
        return find_nth(scene, at)
    if isinstance(at, str):
        return find_named(scene, at)
    raise TypeError(f"a site is a name, nth(kind, index) or last_conv(), not {type(at).__name__}")


def find_nth(scene: Scene, at: Nth) -> Site:
    """The site of a kind and position."""
    found = [unit.outputs[0] for unit, _ in scene.units if unit.kind == at.kind and unit.outputs]
    found = [value for value in found if value in scene.sites]
    if not -len(found) <= at.index < len(found):
        counts = Counter(unit.kind for unit, _ in scene.units)
        have = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())) or "none"
        raise SiteError(f"nth({at.kind!r}, {at.index}): the function has {len(found)} {at.kind} units ({have})")
    return scene.sites[found[at.index]]


def find_named(scene: Scene, name: str) -> Site:
    """The site of a name: exactly, or by the end of a path."""
    tables = (scene.tags, scene.scopes, scene.weights)
    stem, _, index = name.rpartition(":")
    if any(name in table for table in tables) or not (stem and index.lstrip("-").isdigit()):
        stem, index = name, ""
    exact = [table[stem] for table in tables if stem in table]
    ends = [{full: values for full, values in table.items() if full.endswith("/" + stem)} for table in tables]
    matches = exact[:1] or [found for found in ends if found][:1]
    if not matches:
        if stem in scene.closed:
            raise SiteError(f"site {name!r} {scene.closed[stem]}")
        known = [n for table in tables for n in table]
        raise SiteError(
            f"no site {name!r}: {near(stem, known)}; jaxplain.list_sites(f)(...) prints all (a value that the "
            "output does not depend on is not among them)"
        )
    match = matches[0]
    if isinstance(match, dict):
        if len(match) > 1:
            raise SiteError(f"site {name!r} is ambiguous: it ends {', '.join(map(repr, sorted(match)))}")
        (match,) = match.values()
    if not index and len(match) > 1:
        choices = ", ".join(repr(f"{stem}:{k}") for k in range(len(match)))
        raise SiteError(f"site {name!r} names {len(match)} values; choose one of {choices}")
    if index and not -len(match) <= int(index) < len(match):
        raise SiteError(f"site {name!r}: {stem!r} names {len(match)} value(s), counted from 0")
    return scene.sites[match[int(index or 0)]]


def find_last_conv(trace: Trace, scene: Scene) -> Site:
    """The last convolutional activation through which everything flows."""
    axes = channel_axes(trace.program)
    narrow = bottlenecks(trace.program, set(trace.live))
    units = [unit for unit, around in scene.units if not around and len(unit.outputs) == 1]
    found = [unit for unit in units if unit.outputs[0] in narrow and transforms(unit, trace.program)]
    known = [unit.outputs[0] for unit in found if is_spatial(unit.outputs[0], axes.get(unit.outputs[0]))]
    if not known:
        raise SiteError(
            "there is no convolutional activation through which everything flows; "
            "name a site with spatial axes: at=..., jaxplain.list_sites(f)(...) prints them"
        )
    last = found[-1].outputs[0]
    for unit in found[::-1]:
        if unit.outputs[0] is known[-1]:
            break
        wide = [n for n in unit.outputs[0].shape if n > 1]
        if unit.outputs[0] not in axes and len(wide) >= len([n for n in known[-1].shape if n > 1]):
            raise SiteError(
                f"which axis of the value made at {unit.ops[-1].place} (shape {last.shape}) holds channels cannot "
                "be told, so neither can which activation is the last; name a site: at=..."
            )
    return scene.sites[known[-1]]


def is_spatial(value: Value, axis: int | None) -> bool:
    """Whether a value has a known channel axis and an axis longer than 1 beside it."""
    return axis is not None and max((n for k, n in enumerate(value.shape) if k != axis), default=1) > 1


def transforms(unit: Unit, program: Program) -> bool:
    """Whether a unit makes an activation: not pooling, moving, or relating values to their own sum."""
    first = unit.ops[0]
    if unit.kind in ("conv", "dense", "activation"):
        return True
    if unit.kind == "product":
        return first.primitive is _jax.MUL
    broadcast = {v for op in program.ops if op.primitive is _jax.BROADCAST for v in op.outputs}
    alike = all(v.shape == first.outputs[0].shape and v not in broadcast for v in unit.inputs)
    return unit.kind == "sum" and first.primitive in _jax.SUM_OF_TWO and alike
