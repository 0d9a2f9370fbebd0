r"""Games: what a function is worth when only some parts of its input are known.

A game is a function of a mask, `v(mask) -> scalar`, with one entry of the mask a player. The estimators of this
package take any such function. `game` makes one of a model: players that are off are missing, and missing means
averaged over a background. One loop runs over coalitions and background rows together.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxplain._chunk import accumulator_dtype, check_count, stack, to_accumulator, weighted_sum
from jaxplain._players import Players, num_players, players_of
from jaxplain._tree import Scalar, background_like, describe, explainer

__all__ = ["ConditionalGaussian", "Game", "conditional_gaussian", "game", "num_players"]

Game = Callable[[jax.Array], jax.Array]


class ConditionalGaussian(NamedTuple):
    """A background that fills in missing elements given the present ones; made by `conditional_gaussian`."""

    mean: jax.Array
    covariance: jax.Array
    draws: jax.Array  # (num_samples, num_elements), of the joint distribution, centred, in opposite pairs


def conditional_gaussian(
    key: jax.Array, mean: Any, covariance: Any, *, num_samples: int = 64
) -> ConditionalGaussian:
    r"""A background that draws missing elements from a Gaussian, given those that are present.

    $x_{\bar S} \mid x_S \sim N(\mu_{\bar S} + \Sigma_{\bar S S} \Sigma_{SS}^{-1} (x_S - \mu_S), \cdot)$,
    so that correlated features are replaced by what the present ones make likely. The draws are made once and
    come in pairs around the mean: the game is deterministic, and exact for linear functions.

    Args:
        key: a PRNG key.
        mean: the mean, one number for each element of `x` in the order of its leaves, flattened.
        covariance: the covariance of the elements, square; the blocks of present elements must be invertible.
        num_samples: how many draws stand for a conditional distribution; even.

    Returns:
        A background for `game` and the explainers, in the place of rows.

    Raises:
        ValueError: a shape does not fit, or `num_samples` is odd.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> alike = jnp.array([[1.0, 0.8], [0.8, 1.0]])
        >>> likely = shapley.conditional_gaussian(jax.random.key(0), jnp.zeros(2), alike)
        >>> v = shapley.game(lambda x: x[1], likely)(jnp.array([2.0, 5.0]))
        >>> print(v(jnp.array([1.0, 0.0])).round(3))  # 0.8 * 2: what the first makes likely of the second
        1.6

    When not to trust it: a feature the model ignores gets credit for what it says of the others. Where a present
    element is, to rounding, a combination of other present ones, the game is NaN.

    Source: Aas, Jullum and Loland 2021, section 3.2; draws by Matheron's rule.
    """
    mean, covariance = floats(mean), floats(covariance)
    check_count("num_samples", num_samples, least=2)
    if num_samples % 2:
        raise ValueError(f"num_samples must be even, since draws come in opposite pairs, not {num_samples}")
    if mean.ndim != 1 or covariance.shape != mean.shape * 2:
        raise ValueError(
            f"mean must be a vector and covariance a square matrix of its size, not {describe(mean)} and "
            f"{describe(covariance)}"
        )
    values, vectors = jnp.linalg.eigh(covariance)
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None]
    half = jax.random.normal(key, (num_samples // 2, len(mean)), mean.dtype) @ root.T
    return ConditionalGaussian(mean, covariance, jnp.concatenate([half, -half]))


def game(
    f: Scalar,
    background: Any,
    *,
    groups: Any = None,
    link: Callable[[jax.Array], jax.Array] | None = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Callable[..., Game]:
    r"""The game of an explanation: $v(S) = \ell(\frac{1}{n} \sum_k f(x_S, b_{k,\bar S}))$.

    Elements whose player is in the mask come from `x`, all others from a row of the background, and the mean is
    over rows. A single baseline is a background of one row. Players inside a network are those of the second
    half of a slice: `h, g = jaxplain.slice_at(f, at)`, then `game(g, background_of_z)(h(x), x)`.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis, or a `conditional_gaussian`.
        groups: the player of each element, numbered from 0: a pytree of whole numbers in the shape of `x` or of
            its leading axes. None makes every element a player.
        link: applied to the mean, for instance the log-odds; None leaves it.
        chunk_size: how many evaluations of `f` the estimators run at once (None: all they ask for).
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `make(x, *args) -> v`, and `v(mask)` with a mask of shape (num_players,) returns a scalar in units of
        `link(f)`, in float32 for 16-bit models.

    Raises:
        ValueError: `f` returns something other than a scalar, the background is empty or of another shape, the
            groups do not cover `x`.
        TypeError: `x` has no float leaves, or the groups are not whole numbers.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import shapley
        >>> v = shapley.game(lambda x: x[0] * x[1] + x[2], jnp.zeros((1, 3)))(jnp.array([2.0, 3.0, 1.0]))
        >>> print(v(jnp.array([1.0, 1.0, 0.0])), v(jnp.array([1.0, 0.0, 1.0])))
        6.0 1.0

    When not to trust it: rows of the background mix features of different examples, and where those are
    correlated the model is asked about inputs that do not occur.

    Source: Lundberg and Lee 2017, eqs. (9) to (11); Strumbelj and Kononenko 2014.
    """
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)

    def attribute(fx, x):
        players = players_of(groups, x)
        rows, complete = completions(background, players, x)
        shares = jnp.full(rows, 1 / rows)

        def value(mask):
            check_mask(mask, players.count)
            filled = complete(mask)
            mean = weighted_sum(lambda row: fx(filled(row)), jnp.arange(rows), shares, chunk_size=chunk_size)
            return mean if link is None else link(mean)

        value.at_once = None if chunk_size is None else max(1, chunk_size // rows)
        return value

    return explainer(f, argnums, "game", attribute)


def completions(background: Any, players: Players, x: Any) -> tuple[int, Callable[..., Any]]:
    """(number of rows, `complete(mask)(row)`: `x` with the elements of absent players filled from a row)."""
    if not isinstance(background, ConditionalGaussian):
        references, rows = background_like(background, x)

        def from_rows(mask):
            return lambda row: players.keep(mask, x, jax.tree.map(lambda leaf: leaf[row], references))

        return rows, from_rows
    flat, unflatten = ravel_pytree(to_accumulator(x))
    mean, covariance, draws = (part.astype(flat.dtype) for part in background)
    if mean.shape != flat.shape:
        raise ValueError(f"the background's mean has {mean.size} element(s), the explained argument {flat.size}")
    label, _ = ravel_pytree(jax.tree.map(jnp.asarray, players.labels))

    def from_gaussian(mask):
        present = jnp.asarray(mask, bool)[label].astype(flat.dtype)
        deviation = (flat - mean)[None] - draws
        likely = mean[None] + draws + conditioned(covariance, present, deviation.T).T
        return lambda row: players.keep(mask, x, unflatten(likely[row]))

    return len(draws), from_gaussian


def conditioned(covariance: jax.Array, present: jax.Array, deviation: jax.Array) -> jax.Array:
    r"""$\Sigma_{\cdot S} \Sigma_{SS}^{-1} d_S$ for the columns $d$ of `deviation`; `present` (n,) is 1 on S.

    NaN if the block of S is singular.
    """
    both = present[:, None] * present[None]
    block = covariance * both + jnp.diag(1 - present)
    root = jnp.linalg.cholesky(block)
    # What the elements before it leave unexplained of an element: of a combination of them, rounding alone.
    unexplained = jnp.square(jnp.diag(root)) / jnp.diag(block)
    regular = jnp.nan_to_num(unexplained).min() > 10 * len(block) * jnp.finfo(block.dtype).eps
    inside = jax.scipy.linalg.cho_solve((root, True), present[:, None] * deviation)
    likely = jnp.matmul(covariance, present[:, None] * inside, precision="highest")
    return jnp.where(regular, likely, jnp.nan)


def floats(value: Any) -> jax.Array:
    """`value` as an array of floats, whole numbers in the default type."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(jnp.result_type(float))


def check_mask(mask: Any, count: int) -> None:
    """An error unless the mask has one entry a player."""
    if jnp.shape(mask) != (count,):
        raise ValueError(
            f"the game has {count} player(s), so its mask has shape ({count},), not {jnp.shape(mask)}"
        )


def check_players(count: Any) -> int:
    """`num_players` as an integer of at least 1."""
    return check_count("num_players", count)


def at_once(v: Game, chunk_size: int | None) -> int | None:
    """How many coalitions to evaluate at once: what was asked for, else what the game asks for."""
    return getattr(v, "at_once", None) if chunk_size is None else check_count("chunk_size", chunk_size)


def traced_once(v: Game) -> Game:
    """The game jitted and checked: it gets a mask of floats, and each of several batches reuses one trace."""

    @jax.jit
    def value(mask):
        worth = jnp.asarray(v(mask.astype(jnp.result_type(float))))
        if worth.shape != ():
            raise ValueError(f"a game must return a scalar of shape (), not {describe(worth)}")
        if jnp.issubdtype(worth.dtype, jnp.complexfloating):
            raise TypeError(f"a game must return a real number, not {worth.dtype}")
        if not jnp.issubdtype(worth.dtype, jnp.floating):
            worth = worth.astype(jnp.result_type(float))
        return worth.astype(accumulator_dtype(worth.dtype))

    return value


def evaluate(value: Game, masks: Any, chunk_size: int | None) -> jax.Array:
    """The values (k,) of coalitions (k, M), of which `chunk_size` are evaluated at once."""
    return stack(value, jnp.asarray(masks), chunk_size=chunk_size)
