"""Rules by which relevance goes from a unit's output to its inputs, and tables that give each unit its rule.

`EPSILON`, `Z_PLUS`: one rule everywhere. `EPSILON_PLUS`: epsilon for dense layers, z+ for convolutions;
`EPSILON_PLUS_FLAT`: and flat for the first; `EPSILON_ALPHA2_BETA1`, `EPSILON_ALPHA2_BETA1_FLAT`: alpha-beta in
place of z+. `EXCITATION`: z+ without bias. `ATTENTION`: AttnLRP. `GRADIENT`: the plain derivative, from 1.
"""

from jaxplain.rules.constructors import alpha_beta, epsilon, flat, gamma, passing, w_square, z_box, z_plus
from jaxplain.rules.tables import (
    ATTENTION,
    EPSILON,
    EPSILON_ALPHA2_BETA1,
    EPSILON_ALPHA2_BETA1_FLAT,
    EPSILON_PLUS,
    EPSILON_PLUS_FLAT,
    EXCITATION,
    GRADIENT,
    Z_PLUS,
    Rules,
    UnitView,
    conv,
    dense,
    epsilon_gamma_box,
    first,
    last,
    named,
    rules_for,
)

__all__ = [
    "ATTENTION",
    "EPSILON",
    "EPSILON_ALPHA2_BETA1",
    "EPSILON_ALPHA2_BETA1_FLAT",
    "EPSILON_PLUS",
    "EPSILON_PLUS_FLAT",
    "EXCITATION",
    "GRADIENT",
    "Z_PLUS",
    "Rules",
    "UnitView",
    "alpha_beta",
    "conv",
    "dense",
    "epsilon",
    "epsilon_gamma_box",
    "first",
    "flat",
    "gamma",
    "last",
    "named",
    "passing",
    "rules_for",
    "w_square",
    "z_box",
    "z_plus",
]
