"""Slow float64 derivations of layer-wise relevance propagation: one message per pair of neurons.

A rule says which messages R_{i<-j} an affine unit sends; R_i is their sum. Sources: Bach et al. 2015 (epsilon,
alpha-beta, flat), Montavon et al. 2017 (w^2, z^B, z^+), Montavon et al. 2019 (gamma) and Andeol et al. 2021 (gamma
for signed inputs), Zhang et al. 2016 (excitation backprop), Springenberg et al. 2015, Zeiler and Fergus 2014.
"""

import types
from collections.abc import Callable, Mapping

import numpy as np

from references.derivations_units import (
    Affine,
    Array,
    Average,
    Max,
    Relu,
    Residual,
    Scale,
    Unit,
    affine_names,
    values,
    winner,
)

EPS = 1e-6
Rule = Callable[[Affine, Array, Array], Array]


def stabilised(z: Array, eps: float) -> Array:
    """Away from zero by eps, zero itself upwards."""
    return z + eps * np.where(z >= 0, 1.0, -1.0)


def positive(z: Array) -> Array:
    return np.where(z > 0, z, 0.0)


def negative(z: Array) -> Array:
    return np.where(z < 0, z, 0.0)


def shared(contributions: Array, extra: Array | float, R: Array, eps: float) -> Array:
    """Messages c_ij / stab(sum_i c_ij + extra_j) R_j."""
    total = contributions.sum(0) + extra
    return contributions / stabilised(total, eps) * R


def epsilon(eps: float = EPS) -> Rule:
    return lambda unit, x, R: shared(x[:, None] * unit.W, unit.b, R, eps)


def alpha_beta(alpha: float = 2.0, beta: float = 1.0, eps: float = EPS) -> Rule:
    def messages(unit, x, R):
        z = x[:, None] * unit.W
        up = shared(positive(z), positive(unit.b), R, eps)
        down = shared(negative(z), negative(unit.b), R, eps)
        return alpha * up - beta * down

    return messages


def z_plus(eps: float = EPS) -> Rule:
    return lambda unit, x, R: shared(positive(x[:, None] * unit.W), positive(unit.b), R, eps)


def gamma(g: float = 0.25, eps: float = EPS) -> Rule:
    """By the sign of z_j, the contributions of that sign count 1 + g times; z_j = 0 sends nothing."""

    def messages(unit, x, R):
        z, b = x[:, None] * unit.W, unit.b
        total = z.sum(0) + b
        up = shared(z + g * positive(z), b + g * positive(b), R, eps)
        down = shared(z + g * negative(z), b + g * negative(b), R, eps)
        return np.where(total > 0, up, 0.0) + np.where(total < 0, down, 0.0)

    return messages


def w_square(eps: float = EPS) -> Rule:
    return lambda unit, x, R: shared(unit.W**2, unit.b**2, R, eps)


def flat(eps: float = EPS) -> Rule:
    return lambda unit, x, R: shared(unit.linked.astype(float), 0.0, R, eps)


def z_box(low: float, high: float, eps: float = EPS) -> Rule:
    def messages(unit, x, R):
        z = x[:, None] * unit.W - low * positive(unit.W) - high * negative(unit.W)
        return shared(z, unit.b - positive(unit.b) - negative(unit.b), R, eps)

    return messages


def unbiased(rule: Rule) -> Rule:
    """The rule with the bias taken for 0."""
    return lambda unit, x, R: rule(unit._replace(b=np.zeros_like(unit.b)), x, R)


def proportional(contributions: Array, R: Array, eps: float) -> Array:
    return shared(contributions, 0.0, R, eps)


def everywhere(rule: Rule) -> Callable[[Affine], Rule]:
    return lambda unit: rule


def chosen(
    made: list[Unit],
    default: Rule,
    *,
    conv: Rule | None = None,
    first: Rule | None = None,
    last: Rule | None = None,
    named: Mapping[str, Rule] = types.MappingProxyType({}),
) -> Callable[[Affine], Rule]:
    """Which rule an affine unit gets: by its name, place or kind, or the default."""
    names = affine_names(made)

    def choose(unit: Affine) -> Rule:
        if unit.name in named:
            return named[unit.name]
        if first and unit.name == names[0]:
            return first
        if last and unit.name == names[-1]:
            return last
        return conv if conv and unit.kind == "conv" else default

    return choose


def relevances(
    made: list[Unit], x: Array, R: Array, rules: Callable[[Affine], Rule], eps: float = EPS
) -> dict[str, Array]:
    """The relevance of the output of every unit, by name, and that of the input as "x"."""
    found: dict[str, Array] = {}
    passed = values(made, x)
    for unit, before in zip(reversed(made), reversed(passed[:-1]), strict=True):
        found[unit.name] = R
        if isinstance(unit, Affine):
            R = rules(unit)(unit, before, R).sum(1)
        elif isinstance(unit, Average):
            R = proportional(before[:, None] * unit.W, R, eps).sum(1)
        elif isinstance(unit, Max):
            R = to_winners(unit, before, R)
        elif isinstance(unit, Residual):
            after = values(unit.body, before)[-1]
            kept, entered = proportional(np.stack([before, after]), R, eps)
            inside = relevances(unit.body, before, entered, rules, eps)
            R = kept + inside.pop("x")
            found |= inside
        else:
            assert isinstance(unit, Relu | Scale)  # relevance passes
    return found | {"x": R}


def to_winners(unit: Max, x: Array, R: Array) -> Array:
    to = np.zeros(x.size)
    for j, window in enumerate(unit.windows):
        to[winner(x, window)] += R[j]
    return to


def at_target(made: list[Unit], x: Array, target: int, start: float | None = None) -> Array:
    """Relevance at the output: the target's logit, or another number, at the target."""
    logits = values(made, x)[-1]
    R = np.zeros(logits.size)
    R[target] = logits[target] if start is None else start
    return R


def contrast(made: list[Unit], x: Array, target: int, rules: Callable[[Affine], Rule], eps: float = EPS):
    """Marginal winning probabilities by unit, and those of the dual unit: the target's last weights negated."""
    start = at_target(made, x, target, 1.0)
    last = made[-1]
    assert isinstance(last, Affine)
    dual = [*made[:-1], last._replace(W=-last.W, b=-last.b)]
    return relevances(made, x, start, rules, eps), relevances(dual, x, start, rules, eps)


def guided(made: list[Unit], x: Array, cotangent: Array, passes: Callable[[Array, Array], Array]) -> Array:
    """The chain rule, with another derivative of each ReLU: `passes(input, cotangent)`."""
    for unit, before in zip(reversed(made), reversed(values(made, x)[:-1]), strict=True):
        if isinstance(unit, Affine | Average):
            cotangent = unit.W @ cotangent
        elif isinstance(unit, Max):
            cotangent = to_winners(unit, before, cotangent)
        elif isinstance(unit, Relu):
            cotangent = passes(before, cotangent)
        else:
            assert isinstance(unit, Residual)
            cotangent = cotangent + guided(unit.body, before, cotangent, passes)
    return cotangent


RELU_PASSES = {
    "guided_backprop": lambda x, r: np.where((r > 0) & (x > 0), r, 0.0),
    "deconvnet": lambda x, r: np.where(r > 0, r, 0.0),
}
