"""Explanations by Shapley values, in the shape of what is explained."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import cast_like
from jaxplain._estimate import Estimate
from jaxplain._players import players_of
from jaxplain._tree import Scalar, explainer, sampler
from jaxplain.shapley.coalitions import Sampling
from jaxplain.shapley.exact import exact
from jaxplain.shapley.games import Game, evaluate, game, traced_once
from jaxplain.shapley.gaussian import gaussian_process
from jaxplain.shapley.kernel import kernel
from jaxplain.shapley.permutation import permutation

Explainer = Callable[..., Any]
Link = Callable[[jax.Array], jax.Array]


def exact_shap(
    f: Scalar,
    background: Any,
    *,
    groups: Any = None,
    link: Link | None = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Shapley values of the elements of `x`, or of groups of them, by enumeration.

    $\phi_i = \sum_{S \not\ni i} \frac{|S|! (M - |S| - 1)!}{M!} (v(S \cup i) - v(S))$, with $v(S)$ the mean of
    `f` over the background where S is known (see `shapley.game`). Each member of a group gets its share of the
    group's.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis, or a `shapley.conditional_gaussian`.
        groups: the player of each element, whole numbers from 0 in the shape of `x` or of its leading axes; None
            makes each element a player. At most 20 players.
        link: applied to the mean over the background; None leaves it.
        chunk_size: how many evaluations of `f` run at once (None: 4096 coalitions); the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `link(f)`; it sums to
        link(f(x)) - link(mean f(background)).

    Raises:
        ValueError: more than 20 players, `f` returns something other than a scalar, the background is empty or of
            another shape, the groups do not cover `x`.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> print(jxp.exact_shap(f, jnp.zeros((1, 3)))(jnp.array([2.0, 3.0, 1.0])).round(2))
        [3. 3. 1.]

    When not to trust it: rows of the background mix features of different examples, and the model is asked about
    inputs that may not occur. Credit among correlated features is a convention.

    Source: Shapley 1953; Lundberg and Lee 2017.
    """

    def enumerate_all(v: Game, players: int, size: int | None):
        return exact(v, players, chunk_size=size)

    def attribute(fx, x):
        return cast_like(*spread_of(enumerate_all, fx, x, background, groups, link, chunk_size))

    return explainer(f, argnums, "exact_shap", attribute)


def kernel_shap(
    f: Scalar,
    background: Any,
    *,
    budget: int = 2048,
    groups: Any = None,
    link: Link | None = None,
    paired: bool = True,
    sampling: Sampling = "kernel",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Kernel SHAP: Shapley values of the elements of `x`, or of groups, by regression on sampled coalitions.

    $\min_\phi \sum_S w_{|S|} (v(S) - v(\emptyset) - \sum_{i \in S} \phi_i)^2$ subject to
    $\sum_i \phi_i = v(N) - v(\emptyset)$; see `shapley.kernel`.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis, or a `shapley.conditional_gaussian`.
        budget: the number of coalitions evaluated, each on all rows of the background; at least two for each
            player and two more.
        groups: the player of each element, whole numbers from 0 in the shape of `x` or of its leading axes
            (superpixels); None makes each element a player.
        link: applied to the mean over the background; None leaves it.
        paired: whether coalitions are drawn together with their complements.
        sampling: "kernel" or "leverage", as in `shapley.kernel`.
        chunk_size: how many evaluations of `f` run at once (None: all); memory grows with it, the result does not
            change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(key, x, *args) -> Estimate(value, std_error)`, both with the structure of `x`, in units of
        `link(f)`; the value sums to link(f(x)) - link(mean f(background)). The error is NaN when the budget leaves
        out some sizes of coalitions, as one near the least does with many players.

    Raises:
        ValueError: the budget is too small, `f` returns something other than a scalar, the background is empty or
            of another shape, the groups do not cover `x`.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> explain = jxp.kernel_shap(f, jnp.zeros((1, 3)))
        >>> print(explain(jax.random.key(0), jnp.array([2.0, 3.0, 1.0])).value.round(2))
        [3. 3. 1.]

    When not to trust it: while `std_error` is not small beside the differences you read; and as for `exact_shap`.

    Source: Lundberg and Lee 2017; Covert and Lee 2021; Musco and Witter 2025.
    """

    def estimator(v, players, size):
        return kernel(v, players, budget=budget, paired=paired, sampling=sampling, chunk_size=size)

    return sampled(f, "kernel_shap", estimator, background, groups, link, chunk_size, argnums)


def permutation_shap(
    f: Scalar,
    background: Any,
    *,
    num_permutations: int = 32,
    groups: Any = None,
    link: Link | None = None,
    antithetic: bool = True,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Shapley values of the elements of `x`, or of groups, by sampled orders of arrival.

    $\phi_i = E_\pi [v(P_i^\pi \cup i) - v(P_i^\pi)]$, P the players before i; see `shapley.permutation`.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis, or a `shapley.conditional_gaussian`.
        num_permutations: the number of orders, reversed ones included; each takes M - 1 coalitions.
        groups: the player of each element, whole numbers from 0 in the shape of `x` or of its leading axes; None
            makes each element a player.
        link: applied to the mean over the background; None leaves it.
        antithetic: whether each order is followed by its reverse.
        chunk_size: how many evaluations of `f` run at once (None: all); memory grows with it, the result does not
            change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(key, x, *args) -> Estimate(value, std_error)`, both with the structure of `x`, in units of
        `link(f)`; the value sums to link(f(x)) - link(mean f(background)).

    Raises:
        ValueError: `num_permutations` is below 1, or odd with `antithetic`; `f` returns something other than a
            scalar, the background is empty or of another shape, the groups do not cover `x`.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> explain = jxp.permutation_shap(f, jnp.zeros((1, 3)), num_permutations=2)
        >>> explain(jax.random.key(0), jnp.array([2.0, 3.0, 1.0])).value
        Array([3., 3., 1.], dtype=float32)

    When not to trust it: while `std_error` is not small beside the differences you read; and as for `exact_shap`.

    Source: Castro, Gomez and Tejada 2009; Strumbelj and Kononenko 2014.
    """

    def estimator(v, players, size):
        return permutation(v, players, num_permutations=num_permutations, antithetic=antithetic, chunk_size=size)

    return sampled(f, "permutation_shap", estimator, background, groups, link, chunk_size, argnums)


def gaussian_process_shap(
    f: Scalar,
    background: Any,
    *,
    budget: int = 512,
    groups: Any = None,
    link: Link | None = None,
    sampling: Sampling = "leverage",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Shapley values of the elements of `x`, or of groups, from a Gaussian process fitted to sampled coalitions.

    $\phi_i = \sum_{A \ni i} 2 \hat g_A / |A|$, $\hat g$ the fitted coefficients of odd products; see
    `shapley.gaussian_process`. It needs the fewest evaluations where interactions matter.

    Args:
        f: `f(x, *args)` returns a float scalar.
        background: references, a pytree like `x` with a leading axis, or a `shapley.conditional_gaussian`.
        budget: the number of coalitions evaluated, each on all rows of the background; at least two for each
            player and two more, at most 8192.
        groups: the player of each element, whole numbers from 0 in the shape of `x` or of its leading axes
            (superpixels); None makes each element a player.
        link: applied to the mean over the background; None leaves it.
        sampling: "kernel" or "leverage", as in `shapley.kernel`.
        chunk_size: how many evaluations of `f` run at once (None: all); memory grows with it, the result does not
            change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(key, x, *args) -> Estimate(value, std_error)`, both with the structure of `x`, in units of
        `link(f)`; the value sums to link(f(x)) - link(mean f(background)).

    Raises:
        ValueError: the budget is too small or too large, `f` returns something other than a scalar, the background
            is empty or of another shape, the groups do not cover `x`.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1] + x[2]
        >>> explain = jxp.gaussian_process_shap(f, jnp.zeros((1, 3)))
        >>> print(explain(jax.random.key(0), jnp.array([2.0, 3.0, 1.0])).value.round(2))
        [3. 3. 1.]

    When not to trust it: the standard error believes the prior, in which interactions of many players are small;
    and as for `exact_shap`.

    Source: see `shapley.gaussian_process`.
    """

    def estimator(v, players, size):
        return gaussian_process(v, players, budget=budget, sampling=sampling, chunk_size=size)

    return sampled(f, "gaussian_process_shap", estimator, background, groups, link, chunk_size, argnums)


def qii(
    f: Scalar,
    background: Any,
    *,
    kind: Literal["unary", "marginal", "shapley"] = "unary",
    given: Any = None,
    groups: Any = None,
    link: Link | None = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
) -> Explainer:
    r"""Quantitative input influence: how a quantity changes when inputs are replaced by others at random.

    $\iota(S) = v(N) - v(N \setminus S)$, where the elements of S are replaced by those of background rows.
    "unary": $\iota(i)$. "marginal": $\iota(S \cup i) - \iota(S)$ for the set S `given`, and 0 for its members.
    "shapley": the Shapley values of $\iota$, which are those of v.

    Args:
        f: `f(x, *args)` returns a float scalar, the quantity of interest.
        background: references, a pytree like `x` with a leading axis, or a `shapley.conditional_gaussian`.
        kind: "unary", "marginal" or "shapley".
        given: for "marginal", the players (num_players,) that are replaced already, true where they are.
        groups: the player of each element, whole numbers from 0 in the shape of `x` or of its leading axes; None
            makes each element a player. "shapley" takes at most 20 players.
        link: applied to the mean over the background; None leaves it.
        chunk_size: how many evaluations of `f` run at once (None: all); the result does not change.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`, in units of `link(f)`; each member of a group gets its
        share of the group's influence.

    Raises:
        ValueError: the kind is unknown, `given` is missing, superfluous or of another shape, and as `exact_shap`.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jnp.maximum(x[0], x[1])
        >>> jxp.qii(f, jnp.zeros((1, 2)))(jnp.array([1.0, 1.0]))  # neither alone changes anything
        Array([0., 0.], dtype=float32)
        >>> jxp.qii(f, jnp.zeros((1, 2)), kind="shapley")(jnp.array([1.0, 1.0]))
        Array([0.5, 0.5], dtype=float32)

    When not to trust it: unary influence is blind to inputs that can stand for each other, as above.

    Source: Datta, Sen and Zick 2016, definitions 2 to 5.
    """
    if kind not in ("unary", "marginal", "shapley"):
        raise ValueError(f"kind must be 'unary', 'marginal' or 'shapley', not {kind!r}")
    if (given is None) == (kind == "marginal"):
        raise ValueError("given= names the players that are replaced already: for kind='marginal', and only there")

    def influence(v: Game, players: int, size: int | None):
        if kind == "shapley":
            return exact(v, players, chunk_size=size)
        replaced = np.zeros(players, bool) if given is None else jnp.asarray(given, bool)
        if replaced.shape != (players,):
            raise ValueError(f"given has shape {replaced.shape}, but there are {players} players")
        kept = ~jnp.asarray(replaced)
        without = kept[None] & ~jnp.eye(players, dtype=bool)
        values = evaluate(traced_once(v), jnp.concatenate([kept[None], without]), size)
        return values[0] - values[1:]

    def attribute(fx, x):
        return cast_like(*spread_of(influence, fx, x, background, groups, link, chunk_size))

    return explainer(f, argnums, "qii", attribute)


def sampled(
    f: Scalar,
    method: str,
    estimator: Callable[[Game, int, int | None], Callable[[jax.Array], Estimate]],
    background: Any,
    groups: Any,
    link: Link | None,
    chunk_size: int | None,
    argnums: int | Sequence[int],
) -> Explainer:
    """The explainer of an estimator that needs a key."""

    def attribute(key, fx, x):
        def run(v, players, size):
            return estimator(v, players, size)(key)

        estimate, like = spread_of(run, fx, x, background, groups, link, chunk_size)
        return Estimate(*(cast_like(part, like) for part in estimate))

    return sampler(f, argnums, method, attribute)


def spread_of(run, fx, x, background, groups, link, chunk_size):
    """(the result of `run(v, num_players, coalitions at once)` spread over the elements of `x`, `x`)."""
    v = game(fx, background, groups=groups, link=link, chunk_size=chunk_size)(x)
    players = players_of(groups, x)
    found = run(v, players.count, v.at_once)
    if isinstance(found, Estimate):
        return Estimate(*(players.spread(part, x) for part in found)), x
    return players.spread(found, x), x
