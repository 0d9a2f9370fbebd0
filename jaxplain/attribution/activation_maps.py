"""Class activation maps: which places of a layer's activation speak for the output.

All read the activation A of one site, shape (*space, channels), and its gradient G = df/dA, and weight the
channels: they differ in the weights alone. The map has the site's resolution, its values keep sign and
magnitude (nothing is rescaled to [0, 1]), and `upsample=True` enlarges it bilinearly to the input's space.

    grad_cam            w_k = mean of G_k                        map = sum_k w_k A_k
    cam                 w_k = sum of G_k (a pooled head)         map = sum_k w_k A_k
    grad_cam_pp         w_k = sum of alpha relu(G_k)             map = sum_k w_k A_k
    xgrad_cam           w_k = sum of G_k A_k / sum of A_k        map = sum_k w_k A_k
    hires_cam           a weight at each place: G                map = sum_k G_k A_k
    layer_cam           relu(G)                                  map = sum_k relu(G_k) A_k
    grad_cam_elementwise                                         map = sum_k relu(G_k A_k)

A place of a deep layer sees a large part of the input, and more than lies under it when the map is enlarged.
NaN in the input gives NaN in the map.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._tree import Scalar
from jaxplain.attribution.site_maps import (
    Scene,
    from_gradient,
    over_space,
    require_pooled_head,
    site_map,
    weighted,
)
from jaxplain.engine.sites import At

Explainer = Callable[..., jax.Array]


def grad_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Grad-CAM: channels weighted by the mean gradient over space.

    $w_k = \frac{1}{Z} \sum_{ij} \partial f / \partial A_{ijk}$, map $= \mathrm{relu}(\sum_k w_k A_k)$.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.grad_cam(f, "a", relu=False)(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.   0.25]
         [0.5  0.75]]

    When not to trust it: the mean over space is a fair weight when the layers above only average; with dense
    layers above, a channel that speaks for the output in one place and against it in another averages out
    (`hires_cam` does not average). With the relu, an output whose evidence is all negative gives an empty map.

    Source: Selvaraju et al. 2017, eqs. (1) and (2).
    """

    def combine(A, G):
        return weighted(G.mean(over_space(G)), A)

    draw = from_gradient(combine)
    return site_map("grad_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def grad_cam_elementwise(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Grad-CAM without the mean, keeping only what is positive at each place and channel.

    map $= \sum_k \mathrm{relu}(G_k A_k)$.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.grad_cam_elementwise(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.   0.75]
         [1.5  2.25]]

    When not to trust it: evidence against the output is dropped channel by channel, so what is shown may be
    outweighed by what is not.

    Source: Jacob Gildenblat's pytorch-grad-cam (GradCAMElementWise).
    """

    def combine(A, G):
        return jax.nn.relu(G * A).sum(-1)

    draw = from_gradient(combine)
    return site_map(
        "grad_cam_elementwise", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params
    )


def cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = False,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""CAM: the head's own weights, for a network that averages the site over space and is linear after.

    $w_k = \sum_{ij} \partial f / \partial A_{ijk}$, which is the head's weight of the channel; map $= \sum_k
    w_k A_k$. Its mean over space is the output minus the head's bias. It is Grad-CAM without the relu, times
    the number of places.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence, or
        the head
            is not an average over space and linear from there on.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0. 1.]
         [2. 3.]]

    When not to trust it: it is exact about the head, and says nothing of how the layers below made the activation.

    Source: Zhou et al. 2016, eqs. (1) and (2).
    """
    draw_any = from_gradient(lambda A, G: weighted(G.sum(over_space(G)), A))

    def draw(scene: Scene) -> jax.Array:
        require_pooled_head(scene)
        return draw_any(scene)

    return site_map("cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def grad_cam_pp(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Grad-CAM++: positive gradients, weighted so that every place that matters counts alike.

    $w_k = \sum_{ij} \alpha_{ijk} \, \mathrm{relu}(G_{ijk})$ with $\alpha = G^2 / (2 G^2 + G^3 \sum_{ab}
    A_{abk})$, which for $G \neq 0$ is $1 / (2 + G \sum_{ab} A_{abk})$; map $= \mathrm{relu}(\sum_k w_k A_k)$.
    The closed form of alpha assumes that the score is the exponential of `f`, whose higher derivatives are then
    powers of G.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.grad_cam_pp(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.         0.46153846]
         [0.9230769  1.3846154 ]]

    When not to trust it: where activations can be negative, $2 + G \sum A$ can come near 0 and the weight
    explode; and evidence against the output is ignored.

    Source: Chattopadhay et al. 2018, eqs. (10) and (19).
    """

    def combine(A, G):
        weights = jax.nn.relu(G) / (2 + G * A.sum(over_space(A), keepdims=True))
        return weighted(weights.sum(over_space(A)), A)

    draw = from_gradient(combine)
    return site_map("grad_cam_pp", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def xgrad_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""XGrad-CAM: channels weighted by the activation-weighted mean gradient.

    $w_k = \sum_{ij} G_{ijk} A_{ijk} / \sum_{ij} A_{ijk}$ (0 for a channel without activation), map $=
    \mathrm{relu}(\sum_k w_k A_k)$; before the relu it has the same total as `hires_cam`.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.xgrad_cam(f, "a", relu=False)(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.   0.25]
         [0.5  0.75]]

    When not to trust it: a channel whose activations nearly cancel has a weight that means nothing.

    Source: Fu et al. 2020, eq. (7).
    """

    def combine(A, G):
        total = A.sum(over_space(A))
        weights = (G * A).sum(over_space(A)) / jnp.where(total == 0, 1, total)
        return weighted(jnp.where(total == 0, 0, weights), A)

    draw = from_gradient(combine)
    return site_map("xgrad_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def hires_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = False,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""HiResCAM: gradient times activation at each place, summed over channels.

    map $= \sum_k G_k A_k$. With one linear layer after the site, its total is the output minus the bias: the
    map is then complete.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.hires_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.   0.25]
         [0.5  0.75]]

    When not to trust it: with more layers above, it is gradient times input of the upper half, with that method's
    blindness to saturation.

    Source: Draelos and Carin 2020, eq. (2).
    """

    def combine(A, G):
        return (G * A).sum(-1)

    draw = from_gradient(combine)
    return site_map("hires_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)


def layer_cam(
    f: Scalar,
    at: At | None = None,
    *,
    relu: bool = True,
    upsample: bool = False,
    argnums: int | Sequence[int] = 0,
    params: Any = None,
) -> Explainer:
    r"""Layer-CAM: positive gradients as weights at each place; made for early layers.

    map $= \mathrm{relu}(\sum_k \mathrm{relu}(G_k) A_k)$.

    Args:
        f: `f(x, *args)` returns a float scalar, for instance `class_score(logits_fn)`.
        at: the site to read; None is the last convolutional activation through which everything flows.
        relu: keep only what speaks for the output.
        upsample: enlarge the map bilinearly to the spatial shape of `x`.
        argnums: which positional argument(s) the site must depend on.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`: a map over the spatial axes of the site (of `x` if upsampled), in units of `f`.

    Raises:
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar.
        TypeError: the explained argument has no float leaves.

    Example:
        >>> import jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jxp.tag(x * jnp.array([1.0, 2.0]), "a").mean((0, 1)) @ jnp.array([3.0, -1.0])
        >>> print(jxp.layer_cam(f, "a")(jnp.arange(4.0).reshape(2, 2, 1)))
        [[0.   0.75]
         [1.5  2.25]]

    When not to trust it: places with evidence for and against the output show only the first; maps of different
    layers are not on one scale.

    Source: Jiang et al. 2021, eqs. (6) and (7).
    """

    def combine(A, G):
        return (jax.nn.relu(G) * A).sum(-1)

    draw = from_gradient(combine)
    return site_map("layer_cam", f, at, draw, relu=relu, upsample=upsample, argnums=argnums, params=params)
