"""The one place that maps over a sampled axis in chunks.

A method evaluates a function at n points: nodes of a path, noisy copies, masks. `chunk_size` of them run at
once under `vmap`, the chunks one after another under `scan`, and what is wanted of them is reduced on the way,
so that memory does not grow with n. The remainder chunk (n mod chunk_size points) runs first and starts the
reduction: it costs no padded evaluations, and the accumulator then varies over a mesh as the data do, which
zeros would not.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

T = TypeVar("T")


def accumulator_dtype(dtype: Any) -> Any:
    """The type in which sums over samples are kept: float32 for 16-bit floats, else the type itself."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def to_accumulator(tree: T) -> T:
    """Cast every leaf to its accumulator type."""
    return jax.tree.map(lambda leaf: leaf.astype(accumulator_dtype(leaf.dtype)), tree)


def cast_like(tree: T, like: Any) -> T:
    """Cast every leaf to the type of the same leaf of `like`."""
    return jax.tree.map(lambda leaf, model: leaf.astype(model.dtype), tree, like)


def in_accumulator(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[[T], T]]:
    """(`function` with its values in accumulator types, the cast back to the types it really returns).

    The types are noted while `function` is traced: asking `jax.eval_shape` would trace it a second time.
    """
    types = []

    def widened(*args):
        values = jax.tree.map(jnp.asarray, function(*args))
        types.append(jax.tree.map(lambda leaf: leaf.dtype, values))
        return to_accumulator(values)

    return widened, lambda tree: jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), tree, types[0])


def check_count(name: str, value: Any, least: int = 1) -> int:
    """`value` if it is a whole number of at least `least`, else an error that names it."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
    return value.__index__()


def fold(run: Callable[[Any], T], combine: Callable[[T, T], T], points: Any, *, chunk_size: int | None) -> T:
    """Run `run` on chunks of `points` (leaves with a common leading axis), merging the results pairwise.

    `run` gets a chunk with a leading axis and is traced once a chunk length; what it calls should be jitted if
    tracing it twice is dear (`per_point` does that).
    """
    total = len(jax.tree.leaves(points)[0])
    if chunk_size is None or check_count("chunk_size", chunk_size) >= total:
        return run(points)
    first = total % chunk_size or chunk_size
    head = jax.tree.map(lambda leaf: leaf[:first], points)
    tail = jax.tree.map(lambda leaf: leaf[first:].reshape(-1, chunk_size, *leaf.shape[1:]), points)
    result = run(head)
    if first == total:
        return result
    return jax.lax.scan(lambda total, chunk: (combine(total, run(chunk)), None), result, tail)[0]


def per_point(function: Callable[[Any], T], chunk_size: int | None) -> Callable[[Any], T]:
    """`function` under `vmap`; when in chunks, jitted first, so that chunks of two lengths trace it once."""
    return jax.vmap(function if chunk_size is None else jax.jit(function))


def weighted_sum(function: Callable[[Any], T], points: Any, weights: jax.Array, *, chunk_size: int | None) -> T:
    """Sum over points of `weights[i] * function(points[i])`, in the accumulator type."""
    each = per_point(function, chunk_size)

    def run(chunk):
        some, share = chunk

        def contract(values):
            values = values.astype(accumulator_dtype(values.dtype))
            return jnp.tensordot(share.astype(values.dtype), values, 1, precision="highest")

        return jax.tree.map(contract, each(some))

    def add(a, b):
        return jax.tree.map(jnp.add, a, b)

    return fold(run, add, (points, weights), chunk_size=chunk_size)


def moments(function: Callable[[Any], T], points: Any, *, chunk_size: int | None) -> tuple[T, T]:
    """(mean, variance) over points of `function`, the variance unbiased (NaN for a single point).

    Chunks are merged by the update of Chan, Golub and LeVeque (1979), which never subtracts large sums:
    for counts m and n, M2 = M2_m + M2_n + (mean_n - mean_m)^2 m n / (m + n).
    """
    each = per_point(function, chunk_size)
    total = len(jax.tree.leaves(points)[0])

    def run(chunk):
        values = to_accumulator(each(chunk))
        mean = jax.tree.map(lambda v: v.mean(0), values)
        scatter = jax.tree.map(lambda v, m: jnp.square(v - m[None]).sum(0), values, mean)
        return jnp.asarray(len(jax.tree.leaves(chunk)[0]), jnp.int32), mean, scatter

    def combine(a, b):
        (m, mean_a, scatter_a), (n, mean_b, scatter_b) = a, b

        def share(x):  # of the second chunk in both
            return n.astype(x.dtype) / (m + n).astype(x.dtype)

        def merge_scatter(x, y, sx, sy):
            return sx + sy + jnp.square(y - x) * (m.astype(x.dtype) * share(x))

        mean = jax.tree.map(lambda x, y: x + (y - x) * share(x), mean_a, mean_b)
        scatter = jax.tree.map(merge_scatter, mean_a, mean_b, scatter_a, scatter_b)
        return m + n, mean, scatter

    _, mean, scatter = fold(run, combine, points, chunk_size=chunk_size)
    # 0 / 0 is NaN, and says what is known of the spread of one sample.
    return mean, jax.tree.map(lambda s: s / (total - 1) if total > 1 else jnp.full_like(s, jnp.nan), scatter)


def stack(function: Callable[[Any], T], points: Any, *, chunk_size: int | None) -> T:
    """All values of `function` over the points, stacked on a leading axis."""
    total = len(jax.tree.leaves(points)[0])
    if chunk_size is None or check_count("chunk_size", chunk_size) >= total:
        return jax.vmap(function)(points)
    return jax.lax.map(jax.jit(function), points, batch_size=chunk_size)
