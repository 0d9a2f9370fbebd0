"""What happens inside: influence of internal values on the output, and functions without some of their units."""

from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.units import drop_units, keep_units, rank_units

__all__ = [
    "conductance",
    "drop_units",
    "internal_influence",
    "internal_integrated_gradients",
    "keep_units",
    "neuron_gradient",
    "rank_units",
    "unit_activation",
]
