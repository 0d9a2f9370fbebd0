"""Class activation maps without a gradient as weight: by scores of masked inputs, by ablation, by components.

As in `activation_maps`, A is the activation of one site, shape (*space, channels), and G its gradient:

    score_cam           softmax of the scores of masked inputs   map = sum_k w_k A_k
    ablation_cam        relative drop without the channel        map = sum_k w_k A_k
    eigen_cam           first principal component of A
    eigen_grad_cam      first principal component of G A

NaN in the input gives NaN in the map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._chunk import stack
from jaxplain._tree import Scalar
from jaxplain.attribution.site_maps import Scene, from_gradient, resize_corners_aligned, site_map, weighted
from jaxplain.engine.sites import At

Explainer = Callable[..., jax.Array]


def score_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Score-CAM: channels weighted by the output for the input seen through them; no gradients.

    $w = \mathrm{softmax}_k f(x \odot H_k)$, with $H_k$ the channel's activation interpolated to the input's
    space (corners aligned) and rescaled to [0, 1]; map $= \mathrm{relu}(\sum_k w_k A_k)$. One forward pass a
    channel. A channel without contrast masks the whole input away.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        chunk_size: how many masked inputs run at once (None: all); the result does not depend on it.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled).

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar, or `x` is not one array with the
            site's number of spatial axes.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.score_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.  1.5]
         [3.  4.5]]

    When not to trust it: the softmax of logits is nearly one-hot where logits are large, so one channel may be the
    whole map; masking by multiplication means black, which is evidence too.

    Source: Wang et al. 2020, eqs. (4) to (6); the baseline's score cancels in the softmax.
    """

    def draw(scene: Scene) -> jax.Array:
        z, _ = scene.activations()
        A = scene.to_channels_last(z)
        shape = scene.image_space()

        def score(channel):
            mask = resize_corners_aligned(channel, shape)
            low, high = mask.min(), mask.max()
            return scene.masked((mask - low) / jnp.where(high > low, high - low, 1))

        scores = stack(score, jnp.moveaxis(A, -1, 0), chunk_size=chunk_size)
        return weighted(jax.nn.softmax(scores.astype(A.dtype)), A)

    return site_map("score_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def ablation_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    chunk_size: int | None = None,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Ablation-CAM: channels weighted by the relative drop of the output without them.

    $w_k = (f - f_{\setminus k}) / f$, where channel k is set to 0 at the site; map $= \mathrm{relu}(\sum_k w_k
    A_k)$. One pass through the upper half a channel.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        chunk_size: how many channels run at once (None: all); the result does not depend on it.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled).

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.ablation_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0. 0.]
         [0. 0.]]

    When not to trust it: when the output is near 0 the ratio explodes, and when it is negative the map changes
    sign; channels that stand in for one another get no weight.

    Source: Desai and Ramaswamy 2020, eqs. (2) and (3).
    """

    def draw(scene: Scene) -> jax.Array:
        z, rest = scene.activations()
        A = scene.to_channels_last(z)
        full = scene.score(z, rest).astype(A.dtype)

        def without(channel):
            kept = jnp.where(jnp.arange(A.shape[-1]) == channel, jnp.zeros((), A.dtype), A)
            return scene.score(scene.from_channels_last(kept), rest)

        scores = stack(without, jnp.arange(A.shape[-1]), chunk_size=chunk_size)
        return weighted((full - scores.astype(A.dtype)) / full, A)

    return site_map("ablation_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def eigen_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = False,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Eigen-CAM: the first principal component of the activations; knows of no output.

    With $\bar A$ the (places, channels) matrix centred over places and $v$ its first right singular vector, map
    $= \bar A v$. The sign of a principal component is arbitrary: here the map correlates positively with the mean
    activation over channels.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled).

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.eigen_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)).round(2))
        [[-3.35 -1.12]
         [ 1.12  3.35]]

    When not to trust it: it shows what stands out to the layer, whichever class is asked for.

    Source: Muhammad and Yeasin 2020, section III.
    """

    def draw(scene: Scene) -> jax.Array:
        z, _ = scene.activations()
        return principal(scene.to_channels_last(z))

    return site_map("eigen_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def eigen_grad_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = False,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Eigen-Grad-CAM: the first principal component of gradient times activation.

    `eigen_cam` of $G A$ in place of $A$; the map correlates positively with its mean over channels.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled).

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.eigen_grad_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)).round(2))
        [[-1.35 -0.45]
         [ 0.45  1.35]]

    When not to trust it: what varies most is not what contributes most: compare with `hires_cam`, its sum.

    Source: Jacob Gildenblat's pytorch-grad-cam (EigenGradCAM).
    """

    def combine(A, G):
        return principal(G * A)

    draw = from_gradient(combine)
    return site_map("eigen_grad_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def principal(values: jax.Array) -> jax.Array:
    """The first principal component over places of (*space, channels), signed like the mean over channels."""
    flat = values.reshape(-1, values.shape[-1])
    centred = flat - flat.mean(0, keepdims=True)
    _, _, basis = jnp.linalg.svd(centred, full_matrices=False)
    component = jnp.matmul(centred, basis[0], precision="highest")
    sign = jnp.where(jnp.vdot(component, flat.mean(1)) < 0, -1, 1).astype(flat.dtype)
    return (component * sign).reshape(values.shape[:-1])
