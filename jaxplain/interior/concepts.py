r"""Concepts given by examples: their direction at a site, what the output makes of it, and whether by chance."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import accumulator_dtype, stack
from jaxplain._tree import count, named_after
from jaxplain.engine.sites import At
from jaxplain.interior.influence import internal_influence
from jaxplain.interior.neighbours import norm
from jaxplain.interior.sliced import slice_for


class Concept(NamedTuple):
    """A direction in the space of a site.

    Attributes:
        direction: an array of the shape of the site, of norm 1, pointing to the concept's examples.
        accuracy: of the classifier it is the normal of, on examples that were left out, one at a time.
    """

    direction: jax.Array
    accuracy: jax.Array


class Tcav(NamedTuple):
    """What a class makes of a concept.

    Attributes:
        score: the share of inputs whose output rises towards the concept, the mean over the random sets.
        sensitivity: the mean slope towards the concept, likewise, in units of the output over those of the site.
        p_value: how likely a slope this far from 0 is if the concept is one more random set; at least
            1 / (num_sets + 1).
        random_scores: the same score of each random set against all other sets, (num_sets,).
        accuracy: of telling the concept from a random set, on examples left out, the mean over the random sets.
    """

    score: jax.Array
    sensitivity: jax.Array
    p_value: jax.Array
    random_scores: jax.Array
    accuracy: jax.Array


def concept_vector(
    h: Callable[[Any], jax.Array], *, ridge: float = 0.01, chunk_size: int | None = None
) -> Callable[..., Concept]:
    r"""The direction of a concept: the normal of a linear classifier of its examples and others.

    $v = Z^\top \alpha$, where $(K + \lambda I) \alpha + b = y$, $\sum_i \alpha_i = 0$ and $K = Z Z^\top$; y = 1
    for the concept and -1 for the others: ridge regression on the labels, with an intercept b.

    Args:
        h: `h(x)` returns the activation of one example, any shape: the first half of `slice_at`.
        ridge: the strength $\lambda$, over the mean squared distance of activations to their mean.
        chunk_size: how many examples run at once (None: all).

    Returns:
        `fit(examples, others) -> Concept(direction, accuracy)`; both are like `x` with a leading axis.

    Raises:
        ValueError: `ridge` is not positive, there are no examples or no others, or their shapes differ.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> fit = jxp.interior.concept_vector(lambda x: 2 * x)
        >>> concept = fit(jnp.array([[1.0, 0.0], [3.0, 0.0]]), jnp.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> print(concept.direction.round(3), concept.accuracy)
        [ 0. -1.] 1.0

    When not to trust it: where accuracy is near a half there is no such direction; any two sets differ in some
    direction, so ask `tcav` whether it is chance.

    Source: Kim et al. 2018, section 3.2; the classifier is that of Suykens and Vandewalle 1999, its answers to
    examples left out are those of Cawley 2006.
    """
    strength = check_ridge(ridge)

    def fit(examples: Any, others: Any) -> Concept:
        count("examples", examples)
        count("others", others)
        first, second = (stack(h, xs, chunk_size=chunk_size) for xs in (examples, others))
        if first.shape[1:] != second.shape[1:]:
            raise ValueError(
                f"activations of the examples have shape {first.shape[1:]}, others {second.shape[1:]}"
            )
        if not jnp.issubdtype(first.dtype, jnp.floating):  # such as pixels, of h = lambda x: x
            first, second = (v.astype(jnp.result_type(float)) for v in (first, second))
        z = jnp.concatenate([first, second]).astype(accumulator_dtype(first.dtype))
        flat = centred(z)
        y = jnp.where(jnp.arange(len(z)) < len(first), 1.0, -1.0).astype(z.dtype)
        if flat.shape[1] < len(flat):
            direction, accuracy = classify_rows(flat, y, strength)
        else:
            alpha, accuracy = classify(jnp.matmul(flat, flat.T, precision="highest"), y, strength)
            direction = jnp.matmul(alpha, flat, precision="highest")
        direction = direction / norm(direction)
        return Concept(direction.reshape(z.shape[1:]).astype(first.dtype), accuracy)

    return fit


def concept_sensitivity(f: Callable[..., jax.Array], at: At, direction: Any, *, params: Any = None) -> Any:
    r"""How much the output rises when an activation moves towards a concept: $\nabla g(h(x)) \cdot v$.

    Args:
        f: `f(x, *args)` returns a float scalar.
        at: the site, as in `slice_at`.
        direction: v, an array of the shape of the site: that of `concept_vector`, or any.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `sensitivity(x, *args)`: a scalar, in units of `f` over those of v.

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it.
        ValueError: the direction has another shape than the site; `f` returns no scalar.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x**2, "squares").sum() ** 2
        >>> print(jxp.interior.concept_sensitivity(f, "squares", jnp.array([0.0, 1.0]))(jnp.array([1.0, 2.0])))
        10.0

    When not to trust it: it is a slope, whatever the activation has of the concept.

    Source: Kim et al. 2018, eq. (1).
    """
    towards = jnp.asarray(direction)

    @named_after(f, "concept_sensitivity")
    def sensitivity(*args, **kwargs):
        sliced = slice_for(f, at, args, kwargs, argnums=0, params=params, tokens=True)
        slope = sliced.slope(*sliced.cut())
        if slope.shape != towards.shape:
            raise ValueError(f"direction has shape {towards.shape}, but site {at!r} has {slope.shape}")
        wide = accumulator_dtype(slope.dtype)
        return (slope.astype(wide) * towards.astype(wide)).sum().astype(slope.dtype)

    return sensitivity


def tcav(
    f: Callable[..., jax.Array],
    at: At,
    *,
    ridge: float = 0.01,
    chunk_size: int | None = None,
    params: Any = None,
) -> Callable[..., Tcav]:
    r"""Whether a class's output rises towards a concept more than towards random examples, and whether by chance.

    The score of a set S against another, S', is the share of inputs with $\nabla g(h(x)) \cdot v_{S, S'} > 0$ (0
    counts a half), and its sensitivity the mean of these slopes; T(S) is the mean sensitivity over all other sets.
    If the concept's examples are drawn as the random ones are, T(C) is as likely as any T(R_i) to lie farthest
    from 0, so $p = \frac{1 + \#\{i: |T(R_i)| \geq |T(C)|\}}{1 + m}$ is exact, for any number of examples.

    (The t-test of the paper takes scores for independent that share sets and inputs. Shares also saturate: inputs
    of a class have like slopes, so random sets reach 0 and 1 too, and only the size of slopes tells them apart.)

    Args:
        f: `f(x, *args)` returns a float scalar: the score of the class.
        at: the site, as in `slice_at`.
        ridge: of the classifiers, as in `concept_vector`.
        chunk_size: how many inputs or examples run at once (None: all). The activations of all examples are kept.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `test(inputs, concept, random_sets, *args) -> Tcav`: inputs of the class and examples of the concept are
        like `x` with a leading axis; `random_sets` with two, (num_sets, as many as the concept has).

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it.
        ValueError: no inputs or examples; fewer than 2 random sets, or sets of another size than the concept's:
            the test is exact for sets of one size; or of another shape or type.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x, "z")[0] ** 3
        >>> draws = jax.random.normal(jax.random.key(0), (21, 8, 3))
        >>> concept = draws[0].at[:, 0].add(4.0)
        >>> result = jxp.interior.tcav(f, "z")(draws[1], concept, draws[1:])
        >>> print(result.score, result.p_value < 0.05, result.random_scores.shape)
        1.0 True (20,)

    When not to trust it: the concept is what its examples have in common and the random ones lack, which may be a
    background or a style. With m random sets no p-value is below 1 / (m + 1), so .05 needs 20; correct it for the
    number of concepts tried.

    Source: Kim et al. 2018, sections 3.3 and 3.5; the test is ours.
    """
    strength = check_ridge(ridge)
    explain = internal_influence(f, at, params=params)

    @named_after(f, "tcav")
    def test(inputs, concept, random_sets, *args, **kwargs):
        count("inputs", inputs, "inputs")
        size, num_random = count("concept", concept), count("random_sets", random_sets, "sets")
        sizes = {leaf.shape[1] if leaf.ndim > 1 else 0 for leaf in jax.tree.leaves(random_sets)}
        if num_random < 2 or sizes != {size}:
            raise ValueError(
                f"random_sets has {num_random} sets of {sizes} examples; the concept has {size}: give at least 2 "
                "sets (20 for a p-value below .05) of as many examples each, (num_sets, num_examples, ...)"
            )

        def joined(a, b):
            if a.dtype != b.dtype or a.shape[1:] != b.shape[2:]:
                raise ValueError(
                    f"the concept's examples are {a.dtype} {a.shape[1:]}, those of random_sets {b.dtype} "
                    f"{b.shape[2:]}: give both in one form"
                )
            return jnp.concatenate([a, jnp.reshape(b, (-1, *b.shape[2:]))])

        def activation(x):
            return slice_for(f, at, (x, *args), kwargs, argnums=0, params=params, tokens=True).site()

        def slope(x):
            return explain(jax.tree.map(lambda leaf: leaf[None], x), *args, **kwargs)

        examples = jax.tree.map(joined, concept, random_sets)
        z = stack(activation, examples, chunk_size=chunk_size)
        slopes = stack(slope, inputs, chunk_size=chunk_size)
        wide = accumulator_dtype(z.dtype)
        z, slopes = centred(z.astype(wide)), slopes.reshape(len(slopes), -1).astype(wide)
        means = [v.sum(1) / num_random for v in pairwise(z, slopes, size, strength)]  # over the other sets
        score, sensitivity, accuracy = means
        size_of = jnp.abs(sensitivity)
        # Sets that are equal must count as equal after rounding.
        as_far = size_of[1:] >= size_of[0] * (1 - 1e-5)
        p_value = (1 + as_far.sum()).astype(wide) / (1 + num_random)
        p_value = jnp.where(jnp.isnan(sensitivity).any(), jnp.nan, p_value)
        return Tcav(score[0], sensitivity[0], p_value, score[1:], accuracy[0])

    return test


def centred(z: jax.Array) -> jax.Array:
    """Rows less their mean, which the intercept takes up; differences keep their digits, of any size."""
    flat = z.reshape(len(z), -1)
    flat = flat - flat.mean(0)[None]
    largest = jax.lax.stop_gradient(jnp.abs(flat).max())
    return flat / jnp.where(largest == 0, 1, largest)  # directions do not depend on it


def pairwise(
    z: jax.Array, slopes: jax.Array, size: int, strength: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores, sensitivities and accuracies of every set of examples against every other, each (sets, sets).

    In a space of many dimensions every classifier needs only inner products: of examples, for its coefficients
    alpha and the length of its direction Z^T alpha, and of slopes with examples, for slopes along it. A set has 0
    against itself.
    """
    sets = len(z) // size
    y = jnp.where(jnp.arange(2 * size) < size, 1.0, -1.0).astype(z.dtype)
    few = z.shape[1] < 2 * size
    rows = z.reshape(sets, size, -1)
    if not few:
        products = jnp.matmul(z, z.T, precision="highest").reshape(sets, size, sets, size)
        along = jnp.matmul(slopes, z.T, precision="highest").reshape(-1, sets, size)

    def against(pair):
        if few:
            direction, accuracy = classify_rows(rows[pair].reshape(2 * size, -1), y, strength)
            steep = jnp.matmul(slopes, direction, precision="highest")
            length = norm(direction)
        else:
            gram = products[pair][:, :, pair].reshape(2 * size, 2 * size)
            alpha, accuracy = classify(gram, y, strength)
            steep = jnp.matmul(along[:, pair].reshape(-1, 2 * size), alpha, precision="highest")
            length = jnp.sqrt(jnp.vdot(alpha, jnp.matmul(gram, alpha, precision="highest")))
        # Of two equal sets there is no direction, and no slope along it.
        slope = jnp.where(length == 0, 0, steep / jnp.where(length == 0, 1, length))
        return (jnp.sign(steep) / 2 + 0.5).mean(), slope.mean(), accuracy

    first, second = jnp.triu_indices(sets, 1)
    score, sensitivity, accuracy = jax.lax.map(against, jnp.stack([first, second], 1), batch_size=32)
    empty = jnp.zeros((sets, sets), z.dtype)

    def table(values, turned):  # exchanging two sets turns the direction round
        return empty.at[first, second].set(values).at[second, first].set(turned)

    return table(score, 1 - score), table(sensitivity, -sensitivity), table(accuracy, accuracy)


def classify_rows(z: jax.Array, y: jax.Array, strength: float) -> tuple[jax.Array, jax.Array]:
    r"""(direction, accuracy on examples left out) of that classifier, in a space of few dimensions.

    With fewer dimensions than examples the inner products are singular, and alpha is mostly what $Z^\top$ takes to
    0: its rounding would be the direction's. Here it is $(Z^\top Z + \lambda I)^{-1} Z^\top y$, and the answer to
    an example left out $y_i - (y_i - \hat y_i) / (1 - h_i)$ with $h_i$ what $y_i$ counts for in $\hat y_i$.
    """
    n, size = z.shape
    z = z - z.mean(0)[None]
    scale = jnp.square(z).sum() / n
    scale = jnp.where(scale > 0, scale, jnp.nan)
    moments = jnp.matmul(z.T, z, precision="highest") + strength * scale * jnp.eye(size, dtype=z.dtype)
    solved = jax.scipy.linalg.solve(moments, z.T, assume_a="pos")
    direction = jnp.matmul(solved, y, precision="highest")
    fitted = jnp.matmul(z, direction, precision="highest") + y.mean()
    own = (z * solved.T).sum(1) + 1 / n
    left_out = y - (y - fitted) / (1 - own)
    right = jnp.where(jnp.isnan(left_out), jnp.nan, (jnp.sign(left_out * y) + 1) / 2)
    return direction, right.mean()


def classify(gram: jax.Array, y: jax.Array, strength: float) -> tuple[jax.Array, jax.Array]:
    r"""(coefficients alpha, accuracy on examples left out) of a least-squares classifier with an intercept.

    With C the bordered matrix and $C (\alpha, b) = (y, 0)$, the answer to example i by the classifier trained
    without it is $y_i - \alpha_i / (C^{-1})_{ii}$ (Cawley 2006).
    """
    n = len(gram)
    centred = gram - gram.mean(0)[None] - gram.mean(1)[:, None] + gram.mean()
    scale = jnp.trace(centred) / n
    # Of no spread there is no direction: NaN, not the direction of rounding.
    scale = jnp.where(scale > 0, scale, jnp.nan)
    ones = jnp.ones((n, 1), gram.dtype)
    top = jnp.concatenate([centred + strength * scale * jnp.eye(n, dtype=gram.dtype), ones], 1)
    bordered = jnp.concatenate([top, jnp.concatenate([ones.T, jnp.zeros((1, 1), gram.dtype)], 1)])
    inverse = jnp.linalg.inv(bordered)
    alpha = jnp.matmul(inverse[:n, :n], y, precision="highest")
    left_out = y - alpha / jnp.diagonal(inverse)[:n]
    right = jnp.where(jnp.isnan(left_out), jnp.nan, (jnp.sign(left_out * y) + 1) / 2)
    return alpha, right.mean()


def check_ridge(ridge: float) -> float:
    """`ridge`, a positive number."""
    number = isinstance(ridge, int | float | np.floating) and not isinstance(ridge, bool)
    if not number or not 0 < ridge < float("inf"):
        raise ValueError(f"ridge must be a positive number, not {ridge!r}")
    return float(ridge)
