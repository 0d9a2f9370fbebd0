"""The operations on sites: list them, read them, write them, cut the function at one."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxplain import _jax
from jaxplain._errors import SiteError
from jaxplain._tree import check_argnums, named_after
from jaxplain.engine import sites, walk
from jaxplain.engine.sites import At, LastConv, Site
from jaxplain.engine.trace import Program, Trace, trace

tag = checkpoint_name


class Row(NamedTuple):
    """One site: its names, what it is, and where it is made."""

    names: tuple[str, ...]
    kind: str
    shape: tuple[int, ...]
    dtype: str
    place: str


class SiteTable(tuple[Row, ...]):
    """The sites of a function, in the order in which they are computed; prints as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        header = ("names", "kind", "shape", "dtype", "place")
        cells = [(", ".join(row.names) or "-", row.kind, str(row.shape), row.dtype, row.place) for row in self]
        widths = [max(len(line[k]) for line in (header, *cells)) for k in range(4)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[4]])
            for line in (header, *cells)
        ]
        return "\n".join(lines)


def list_sites(
    f: Callable[..., Any], *, argnums: int | Sequence[int] = 0, params: Any = None
) -> Callable[..., SiteTable]:
    """Every value inside `f` that `at=` can name, as a table.

    Args:
        f: `f(x, *args)`; it may return anything.
        argnums: which positional argument(s) are explained: sites are the values that depend on them.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `table(x, *args)`: a tuple of rows (names, kind, shape, dtype, place) that prints as a table. A site
        inside a scan has a leading axis of iterations.

    Raises:
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x, p: jax.nn.relu(x @ p["fc1"]["w"]) @ p["fc2"]["w"]
        >>> p = {"fc1": {"w": jnp.ones((3, 4))}, "fc2": {"w": jnp.ones(4)}}
        >>> [(row.names, row.kind, row.shape) for row in jxp.list_sites(f)(jnp.ones(3), p)]
        [(('fc1/w', 'fc1'), 'dense', (4,)), ((), 'activation', (4,)), (('fc2/w', 'fc2'), 'dense', ())]
    """

    @named_after(f, "list_sites")
    def table(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=check_argnums(argnums), params=params, tokens=True)
        scene = sites.survey(traced)
        names = scene.names()
        shown = [site for value, site in scene.sites.items() if site.kind != "structural" or value in names]
        order = {value: k for k, value in enumerate(traced.program.values())}
        shown.sort(key=lambda site: order[site.value])
        return SiteTable(
            Row(
                tuple(names.get(site.value, ())),
                site.kind,
                site.shape,
                str(site.value.dtype),
                site.op.place,
            )
            for site in shown
        )

    return table


def capture(
    f: Callable[..., Any], *at: At, argnums: int | Sequence[int] = 0, params: Any = None
) -> Callable[..., tuple[Any, dict[At, Any]]]:
    """`f` that also returns values inside it.

    Args:
        f: `f(x, *args)`; it may return anything.
        *at: the sites to read.
        argnums: which positional argument(s) are explained: sites depend on them.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `captured(x, *args) -> (y, {site: value})`, differentiable like `f`. A site inside a scan gives its
        value of every iteration, stacked on a leading axis.

    Raises:
        SiteError: a site is missing, ambiguous, or inside something that cannot be entered.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> y, values = jxp.capture(f, "squares")(jnp.array([1.0, 2.0]))
        >>> print(y, values["squares"])
        5.0 [1. 4.]
    """

    @named_after(f, "capture")
    def captured(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=check_argnums(argnums), params=params, tokens=True)
        traced = seen_through(traced, at)
        found = {name: sites.resolve(traced, name).value for name in at}
        outputs, values = walk.evaluate(traced.program, traced.args, wanted=set(found.values()))
        return traced.result(outputs), {name: values[value] for name, value in found.items()}

    return captured


def plant(
    f: Callable[..., Any], values: Mapping[At, Any], *, argnums: int | Sequence[int] = 0, params: Any = None
) -> Callable[..., Any]:
    """`f` with values inside it replaced.

    Args:
        f: `f(x, *args)`; it may return anything.
        values: `{site: array}`; an array has the shape and type of the site (a site inside a scan: of all its
            iterations, stacked).
        argnums: which positional argument(s) are explained: sites depend on them.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `planted(x, *args) -> y`, differentiable by `x` and by the planted values.

    Raises:
        SiteError: a site is missing, ambiguous, or inside something that cannot be entered.
        ValueError: a planted array has another shape than its site.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> print(jxp.plant(f, {"squares": jnp.array([10.0, 20.0])})(jnp.array([1.0, 2.0])))
        30.0
    """

    @named_after(f, "plant")
    def planted(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=check_argnums(argnums), params=params, tokens=True)
        traced = seen_through(traced, values)
        arrays = {}
        for name, array in values.items():
            site = sites.resolve(traced, name)
            arrays[site.value] = fitting(site, name, array)
        outputs, _ = walk.evaluate(traced.program, traced.args, planted=arrays)
        return traced.result(outputs)

    return planted


def mix(
    f: Callable[..., Any],
    at: At,
    make: Callable[[Site], tuple[Any, Any]],
    *,
    argnums: int | tuple[int, ...],
    params: Any,
) -> Callable[..., Any]:
    """`f` with elements of a site replaced as it is computed: `make(site)` says which, and by what.

    Both are arrays of the shape of the site, with its rounds if it is inside a scan. There later rounds see what
    was replaced in earlier ones; `plant`, which knows all rounds beforehand, would keep their values apart.
    """

    def mixed(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, tokens=True)
        traced = seen_through(traced, [at])
        site = sites.resolve(traced, at)
        outputs, _ = walk.evaluate(traced.program, traced.args, mixed={site.value: walk.Mix(*make(site))})
        return traced.result(outputs)

    return mixed


class Slice(NamedTuple):
    """A function in two halves: `z = h(x, *args)`, `y = g(z, x, *args)`, and `g(h(x), x) == f(x)`."""

    h: Callable[..., jax.Array]
    g: Callable[..., Any]


def slice_at(
    f: Callable[..., Any],
    at: At,
    *,
    strict: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Slice:
    """Cut `f` at a site: f = g after h.

    `h` holds only the operations that the site needs, `g` only those after it; what bypasses the site is
    computed in `g` from `x`. For a site inside a scan, z holds the values of all iterations, and `g` puts each
    in its place: its derivative by one iteration is with the others held fixed.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site.
        strict: demand that nothing that depends on `x` bypasses the site, so that `g` depends on `x` through z
            alone.
        argnums: which positional argument(s) are explained: sites depend on them.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `Slice(h, g)`: `z = h(x, *args)`, `y = g(z, x, *args)`.

    Raises:
        SiteError: the site is missing, ambiguous, inside something that cannot be entered, or, when strict, not
            all that the output needs.
        ValueError: z has another shape than the site.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum()
        >>> h, g = jxp.slice_at(f, "squares")
        >>> x = jnp.array([1.0, 2.0])
        >>> print(h(x), g(h(x), x), jxp.gradient(g)(h(x), x))
        [1. 4.] 5.0 [1. 1.]
    """

    @named_after(f, "h")
    def h(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=check_argnums(argnums), params=params, tokens=True)
        _, _, halves = cut_at(traced, at, strict=strict)
        return halves.site(traced.args)

    @named_after(f, "g")
    def g(z, *args, **kwargs):
        traced = trace(f, args, kwargs, argnums=check_argnums(argnums), params=params, tokens=True)
        site, _, halves = cut_at(traced, at, strict=strict)
        return traced.result(halves.after(fitting(site, at, z), halves.rest(traced.args)))

    return Slice(h, g)


def seen_through(traced: Trace, at: Iterable[At]) -> Trace:
    """A trace with its remats inlined if `last_conv()` is asked for: they often hold whole blocks."""
    program = traced.program
    if any(isinstance(site, LastConv) for site in at):
        while remats := [op for op in program.ops if op.primitive is _jax.REMAT]:
            program = walk.inlined(program, remats[0])
    return dataclasses.replace(traced, program=program)


class CutSite(NamedTuple):
    """A site, the program it was cut out of, and the two halves."""

    site: Site
    program: Program
    halves: walk.Cut


def cut_at(traced: Trace, at: At, *, strict: bool = False) -> CutSite:
    """Cut a traced program at the site that `at` names; remats around it give way to their bodies."""
    traced = seen_through(traced, [at])
    program = traced.program
    site = sites.resolve(traced, at)
    while site.value not in walk.made_by(program):
        around = next(op for op in program.ops if site.value in walk.values_inside(op))
        if around.primitive is not _jax.REMAT:
            break
        program = walk.inlined(program, around)
    halves = walk.cut(program, site.value, set(traced.live))
    if strict and halves.bypass:
        raise SiteError(
            f"{halves.bypass} value(s) that depend on the input bypass site {at!r}, so the output is not a "
            "function of it alone; choose a site that everything flows through, or strict=False"
        )
    return CutSite(site, program, halves)


def fitting(site: Site, name: At, array: Any) -> jax.Array:
    """`array` in the type of a site, if it has its shape."""
    array = jnp.asarray(array)
    if array.shape != site.shape:
        raise ValueError(f"site {name!r} has shape {site.shape}, but a value of shape {array.shape} was given")
    return array.astype(site.value.dtype)
