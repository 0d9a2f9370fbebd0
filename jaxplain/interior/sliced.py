"""A function cut at a site, traced once: what the methods of this package start from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxplain import _jax
from jaxplain._errors import SiteError
from jaxplain.engine.interventions import cut_at
from jaxplain.engine.sites import At
from jaxplain.engine.trace import Program, Trace, Value, trace
from jaxplain.engine.walk import Cut, made_by


class Sliced(NamedTuple):
    """The two halves of a scalar function at a site, and its inputs, flat; `live` numbers the explained ones."""

    traced: Trace
    halves: Cut
    inputs: list[Any]
    live: list[int]

    @property
    def leaves(self) -> list[Any]:
        """The explained inputs."""
        return [self.inputs[k] for k in self.live]

    def at(self, leaves: Sequence[Any]) -> "Sliced":
        """The same with other explained inputs."""
        inputs = list(self.inputs)
        for k, leaf in zip(self.live, leaves, strict=True):
            inputs[k] = leaf
        return self._replace(inputs=inputs)

    def site(self) -> jax.Array:
        """The value z = h(x)."""
        return self.halves.site(self.inputs)

    def cut(self) -> tuple[jax.Array, list[Any]]:
        """(z, what the second half needs besides), in one run of the first half."""
        return self.halves.before(self.inputs)

    def slope(self, z: jax.Array, rest: list[Any]) -> jax.Array:
        """dg/dz at z; NaN where the output is, as a ReLU's is not."""
        y, slope = jax.value_and_grad(lambda z: self.halves.after(z, rest)[0])(z)
        return jnp.where(jnp.isnan(y), jnp.nan, slope)


def slice_for(
    f: Any,
    at: At,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    argnums: int | tuple[int, ...],
    params: Any,
    tokens: bool = False,
) -> Sliced:
    """Cut a scalar `f` at a site for these arguments; `tokens` allows an explained argument without floats.

    Raises:
        SiteError: the site is missing, ambiguous, or the output does not depend on it, or not by a slope.
        TypeError: the explained argument has no float leaves.
    """
    traced = trace(f, args, kwargs, argnums=argnums, params=params, scalar=True, tokens=tokens)
    site, program, halves = cut_at(traced, at)
    if not halves.reaches:
        raise SiteError(
            f"the output does not depend on site {at!r}: whatever is asked of it is 0; "
            "jaxplain.list_sites(f)(x, ...) prints the others"
        )
    if not has_slope(program, site.value):
        raise SiteError(
            f"the output depends on site {at!r} only through what has no slope (comparisons, rounding, "
            "stop_gradient): its derivative is 0 everywhere; jaxplain.interior.ablate tells what the site does"
        )
    return Sliced(traced, halves, list(traced.args), [program.inputs.index(v) for v in traced.live])


def has_slope(program: Program, site: Value) -> bool:
    """Whether an output depends on a site by operations with a derivative; yes for one inside a scan."""
    if site not in made_by(program):
        return True
    found = {site}
    for op in program.ops:
        if op.primitive not in _jax.FLAT and not found.isdisjoint(op.operands):
            found.update(v for v in op.outputs if jnp.issubdtype(v.dtype, jnp.inexact))
    return any(v in found for v in program.outputs)
