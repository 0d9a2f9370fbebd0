r"""Experts: log densities of data, which tell a prototype what inputs are like, and nothing of classes.

With log p(x) in nats, log p(class | x) + log p(x) is log p(x | class) up to a constant: climbing both together, with
no strength to choose, leads to a most probable input of the class.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count
from jaxplain._tree import check_key, float_leaves, shapes
from jaxplain.interior.prototypes import check_optimizer, import_optax

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
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is a share of the covariance, from 0 to 1, not {shrinkage}")
    rows, flatten = table_of(data)
    mean = rows.mean(0)
    covariance = (rows - mean).T @ (rows - mean) / len(rows)
    size = len(mean)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / size * np.eye(size)
    spread = np.linalg.eigvalsh(covariance)
    if not spread[0] > spread[-1] * size * np.finfo(float).eps:
        raise ValueError(
            f"the covariance of {len(rows)} examples of {size} numbers is singular, and the Gaussian has no density: "
            "give shrinkage=0.1 or the like (data that are all alike have no Gaussian)"
        )
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    constant = -0.5 * (np.log(spread).sum() + size * np.log(2 * np.pi))

    def log_prior(x):
        flat = flatten(x)
        z = jnp.matmul(jnp.asarray(whiten, flat.dtype), flat - jnp.asarray(mean, flat.dtype), precision="highest")
        return jnp.asarray(constant, flat.dtype) - jnp.square(z).sum() / 2

    return log_prior


class PriorInfo(NamedTuple):
    """How a prior was trained.

    Attributes:
        trace: the mean squared error of the denoised examples, per example and before each step; (num_steps,), in
            units of x squared.
        finite: whether all of these are finite; if not, do not use the prior.
    """

    trace: jax.Array
    finite: jax.Array


def denoising_prior(
    key: jax.Array,
    data: Any,
    *,
    sigma: float,
    hidden: int = 256,
    num_steps: int = 3000,
    batch_size: int = 128,
    optimizer: Any = None,
) -> tuple[LogPrior, PriorInfo]:
    r"""The log density, up to a constant, of data blurred by Gaussian noise, learned by a denoising autoencoder.

    $\log p(x) = -\|x - \phi(x)\|^2 / (2 \sigma^2)$ with a network $\phi$ of two hidden layers, trained so that the
    step $r(\tilde x) = \tilde x + \sigma^2 \nabla \log p(\tilde x)$ takes noisy examples
    $\tilde x = x + \sigma \epsilon$ back to $x$ with the least mean squared error. The best such r is
    $E[x | \tilde x]$, and then $\nabla \log p$ is the gradient of the log density of the data plus noise: r is a
    denoising autoencoder that is the gradient of something, so that there is a density to climb.

    Args:
        key: for the first weights, the choice of examples and the noise.
        data: examples, a pytree like `x` with a leading axis.
        sigma: the standard deviation of the noise, in units of x: finer detail is not modelled.
        hidden: the width of both hidden layers.
        num_steps: how many steps of training.
        batch_size: how many examples a step sees, drawn with replacement.
        optimizer: anything with optax's `init` and `update`; None is Adam with a cosine schedule from 0.001 to 0.

    Returns:
        `(log_prior, PriorInfo)`; `log_prior(x)` is a scalar in nats, up to a constant.

    Raises:
        ValueError: there are fewer than 2 examples, NaN or infinity among them, a count is below 1, `sigma` is
            not positive; when called, x is of another shape or structure than the examples.
        TypeError: the data have no float leaves, the first argument is no key, or the optimizer is none.
        ImportError: no optimizer is given and optax is missing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> data = jnp.array([[-2.0], [2.0]])
        >>> log_prior, info = jxp.interior.denoising_prior(jax.random.key(0), data, sigma=0.5, num_steps=300)
        >>> print(bool(log_prior(data[1]) > log_prior(jnp.zeros(1)) + 1), bool(info.finite))
        True True

    When not to trust it: it knows the slope only where noisy examples come, within some sigma of the data;
    farther out, and of how probable two distant kinds are to one another, it has seen nothing.

    Source: Vincent 2011, section 4 (denoising as score matching, with an energy); Alain and Bengio 2014, theorem 1;
    Salimans and Ho 2021 (this form of the energy); Nguyen et al. 2017 (as an expert for prototypes).
    """
    check_key(key, "denoising_prior")
    if not sigma > 0:
        raise ValueError(f"sigma is the standard deviation of the noise and must be positive, not {sigma}")
    for name, count in (("hidden", hidden), ("num_steps", num_steps), ("batch_size", batch_size)):
        check_count(name, count)
    if optimizer is None:
        optax = import_optax()
        optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, num_steps))
    check_optimizer(optimizer)
    table, flatten = table_of(data)
    rows = jnp.asarray(table, jnp.result_type(float))
    mean, scale = rows.mean(0), jnp.asarray(np.sqrt(table.var(0).mean() + sigma**2), rows.dtype)
    noise = jnp.asarray(sigma, rows.dtype)

    def log_density(weights, x):
        h = (x - mean) / scale
        for layer in weights[:-1]:
            h = jax.nn.silu(h @ layer["kernel"] + layer["bias"])
        restored = mean + scale * (h @ weights[-1]["kernel"] + weights[-1]["bias"])
        return -jnp.square((x - restored) / noise).sum() / 2

    def loss(weights, clean, step_key):
        noisy = clean + noise * jax.random.normal(step_key, clean.shape, clean.dtype)
        restored = noisy + jnp.square(noise) * jax.vmap(jax.grad(log_density, 1), (None, 0))(weights, noisy)
        return jnp.square(restored - clean).sum(1).mean()

    def advance(carry, step_key):
        weights, state = carry
        draw, disturb = jax.random.split(step_key)
        clean = rows[jax.random.randint(draw, (batch_size,), 0, len(rows))]
        error, slopes = jax.value_and_grad(loss)(weights, clean, disturb)
        moves, state = optimizer.update(slopes, state, weights)
        return (jax.tree.map(jnp.add, weights, moves), state), error

    def train(key):
        start_key, steps_key = jax.random.split(key)
        start = layers(start_key, (rows.shape[1], hidden, hidden, rows.shape[1]), rows.dtype)
        steps = jax.random.split(steps_key, num_steps)
        (weights, _), trace = jax.lax.scan(advance, (start, optimizer.init(start)), steps)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((weights, trace))]).all()
        return weights, PriorInfo(trace, finite)

    weights, info = jax.jit(train)(key)
    return lambda x: log_density(weights, flatten(x)), info


def layers(key: jax.Array, sizes: tuple[int, ...], dtype: Any) -> list[dict[str, jax.Array]]:
    """Weights before training, of variance 2 / inputs; the last layer's are 0: it starts with the mean."""
    last = len(sizes) - 2
    keys = jax.random.split(key, last + 1)
    return [
        {
            "kernel": (i < last) * jnp.sqrt(2 / n) * jax.random.normal(k, (n, m), dtype),
            "bias": jnp.zeros(m, dtype),
        }
        for i, (k, n, m) in enumerate(zip(keys, sizes[:-1], sizes[1:], strict=True))
    ]


def table_of(data: Any) -> tuple[np.ndarray, Callable[[Any], jax.Array]]:
    """(examples as rows of a float64 table, what makes a vector of one x like them)."""
    kept = float_leaves(data)
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
        given, found = jax.tree.flatten(x)
        if found != structure or [jnp.shape(leaf) for leaf in given] != wanted:
            raise ValueError(
                f"the prior was fitted to examples of shape {wanted if len(wanted) > 1 else wanted[0]} "
                f"({structure}), but x has {[jnp.shape(leaf) for leaf in given]} ({found}): one example, no batch"
            )
        return jnp.concatenate([jnp.asarray(leaf).astype(jnp.result_type(float)).ravel() for leaf in given])

    return rows, flatten
