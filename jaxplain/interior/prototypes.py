r"""Prototypes: inputs made by climbing what a network, or a part of it, answers.

What is climbed is any scalar f(x): a class logit, a log-probability, a unit, a channel, a direction. Alone it
leads to inputs that no data look like; the terms and transforms of `jaxplain.interior` say what data look like.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain import _jax
from jaxplain._chunk import cast_like, check_count, to_accumulator
from jaxplain._tree import Problem, Scalar, describe, sampler, total
from jaxplain.interior.parametrisations import Parametrisation, pixels


class PrototypeInfo(NamedTuple):
    """How a prototype was climbed to; arrays, in units of f but for `gradient_norm` and `finite`.

    Attributes:
        trace: what was climbed, f(t(x)) + log_prior(x) - regulariser(x), before each step; (num_steps,).
        value: f of the prototype, without transforms.
        log_prior: the log-prior of the prototype; 0 if there is none.
        regulariser: the regulariser of the prototype; 0 if there is none.
        gradient_norm: the length of the gradient of value + log_prior - regulariser by the prototype: 0 at an
            optimum inside the bounds. In units of f over those of x.
        finite: whether all of these, and the prototype, are finite; if not, do not use it.
    """

    trace: jax.Array
    value: jax.Array
    log_prior: jax.Array
    regulariser: jax.Array
    gradient_norm: jax.Array
    finite: jax.Array


def activation_maximization(
    f: Scalar,
    *,
    regulariser: Callable[[Any], jax.Array] | None = None,
    log_prior: Callable[[Any], jax.Array] | None = None,
    optimizer: Any = None,
    num_steps: int = 256,
    transforms: Sequence[Callable[[jax.Array, Any], Any]] = (),
    parametrisation: Parametrisation | None = None,
    bounds: tuple[Any, Any] | None = None,
    progress: Callable[[Any, Any], None] | None = None,
    argnums: int | Sequence[int] = 0,
) -> Callable[..., tuple[Any, PrototypeInfo]]:
    r"""An input that f answers to: $x^* \approx \arg\max_x f(t(x)) + \log p(x) - R(x)$, by gradient ascent.

    Several starts run at once by `jax.vmap(maximise)(keys, starts)`. With f a `log_probability` of a class and a
    normalised `log_prior`, what is maximised is log p(class | x) + log p(x): the x most probable in that class. Of
    another strength c, `log_prior=lambda x: c * prior(x)`: a small c heeds the network more.

    Args:
        f: `f(x, *args)` returns a float scalar. A class: `class_score`, `log_probability`. Inside the network:
            `unit_activation(g, at, index)`; a channel, `lambda x: capture(g, at)(x)[1][at][..., k].mean()`; a
            direction, `lambda x: jnp.vdot(capture(g, at)(x)[1][at], v)`.
        regulariser: R(x), a float scalar in units of `f`, such as `l2(0.1)` or `total_variation(0.1)`; of several,
            the sum: `lambda x: l2(0.1)(x) + total_variation(0.1)(x)`.
        log_prior: log p(x), a float scalar in units of `f` (nats), such as `gaussian_prior(data)`.
        optimizer: anything with optax's `init(x)` and `update(slopes, state, x)`; None is `optax.adam(0.05)`.
        num_steps: how many steps are taken.
        transforms: functions `t(key, x)` of the input, applied in this order with a fresh key in each step, such
            as `jitter(2)`; the log-prior and the regulariser see the input without them.
        parametrisation: the coordinates that are climbed in, such as `fourier()`; None are those of x.
        bounds: (low, high), numbers or arrays that broadcast against x: after each step x is clipped to them.
            With a parametrisation the climb may then stop beside the best x in the bounds.
        progress: called on the host as `progress(step, value)` before each step, with scalar arrays; calls may
            come out of order. None runs on the device alone.
        argnums: which positional argument(s), not counting the key, to climb by.

    Returns:
        `maximise(key, x0, *args) -> (prototype, PrototypeInfo)`: the last iterate, with the structure of `x0`.

    Raises:
        ValueError: `f`, the log-prior or the regulariser returns no scalar, `num_steps` is below 1, or the bounds
            do not fit.
        TypeError: `x0` has no float leaves, the first argument is not a key, or the optimizer is none.
        ImportError: no optimizer is given and optax is missing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxplain as jxp
        >>> f = lambda x: -((x - jnp.array([3.0, 1.0])) ** 2).sum()
        >>> maximise = jxp.interior.activation_maximization(f, regulariser=jxp.interior.l2(1.0), num_steps=500)
        >>> prototype, info = maximise(jax.random.key(0), jnp.zeros(2))
        >>> print(prototype.round(2), info.value.round(2), bool(info.finite))  # half way to (3, 1)
        [1.5 0.5] -2.5 True

        A bar of progress, by rich:

            with rich.progress.Progress() as bar:
                task = bar.add_task("prototype", total=256)
                show = lambda step, value: bar.update(task, completed=step + 1, description=f"{value:.2f}")
                jxp.interior.activation_maximization(f, progress=show)(key, x0)
                jax.effects_barrier()  # the last calls are in flight

    When not to trust it: without a prior the optimum is mostly noise that exists in no data, and shows how the
    network can be fooled rather than what it looks for; with a strong one it shows the prior. One start finds one
    optimum of many. A prototype is no example of the training data, and what it leaves out may matter too.

    Source: Erhan et al. 2009, section 3; Simonyan, Vedaldi and Zisserman 2014, eq. (1); Montavon, Samek and Müller
    2018, section 3 (the log-prior as an expert).
    """
    check_count("num_steps", num_steps)
    if optimizer is None:
        optimizer = import_optax().adam(0.05)
    check_optimizer(optimizer)
    if callable(transforms) or not all(map(callable, transforms)):
        raise TypeError(f"transforms is a sequence of functions t(key, x), not {transforms!r}")
    there = pixels() if parametrisation is None else parametrisation
    if not isinstance(there, Parametrisation):
        raise TypeError(f"parametrisation is a Parametrisation, as fourier() returns, not {there!r}")

    def attribute(key, fx, x0):
        problem = Problem(jax.jit(fx), x0)  # traced once, for the steps and for the summary
        clip = clipper(bounds, x0)

        def terms(x, seen):
            value = problem.fx(cast_like(seen, x0))
            prior = term("log_prior", log_prior, x, value)
            return value, prior, term("regulariser", regulariser, x, value)

        def climbed(coefficients, step_key):
            x = there.decode(coefficients)
            seen = x
            for i, t in enumerate(transforms):
                seen = transformed(t, jax.random.fold_in(step_key, i), seen)
            return objective(terms(x, seen))

        def advance(carry, now):
            coefficients, state = carry
            step, step_key = now
            value, slopes = value_and_slope(lambda c: climbed(c, step_key), coefficients)
            if progress is not None:
                jax.debug.callback(progress, step, value)
            moves, state = optimizer.update(jax.tree.map(jnp.negative, slopes), state, coefficients)
            coefficients = jax.tree.map(lambda c, move: (c + move).astype(c.dtype), coefficients, moves)
            if bounds is not None:
                coefficients = there.encode(clip(there.decode(coefficients)))
            return (coefficients, state), value

        start = there.encode(clip(to_accumulator(x0)))
        every = (jnp.arange(num_steps), jax.random.split(key, num_steps))
        (coefficients, _), trace = jax.lax.scan(advance, (start, optimizer.init(start)), every)
        found = there.decode(coefficients)
        parts = terms(found, found)
        _, slopes = value_and_slope(lambda x: objective(terms(x, x)), found)
        norm = jnp.sqrt(total(jax.tree.map(jnp.square, slopes)))
        prototype = cast_like(found, x0)
        finite = [jnp.isfinite(v).all() for v in jax.tree.leaves((prototype, trace, parts, norm))]
        return prototype, PrototypeInfo(trace, *parts, norm, jnp.stack(finite).all())

    return sampler(f, argnums, "activation_maximization", attribute)


def objective(terms: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    """What is climbed, in the widest type of its terms."""
    value, prior, penalty = terms
    return total([value, prior, -penalty])


def value_and_slope(function: Callable[[Any], jax.Array], x: Any) -> tuple[jax.Array, Any]:
    """The value and the gradient, NaN where the value is: a ReLU passes back 0 at NaN, and x would stay there."""
    value, slopes = jax.value_and_grad(function)(x)
    return value, jax.tree.map(lambda leaf: jnp.where(jnp.isnan(value), jnp.nan, leaf), slopes)


def term(name: str, function: Callable[[Any], Any] | None, x: Any, like: jax.Array) -> jax.Array:
    """A term of the objective at x; 0 where there is none."""
    if function is None:
        return jnp.zeros_like(like)
    value = function(x)
    array = isinstance(value, jax.Array | np.ndarray | np.generic | float)
    if not array or jnp.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ValueError(f"{name}(x) must return one float scalar, but it returned {describe(value)}")
    return jnp.asarray(value)


def transformed(function: Callable[[jax.Array, Any], Any], key: jax.Array, x: Any) -> Any:
    """The input transformed, of the same structure."""
    seen = function(key, x)
    if jax.tree.structure(seen) != jax.tree.structure(x):
        raise ValueError(
            f"a transform t(key, x) returns the input's structure {jax.tree.structure(x)}, "
            f"but {getattr(function, '__name__', function)} returned {jax.tree.structure(seen)}"
        )
    return seen


def clipper(bounds: tuple[Any, Any] | None, x: Any) -> Callable[[Any], Any]:
    """The projection into the bounds."""
    if bounds is None:
        return lambda x: x
    if not isinstance(bounds, tuple) or len(bounds) != 2 or any(b is None for b in bounds):
        raise ValueError(f"bounds are a tuple (low, high), such as (0.0, 1.0) or (0.0, jnp.inf), not {bounds!r}")
    for leaf in jax.tree.leaves(x):
        for bound in bounds:
            try:
                fits = np.broadcast_shapes(np.shape(bound), leaf.shape) == leaf.shape
            except ValueError:
                fits = False
            if not fits:
                raise ValueError(f"bounds of shape {np.shape(bound)} do not fit an input of shape {leaf.shape}")
    if not any(map(_jax.is_tracer, bounds)) and not np.all(np.asarray(bounds[0]) <= np.asarray(bounds[1])):
        raise ValueError(f"bounds are (low, high) with low at most high, not {bounds}")

    def clip(x):
        def one(leaf):
            low, high = (jnp.broadcast_to(jnp.asarray(bound, leaf.dtype), leaf.shape) for bound in bounds)
            return jnp.clip(leaf, low, high)

        return jax.tree.map(one, x)

    return clip


def import_optax() -> Any:
    """Optax, needed only for a default optimizer."""
    try:
        import optax
    except ModuleNotFoundError as error:
        if error.name != "optax":
            raise
        raise ImportError(
            "without optimizer= this needs optax; install it with: pip install jaxplain[prototypes]", name="optax"
        ) from error
    return optax


def check_optimizer(optimizer: Any) -> None:
    """An error unless it has optax's two functions."""
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")) or isinstance(
        optimizer, type
    ):
        raise TypeError(
            f"optimizer needs init(x) and update(slopes, state, x), as optax.adam(0.05) has, not {optimizer!r}"
        )
