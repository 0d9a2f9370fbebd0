"""Augmentations: wrap an explainer, get an explainer that averages it.

`smooth(lrp(f))` averages over noisy copies of the input, `average_over(lambda b: integrated_gradients(f, b),
background)` over baselines. They know nothing of the method inside: anything that maps an input to an
attribution will do.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxplain._chunk import cast_like, check_count, in_accumulator, moments, to_accumulator, weighted_sum
from jaxplain._estimate import Estimate
from jaxplain._tree import check_argnums, check_key, float_leaves, named_after, positions, shapes

Explainer = Callable[..., Any]


def smooth(
    explain: Explainer,
    *,
    num_samples: int = 32,
    sigma: float = 0.15,
    moment: Literal["mean", "square", "variance"] = "mean",
    chunk_size: int | None = None,
    argnums: int | Sequence[int] | None = None,
) -> Explainer:
    r"""SmoothGrad and its kin: a moment of an explanation over noisy copies of the input.

    With $R^{(k)}$ the explanation of $x + s \epsilon_k$, $\epsilon_k \sim N(0, 1)$: `"mean"` is
    $E[R^{(k)}]$ (SmoothGrad), `"square"` is $E[(R^{(k)})^2]$, `"variance"` is $Var[R^{(k)}]$ (VarGrad, the
    unbiased estimate, taken in a second pass over the same noise). The noise is a fraction of the input's own
    range, per leaf: $s$ = sigma (max x - min x); an array of equal elements gets none.

    Args:
        explain: a deterministic explainer, `explain(x, *args)` with the structure of `x`; for SmoothGrad,
            `gradient(f)`.
        num_samples: the number of noisy copies.
        sigma: the noise as a fraction of max x - min x; may be traced.
        moment: `"mean"`, `"square"` or `"variance"`.
        chunk_size: how many copies run at once (None: all); memory grows with it, the result does not change.
        argnums: which positional argument(s) get the noise; None means those that `explain` explains, if it is
            one of jaxplain's, else the first.

    Returns:
        `smoothed(key, x, *args) -> Estimate(value, std_error)`.

    Raises:
        ValueError: `num_samples` is below 1 (2 for the variance), the moment is unknown, `sigma` is negative,
            `argnums` is out of range, or a leaf of `x` has a single element, and so no range.
        TypeError: `x` has no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> smoothgrad = jxp.smooth(jxp.gradient(lambda x: (x**2).sum()), num_samples=1000)
        >>> value, std_error = smoothgrad(jax.random.key(0), jnp.array([1.0, 2.0]))
        >>> print(jnp.abs(value - jnp.array([2.0, 4.0])) < 4 * std_error)
        [ True  True]

    When not to trust it: it explains the network blurred over that noise, which for large sigma is another
    network; squares and variances hide the sign and rank inputs by how unsteady their gradient is.

    Source: Smilkov et al. 2017, section 3 (mean); Hooker et al. 2019 (square); Adebayo et al. 2018 (variance).
    """
    if moment not in ("mean", "square", "variance"):
        raise ValueError(f"moment must be 'mean', 'square' or 'variance', not {moment!r}")
    check_count("num_samples", num_samples, least=2 if moment == "variance" else 1)
    if isinstance(sigma, int | float) and not sigma >= 0:
        raise ValueError(f"sigma is a fraction of the input's range and cannot be {sigma}")
    argnums = check_argnums(getattr(explain, "argnums", 0) if argnums is None else argnums)

    @named_after(explain, "smooth")
    def smoothed(key, *args, **kwargs):
        check_key(key, "smooth")
        where = positions(argnums, len(args))
        x = float_leaves(tuple(args[i] for i in where))
        if any(leaf.size == 1 for leaf in jax.tree.leaves(x)):
            raise ValueError(
                f"smooth's noise is a fraction of each array's range, and an array of one element has none: "
                f"{shapes(x)}; put single numbers together into one array, scaled alike"
            )

        def at_noise(sample_key):
            noisy = add_noise(sample_key, x, sigma)
            given = list(args)
            for i, clean, leaves in zip(where, (args[i] for i in where), noisy, strict=True):
                given[i] = jax.tree.map(
                    lambda a, b: a if b is None else b, clean, leaves, is_leaf=lambda v: v is None
                )
            return explain(*given, **kwargs)

        values, narrow = in_accumulator(at_noise)
        keys = jax.random.split(key, num_samples)

        def estimate(sample, scale=1.0):
            mean, variance = moments(sample, keys, chunk_size=chunk_size)
            error = jax.tree.map(lambda v: scale * jnp.sqrt(v / num_samples), variance)
            return Estimate(narrow(jax.tree.map(lambda m: scale * m, mean)), narrow(error))

        if moment == "mean":
            return estimate(values)
        if moment == "square":
            return estimate(lambda k: jax.tree.map(jnp.square, values(k)))
        # Two passes over the same noise, jitted so that the second does not trace `explain` again.
        values = jax.jit(values)
        centre, _ = moments(values, keys, chunk_size=chunk_size)

        def squared_deviation(k):
            return jax.tree.map(lambda v, m: jnp.square(v - m), values(k), centre)

        return estimate(squared_deviation, scale=num_samples / (num_samples - 1))

    return smoothed


def add_noise(key: jax.Array, x: Any, sigma: Any) -> Any:
    """`x` plus Gaussian noise of standard deviation sigma times each leaf's own range."""
    leaves, structure = jax.tree.flatten(to_accumulator(x))
    keys = jax.random.split(key, len(leaves))

    def disturb(leaf, leaf_key):
        spread = jnp.asarray(sigma, leaf.dtype) * (leaf.max() - leaf.min())
        return leaf + spread * jax.random.normal(leaf_key, leaf.shape, leaf.dtype)

    noisy = [disturb(leaf, k) for leaf, k in zip(leaves, keys, strict=True)]
    return cast_like(jax.tree.unflatten(structure, noisy), x)


def average_over(
    make_explain: Callable[[Any], Explainer], background: Any, *, chunk_size: int | None = None
) -> Explainer:
    r"""The mean of an explanation over references: $R = \frac{1}{n} \sum_k R(x; x'_k)$.

    Exact over the given background, one explanation a reference. Deep SHAP is this with `deep_lift`.

    Args:
        make_explain: `make_explain(baseline)` returns an explainer, for instance
            `lambda b: integrated_gradients(f, b)`.
        background: references, a pytree like `x` with a leading axis.
        chunk_size: how many references run at once (None: all); memory grows with it, the result does not
            change.

    Returns:
        `explain(*args)`, with the arguments and the result of the explainers inside.

    Raises:
        ValueError: the background is empty, or its leaves differ in their leading axis.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: x[0] * x[1]
        >>> explain = jxp.average_over(lambda b: jxp.integrated_gradients(f, b), jnp.array([[0.0, 0], [1, 1]]))
        >>> explain(jnp.array([3.0, 2.0]))  # sums to f(x) - mean f(x') = 6 - 1/2
        Array([3. , 2.5], dtype=float32)

    When not to trust it: the mean explains the difference from the mean over this background. An explainer that
    draws samples is given the same key for every reference, and its standard errors are averaged too, which
    overstates them.

    Source: Lundberg and Lee 2017, section 4.2 (Deep SHAP); Sturmfels et al. 2020.
    """
    references = jax.tree.map(jnp.asarray, background)
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(references)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"background needs the same number of references in every leaf, at least 1: {counts}")
    (count,) = counts

    @named_after(make_explain, "average_over")
    def explain(*args, **kwargs):
        at_reference, narrow = in_accumulator(lambda b: make_explain(b)(*args, **kwargs))
        shares = jnp.full(count, 1 / count)
        return narrow(weighted_sum(at_reference, references, shares, chunk_size=chunk_size))

    return explain
