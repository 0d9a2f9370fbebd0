"""Attributions as the explanations that the shap library plots."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxplain._estimate import Estimate


def to_shap(
    attribution: Any, x: Any, base_value: Any = None, *, feature_names: Sequence[str] | None = None
) -> Any:
    """An attribution as a `shap.Explanation`, for shap's plots.

    Args:
        attribution: an array like `x`, or an `Estimate` of one; with a leading axis, one row an example.
        x: what was explained.
        base_value: what the attributions are added to, f of the background: a number, or one for each row; None
            leaves it out.
        feature_names: the names of the features, along the last axis.

    Returns:
        A `shap.Explanation`; an `Estimate`'s standard errors are its `error_std`.

    Raises:
        ImportError: shap is not installed.
        ValueError: `x` and the attribution differ in shape, or the names in number.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxplain.interop import to_shap
        >>> explanation = to_shap(jnp.array([3.0, 3.0]), jnp.array([2.0, 3.0]), 0.0)  # doctest: +SKIP
        >>> explanation.values  # doctest: +SKIP
        array([3., 3.], dtype=float32)
    """
    value, error = attribution if isinstance(attribution, Estimate) else (attribution, None)
    values, data = np.asarray(value), np.asarray(x)
    if values.shape != data.shape:
        raise ValueError(f"the attribution has shape {values.shape}, but what was explained {data.shape}")
    base = np.asarray(base_value)
    names = None if feature_names is None else list(feature_names)
    if names is not None and (values.ndim == 0 or len(names) != values.shape[-1]):
        raise ValueError(f"there are {len(names)} feature names for an attribution of shape {values.shape}")
    try:
        import shap  # pyright: ignore[reportMissingImports]  (an extra)
    except ImportError as missing:
        raise ImportError("to_shap needs the shap library: pip install 'jaxplain[shap]'") from missing
    return shap.Explanation(
        values=values,
        base_values=None
        if base_value is None
        else base[()]
        if base.ndim == 0
        else base,  # shap takes the length of an array
        data=data,
        feature_names=names,
        error_std=None if error is None else np.asarray(error),
    )
