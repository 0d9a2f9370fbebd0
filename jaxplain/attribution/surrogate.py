"""LIME: a linear model of `f` near one input, fitted to the outputs for random perturbations of it.

A perturbation gives rows, what the linear model sees, and for each row an input, what `f` sees: for masks, which
parts are kept, and the input with the others replaced; for tables (`tabular`), standardised values or "in the same
quartile". The kernel says how much a row counts, by its distance from the row of `x` itself.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxplain._chunk import accumulator_dtype, cast_like, check_count, stack, to_accumulator
from jaxplain._players import Players, players_of
from jaxplain._tree import Scalar, reference_like, sampler
from jaxplain.attribution.surrogate_fit import Selection, Surrogate, check_selection, fit

Explainer = Callable[..., Surrogate]
Distance = Literal["cosine", "euclidean"]
Sampling = Literal["kernel", "uniform"]


class Kernel(NamedTuple):
    """How near a row is to that of `x`: sqrt(exp(-d^2 / width^2)), d the cosine or the Euclidean distance."""

    distance: Distance
    width: jax.Array

    def __call__(self, rows: jax.Array, origin: jax.Array) -> jax.Array:
        """(n,): the weights of rows (n, M)."""
        if self.distance == "euclidean":
            return self.at(jnp.square(rows - origin[None]).sum(1))
        lengths = jnp.sqrt(jnp.square(rows).sum(1) * jnp.square(origin).sum())
        cosine = jnp.where(lengths > 0, (rows * origin[None]).sum(1) / jnp.where(lengths > 0, lengths, 1), 0)
        return self.at(jnp.square(1 - cosine))

    def at(self, squared_distance: jax.Array) -> jax.Array:
        """The weight at a distance."""
        return jnp.exp(-squared_distance / (2 * jnp.square(self.width)))


class Perturbation(Protocol):
    """Rows near an input, and the inputs that they stand for.

    Attributes:
        origin: the row of `x` itself, (M,).
        default: the distance that suits the rows.
    """

    origin: jax.Array
    default: Distance

    def rows(self, key: jax.Array, num: int) -> jax.Array:
        """(num, M): independent draws."""
        ...

    def near(self, key: jax.Array, num: int, kernel: Kernel) -> jax.Array:
        """(num, M): draws from the same distribution times the kernel, each two in a row antithetic."""
        ...

    def point(self, row: jax.Array, key: jax.Array) -> Any:
        """An input that a row stands for."""
        ...

    def spread(self, weights: jax.Array) -> Any:
        """The weights of the columns in the form of `x`."""
        ...


def lime(
    f: Scalar,
    *,
    groups: Any = None,
    perturb: Any = 0.0,
    num_samples: int = 1000,
    sampling: Sampling = "kernel",
    sizes: Literal["binomial", "uniform"] = "binomial",
    distance: Distance | None = None,
    kernel_width: Any = None,
    ridge: Any = 1.0,
    num_features: int | None = None,
    selection: Selection = "auto",
    chunk_size: int | None = None,
    argnums: int = 0,
) -> Explainer:
    r"""LIME: the weights of a linear model fitted to `f` near `x`, which parts are on or off being its features.

    Minimises $\sum_k \pi(z_k) (f(x_{z_k}) - a - b \cdot z_k)^2 + \lambda |b|^2$ over perturbations $x_z$ of the
    input, with the kernel $\pi(z) = \sqrt{\exp(-d^2 / w^2)}$. `sampling="uniform"` draws the $z_k$ without regard
    to the kernel and weights them by it, the first being `x` itself: LIME as published. `"kernel"` draws them from
    their distribution times the kernel, in antithetic pairs, and weights all alike: in the limit of many samples
    the same regression (its penalty counts 1 / E[kernel] times less), with less noise; none is spent where the
    kernel is small.

    Args:
        f: `f(x, *args)` returns a float scalar.
        groups: numbers from 0 to M - 1 that say which part an element belongs to: a pytree like `x` of integer
            arrays in the shape of each leaf or of its leading axes, as from `superpixels(image)` or
            `words(text).groups`. None: every element for itself.
        perturb: what stands in the place of a part that is off: a number, an array, a pytree like `x`, or a
            callable `x -> baseline`, such as `mean_within(groups)`; or the rows of a table, `tabular(train_x)`,
            without groups.
        num_samples: the number of evaluations; more than the M + 1 unknowns.
        sampling: `"kernel"` or `"uniform"`, see above.
        sizes: how many parts are on, before the kernel: `"binomial"`: each with chance 1/2, as in lime's images;
            `"uniform"`: every number from 0 to M equally often, as in lime's texts. Masks only.
        distance: `"cosine"` or `"euclidean"`, between rows; None: cosine for masks, Euclidean for tables.
        kernel_width: w; None: 0.25 for the cosine distance, 0.75 sqrt(M) for the Euclidean; may be traced.
        ridge: the penalty; may be traced.
        num_features: how many features to keep (None: all).
        selection: how to choose them, see `fit_surrogate`.
        chunk_size: how many evaluations run at once (None: all); the result does not depend on it. The rows, (n,
            M) numbers, are all kept for the fit.
        argnums: which positional argument to explain.

    Returns:
        `explain(key, x, *args) -> Surrogate(value, intercept, score, std_error)`, value and std_error with the
        structure of `x`, each element with its part's weight over the part's size, so that an element sum and the
        intercept give the linear model's value at `x`; with `tabular`, one weight a column.

    Raises:
        ValueError: `f` returns something other than a scalar; `num_samples` is too small; the groups do not cover
            `x`; a name, the width or the penalty is out of range; `num_features` is more than there are; `x` is
            empty.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: 3 * x[0] - x[1] + 2 * x[2] + 0.1 * x[0] * x[1]
        >>> value, intercept, score, std_error = jxp.lime(f)(jax.random.key(0), jnp.ones(3))
        >>> print(value.round(), score.round(2))
        [ 3. -1.  2.] 1.0

    When not to trust it: look at `score` first: if it is low, `f` is not linear near here, and the weights depend
    on the kernel's width more than on `f`. A narrow kernel with a penalty shrinks everything towards 0. Parts that
    are off look like `perturb`, which the model may never have seen.

    Source: Ribeiro et al. 2016, algorithm 1; drawing from the kernel: Tan et al. 2023 (GLIME), section 4.
    """
    check_count("num_samples", num_samples)
    check_selection(num_features, selection)
    for name, value, known in (
        ("sampling", sampling, ("kernel", "uniform")),
        ("sizes", sizes, ("binomial", "uniform")),
        ("distance", distance, ("cosine", "euclidean", None)),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")
    if isinstance(kernel_width, int | float) and not kernel_width > 0:
        raise ValueError(f"kernel_width must be positive, not {kernel_width}")

    def attribute(key, fx, x):
        if hasattr(perturb, "around"):  # a table
            if groups is not None:
                raise ValueError("a table's columns are its parts: leave groups out, or perturb with a baseline")
            source: Perturbation = perturb.around(x)
        else:
            source = Masks(players_of(groups, x), x, reference_like("perturb", perturb, x), sizes)
        count = len(source.origin)
        if num_samples < count + 2:
            raise ValueError(
                f"num_samples={num_samples} is too small for {count} parts: the linear model has {count + 1} "
                f"unknowns; draw more, or make fewer parts with groups="
            )
        metric = distance or source.default
        width = kernel_width
        if width is None:
            width = 0.25 if metric == "cosine" else 0.75 * count**0.5
        kernel = Kernel(metric, jnp.asarray(width, source.origin.dtype))
        row_key, point_key = jax.random.split(key)
        if sampling == "kernel":
            rows = source.near(row_key, num_samples, kernel)
            weights = jnp.ones_like(rows[:, 0])
        else:
            rows = jnp.concatenate([source.origin[None], source.rows(row_key, num_samples - 1)])
            weights = kernel(rows, source.origin)

        def output(drawn):
            row, index = drawn
            point = source.point(row, jax.random.fold_in(point_key, index))
            if sampling == "uniform":  # the first is x itself
                point = jax.tree.map(lambda new, old: jnp.where(index == 0, old, new), point, x)
            return fx(point)

        indices = jnp.arange(num_samples, dtype=jnp.uint32)
        outputs = stack(output, (rows, indices), chunk_size=chunk_size)
        drawn: Any = {"cluster": 2} if sampling == "kernel" else {"fixed": 1}
        options: Any = {"ridge": ridge, "num_features": num_features, "selection": selection}
        fitted = fit(rows, outputs, weights, **options, **drawn)
        value, error = (cast_like(source.spread(v), x) for v in (fitted.value, fitted.std_error))
        intercept, score = (v.astype(outputs.dtype) for v in (fitted.intercept, fitted.score))
        return Surrogate(value, intercept, score, error)

    return sampler(f, argnums, "lime", attribute)


class Masks:
    """Parts kept or replaced; a row has 1 for a part that is kept."""

    default: Distance = "cosine"

    def __init__(self, players: Players, x: Any, absent: Any, sizes: str):
        self.players, self.x, self.absent, self.sizes = players, x, absent, sizes
        # In the widest type of x, and varying over a mesh as it does.
        leaves = jax.tree.leaves(to_accumulator(x))
        first = max(leaves, key=lambda leaf: jnp.finfo(leaf.dtype).bits)
        self.origin = jnp.ones(players.count, first.dtype)

    def log_sizes(self) -> jax.Array:
        """(M + 1,): the logarithm of the chance of each number of parts kept, up to a constant."""
        total = self.players.count
        kept = jnp.arange(total + 1, dtype=self.origin.dtype)
        if self.sizes == "uniform":
            return jnp.zeros_like(kept)
        return -jax.lax.lgamma(kept + 1) - jax.lax.lgamma(total - kept + 1)

    def rows(self, key: jax.Array, num: int) -> jax.Array:
        """The size first, then which: all of a size equally often."""
        return self.of_sizes(key, num, self.log_sizes(), antithetic=False)

    def near(self, key: jax.Array, num: int, kernel: Kernel) -> jax.Array:
        """A kernel of masks knows their size alone, so it tilts the chances of the sizes."""
        total = self.players.count
        kept = jnp.arange(total + 1)
        smallest = (jnp.arange(total)[None] < kept[:, None]).astype(self.origin.dtype)
        tilt = jnp.log(jnp.maximum(kernel(smallest, self.origin), jnp.finfo(self.origin.dtype).tiny))
        return self.of_sizes(key, num, self.log_sizes() + tilt, antithetic=True)

    def of_sizes(self, key: jax.Array, num: int, log_sizes: jax.Array, *, antithetic: bool) -> jax.Array:
        """Antithetic: of two masks, one is large where the other is small, and they keep different parts."""
        total, draws = self.players.count, -(-num // 2) if antithetic else num
        size_key, order_key = jax.random.split(key)
        dtype = self.origin.dtype
        chances = jnp.cumsum(jax.nn.softmax(log_sizes))
        u = jax.random.uniform(size_key, (draws,), dtype)

        def size(u):
            return jnp.minimum(jnp.searchsorted(chances, u, side="right"), total).astype(jnp.int32)

        order = jnp.argsort(jax.random.uniform(order_key, (draws, total), dtype), axis=1)
        rank = jnp.argsort(order, axis=1).astype(jnp.int32)
        one = rank < size(u)[:, None]
        if not antithetic:
            return one.astype(dtype)
        other = rank >= total - size(1 - u)[:, None]
        return jnp.stack([one, other], 1).reshape(-1, total)[:num].astype(dtype)

    def point(self, row: jax.Array, key: jax.Array) -> Any:
        """The input with the parts that are off replaced."""
        del key
        return self.players.keep(row > 0, self.x, self.absent)

    def spread(self, weights: jax.Array) -> Any:
        """Each element with its part's weight over the part's size."""
        return self.players.spread(weights.astype(accumulator_dtype(weights.dtype)), self.x)
