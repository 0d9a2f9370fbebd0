"""What happens inside: influence of internal values on the output, and functions without some of their units."""

from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.receptive_field import Box, bounding_box, receptive_field
from jaxplain.interior.units import drop_units, keep_units, rank_units

__all__ = [
    "Box",
    "bounding_box",
    "conductance",
    "drop_units",
    "internal_influence",
    "internal_integrated_gradients",
    "keep_units",
    "neuron_gradient",
    "rank_units",
    "receptive_field",
    "unit_activation",
]
