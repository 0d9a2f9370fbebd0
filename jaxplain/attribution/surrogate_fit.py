"""The linear model that LIME fits, and which features it keeps: deterministic, from rows, outputs and weights.

With rows z_i, outputs y_i, weights w_i, and bars for weighted means, everything follows from the moments
G = sum w (z - zbar)(z - zbar)' and c = sum w (z - zbar)(y - ybar): the ridge is b = (G + ridge I)^-1 c, forward
selection sweeps the chosen features out of both, and the lasso path is walked from knot to knot (Efron et al.
2004). The choice of features is a constant to derivatives.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain._chunk import accumulator_dtype, check_count

Selection = Literal["auto", "forward", "highest_weights", "lasso_path"]
SELECTIONS = ("auto", "forward", "highest_weights", "lasso_path")


class Surrogate(NamedTuple):
    """A linear model that stands in for `f` near one input: f is about intercept + sum of weights times features.

    Attributes:
        value: its weights, in the form of the explained argument (`fit_surrogate`: one a column).
        intercept: its value with all features at 0: for masks, with everything away.
        score: R^2, the share of the weighted variance of the outputs that it explains; NaN if they do not vary.
        std_error: of `value`, over draws of the rows; NaN for features that `num_features` left out, since the
            error of having left them out is not known.
    """

    value: Any
    intercept: jax.Array
    score: jax.Array
    std_error: Any


def fit_surrogate(
    masks: Any,
    outputs: Any,
    weights: Any,
    *,
    ridge: Any = 1.0,
    num_features: int | None = None,
    selection: Selection = "auto",
) -> Surrogate:
    r"""The weighted ridge regression of outputs on rows, with an intercept that is not penalised.

    It minimises $\sum_i w_i (y_i - a - b \cdot z_i)^2 + \lambda |b|^2$, the objective of scikit-learn's `Ridge`.
    Standard errors are those of a linear fit to a function that is not linear (White's sandwich in its HC2 form):
    the rows are taken for independent draws.

    Args:
        masks: rows, (n, M): what is on (1) and off (0), or any other features.
        outputs: (n,), the model's values.
        weights: (n,), at least 0.
        ridge: the penalty, in units of the weights; may be traced. With 0, columns that cannot be told apart give
            NaN.
        num_features: how many features to keep, the others getting 0 (None: all); the ridge is then fitted anew.
        selection: how to choose them. `"forward"`: one after another the feature that raises R^2 most;
            `"highest_weights"`: the largest |weight x first row's entry| of a fit of all; `"lasso_path"`: the last
            knot of the lasso's path with at most so many; `"auto"`: forward up to 6, else the highest weights, as
            lime does.

    Returns:
        `Surrogate(value (M,), intercept, score, std_error (M,))`. NaN everywhere if an output is NaN or infinite,
        a weight is negative, or the system is singular.

    Raises:
        ValueError: shapes do not agree, there is no row, `num_features` is not between 1 and M, the selection is
            unknown.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> masks = jnp.array([[1, 1], [1, 0], [0, 1], [0, 0]])
        >>> fit = jxp.fit_surrogate(masks, 1 + masks @ jnp.array([2.0, -1.0]), jnp.ones(4), ridge=0.0)
        >>> print(fit.value, fit.intercept, fit.score)
        [ 2. -1.] 1.0 1.0

    When not to trust it: a low score says that no linear model fits; a large penalty beside the sum of the weights
    says nothing of `f`.

    Source: Ribeiro et al. 2016, algorithm 1; White 1980 and MacKinnon and White 1985 (HC2).
    """
    return fit(masks, outputs, weights, ridge=ridge, num_features=num_features, selection=selection)


def fit(
    rows: Any,
    outputs: Any,
    weights: Any,
    *,
    ridge: Any,
    num_features: int | None = None,
    selection: Selection = "auto",
    cluster: int = 1,
    fixed: int = 0,
) -> Surrogate:
    """`fit_surrogate` of rows drawn `cluster` at a time, the first `fixed` not drawn."""
    y = jnp.asarray(outputs)
    y = y.astype(accumulator_dtype(y.dtype)) if jnp.issubdtype(y.dtype, jnp.floating) else y.astype(float)
    z, w = jnp.asarray(rows).astype(y.dtype), jnp.asarray(weights).astype(y.dtype)
    if z.ndim != 2 or y.shape != z.shape[:1] or w.shape != y.shape or 0 in z.shape:
        raise ValueError(
            f"rows (n, M), outputs (n,) and weights (n,) are wanted, not {z.shape}, {y.shape}, {w.shape}"
        )
    if isinstance(ridge, int | float) and not ridge >= 0:
        raise ValueError(f"ridge is a penalty and cannot be {ridge}")
    check_selection(num_features, selection)
    count = z.shape[1]
    if num_features is not None and num_features > count:
        raise ValueError(f"num_features={num_features}, but there are only {count} features")

    share = w / w.sum()
    offset = y[0]  # taken off first, so that a constant model leaves exact zeros
    zbar, ybar = dot(share, z), dot(share, y - offset)
    centred, rest = z - zbar[None], y - offset - ybar
    weighted = w[:, None] * centred
    gram, moment = dot(weighted.T, centred), dot(weighted.T, rest)
    chosen = jnp.ones(count, bool)
    if num_features is not None:
        fixed_moments = jax.lax.stop_gradient((gram, moment, z[0]))
        chosen = select(*fixed_moments, num_features, selection)

    factor, regular = ridge_factor(gram, chosen, jnp.asarray(ridge, y.dtype))
    inverse = jax.scipy.linalg.cho_solve((factor, True), jnp.diag(chosen.astype(y.dtype)))
    slopes = dot(inverse, moment)
    residual = rest - dot(centred, slopes)
    score = 1 - (w * jnp.square(residual)).sum() / (w * jnp.square(rest)).sum()

    # Each draw moves the weights by inverse @ pull; the leverage says how far the fit has followed its own row.
    leverage = share + (weighted * dot(centred, inverse)).sum(1)
    own = jnp.sqrt(jnp.maximum(1 - leverage, jnp.finfo(y.dtype).eps))
    pull = (weighted * (residual / own)[:, None])[fixed:]
    pull = jnp.pad(pull, ((0, -len(pull) % cluster), (0, 0))).reshape(-1, cluster, count).sum(1)
    pull = dot(pull - pull.mean(0, keepdims=True), inverse)
    error = jnp.sqrt(jnp.square(pull).sum(0))

    valid = jnp.isfinite(y).all() & (w >= 0).all() & regular
    nan = jnp.asarray(jnp.nan, y.dtype)
    return Surrogate(
        jnp.where(valid, slopes, nan),
        jnp.where(valid, offset + ybar - dot(zbar, slopes), nan),
        jnp.where(valid, score, nan),
        jnp.where(valid & chosen, error, nan),
    )


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """The product in full precision, on every device."""
    return jnp.matmul(a, b, precision="highest")


def ridge_factor(gram: jax.Array, chosen: jax.Array, ridge: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(the Cholesky factor of the penalised matrix of the chosen features, whether it can be trusted).

    A pivot over its diagonal entry is what the features before it leave unexplained of a feature: near rounding,
    the feature is a combination of those.
    """
    both = chosen[:, None] & chosen[None]
    matrix = jnp.where(both, gram, 0) + jnp.diag(jnp.where(chosen, ridge, 1))
    factor = jnp.linalg.cholesky(matrix)
    unexplained = jnp.square(jnp.diag(factor)) / jnp.diag(matrix)
    least = 10 * len(gram) * jnp.finfo(gram.dtype).eps
    return factor, jnp.nan_to_num(unexplained).min() > least


def check_selection(num_features: int | None, selection: str) -> None:
    """An error unless both are usable."""
    if selection not in SELECTIONS:
        raise ValueError(f"selection must be one of {', '.join(map(repr, SELECTIONS))}, not {selection!r}")
    if num_features is not None:
        check_count("num_features", num_features)


def select(gram: jax.Array, moment: jax.Array, origin: jax.Array, num: int, selection: str) -> jax.Array:
    """(M,) bool: the features to keep."""
    if selection == "auto":
        selection = "forward" if num <= 6 else "highest_weights"
    if selection == "forward":
        return forward(gram, moment, num)
    if selection == "lasso_path":
        return lasso_path(gram, moment, num)[0]
    small = jnp.asarray(0.01, gram.dtype)  # lime's
    factor, _ = ridge_factor(gram, jnp.ones(len(gram), bool), small)
    slopes = jax.scipy.linalg.cho_solve((factor, True), moment)
    _, best = jax.lax.top_k(jnp.abs(slopes * origin), num)
    return jnp.zeros(len(gram), bool).at[best].set(True)


def forward(gram: jax.Array, moment: jax.Array, num: int) -> jax.Array:
    """Greedy: each time the feature with the largest gain of explained variance, c_j^2 / G_jj, swept out after."""
    least = jnp.finfo(gram.dtype).eps * 10 * len(gram) * jnp.diag(gram)

    def step(state, _):
        gram, moment, chosen = state
        left = jnp.diag(gram)
        usable = (left > least) & ~chosen
        gain = jnp.where(usable, jnp.square(moment) / jnp.where(usable, left, 1), -1)
        best = jnp.argmax(gain)
        found = usable[best]
        column = jnp.where(found, gram[:, best] / jnp.where(found, left[best], 1), 0)
        swept = gram - column[:, None] * gram[best][None], moment - column * moment[best]
        return (*swept, chosen.at[best].set(chosen[best] | found)), None

    # All of it varying over a mesh as the outputs do.
    start = (gram + 0 * moment[:, None], moment, jnp.isnan(moment) & False)
    return jax.lax.scan(step, start, None, length=num)[0][2]


def lasso_path(gram: jax.Array, moment: jax.Array, num: int, penalty: float = 0.0) -> tuple[jax.Array, jax.Array]:
    """(the support at the last knot with at most `num` features, the weights at a penalty) of the lasso.

    Along min 1/2 b'Gb - c'b + penalty |b|_1, as the penalty falls, the weights move linearly between knots, where
    a feature joins (its correlation reaches that of the active ones) or leaves (its weight reaches 0).
    """
    count, dtype = len(gram), gram.dtype
    end = jnp.asarray(penalty, dtype)
    tiny = jnp.finfo(dtype).eps * 100

    def step(state, _):
        slopes, active, left, best = state
        pull = moment - dot(gram, slopes)
        level = jnp.max(jnp.abs(pull))
        # Who reaches the level joins, but not who has just left.
        active = active | ((jnp.abs(pull) >= level * (1 - tiny)) & ~left)
        sign = jnp.where(active, jnp.sign(pull), 0)
        both = active[:, None] & active[None]
        matrix = jnp.where(both, gram, 0) + jnp.diag(jnp.where(active, 0, 1).astype(dtype))
        move = jnp.where(active, jnp.linalg.solve(matrix, sign), 0)
        drift = dot(gram, move)
        joins = [(level - pull) / (1 - drift), (level + pull) / (1 + drift)]
        usable = ~active & ~left
        joining = [jnp.where(usable & (t > tiny * level) & jnp.isfinite(t), t, jnp.inf) for t in joins]
        leaving = jnp.where(active, -slopes / jnp.where(move == 0, 1, move), jnp.inf)
        leaving = jnp.where((leaving > 0) & (move != 0), leaving, jnp.inf)
        first_out = leaving.min()
        length = jnp.minimum(jnp.minimum(joining[0].min(), joining[1].min()), first_out)
        running = level > jnp.maximum(end, tiny * jnp.abs(moment).max())
        length = jnp.where(running, jnp.minimum(length, level - end), 0)
        out = active & (leaving <= length) & running
        slopes = jnp.where(out, 0, slopes + length * move)
        support = slopes != 0
        best = jnp.where(running & (support.sum() <= num), support, best)
        return (slopes, active & ~out, out, best), None

    none = jnp.isnan(moment) & False  # varying over a mesh as the data do
    start = (jnp.zeros(count, dtype) * moment, none, none, none)
    (slopes, _, _, best), _ = jax.lax.scan(step, start, None, length=4 * count)
    return best, slopes
