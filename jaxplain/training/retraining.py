"""Ground truth for influence: retraining without an example, or on subsets, many models in one program."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import check_count, stack
from jaxplain._tree import check_key

Train = Callable[[jax.Array, jax.Array], Any]


def leave_one_out(train_fn: Train, *, chunk_size: int | None = None) -> Callable[..., tuple[Any, Any]]:
    """Retrains without each example, all models under `vmap` over the examples' weights.

    Args:
        train_fn: `train_fn(key, weights)` trains a model with one weight an example, 1 for all and 0 for one left
            out, and returns anything: parameters, test losses. Whether the weighted sum is divided by the number
            of examples or by the sum of weights decides which removal is meant.
        chunk_size: how many models are trained at once; None for all.

    Returns:
        `retrain(key, num_train, indices=None) -> (whole, without)`: the result with all examples, and the results
        stacked over the examples left out, all or those of `indices`. Every model has the same key.

    Raises:
        ValueError: `num_train` is no positive number, or an index is out of range.
        TypeError: the key is no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import metrics
        >>> data = jnp.array([1.0, 2.0, 6.0])
        >>> mean = lambda key, weights: (weights * data).sum() / weights.sum()
        >>> whole, without = metrics.leave_one_out(mean)(jax.random.key(0), 3)
        >>> print(whole, without)
        3.0 [4.  3.5 1.5]
    """
    _check_chunk(chunk_size)

    def retrain(key: jax.Array, num_train: int, indices: Any = None) -> tuple[Any, Any]:
        check_key(key, "leave_one_out")
        total = check_count("num_train", num_train)
        chosen = jnp.arange(total) if indices is None else _check_range(indices, total)
        everything = jnp.ones(total)
        without = stack(lambda i: train_fn(key, everything.at[i].set(0.0)), chosen, chunk_size=chunk_size)
        return train_fn(key, everything), without

    return retrain


def subset_retraining(train_fn: Train, *, chunk_size: int | None = None) -> Callable[[jax.Array, Any], Any]:
    """Retrains on subsets of the training examples, all models under `vmap`.

    Args:
        train_fn: as in `leave_one_out`.
        chunk_size: how many models are trained at once; None for all.

    Returns:
        `retrain(keys, masks)`: the results stacked over subsets. `masks` has shape (num_subsets, num_train);
        `keys` one key a subset, or a single one that all share.

    Raises:
        ValueError: the masks are no matrix, or keys and masks differ in number.
        TypeError: the key is no key.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxplain import metrics
        >>> data = jnp.array([1.0, 2.0, 6.0])
        >>> mean = lambda key, weights: (weights * data).sum() / weights.sum()
        >>> print(metrics.subset_retraining(mean)(jax.random.key(0), jnp.array([[1, 1, 0], [0, 1, 1]])))
        [1.5 4. ]
    """
    _check_chunk(chunk_size)

    def retrain(keys: jax.Array, masks: Any) -> Any:
        masks = jnp.asarray(masks)
        if masks.ndim != 2 or 0 in masks.shape:
            raise ValueError(f"masks must have shape (num_subsets, num_train), not {masks.shape}")
        weights = masks.astype(jnp.result_type(float))
        typed = jnp.issubdtype(getattr(keys, "dtype", int), jax.dtypes.prng_key)
        if getattr(keys, "ndim", 0) <= (0 if typed else 1):
            check_key(keys, "subset_retraining")
            return stack(lambda w: train_fn(keys, w), weights, chunk_size=chunk_size)
        if len(keys) != len(weights):
            raise ValueError(
                f"there are {len(keys)} keys and {len(weights)} masks; give one key each, or a single one"
            )
        return stack(lambda pair: train_fn(*pair), (keys, weights), chunk_size=chunk_size)

    return retrain


def linear_datamodeling_score(predicted: Any, actual: Any) -> jax.Array:
    r"""The rank correlation, over subsets, between predicted and actual outcomes, averaged over test examples.

    Args:
        predicted: (num_test, num_subsets), such as `influence @ masks.T` for losses: what the kept examples add.
        actual: (num_test, num_subsets), the outcomes after retraining on those subsets.

    Returns:
        Spearman's correlation, a scalar between -1 and 1; NaN if an outcome does not vary.

    Raises:
        ValueError: the shapes differ, or there are fewer than two subsets.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain import metrics
        >>> print(metrics.linear_datamodeling_score(jnp.array([[1.0, 2.0, 5.0]]), jnp.array([[0.1, 0.3, 0.2]])))
        0.5

    When not to trust it: it sees order only, not size; and subsets of half the data are far from leaving one out.

    Source: Park et al. 2023, definition 2.4.
    """
    predicted, actual = jnp.asarray(predicted), jnp.asarray(actual)
    if predicted.shape != actual.shape or predicted.ndim != 2 or predicted.shape[1] < 2:
        raise ValueError(
            f"predicted {predicted.shape} and actual {actual.shape} must both be (num_test, num_subsets >= 2)"
        )

    def centred(rows: jax.Array) -> jax.Array:
        ranks = jax.vmap(jax.scipy.stats.rankdata)(rows)
        return ranks - ranks.mean(1, keepdims=True)

    a, b = centred(predicted), centred(actual)
    return ((a * b).sum(1) / jnp.sqrt((a**2).sum(1) * (b**2).sum(1))).mean()


def _check_chunk(chunk_size: int | None) -> None:
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)


def _check_range(indices: Any, total: int) -> jax.Array:
    if not _jax.is_tracer(indices):
        known = np.asarray(indices)
        if known.ndim != 1 or known.size == 0 or known.min() < 0 or known.max() >= total:
            raise ValueError(f"indices must be a list of numbers from 0 to {total - 1}, not {indices}")
    return jnp.asarray(indices)
