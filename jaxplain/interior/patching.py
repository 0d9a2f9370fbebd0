r"""Interventions: a value inside a function taken from another input, or taken away."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import weighted_sum
from jaxplain._tree import check_argnums, count, describe, named_after, positions
from jaxplain.engine.interventions import mix, slice_at
from jaxplain.engine.sites import At, Site

How = Literal["zero", "mean", "resample"]


def patch(
    f: Callable[..., Any],
    at: At,
    source: Any,
    *,
    where: Any = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    r"""`f` with the activation of a site taken from another input: $g(h(x_\text{source}), x)$.

    Args:
        f: `f(x, *args)`; it may return anything.
        at: the site, as in `slice_at`.
        source: the other input, like `x` (a tuple of several if `argnums` is); may be traced.
        where: what of the site is patched: a bool array that broadcasts to it, such as one channel or token; None
            for all of it. May be traced: map over it with `jax.vmap`.
        argnums: which positional argument(s) `source` stands for.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `patched(x, *args)`, what `f` returns, differentiable.

    Raises:
        SiteError: the site is missing or ambiguous.
        ValueError: the site of `source` has another shape than that of `x`, or `where` does not fit.
        TypeError: `where` is not of bools.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: (jxp.tag(x**2, "squares") * x).sum()
        >>> x, other = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
        >>> print(f(x), jxp.interior.patch(f, "squares", other)(x))  # 9 * 1 + 16 * 2
        9.0 41.0

    When not to trust it: a patched network is in a state that no input may lead to; what bypasses the site still
    speaks of `x`.

    Source: Vig et al. 2020 (causal mediation); Meng et al. 2022, section 2.1.
    """
    argnums = check_argnums(argnums)
    h = slice_at(f, at, argnums=argnums, params=params).h

    @named_after(f, "patch")
    def patched(*args, **kwargs):
        there = h(*_with(args, argnums, source), **kwargs)
        return mix(f, at, _replaced(there, where, at), argnums=argnums, params=params)(*args, **kwargs)

    return patched


def ablate(
    f: Callable[..., Any],
    at: At,
    how: How = "zero",
    *,
    over: Any = None,
    where: Any = None,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Callable[..., Any]:
    r"""`f` without what a site says of `x`.

    "zero" puts 0 in its place, $g(0, x)$; "mean" its mean over other inputs, $g(\frac{1}{n} \sum_k h(x_k), x)$;
    "resample" the value of each of them in turn, and takes the mean of the outputs, $\frac{1}{n} \sum_k g(h(x_k),
    x)$: what is expected when the site is drawn from them.

    Args:
        f: `f(x, *args)`; for "resample" it returns floats.
        at: the site, as in `slice_at`.
        how: "zero", "mean" or "resample".
        over: the other inputs, like `x` with a leading axis (a tuple of several if `argnums` is).
        where: what of the site is ablated: a bool array that broadcasts to it; None for all of it.
        chunk_size: how many of the others run at once (None: all).
        argnums: which positional argument(s) `over` stands for.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `ablated(x, *args)`, what `f` returns, differentiable.

    Raises:
        SiteError: the site is missing or ambiguous.
        ValueError: `how` is unknown, `over` is missing, empty, or given for "zero"; `where` does not fit.
        TypeError: `where` is not of bools; `f` returns other than floats, for "resample".

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x, "z").sum() ** 2
        >>> x, others = jnp.array([3.0, 1.0]), jnp.array([[0.0, 1.0], [2.0, 1.0]])
        >>> print(jxp.interior.ablate(f, "z")(x), jxp.interior.ablate(f, "z", "mean", over=others)(x))
        0.0 4.0
        >>> print(jxp.interior.ablate(f, "z", "resample", over=others)(x))  # mean of 1 and 9
        5.0

    When not to trust it: 0 and a mean may be values that the site never takes; what another site could do in its
    place is not asked.

    Source: "mean" and "resample" as in Wang et al. 2023 (IOI), section 2.2; Chan et al. 2022 (causal scrubbing).
    """
    if how not in ("zero", "mean", "resample"):
        raise ValueError(f"how must be 'zero', 'mean' or 'resample', not {how!r}")
    if (over is None) != (how == "zero"):
        raise ValueError(
            "'zero' needs no other inputs: leave out over=, or choose 'mean' or 'resample'"
            if how == "zero"
            else f"{how!r} needs other inputs: over=xs, like x with a leading axis"
        )
    argnums = check_argnums(argnums)
    h = slice_at(f, at, argnums=argnums, params=params).h

    @named_after(f, "ablate")
    def ablated(*args, **kwargs):
        def without(instead):
            return mix(f, at, _replaced(instead, where, at), argnums=argnums, params=params)(*args, **kwargs)

        if how == "zero":
            return without(None)
        total = count("over", over, "inputs")
        shares = jnp.full(total, 1 / total)

        def there(other):
            return h(*_with(args, argnums, other), **kwargs)

        if how == "mean":
            return without(weighted_sum(there, over, shares, chunk_size=chunk_size))

        def outcome(other):
            y = jax.tree.map(jnp.asarray, without(there(other)))
            if wrong := [leaf for leaf in jax.tree.leaves(y) if not jnp.issubdtype(leaf.dtype, jnp.floating)]:
                raise TypeError(f"'resample' takes the mean of what f returns: floats, not {describe(wrong[0])}")
            types.append(jax.tree.map(lambda leaf: leaf.dtype, y))
            return y

        types: list[Any] = []
        mean = weighted_sum(outcome, over, shares, chunk_size=chunk_size)
        return jax.tree.map(lambda leaf, dtype: leaf.astype(dtype), mean, types[0])

    return ablated


def _with(args: tuple[Any, ...], argnums: int | tuple[int, ...], source: Any) -> list[Any]:
    """The arguments with the explained ones replaced."""
    given = list(args)
    sources = source if isinstance(argnums, tuple) else (source,)
    for i, value in zip(positions(argnums, len(args)), sources, strict=True):
        given[i] = value
    return given


def _replaced(instead: jax.Array | None, where: Any, at: At) -> Callable[[Site], tuple[Any, Any]]:
    """What of a site is replaced, and by what; None is 0."""

    def make(site):
        shape, dtype = site.shape, site.value.dtype
        there = jnp.zeros(shape, dtype) if instead is None else instead
        if there.shape != shape:
            raise ValueError(f"site {at!r} has shape {shape} for x, but {there.shape} for the other input")
        chosen = jnp.ones((), bool) if where is None else jnp.asarray(where)
        if chosen.dtype != bool:
            raise TypeError(f"where is an array of bools, not {chosen.dtype}")
        try:
            fits = np.broadcast_shapes(chosen.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(f"where {chosen.shape} does not broadcast to site {at!r}, {shape}")
        return jnp.broadcast_to(chosen, shape), there.astype(dtype)

    return make
