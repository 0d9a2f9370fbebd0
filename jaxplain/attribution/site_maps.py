"""What the class activation maps share: reading a site with its gradient, layouts, resizing.

One forward and a partial backward: the function is traced once, cut at the site, and only the half after it is
differentiated. A map is over the spatial axes of the site: its channel axis (read from the convolutions that
lead to it, else the last) goes last, leading axes of size 1 are dropped, and what stands before the channels is
space, of any number of dimensions.
"""

import dataclasses
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._chunk import to_accumulator
from jaxplain._errors import SiteError
from jaxplain._tree import Scalar, check_argnums, named_after
from jaxplain.engine.channels import Block, all_channels_last, channel_axes, spread
from jaxplain.engine.interventions import cut_at
from jaxplain.engine.sites import At, last_conv
from jaxplain.engine.trace import Program, Trace, Value, trace
from jaxplain.engine.walk import Cut, evaluate


@dataclasses.dataclass(frozen=True)
class Scene:
    """A function cut at a site, ready to be asked for activations, gradients and scores."""

    at: At
    traced: Trace
    program: Program
    halves: Cut
    value: Value
    axis: int  # of the site's channels

    def activations(self) -> tuple[jax.Array, Any]:
        """(the site's value as it is, what the second half needs besides)."""
        return self.halves.before(self.traced.args)

    def score(self, z: jax.Array, rest: Any) -> jax.Array:
        """The output with `z` at the site."""
        return self.halves.after(z, rest)[0]

    def to_channels_last(self, z: jax.Array) -> jax.Array:
        """The site's value as (*space, channels), in its accumulator type."""
        z = jnp.moveaxis(to_accumulator(z), self.axis, -1)
        return z.reshape(self.space(z.shape) + z.shape[-1:])

    def from_channels_last(self, z: jax.Array) -> jax.Array:
        """The inverse of `to_channels_last`, in the site's type."""
        shape = list(self.value.shape)
        channels = shape.pop(self.axis)
        return jnp.moveaxis(z.reshape(*shape, channels), -1, self.axis).astype(self.value.dtype)

    def space(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial axes of a shape with channels last."""
        space = list(shape[:-1])
        while space and space[0] == 1:
            space.pop(0)
        return tuple(space)

    def image(self) -> tuple[Value, int | None]:
        """The explained array and its channel axis: None if it has as many axes as the site has spatial ones."""
        if len(self.traced.live) != 1:
            raise ValueError(
                "resizing to the input needs one explained array, "
                f"but the explained argument has {len(self.traced.live)} float leaves; use upsample=False"
            )
        (x,) = self.traced.live
        moved = [n for k, n in enumerate(self.value.shape) if k != self.axis]
        dims = len(self.space((*moved, 1)))
        length = len(x.shape)
        while length > dims + 1 and x.shape[len(x.shape) - length] == 1:
            length -= 1
        if length == dims:
            return x, None
        if length != dims + 1:
            raise ValueError(
                f"the site has {dims} spatial axes, but the input has shape {x.shape}: resize the map yourself"
            )
        return x, axis_of(x, self.program, "the input")

    def image_space(self) -> tuple[int, ...]:
        """The spatial shape of the explained array."""
        x, axis = self.image()
        shape = [n for k, n in enumerate(x.shape) if k != axis]
        return self.space((*shape, 1))

    def over_image(self, drawn: jax.Array) -> jax.Array:
        """A map over the explained array's space, with an axis of length 1 for its channels."""
        x, axis = self.image()
        return drawn.reshape(tuple(1 if j == axis else n for j, n in enumerate(x.shape)))

    def masked(self, mask: jax.Array) -> jax.Array:
        """The output for the explained array times a mask over its space."""
        x, _ = self.image()
        (k,) = (k for k, value in enumerate(self.traced.program.inputs) if value is x)
        inputs = list(self.traced.args)
        inputs[k] = inputs[k] * self.over_image(mask).astype(x.dtype)
        return evaluate(self.traced.program, inputs)[0][0]


def site_map(
    method: str,
    f: Scalar,
    at: At | None,
    draw: Callable[[Scene], jax.Array],
    *,
    relu: bool,
    upsample: bool,
    argnums: int | Sequence[int],
    params: Any,
) -> Callable[..., jax.Array]:
    """The explainer that draws a map over the space of a site."""
    argnums = check_argnums(argnums)
    at = last_conv() if at is None else at

    @named_after(f, method)
    def explain(*args, **kwargs):
        traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True)
        return draw_map(scene_at(traced, at), draw, relu=relu, upsample=upsample)

    explain.argnums = argnums
    return explain


def scene_at(traced: Trace, at: At) -> Scene:
    """Cut a traced function at a site that a map can be drawn over."""
    site, program, halves = cut_at(traced, at)
    if site.shape != site.value.shape:
        raise SiteError(
            f"site {at!r} is inside a scan: it has a value for every iteration, and no single map; "
            "return the value that you mean from the scan and tag it"
        )
    if not halves.reaches:
        raise SiteError(f"the output does not depend on site {at!r}")
    axis = axis_of(site.value, program, f"site {at!r}")
    scene = Scene(at, traced, program, halves, site.value, axis)
    moved = [n for k, n in enumerate(site.shape) if k != axis]
    if not site.shape or not scene.space((*moved, 1)):
        raise SiteError(
            f"site {at!r} has shape {site.shape}: no spatial axes to draw a map over; "
            "choose an earlier one, jaxplain.list_sites(f)(...) prints them"
        )
    return scene


def draw_map(scene: Scene, draw: Callable[[Scene], jax.Array], *, relu: bool, upsample: bool) -> jax.Array:
    """The map, finished as the options say."""
    drawn = draw(scene)
    if relu:
        drawn = jax.nn.relu(drawn)
    if upsample:
        drawn = jax.image.resize(drawn, scene.image_space(), "bilinear", antialias=False)
    return drawn.astype(scene.traced.live[0].dtype)


def from_gradient(combine: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[[Scene], jax.Array]:
    """Draw from activations A and gradients G, both (*space, channels)."""

    def draw(scene: Scene) -> jax.Array:
        z, rest = scene.activations()
        gradient = jax.grad(scene.score)(z, rest)
        return combine(scene.to_channels_last(z), scene.to_channels_last(gradient))

    return draw


def over_space(values: jax.Array) -> tuple[int, ...]:
    """The spatial axes of an array with channels last."""
    return tuple(range(values.ndim - 1))


def weighted(weights: jax.Array, activations: jax.Array) -> jax.Array:
    """The sum over channels of weight times activation."""
    return jnp.tensordot(activations, weights, 1, precision="highest")


def axis_of(value: Value, program: Program, name: str) -> int:
    """The channel axis of a value; the last if nothing in the network has its channels elsewhere."""
    found = channel_axes(program).get(value)
    if found is None and not all_channels_last(program):
        raise SiteError(
            f"which axis of {name}, shape {value.shape}, holds channels cannot be told: the network's "
            "convolutions do not all have them last, and none leads straight to it; "
            "tag a value nearer to a convolution"
        )
    return max(0, len(value.shape) - 1) if found is None else found


def resize_corners_aligned(image: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Linear interpolation along every axis, the corner elements of both grids on each other."""
    for axis, (old, new) in enumerate(zip(image.shape, shape, strict=True)):
        position = jnp.linspace(0, old - 1, new, dtype=image.dtype)
        distance = jnp.abs(position[:, None] - jnp.arange(old, dtype=image.dtype)[None])
        weights = jnp.maximum(1 - distance, 0)
        image = jnp.moveaxis(jnp.tensordot(weights, image, (1, axis), precision="highest"), 0, axis)
    return image


def require_pooled_head(scene: Scene) -> None:
    """An error unless the score is a weighted sum of the site's means over space, as CAM assumes.

    Every path from the site must sum over all its spatial axes before anything else than scaling by one number
    is done to it, and all that follows must be linear.
    """
    program, z = scene.program, scene.value
    known: dict[Value, Block] = {z: (scene.axis, scene.axis + 1)}
    axes = {v: start for v, (start, stop) in spread(program, known).items() if stop == start + 1}
    below = program.dependent({z})
    unpooled = {z}
    for op in program.needed(program.outputs, {z}):
        moving = [v for v in op.operands if v in below]
        if not moving:
            continue
        first = moving[0]
        alone = len(moving) == 1
        by = [v for v in op.inputs if v is not first]
        scales = alone and (op.primitive is _jax.MUL or (op.primitive is _jax.DIV and op.inputs[0] is first))
        if unpooled.isdisjoint(moving):
            chooses = op.primitive is _jax.SELECT and op.inputs[0] not in below
            weighs = scales or (alone and op.primitive in (_jax.CONV, _jax.DOT))
            if op.primitive in _jax.LINEAR or chooses or weighs:
                continue
        elif alone and pools(op, space_of(first, axes)):
            continue
        elif (scales and all(prod(getattr(v, "shape", ())) == 1 for v in by)) or (
            op.primitive in _jax.RESHAPES | {_jax.BROADCAST}
            and prod(op.outputs[0].shape) == prod(first.shape)
            and len(space_of(op.outputs[0], axes)) == len(space_of(first, axes))
        ):
            unpooled.update(op.outputs)
            continue
        raise SiteError(
            f"cam needs a head that averages site {scene.at!r} over space and is linear from there on, "
            f"but {op.name} at {op.place} is not part of one; use grad_cam, which needs no such head"
        )


def space_of(value: Value, axes: dict[Value, int]) -> set[int]:
    """The spatial axes longer than 1 of a value whose channel axis is known."""
    return {k for k, n in enumerate(value.shape) if n > 1 and k != axes.get(value)}


def pools(op: Any, space: set[int]) -> bool:
    """Whether an operation sums over all the spatial axes."""
    if op.primitive is _jax.REDUCE_SUM:
        return space <= set(op.params["axes"])
    if op.primitive is _jax.WINDOW_SUM:
        window, shape = op.params["window_dimensions"], op.inputs[0].shape
        whole = all(window[k] == shape[k] for k in space) and prod(window) == prod(shape[k] for k in space)
        return whole and not any(low or high for low, high in op.params["padding"])
    return False
