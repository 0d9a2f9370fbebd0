"""Plumbing between a user's function and a method: which argument is explained, and in what form.

Every method sees the same simple thing: `fx`, a function of the float leaves of the explained argument that
returns a checked scalar, and `x`, those leaves (`None` stands where a leaf is not a float). `explainer` and
`sampler` wrap a method so that the function they return has the arguments of the user's function.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import to_accumulator

Scalar = Callable[..., jax.Array]


class Problem(NamedTuple):
    """`fx(x)` is the scalar to explain; `x` holds the float leaves of the explained argument."""

    fx: Callable[[Any], jax.Array]
    x: Any


def explainer(f: Scalar, argnums: int | Sequence[int], method: str, attribute: Callable[..., Any]) -> Any:
    """A function of `f`'s arguments that returns `attribute(fx, x)`."""
    argnums = check_argnums(argnums)

    @named_after(f, method)
    def explain(*args, **kwargs):
        return attribute(*problem(f, argnums, args, kwargs))

    explain.argnums = argnums  # for what wraps it: noise goes to the argument that is explained
    return explain


def sampler(f: Scalar, argnums: int | Sequence[int], method: str, attribute: Callable[..., Any]) -> Any:
    """A function of a key and `f`'s arguments that returns `attribute(key, fx, x)`."""
    argnums = check_argnums(argnums)

    @named_after(f, method)
    def explain(key, *args, **kwargs):
        check_key(key, method)
        return attribute(key, *problem(f, argnums, args, kwargs))

    return explain


def named_after(f: Any, method: str) -> Callable[[Callable[..., Any]], Any]:
    """Give a function the name `method(f)`, so that error messages and profiles say what it is."""

    def rename(wrapper):
        name = getattr(f, "__name__", type(f).__name__)
        wrapper.__name__ = wrapper.__qualname__ = f"{method}({name})"
        wrapper.__doc__ = f"{method} of {name}, with its arguments."
        return wrapper

    return rename


def slope_of(fx: Callable[[Any], jax.Array]) -> Callable[[Any], Any]:
    """The gradient, NaN wherever the value is: JAX's ReLU passes back 0 at NaN, which reads as "no influence"."""

    def slope(x):
        y, slopes = jax.value_and_grad(fx)(x)
        return jax.tree.map(lambda leaf: jnp.where(jnp.isnan(y), jnp.nan, leaf), slopes)

    return slope


def check_argnums(argnums: int | Sequence[int]) -> int | tuple[int, ...]:
    """`argnums` as an integer or a tuple of different integers."""
    one = not isinstance(argnums, Sequence)
    given = (argnums,) if one else tuple(argnums)
    if not given or not all(hasattr(n, "__index__") and not isinstance(n, bool) for n in given):
        raise TypeError(f"argnums must be an integer or a sequence of integers, not {argnums!r}")
    numbers = tuple(operator.index(n) for n in given)
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"argnums names an argument twice: {argnums!r}")
    return numbers[0] if one else numbers


def positions(argnums: int | tuple[int, ...], num_args: int) -> tuple[int, ...]:
    """The argument positions that `argnums` names, counted from 0, of a call with `num_args` arguments."""
    numbers = argnums if isinstance(argnums, tuple) else (argnums,)
    for n in numbers:
        if not -num_args <= n < num_args:
            raise ValueError(
                f"argnums={argnums} but the call has {num_args} positional argument(s); "
                f"argnums counts from 0 and keyword arguments cannot be explained"
            )
    found = tuple(n % num_args for n in numbers)
    if len(set(found)) != len(found):
        raise ValueError(f"argnums={argnums} names an argument twice in a call with {num_args} argument(s)")
    return found


def problem(f: Scalar, argnums: int | tuple[int, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Problem:
    """Close `f` over everything but the float leaves of the explained argument(s)."""
    where = positions(argnums, len(args))
    explained = tuple(args[i] for i in where)
    x = _jax.vary_together(float_leaves(explained), args, kwargs)

    def fx(leaves):
        leaves = leaves if isinstance(argnums, tuple) else (leaves,)
        full = jax.tree.map(
            lambda leaf, value: leaf if value is None else value,
            explained,
            leaves,
            is_leaf=lambda v: v is None,
        )
        given = list(args)
        for i, value in zip(where, full, strict=True):
            given[i] = value
        return check_scalar(f(*given, **kwargs))

    return Problem(fx, x if isinstance(argnums, tuple) else x[0])


def float_leaves(x: Any) -> Any:
    """`x` with its float leaves as JAX arrays and None for all others; an error if there are none."""

    def keep(leaf):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | float) or jnp.issubdtype(
            getattr(leaf, "dtype", float), jax.dtypes.extended
        ):
            return None
        array = jnp.asarray(leaf)
        return array if jnp.issubdtype(array.dtype, jnp.floating) else None

    kept = jax.tree.map(keep, x)
    leaves = jax.tree.leaves(kept)
    if not leaves:
        types = sorted({str(getattr(leaf, "dtype", type(leaf).__name__)) for leaf in jax.tree.leaves(x)})
        raise TypeError(
            f"the explained argument has no float leaves to explain (found: {', '.join(types) or 'nothing'}); "
            "convert it with x.astype(float), choose another argument with argnums=, or, for integer tokens, "
            "explain their embedding: h, g = jaxplain.slice_at(f, at), then method(g)(h(x), x)"
        )
    if any(leaf.size == 0 for leaf in leaves):
        raise ValueError(f"the explained argument has an empty array: {shapes(kept)}")
    return kept


def check_scalar(y: Any) -> jax.Array:
    """`y` if it is one float of shape (), else an error that says which output to choose and how."""
    if not isinstance(y, jax.Array | np.ndarray | np.generic | float):
        raise TypeError(
            f"f must return one float scalar, but it returned {type(y).__name__}; "
            "wrap it: lambda *args: f(*args)[0] or the like"
        )
    y = jnp.asarray(y)
    if y.shape != ():
        raise ValueError(
            f"f must return a scalar of shape (), but it returned shape {y.shape}; explain one output at a time: "
            "jaxplain.class_score(f) takes the label as its second argument, "
            "jax.vmap maps the explanation over a batch or over labels"
        )
    if not jnp.issubdtype(y.dtype, jnp.floating):
        raise TypeError(f"f must return a float, but it returned {y.dtype}")
    return y


def check_key(key: Any, method: str) -> None:
    """An error unless `key` is one PRNG key; the usual slip is to forget it."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not (typed and key.shape == ()) and not (dtype == jnp.uint32 and key.shape in ((2,), (4,))):
        raise TypeError(
            f"{method} draws random samples: its first argument is a key, as in "
            f"explain(jax.random.key(0), x, ...), but it got {describe(key)}"
        )


def reference_like(name: str, value: Any, x: Any) -> Any:
    """A baseline or root in the form of `x`: from a number, an array, a pytree like `x`, or a callable of `x`."""
    if callable(value):
        value = value(x)
    if isinstance(value, int | float | np.generic) or (
        isinstance(value, jax.Array | np.ndarray) and value.shape == ()
    ):
        number: Any = value
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, number), x)
    matched = matching(name, value, x)
    for leaf, model in zip(jax.tree.leaves(matched), jax.tree.leaves(x), strict=True):
        if leaf.shape not in ((), model.shape):
            raise ValueError(
                f"{name} has shape {leaf.shape} where the explained argument has {model.shape}; "
                f"give a number, an array of that shape (jnp.broadcast_to({name}, {model.shape})), "
                f"a pytree like the argument, or a callable of it"
            )
    return jax.tree.map(lambda leaf, model: jnp.broadcast_to(leaf, model.shape), matched, x)


def background_like(value: Any, x: Any) -> tuple[Any, int]:
    """(references in the form of `x` with a leading axis, how many there are)."""
    matched = matching("background", value, x)
    counts = set()
    for leaf, model in zip(jax.tree.leaves(matched), jax.tree.leaves(x), strict=True):
        if leaf.ndim != model.ndim + 1 or leaf.shape[1:] != model.shape:
            raise ValueError(
                f"background has shape {leaf.shape} where the explained argument has {model.shape}; "
                f"it needs that shape behind a leading axis of references, as in x0[None] for a single one"
            )
        counts.add(leaf.shape[0])
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"background needs the same number of references in every leaf, at least 1: {counts}")
    return matched, counts.pop()


def count(name: str, data: Any, what: str = "examples") -> int:
    """How many examples are stacked: the common length of the leading axes of its leaves."""
    paths = jax.tree_util.tree_flatten_with_path(data)[0]
    sizes = {}
    for path, leaf in paths:
        shape = np.shape(leaf)
        if not shape:
            where = jax.tree_util.keystr(path) or "itself"
            raise ValueError(f"{name}{where} has no leading axis of {what}; a single {what[:-1]} is x[None]")
        sizes[jax.tree_util.keystr(path)] = shape[0]
    if not sizes:
        raise ValueError(f"{name} holds no arrays: it must be a pytree with a leading axis of {what}")
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{name} has leaves with different numbers of {what}: {sizes}")
    total = next(iter(sizes.values()))
    if total == 0:
        raise ValueError(f"{name} holds none" if name == what else f"{name} holds no {what}")
    return total


def matching(name: str, value: Any, x: Any) -> Any:
    """The leaves of `value` that stand where `x` has float leaves, in their types."""
    structure = jax.tree.structure(x, is_leaf=lambda leaf: leaf is None)
    try:
        leaves = structure.flatten_up_to(value)
        models = jax.tree.leaves(x, is_leaf=lambda leaf: leaf is None)
        kept = [None if m is None else jnp.asarray(v, m.dtype) for v, m in zip(leaves, models, strict=True)]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} must be a number, an array, a pytree like the explained argument, or a callable of it; "
            f"its structure is {jax.tree.structure(value)}, the argument's {structure}"
        ) from error
    return jax.tree.unflatten(structure, kept)


def shapes(tree: Any) -> str:
    """The shapes of a tree's leaves, readable."""
    return str(jax.tree.map(lambda leaf: leaf.shape, tree))


def describe(value: Any) -> str:
    """An array's type and shape, or the type of anything else."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


def total(tree: Any) -> jax.Array:
    """The sum over all leaves of a tree, in the widest accumulator type among them."""
    leaves = jax.tree.leaves(to_accumulator(tree))
    dtype = max((leaf.dtype for leaf in leaves), key=lambda d: jnp.finfo(d).bits)
    return sum((leaf.sum().astype(dtype) for leaf in leaves), start=jnp.zeros((), dtype))
