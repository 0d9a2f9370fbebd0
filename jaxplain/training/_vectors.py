"""Parameter pytrees as vectors, and the checks that loss functions, parameters and data share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import accumulator_dtype
from jaxplain._tree import check_scalar, describe

Tree = Any
Loss = Callable[..., jax.Array]
Predicate = Callable[[str], bool]


def dot(a: Tree, b: Tree) -> jax.Array:
    """The inner product of two trees, in the widest accumulator type among their leaves."""
    # Reductions and not vdot, which fails on some meshes.
    parts = [
        jnp.sum(x.astype(accumulator_dtype(x.dtype)) * y.astype(accumulator_dtype(x.dtype)))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    ]
    dtype = max((part.dtype for part in parts), key=lambda d: jnp.finfo(d).bits)
    return sum((part.astype(dtype) for part in parts), jnp.zeros((), dtype))


def norm(a: Tree) -> jax.Array:
    """The Euclidean norm of a tree."""
    return jnp.sqrt(dot(a, a))


def add(a: Tree, b: Tree, scale: Any = 1.0) -> Tree:
    """The sum a + scale b, in the types of `a`."""
    return jax.tree.map(lambda x, y: x + scaled(y, scale).astype(x.dtype), a, b)


def times(a: Tree, scale: Any) -> Tree:
    """Scale a tree, its types kept."""
    return jax.tree.map(lambda x: scaled(x, scale), a)


def scaled(x: jax.Array, scale: Any) -> jax.Array:
    """An array times a number, its type kept."""
    return x * jnp.asarray(scale).astype(x.dtype)


def gaussian(key: jax.Array, like: Tree) -> Tree:
    """A tree of independent normal numbers, varying over a mesh as `like` does."""
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    return _jax.vary_together(jax.tree.unflatten(structure, drawn), like)


def gram(a: Tree, b: Tree) -> jax.Array:
    """All inner products of two stacks of trees: (k, l) for k and l of them."""

    def contract(x, y):
        dtype = accumulator_dtype(x.dtype)
        rows, columns = (v.astype(dtype).reshape(v.shape[0], -1) for v in (x, y))
        return jnp.matmul(rows, columns.T, precision="highest")

    parts = [contract(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return sum(parts[1:], parts[0])


class Split(NamedTuple):
    """Parameters split into those that count and the rest: `merge(free)` puts them together again."""

    free: Tree  # the chosen leaves, None elsewhere
    merge: Callable[[Tree], Tree]


def split(params: Tree, only: Predicate | None = None) -> Split:
    """The float leaves whose path `only` accepts, apart from the others.

    A path is the words to a leaf joined by `/`, as in `block1/conv/kernel`.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in paths]
    chosen = [only is None or bool(only(name)) for name in names]
    if not any(chosen):
        raise ValueError(f"only= accepts none of the {len(names)} parameters; their paths are {near_list(names)}")
    leaves = []
    for name, (_, leaf), on in zip(names, paths, chosen, strict=True):
        if on and not is_float_array(leaf):
            raise TypeError(
                f"parameter {name or '(the only one)'} is {describe(leaf)}, but curvature needs floats; leave it "
                "out with only=lambda path: ..., or keep it outside of params"
            )
        leaves.append(jnp.asarray(leaf) if on else leaf)

    def merge(free: Tree) -> Tree:
        given = structure.flatten_up_to(free)
        merged = [new if on else old for new, old, on in zip(given, leaves, chosen, strict=True)]
        return jax.tree.unflatten(structure, merged)

    free = jax.tree.unflatten(structure, [leaf if on else None for leaf, on in zip(leaves, chosen, strict=True)])
    return Split(free, merge)


def is_float_array(leaf: Any) -> bool:
    """Whether a leaf is a float array, or a Python float."""
    return isinstance(leaf, float) or (
        isinstance(leaf, jax.Array | np.ndarray | np.generic) and jnp.issubdtype(leaf.dtype, jnp.floating)
    )


def near_list(names: list[str], most: int = 8) -> str:
    """The first names of a list."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def checked(loss_fn: Loss, name: str = "loss_fn") -> Loss:
    """`loss_fn` with an error for what is no float scalar."""

    def loss(params: Tree, example: Tree) -> jax.Array:
        try:
            return check_scalar(loss_fn(params, example))
        except (TypeError, ValueError) as error:
            if str(error).startswith("f must"):
                hint = "(a model in training mode returns new statistics beside its loss: freeze them)"
                reason = str(error).split(";", 1)[0].removeprefix("f must return")
                raise type(error)(
                    f"{name}(params, example) is the loss of one example and must return{reason} {hint}"
                ) from error
            raise

    return loss


def losses(loss: Loss, params: Tree, data: Tree) -> jax.Array:
    """The loss of every example, in its accumulator type."""
    values = jax.vmap(loss, (None, 0))(params, data)
    return values.astype(accumulator_dtype(values.dtype))
