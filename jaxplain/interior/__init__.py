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
from jaxplain.interior.neighbours import Neighbours, embed, nearest_neighbours
from jaxplain.interior.parametrisations import Parametrisation, fourier
from jaxplain.interior.patching import ablate, patch
from jaxplain.interior.priors import PriorInfo, gaussian_prior, mixture_prior
from jaxplain.interior.prototypes import PrototypeInfo, activation_maximization
from jaxplain.interior.receptive_field import Box, bounding_box, receptive_field
from jaxplain.interior.regularisers import jitter, l2, random_blur, total_variation
from jaxplain.interior.segmentation import segment
from jaxplain.interior.top_activations import TopActivations, patches, top_activations
from jaxplain.interior.units import drop_units, keep_units, rank_units
from jaxplain.interior.visualise import scaled_pixels, visualise_unit

__all__ = [
    "Box",
    "Neighbours",
    "Parametrisation",
    "PriorInfo",
    "PrototypeInfo",
    "TopActivations",
    "ablate",
    "activation_maximization",
    "bounding_box",
    "class_expert",
    "class_profiles",
    "concept_sensitivity",
    "concept_vector",
    "conductance",
    "drop_units",
    "embed",
    "fourier",
    "gaussian_prior",
    "internal_influence",
    "internal_integrated_gradients",
    "jitter",
    "keep_units",
    "l2",
    "mixture_prior",
    "nearest_neighbours",
    "neuron_gradient",
    "patch",
    "patches",
    "profile_deviation",
    "random_blur",
    "rank_units",
    "receptive_field",
    "scaled_pixels",
    "segment",
    "tcav",
    "top_activations",
    "total_variation",
    "unit_activation",
    "visualise_unit",
]
