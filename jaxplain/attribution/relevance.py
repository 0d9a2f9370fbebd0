"""Methods that change the backward pass.

The function is traced, the units that a rule replaces are found in its program, and the program is run with a
`jax.custom_vjp` in each one's place; the explanation is then an ordinary `jax.vjp`. Fan-out, scan, cond, jit,
vmap and further derivatives stay JAX's. What a rule needs is an argument of the override, never a closure, so
that derivatives of the explanation are right.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain._errors import UnsupportedOperation
from jaxplain._tree import Scalar, check_argnums, named_after, slope_of
from jaxplain.attribution.site_maps import draw_map, from_gradient, over_space, scene_at, weighted
from jaxplain.engine.rectifiers import Shape, rectifiers
from jaxplain.engine.sites import At, last_conv
from jaxplain.engine.trace import Trace, trace
from jaxplain.engine.walk import Override, evaluate, replaced

Explainer = Callable[..., Any]


def guided_backprop(f: Scalar, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""Guided backpropagation: the gradient, but a ReLU passes back only what is positive, where it is on.

    At each $y = \mathrm{relu}(x)$: $\bar x = \bar y \, [\bar y > 0] \, [x > 0]$ (of a relu6 also
    $[x < 6]$). Everything else keeps its derivative.

    Args:
        f: `f(x, *args)` returns a float scalar, through at least one ReLU. It is found in any spelling: relu,
            relu6, leaky, `maximum(x, 0)`, `where(x > 0, x, 0)`, `clip`, `x * (x > 0)`; not one whose slope is a
            parameter, which keeps its derivative.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`.

    Raises:
        UnsupportedOperation: there is no ReLU, or one may hide inside a custom derivative or an opaque kernel.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([[1.0, -2.0], [3.0, 1.0]]) @ x) @ jnp.array([-1.0, 1.0])
        >>> jxp.guided_backprop(f)(jnp.array([3.0, 1.0]))  # the first unit speaks against: not passed
        Array([3., 1.], dtype=float32)

    When not to trust it: it draws the image's own edges, much the same for every class and even for random
    weights of the upper layers (Adebayo et al. 2018; Nie et al. 2018).

    Source: Springenberg et al. 2015, section 3.4.
    """
    return through_rectifiers("guided_backprop", f, argnums, guided=True)


def deconvnet(f: Scalar, *, argnums: int | Sequence[int] = 0) -> Explainer:
    r"""Deconvnet: the gradient, but every ReLU passes back what is positive, whether it was on or not.

    At each $y = \mathrm{relu}(x)$: $\bar x = \max(\bar y, 0)$. Max-pooling keeps its switches.

    Args:
        f: `f(x, *args)` returns a float scalar, through at least one ReLU, in any spelling.
        argnums: which positional argument(s) to explain, as in `jax.grad`.

    Returns:
        `explain(x, *args)`, with the structure of `x`.

    Raises:
        UnsupportedOperation: there is no ReLU, or one may hide inside a custom derivative or an opaque kernel.
        ValueError: `f` returns something other than a scalar, `x` has an empty array, `argnums` is out of range.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jnp.array([[1.0, -2.0], [3.0, 1.0]]) @ x) @ jnp.array([1.0, 1.0])
        >>> jxp.deconvnet(f)(jnp.array([1.0, 1.0]))  # the first unit is off, and passed all the same
        Array([ 4., -1.], dtype=float32)

    When not to trust it: without the forward mask, nothing but pooling ties it to this input.

    Source: Zeiler and Fergus 2014, section 2.1.
    """
    return through_rectifiers("deconvnet", f, argnums, guided=False)


def guided_grad_cam(
    f: Scalar, at: At | None = None, *, argnums: int | Sequence[int] = 0, params: Any = None
) -> Explainer:
    r"""Guided Grad-CAM: guided backpropagation, weighted by the enlarged Grad-CAM map.

    $R = G \odot \mathrm{upsample}(\mathrm{relu}(C))$, with G the guided gradient and C the Grad-CAM map, which is
    enlarged bilinearly and the same for every channel.

    Args:
        f: `f(x, *args)` returns a float scalar, through at least one ReLU.
        at: the site to read; None is the last convolutional activation through which everything flows.
        argnums: which positional argument to explain, one array.
        params: the parameters that `f` closes over, to name layers by their paths in it (NNX, Equinox).

    Returns:
        `explain(x, *args)`, with the shape of `x`.

    Raises:
        UnsupportedOperation: there is no ReLU, or one may hide inside a custom derivative or an opaque kernel.
        SiteError: the site is missing, ambiguous, without spatial axes, inside a scan, or without influence.
        ValueError: `f` returns something other than a scalar, or `x` is not one array with the site's number of
            spatial axes.
        TypeError: `x` has no float leaves.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: jax.nn.relu(jxp.tag(x * jnp.array([1.0, -1.0]), "a")).sum()
        >>> jxp.guided_grad_cam(f, "a")(jnp.array([[[2.0, -1.0]], [[1.0, 4.0]]])).shape
        (2, 1, 2)

    When not to trust it: its detail is guided backpropagation's, the image's own edges; only where it is shown
    depends on the class.

    Source: Selvaraju et al. 2017, section 3.2.
    """
    argnums = check_argnums(argnums)
    draw = from_gradient(lambda A, G: weighted(G.mean(over_space(G)), A))

    @named_after(f, "guided_grad_cam")
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True)
        scene = scene_at(traced, last_conv() if at is None else at)
        heat = scene.over_image(draw_map(scene, draw, relu=True, upsample=True))
        detail = changed_backward(traced, guided=True)
        return jax.tree.map(lambda leaf: leaf * heat.astype(leaf.dtype), detail)

    explain.argnums = argnums
    return explain


def through_rectifiers(method: str, f: Scalar, argnums: int | Sequence[int], *, guided: bool) -> Explainer:
    """The explainer that changes every ReLU's backward pass."""
    argnums = check_argnums(argnums)

    @named_after(f, method)
    def explain(*args, **kwargs):
        return changed_backward(trace(f, args, kwargs, argnums=argnums, scalar=True), guided=guided)

    explain.argnums = argnums
    return explain


def changed_backward(traced: Trace, *, guided: bool) -> Any:
    """The cotangent of the explained argument, with every ReLU's backward pass changed."""
    found = rectifiers(traced)
    if not found:
        raise UnsupportedOperation(
            "there is no ReLU between the explained input and the output, so this would be the plain gradient; "
            "use jaxplain.gradient, or another method for networks with smooth activations"
        )
    overrides = {r.v: Override((r.u,), rectified(r.shape, guided)) for r in found}
    program = replaced(traced.program, overrides)
    live = [traced.program.inputs.index(v) for v in traced.live]

    def run(leaves):
        inputs = list(traced.args)
        for k, leaf in zip(live, leaves, strict=True):
            inputs[k] = leaf
        return evaluate(program, inputs)[0][0]

    return traced.like_explained(slope_of(run)([traced.args[k] for k in live]))


def rectified(shape: Shape, guided: bool) -> Callable[[jax.Array], jax.Array]:
    """A ReLU of a given shape with the changed backward pass."""
    slope, left, top = shape

    def forward(x):
        y = jnp.maximum(slope * x, 0) if left == 0 else jnp.where(x > 0, slope * x, left * x)
        return jnp.minimum(y, top) if top < jnp.inf else y

    def backward(x, cotangent):
        passed = slope * jnp.maximum(cotangent, 0)
        if not guided:
            return (passed,)
        return (jnp.where((x > 0) & (slope * x < top), passed, 0),)

    rectify = jax.custom_vjp(forward)
    rectify.defvjp(lambda x: (forward(x), x), backward)
    return rectify
