"""Which rule serves which unit: tables, selectors, and the composites of the literature."""

import dataclasses
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp

from jaxplain._errors import near
from jaxplain.rules.constructors import alpha_beta, epsilon, flat, z_plus
from jaxplain.rules.messages import Epsilon, Gamma, Rule, ZBox


class UnitView(NamedTuple):
    """What a selector sees of a unit.

    `first` and `last`: whether no other affine unit stands before (behind) it on some path.
    """

    kind: str
    names: tuple[str, ...]
    first: bool
    last: bool
    place: str


Selector = Callable[[UnitView], bool]


@dataclasses.dataclass(frozen=True)
class Rules:
    """A table: the first entry whose selector accepts a unit names its rule, else the default does."""

    default: Rule
    entries: tuple[tuple[Selector, Rule], ...] = ()
    product: Literal["gate", "uniform"] = "gate"
    softmax: Literal["attention", "detach"] = "attention"
    normalisation: Literal["detach", "share"] = "detach"
    eps: Any = 1e-6
    tangent: bool = False

    def rule_of(self, unit: UnitView) -> Rule:
        """The rule that serves an affine unit."""
        return next((rule for selector, rule in self.entries if selector(unit)), self.default)


def rules_for(
    default: Rule | Rules,
    entries: Mapping[Selector, Rule] | None = None,
    *,
    product: Literal["gate", "uniform"] = "gate",
    softmax: Literal["attention", "detach"] = "attention",
    normalisation: Literal["detach", "share"] = "detach",
    eps: Any = 1e-6,
) -> Rules:
    r"""A table of rules: for every affine unit the first entry that accepts it, else the default.

    Args:
        default: the rule of the other affine units.
        entries: `{selector: rule}`, in order of precedence. A selector is a predicate on units: `dense`, `conv`,
            `first`, `last`, `named(pattern)`, or any function of a unit's `kind`, `names`, `first`, `last`,
            `place`.
        product: two factors that both depend on the input: "gate": a sigmoid-like factor takes nothing, the
            other all (two signals share equally); "uniform": always equal shares. Matrix products of two
            signals share equally.
        softmax: "attention": the AttnLRP rule, $x_i (R_i - p_i \\sum_j R_j)$; "detach": a softmax that feeds
            a product is a constant.
        normalisation: "detach": the statistic that a normalisation divides by is a constant; "share": it is a
            factor like any other.
        eps: the stabiliser of sums, pooling, products and standalone scales.

    Returns:
        A table for `lrp` and `coverage`.

    Raises:
        ValueError: an option is not one of its words.
        TypeError: a rule is no rule, or a selector is not callable.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.epsilon(), {R.first: R.z_box(0.0, 1.0), R.conv: R.gamma(0.1)})
        >>> [type(rule).__name__ for _, rule in table.entries]
        ['ZBox', 'Gamma']

    Source: Montavon et al. 2019, section 10.3; Arras et al. 2017 (gates); Achtibat et al. 2024 (attention).
    """
    options = {
        "product": (product, ("gate", "uniform")),
        "softmax": (softmax, ("attention", "detach")),
        "normalisation": (normalisation, ("detach", "share")),
    }
    for name, (given, known) in options.items():
        if given not in known:
            raise ValueError(f"{name}={given!r}: {near(str(given), known)}")
    pairs = tuple((entries or {}).items())
    for selector, rule in pairs:
        if not callable(selector):
            raise TypeError(f"a selector is a function of a unit, such as rules.conv; got {selector!r}")
        check_rule(rule)
    check_rule(default)
    return Rules(default, pairs, product, softmax, normalisation, eps)


def check_rule(rule: Any) -> None:
    """An error for what is no rule."""
    if not hasattr(rule, "relevance"):
        hint = "call it, as in rules.epsilon()" if callable(rule) else "make one with rules.epsilon() or the like"
        raise TypeError(f"{rule!r} is no rule; {hint}")


def as_table(rules: Any) -> Rules:
    """A table, or a bare rule, which then serves every affine unit, as a table."""
    if isinstance(rules, Rules):
        return rules
    check_rule(rules)
    # A large eps is for layers, to quieten them; sums and pooling keep the small one. With LRP-0 they have none.
    return Rules(rules, eps=smaller(getattr(rules, "eps", 1e-6), 1e-6))


def smaller(eps: Any, most: float) -> Any:
    """The smaller of a number, perhaps traced, and a limit."""
    return min(eps, most) if isinstance(eps, float | int) else jnp.minimum(eps, most)


def dense(unit: UnitView) -> bool:
    """Selects dense layers: dot products with a weight.

    Args:
        unit: the unit.

    Returns:
        Whether it is one.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.z_plus(), {R.dense: R.epsilon()})
    """
    return unit.kind == "dense"


def conv(unit: UnitView) -> bool:
    """Selects convolutions with a weight.

    Args:
        unit: the unit.

    Returns:
        Whether it is one.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.epsilon(), {R.conv: R.z_plus()})
    """
    return unit.kind == "conv"


def first(unit: UnitView) -> bool:
    """Selects affine units that the explained input reaches without another one between.

    Args:
        unit: the unit.

    Returns:
        Whether it is one.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.epsilon(), {R.first: R.flat()})
    """
    return unit.first


def last(unit: UnitView) -> bool:
    """Selects affine units behind which no other one stands on the way to the output.

    Args:
        unit: the unit.

    Returns:
        Whether it is one.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.z_plus(), {R.last: R.epsilon()})
    """
    return unit.last


def named(pattern: str) -> Selector:
    """Selects units by name: a tag, a module path or a weight path, as `list_sites` prints them.

    Args:
        pattern: a name, the end of a path, or either with `*` and `?` as in file names.

    Returns:
        A selector.

    Example:
        >>> import jaxplain as jxp
        >>> R = jxp.rules
        >>> table = R.rules_for(R.epsilon(), {R.named("head/*"): R.z_plus()})
    """

    def selected(unit: UnitView) -> bool:
        return any(fnmatchcase(name, pattern) or fnmatchcase(name, f"*/{pattern}") for name in unit.names)

    return selected


def epsilon_gamma_box(low: Any, high: Any, *, eps: Any = 1e-6, g: Any = 0.25) -> Rules:
    """Epsilon for dense layers, gamma for convolutions, z-box for the first unit.

    Args:
        low: the lower bound of the input, a number or an array.
        high: the upper bound.
        eps: the stabiliser.
        g: the gamma of convolutions.

    Returns:
        A table for `lrp`.

    Example:
        >>> import jaxplain as jxp
        >>> table = jxp.rules.epsilon_gamma_box(0.0, 1.0)

    Source: Montavon et al. 2019, section 10.3.
    """
    return Rules(Epsilon(eps), ((first, ZBox(low, high, eps)), (conv, Gamma(g, eps))), eps=eps)


EPSILON = Rules(epsilon())
Z_PLUS = Rules(z_plus())
EPSILON_PLUS = Rules(epsilon(), ((conv, z_plus()),))
EPSILON_PLUS_FLAT = Rules(epsilon(), ((first, flat()), (conv, z_plus())))
EPSILON_ALPHA2_BETA1 = Rules(epsilon(), ((conv, alpha_beta()),))
EPSILON_ALPHA2_BETA1_FLAT = Rules(epsilon(), ((first, flat()), (conv, alpha_beta())))
EXCITATION = Rules(z_plus(bias="ignore"), product="uniform")
GRADIENT = Rules(epsilon(), tangent=True)
ATTENTION = Rules(epsilon(), product="uniform")
