"""What happens inside: influence of internal values on the output, what units and concepts mean, interventions."""

from jaxplain.interior.classes import class_expert, class_profiles, profile_deviation
from jaxplain.interior.concepts import concept_sensitivity, concept_vector, tcav
from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.patching import ablate, patch
from jaxplain.interior.segmentation import segment
from jaxplain.interior.units import drop_units, keep_units, rank_units

__all__ = [
    "ablate",
    "class_expert",
    "class_profiles",
    "concept_sensitivity",
    "concept_vector",
    "conductance",
    "drop_units",
    "internal_influence",
    "internal_integrated_gradients",
    "keep_units",
    "neuron_gradient",
    "patch",
    "profile_deviation",
    "rank_units",
    "segment",
    "tcav",
    "unit_activation",
]
