"""What happens inside: influence of internal values on the output, what units mean, and functions without some."""

from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.neighbours import Neighbours, embed, nearest_neighbours
from jaxplain.interior.receptive_field import Box, bounding_box, receptive_field
from jaxplain.interior.top_activations import TopActivations, patches, top_activations
from jaxplain.interior.units import drop_units, keep_units, rank_units
from jaxplain.interior.visualise import scaled_pixels, visualise_unit

__all__ = [
    "Box",
    "Neighbours",
    "TopActivations",
    "bounding_box",
    "conductance",
    "drop_units",
    "embed",
    "internal_influence",
    "internal_integrated_gradients",
    "keep_units",
    "nearest_neighbours",
    "neuron_gradient",
    "patches",
    "rank_units",
    "receptive_field",
    "scaled_pixels",
    "top_activations",
    "unit_activation",
    "visualise_unit",
]
