"""Plain numpy callables, such as a scikit-learn model's, as functions to explain."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def numpy_function(
    fn: Callable[[np.ndarray], Any], output_shape: Sequence[int] = ()
) -> Callable[[jax.Array], jax.Array]:
    """A numpy callable of a batch as a function of one example, called with whole batches.

    Under `vmap`, however nested, all mapped axes are one batch: `fn` is called once with as many examples as run
    at once, so with chunks of `chunk_size` in the methods that have one.

    Args:
        fn: `fn(batch)` takes a numpy array (batch, *x.shape) and returns (batch, *output_shape).
        output_shape: the shape of one example's output; () for a scalar.

    Returns:
        `f(x)` for one example, to be used under `jit` and `vmap`; it has no derivatives. The output has the type
        of `x`, or the default float's where that is no float.

    Raises:
        ValueError: when it runs, `fn` returned another shape.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> from jaxplain.interop import numpy_function
        >>> f = numpy_function(lambda batch: batch[:, 0] * batch[:, 1])
        >>> print(jxp.exact_shap(f, jnp.zeros((1, 2)))(jnp.array([2.0, 3.0])))
        [3. 3.]

    When not to trust it: `fn` must depend on its argument alone, and on each row by itself; how often and with
    which batches it is called is not promised beyond the above.

    Source: jax.pure_callback.
    """
    shape = tuple(output_shape)

    def call(x):
        def on_host(batch):
            rows = np.asarray(batch)
            lead = rows.shape[: rows.ndim - jnp.ndim(x)]
            flat = rows.reshape(-1, *rows.shape[len(lead) :])
            result = np.asarray(fn(flat))
            if result.shape != (len(flat), *shape):
                raise ValueError(
                    f"the numpy function returned shape {result.shape} for a batch of shape {flat.shape}, where "
                    f"{(len(flat), *shape)} was announced: one row an example, output_shape={shape}"
                )
            return result.reshape((*lead, *shape)).astype(dtype)

        x = jnp.asarray(x)
        # Not an integer x's own type, which would cut a probability down to 0.
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.result_type(float)
        result = jax.ShapeDtypeStruct(shape, dtype)
        return jax.pure_callback(on_host, result, x, vmap_method="broadcast_all")

    return call
