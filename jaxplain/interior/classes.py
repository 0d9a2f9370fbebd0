r"""Classes and the units behind them: experts with few units, profiles of influence, deviation from a profile."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import accumulator_dtype, weighted_sum
from jaxplain._tree import count, named_after
from jaxplain.engine.sites import At
from jaxplain.interior.influence import internal_influence
from jaxplain.interior.neighbours import cosine_distance
from jaxplain.interior.units import Reduce, by_channel, keep_units
from jaxplain.quantities import class_score, logits_of, margin

Logits = Callable[..., jax.Array]


def class_expert(
    logits_fn: Logits,
    at: At,
    label: Any,
    units: Any,
    *,
    baseline: Any = 0.0,
    channel_axis: int = -1,
    params: Any = None,
) -> Callable[..., jax.Array]:
    r"""What a network knows of one class in a few units: it says "this class" where its score is above 0.

    The score is the lead of the class's logit over the next best, $\ell_c - \max_{j \neq c} \ell_j$, of the
    network with all other channels of the site at the baseline.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).
        at: the site, as in `slice_at`.
        label: the class, an integer.
        units: the numbers of the channels to keep, such as the first of `rank_units`.
        baseline: what the others become: a number, or an array that broadcasts to the site.
        channel_axis: the axis of the site's channels.
        params: the parameters that `logits_fn` closes over, to name layers by their paths in it.

    Returns:
        `expert(x, *args)`: the score, a scalar in units of the logits.

    Raises:
        SiteError: the site is missing or ambiguous.
        ValueError: the label is out of range, the site has no such axis, the logits are not a vector.
        IndexError: there is no such channel.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> logits = lambda x: jxp.tag(x**2, "squares") @ jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0]])
        >>> expert = jxp.interior.class_expert(logits, "squares", 0, units=[0, 1])
        >>> print(expert(jnp.array([2.0, 1.0, 5.0])))  # without the third it is class 0
        3.0

    When not to trust it: an expert that says yes to everything finds every member of its class. Report false
    positives with what it finds, or an area under the curve.

    Source: Leino et al. 2018, section 4.2.
    """
    compressed = keep_units(logits_fn, at, units, baseline=baseline, channel_axis=channel_axis, params=params)
    lead = margin(compressed)

    @named_after(logits_fn, "class_expert")
    def expert(x, *args, **kwargs):
        return lead(x, label, *args, **kwargs)

    return expert


def class_profiles(
    logits_fn: Logits,
    at: At,
    *,
    channel_axis: int = -1,
    reduce: Reduce = "mean",
    chunk_size: int | None = None,
    params: Any = None,
) -> Callable[..., jax.Array]:
    r"""By which units each class is recognised: the mean over its examples of slope times activation.

    $p_c = \frac{1}{n_c} \sum_{k: y_k = c} z \odot \frac{\partial \ell_c}{\partial z}$ at $z = h(x_k)$, by channel.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).
        at: the site, as in `slice_at`.
        channel_axis: the axis of the site's channels.
        reduce: what is made of the other axes: "mean", "max" or "sum".
        chunk_size: how many examples run at once (None: all).
        params: the parameters that `logits_fn` closes over, to name layers by their paths in it.

    Returns:
        `profiles(xs, labels, *args)`: an array (num_classes, num_channels), in units of the logits; NaN in the
        row of a class without examples, and in all rows if a traced label is out of range. `xs` is like `x` with
        a leading axis, `labels` are (num_examples,).

    Raises:
        SiteError: the site is missing, ambiguous, or the logits do not depend on it.
        ValueError: there are no examples, labels of another number or out of range, no such axis or reduction.
        TypeError: the labels are no integers.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> logits = lambda x: jxp.tag(x**2, "squares") @ jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0]])
        >>> xs, labels = jnp.array([[2.0, 1.0, 1.0], [4.0, 1.0, 1.0], [0.0, 1.0, 2.0]]), jnp.array([0, 0, 1])
        >>> print(jxp.interior.class_profiles(logits, "squares")(xs, labels))
        [[10.  0.  1.]
         [ 0.  1. 12.]]

    When not to trust it: a class that is recognised in two ways has a profile that none of its examples shows.

    Source: Leino et al. 2018, section 4 (the influence over the distribution of a class).
    """
    one = _instance_profile(logits_fn, at, channel_axis, reduce, params)

    @named_after(logits_fn, "class_profiles")
    def profiles(xs, labels, *args, **kwargs):
        labels = jnp.asarray(labels)
        if not jnp.issubdtype(labels.dtype, jnp.integer):
            raise TypeError(f"labels are integers (num_examples,), not {labels.dtype} {labels.shape}")
        total = count("xs", xs)
        if labels.shape != (total,):
            raise ValueError(f"there are {total} examples, but labels has shape {labels.shape}")
        first = jax.tree.map(lambda leaf: leaf[0], xs)
        num_classes = jax.eval_shape(lambda x: logits_of(logits_fn, x, args, kwargs), first).shape[0]
        if not _jax.is_tracer(labels) and (
            wrong := [int(c) for c in np.asarray(labels) if not 0 <= c < num_classes]
        ):
            raise ValueError(f"label {wrong[0]} is out of range: the network has classes 0 to {num_classes - 1}")

        def row(point):
            x, label = point
            profile = one(x, label, *args, **kwargs)
            types.append(profile.dtype)
            label = label.astype(jnp.int32)  # in a short type the numbers of many classes would wrap round
            own = jnp.arange(num_classes, dtype=jnp.int32) == label
            # No product: 0 times the NaN of one example would be in the rows of all classes.
            known = (label >= 0) & (label < num_classes)
            elsewhere = jnp.where(known, 0, jnp.nan).astype(profile.dtype)
            share = jnp.where(own[:, None], profile[None], elsewhere)
            return {"sum": share, "count": own.astype(profile.dtype)}

        types: list[Any] = []
        found = weighted_sum(row, (xs, labels), jnp.ones(total), chunk_size=chunk_size)
        return (found["sum"] / found["count"][:, None]).astype(types[0])

    return profiles


def profile_deviation(
    logits_fn: Logits,
    at: At,
    profiles: Any,
    *,
    channel_axis: int = -1,
    reduce: Reduce = "mean",
    params: Any = None,
) -> Callable[..., jax.Array]:
    r"""How little an instance is recognised by the units that its class is: $1 - \cos(p(x), p_c)$.

    c is the class that the network predicts. A misclassified instance tends to deviate: it got its label by other
    units than the class does.

    Args:
        logits_fn: `logits_fn(x, *args)` returns the logits of one example, shape (num_classes,).
        at: the site of the profiles.
        profiles: those of `class_profiles`, (num_classes, num_channels), from examples that the network saw.
        channel_axis: as in `class_profiles`.
        reduce: as in `class_profiles`.
        params: the parameters that `logits_fn` closes over, to name layers by their paths in it.

    Returns:
        `deviation(x, *args)`: a scalar from 0 to 2; NaN where either profile is all 0 or the class has none.

    Raises:
        SiteError: the site is missing, ambiguous, or the logits do not depend on it.
        ValueError: the profiles have another shape than (num_classes, num_channels).

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> logits = lambda x: jxp.tag(x**2, "squares") @ jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 3.0]])
        >>> profiles = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        >>> deviation = jxp.interior.profile_deviation(logits, "squares", profiles)
        >>> print(deviation(jnp.array([2.0, 1.0, 0.0])), deviation(jnp.array([0.0, 2.0, 0.0])))
        0.0 1.0

    When not to trust it: where the network's own confidence tells as much. Compare the two on held-out examples.

    Source: after Leino et al. 2018, section 5. The paper gives no formula for the deviation; this is ours.
    """
    one = _instance_profile(logits_fn, at, channel_axis, reduce, params)
    known = jnp.asarray(profiles)

    @named_after(logits_fn, "profile_deviation")
    def deviation(x, *args, **kwargs):
        logits = logits_of(logits_fn, x, args, kwargs)
        label = logits.argmax()
        profile = one(x, label, *args, **kwargs)
        if known.shape != (*logits.shape, *profile.shape):
            raise ValueError(
                f"profiles has shape {known.shape}, but there are {logits.size} classes and {profile.size} "
                f"channels at site {at!r}"
            )
        wide = accumulator_dtype(profile.dtype)
        a, b = profile.astype(wide), known[label].astype(wide)
        return cosine_distance(a, b).astype(profile.dtype)

    return deviation


def _instance_profile(logits_fn: Logits, at: At, channel_axis: int, reduce: Reduce, params: Any) -> Any:
    """`profile(x, label, *args)`: slope times activation of one instance, by channel."""
    explain = internal_influence(class_score(logits_fn), at, times_activation=True, params=params)

    def profile(x, label, *args, **kwargs):
        alone = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], x)
        return by_channel(explain(alone, label, *args, **kwargs), channel_axis, reduce, f"site {at!r}")

    return profile
