"""What is explained: scalar quantities of a network's logits.

Every method explains a scalar function `f(x, *args)`. These turn `logits_fn(x, *args) -> (num_classes,)` into
one, with the label as a second argument, so that `jax.vmap` can map over labels as well as over inputs.
Explain logits rather than probabilities unless the probability is the question: a softmax mixes in the
evidence for all the other classes and flattens where it is sure.

A label outside `0 <= label < num_classes` raises when it is a Python or numpy integer. When it is a JAX value,
perhaps traced, that cannot be known, and the quantity is NaN, as are its gradients: never a neighbour's score.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._tree import describe, named_after

Logits = Callable[..., jax.Array]
Quantity = Callable[..., jax.Array]


def class_score(logits_fn: Logits) -> Quantity:
    """The logit of one class: `f(x, label, *args) = logits[label]`.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).

    Returns:
        `f(x, label, *args)`, a scalar; `label` is an integer, possibly traced.

    Raises:
        ValueError: the logits are not a vector, or an integer label is out of range (a traced one gives NaN).
        TypeError: the label is not an integer.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> logits = lambda x: jnp.array([[1.0, 0.0], [0.5, 2.0], [0.0, -1.0]]) @ x
        >>> f = jxp.class_score(logits)
        >>> print(f(jnp.array([1.0, 3.0]), 1))
        6.5
        >>> jxp.gradient(f)(jnp.array([1.0, 3.0]), 1)
        Array([0.5, 2. ], dtype=float32)
    """

    @named_after(logits_fn, "class_score")
    def score(x, label, *args, **kwargs):
        return pick(logits_of(logits_fn, x, args, kwargs), label)

    return score


def class_contrast(logits_fn: Logits) -> Quantity:
    """The difference of two logits: `f(x, label, other, *args) = logits[label] - logits[other]`.

    What speaks for `label` rather than for `other`: evidence that both share cancels.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).

    Returns:
        `f(x, label, other, *args)`, a scalar.

    Raises:
        ValueError: the logits are not a vector, or an integer label is out of range (a traced one gives NaN).
        TypeError: a label is not an integer.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = jxp.class_contrast(lambda x: x)
        >>> print(f(jnp.array([1.0, 3.0, 4.5]), 2, 0))
        3.5
    """

    @named_after(logits_fn, "class_contrast")
    def contrast(x, label, other, *args, **kwargs):
        logits = logits_of(logits_fn, x, args, kwargs)
        return pick(logits, label) - pick(logits, other)

    return contrast


def log_probability(logits_fn: Logits) -> Quantity:
    """The log-probability of one class: `f(x, label, *args) = log softmax(logits)[label]`.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).

    Returns:
        `f(x, label, *args)`, a scalar in nats, at most 0.

    Raises:
        ValueError: the logits are not a vector, or an integer label is out of range (a traced one gives NaN).
        TypeError: the label is not an integer.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = jxp.log_probability(lambda x: x)
        >>> print(f(jnp.zeros(4), 0).round(4))  # log(1/4)
        -1.3863
    """

    @named_after(logits_fn, "log_probability")
    def log_prob(x, label, *args, **kwargs):
        return pick(jax.nn.log_softmax(logits_of(logits_fn, x, args, kwargs)), label)

    return log_prob


def margin(logits_fn: Logits) -> Quantity:
    """By how much one class leads: `f(x, label, *args) = logits[label] - max of the other logits`.

    Positive exactly where the network predicts `label`. The runner-up is chosen at each input, so the quantity
    has a kink where two other classes tie.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,), at least 2.

    Returns:
        `f(x, label, *args)`, a scalar.

    Raises:
        ValueError: the logits are not a vector of at least 2, or an integer label is out of range (a traced one
            gives NaN).
        TypeError: the label is not an integer.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = jxp.margin(lambda x: x)
        >>> print(f(jnp.array([1.0, 3.0, 4.5]), 2), f(jnp.array([1.0, 3.0, 4.5]), 0))
        1.5 -3.5
    """

    @named_after(logits_fn, "margin")
    def lead(x, label, *args, **kwargs):
        logits = logits_of(logits_fn, x, args, kwargs)
        num_classes = logits.shape[0]
        if num_classes < 2:
            raise ValueError("margin needs at least 2 classes; use class_score for a single output")
        own = jax.nn.one_hot(checked_label(label, num_classes), num_classes, dtype=bool)
        return pick(logits, label) - jnp.where(own, -jnp.inf, logits).max()

    return lead


def logits_of(logits_fn: Logits, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> jax.Array:
    """The logits of one example, checked to be a vector of floats."""
    logits = logits_fn(x, *args, **kwargs)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 1 or shape[0] == 0:
        what = describe(logits)
        hint = (
            "drop the batch axis: lambda x: logits_fn(x[None])[0], and batch with jax.vmap"
            if shape is not None and len(shape) == 2
            else "for a single output, explain the function itself"
        )
        raise ValueError(
            f"logits_fn must return the logits of one example, shape (num_classes,), not {what}; {hint}"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits_fn must return floats, not {describe(logits)}")
    return jnp.asarray(logits)


def pick(logits: jax.Array, label: Any) -> jax.Array:
    """`logits[label]`; an integer out of range raises, a traced one gives NaN, in value and gradients."""
    num_classes = logits.shape[0]
    label = checked_label(label, num_classes)
    if isinstance(label, int):
        return logits[label]
    inside = (label >= 0) & (label < num_classes)
    # NaN times every logit, so that the gradient by each of them is NaN too.
    poison = jnp.where(inside, 0.0, jnp.nan).astype(logits.dtype)
    return jnp.where(inside, logits[jnp.clip(label, 0, num_classes - 1)], (poison * logits).sum())


def checked_label(label: Any, num_classes: int) -> int | jax.Array:
    """A label as an integer in range, or as a JAX integer wide enough to be compared with the classes."""
    if isinstance(label, bool | np.bool_):
        raise TypeError("a label is an integer, not a bool")
    if not isinstance(label, jax.Array):
        try:
            label = operator.index(label)
        except TypeError as error:
            raise TypeError(f"a label is an integer, not {describe(label)}; names are not looked up") from error
        if not 0 <= label < num_classes:
            raise ValueError(f"label {label} is out of range: the network has classes 0 to {num_classes - 1}")
        return label
    if label.shape != () or not jnp.issubdtype(label.dtype, jnp.integer):
        raise TypeError(f"a label is one integer, not {describe(label)}; map over several with jax.vmap")
    return label.astype(jnp.int32) if label.dtype.itemsize < 4 else label
