r"""Experts: log densities of data, which tell a prototype what inputs are like, and nothing of classes.

With log p(x) in nats, log p(class | x) + log p(x) is log p(x | class) up to a constant: climbing both together
leads to a most probable input of the class. In many dimensions the peaks of a density tower over what a network
says of classes, and where it errs near one the prototype is of another class: a strength below 1 heeds it more.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count
from jaxplain._tree import check_key, describe, float_leaves, shapes

LogPrior = Callable[[Any], jax.Array]


def gaussian_prior(data: Any, *, shrinkage: float = 0.1) -> LogPrior:
    r"""The log density of a Gaussian fitted to data, normalised.

    $\log p(x) = -\frac{1}{2} (x-\mu)^T \Sigma^{-1} (x-\mu) - \frac{1}{2} \log \det(2 \pi \Sigma)$ with the mean
    $\mu$ and $\Sigma = (1 - s) S + s \frac{\mathrm{tr} S}{d} I$, where S is the covariance (divided by n).

    Args:
        data: examples, a pytree like `x` with a leading axis. They must be known: not traced.
        shrinkage: s in [0, 1], how far the covariance is drawn to a multiple of the identity.

    Returns:
        `log_prior(x)`, a scalar in nats.

    Raises:
        ValueError: there are fewer than 2 examples, NaN or infinity among them, `shrinkage` is out of range, the
            covariance is singular; when called, x is of another shape or structure than the examples.
        TypeError: the data have no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> log_prior = jxp.interior.gaussian_prior(jnp.array([[-1.0], [1.0]]))
        >>> print(log_prior(jnp.array([0.0])).round(3))  # of N(0, 1) at 0: -log(2 pi) / 2
        -0.919

    When not to trust it: data of several kinds are no single Gaussian: between their kinds, where no example is,
    it finds inputs the most probable. Its level depends on the shrinkage, most in directions without data.

    Source: Simonyan et al. 2014 (l2, its case of unit covariance); Montavon, Samek and Müller 2018, section 3.2;
    Ledoit and Wolf 2004 (shrinkage).
    """
    rows, flatten = table_of(data)
    mean = rows.mean(0)
    whiten = whitening((rows - mean).T @ (rows - mean) / len(rows), shrinkage)
    return log_mixture(whiten, mean[None], np.ones(1), flatten)


class PriorInfo(NamedTuple):
    """How a prior was fitted.

    Attributes:
        trace: the mean log density of the examples before each step, in nats; (num_steps,). Where it still rises
            at the end, more steps are wanted.
    """

    trace: jax.Array


def mixture_prior(
    key: jax.Array, data: Any, *, num_components: int, shrinkage: float = 0.1, num_steps: int = 100
) -> tuple[LogPrior, PriorInfo]:
    r"""The log density of a mixture of Gaussians fitted to data, normalised: data of several kinds.

    $\log p(x) = \log \sum_k \pi_k N(x; \mu_k, \Sigma)$ with one covariance for all components, shrunk as in
    `gaussian_prior`, fitted by expectation maximisation. With one component it is `gaussian_prior`. Nobody says
    which example is of which kind; the mean log density of examples held out says which options serve best.

    Args:
        key: which examples the components start from.
        data: examples, a pytree like `x` with a leading axis. They must be known: not traced.
        num_components: how many Gaussians, at most the number of examples.
        shrinkage: s in [0, 1], how far the covariance within components is drawn to a multiple of the identity.
        num_steps: how many steps of expectation maximisation.

    Returns:
        `(log_prior, PriorInfo)`; `log_prior(x)` is a scalar in nats.

    Raises:
        ValueError: there are fewer examples than components, or fewer than 2, NaN or infinity among them,
            `shrinkage` is out of range, the covariance becomes singular; when called, x is of another shape or
            structure than the examples.
        TypeError: the data have no float leaves, or the first argument is not a key.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> data = jnp.array([[-3.0], [-2.0], [2.0], [3.0]])
        >>> log_prior, info = jxp.interior.mixture_prior(jax.random.key(0), data, num_components=2)
        >>> print(f"{log_prior(jnp.array([2.5])):.2f} {log_prior(jnp.array([0.0])):.2f}")
        -0.92 -12.73

    When not to trust it: with many components for the examples there are it remembers single ones; between the
    components it says how far away the data are rather than what is likely there. Another key may find others.

    Source: Dempster, Laird and Rubin 1977 (the fit); Montavon, Samek and Müller 2018, section 3.2 (the expert).
    """
    check_key(key, "mixture_prior")
    check_count("num_steps", num_steps)
    rows, flatten = table_of(data)
    count = len(rows)
    if check_count("num_components", num_components) > count:
        raise ValueError(f"num_components={num_components} but there are {count} examples to start them from")
    centre = rows.mean(0)
    rows = rows - centre
    chosen = np.asarray(jax.random.choice(key, count, (num_components,), replace=False))
    means, shares = rows[chosen], np.full(num_components, 1 / num_components)
    whiten = whitening(rows.T @ rows / count, shrinkage)
    trace = []
    for _ in range(num_steps):
        logs = log_components(whiten, rows, means, shares)
        top = logs.max(1, keepdims=True)
        densities = np.exp(logs - top).sum(1, keepdims=True)
        trace.append((top + np.log(densities)).mean())
        parts = np.exp(logs - top) / densities
        # A component that lost all its examples goes back to the mean of the data, with next to no share.
        masses = parts.sum(0) + TINY
        means, shares = parts.T @ rows / masses[:, None], masses / masses.sum()
        # Within components: the whole less what lies between. With the data's mean at 0, little cancels.
        whiten = whitening((rows.T @ rows - (means * masses[:, None]).T @ means) / count, shrinkage)
    info = PriorInfo(jnp.asarray(trace, jnp.result_type(float)))
    return log_mixture(whiten, means + centre, shares, flatten), info


TINY = 1e-9  # of an example


def whitening(covariance: np.ndarray, shrinkage: float) -> np.ndarray:
    """W with W' W the inverse of the shrunk covariance; lower triangular."""
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is a share of the covariance, from 0 to 1, not {shrinkage}")
    size = len(covariance)
    shrunk = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    spread = np.linalg.eigvalsh(shrunk)
    if not spread[0] > spread[-1] * size * np.finfo(float).eps:
        raise ValueError(
            f"the covariance of {size} numbers is singular, and a Gaussian with it has no density: some are always"
            " alike, or there are too few examples (or too many components); give shrinkage=0.1 or the like"
        )
    return np.linalg.inv(np.linalg.cholesky(shrunk))


def log_components(whiten: np.ndarray, rows: np.ndarray, means: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Log of share times density of each component (columns) at each row."""
    a, b = rows @ whiten.T, means @ whiten.T
    squares = np.square(a).sum(1)[:, None] - 2 * a @ b.T + np.square(b).sum(1)
    return np.log(shares) - squares / 2 + log_scale(whiten)


def log_scale(whiten: np.ndarray) -> float:
    """The log density of a Gaussian at its mean."""
    return float(np.log(np.diag(whiten)).sum() - len(whiten) / 2 * np.log(2 * np.pi))


def log_mixture(whiten: np.ndarray, means: np.ndarray, shares: np.ndarray, flatten: Any) -> LogPrior:
    """The log density of a mixture of Gaussians of one covariance, in JAX."""
    levels = np.log(shares) + log_scale(whiten)

    def log_prior(x):
        flat = flatten(x)
        apart = flat[None] - jnp.asarray(means, flat.dtype)
        white = jnp.matmul(apart, jnp.asarray(whiten.T, flat.dtype), precision="highest")
        return jax.nn.logsumexp(jnp.asarray(levels, flat.dtype) - jnp.square(white).sum(1) / 2)

    return log_prior


def table_of(data: Any) -> tuple[np.ndarray, Callable[[Any], jax.Array]]:
    """(examples as rows of a float64 table, what makes a vector of one x like them)."""
    try:
        kept = float_leaves(data)
    except TypeError as error:
        raise TypeError(f"a prior is one of float arrays; data holds none: {describe(data)}") from error
    leaves, structure = jax.tree.flatten(kept)
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in leaves}
    if len(counts) != 1 or counts <= {0, 1}:
        raise ValueError(
            f"a prior is fitted to at least 2 examples, on a leading axis of every leaf; data has {shapes(kept)}"
        )
    (count,) = counts
    rows = np.concatenate([np.asarray(leaf, float).reshape(count, -1) for leaf in leaves], 1)
    if not np.isfinite(rows).all():
        raise ValueError("data hold NaN or infinity")
    wanted = [leaf.shape[1:] for leaf in leaves]

    def flatten(x):
        given, found = jax.tree.flatten(float_leaves(x))
        if found != structure or [jnp.shape(leaf) for leaf in given] != wanted:
            raise ValueError(
                f"the prior was fitted to examples of shape {wanted if len(wanted) > 1 else wanted[0]} "
                f"({structure}), but x has {[jnp.shape(leaf) for leaf in given]} ({found}): one example, no batch"
            )
        return jnp.concatenate([jnp.asarray(leaf).astype(jnp.result_type(float)).ravel() for leaf in given])

    return rows, flatten
