"""What happens inside: influence of internal values on the output, what units and concepts mean, interventions."""

from jaxplain.interior.classes import (
    class_expert,
    class_profiles,
    profile_deviation,
)
from jaxplain.interior.concepts import (
    concept_sensitivity,
    concept_vector,
    tcav,
)
from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.neighbours import (
    Neighbours,
    embed,
    nearest_neighbours,
)
from jaxplain.interior.patching import (
    ablate,
    patch,
)
from jaxplain.interior.receptive_field import (
    Box,
    bounding_box,
    receptive_field,
)
from jaxplain.interior.segmentation import (
    segment,
)
from jaxplain.interior.top_activations import (
    TopActivations,
    patches,
    top_activations,
)
from jaxplain.interior.units import (
    drop_units,
    keep_units,
    rank_units,
)
from jaxplain.interior.visualise import (
    scaled_pixels,
    visualise_unit,
)

__all__ = [
    "Box",
    "Neighbours",
    "TopActivations",
    "ablate",
    "bounding_box",
    "class_expert",
    "class_profiles",
    "concept_sensitivity",
    "concept_vector",
    "conductance",
    "drop_units",
    "embed",
    "internal_influence",
    "internal_integrated_gradients",
    "keep_units",
    "nearest_neighbours",
    "neuron_gradient",
    "patch",
    "patches",
    "profile_deviation",
    "rank_units",
    "receptive_field",
    "scaled_pixels",
    "segment",
    "tcav",
    "top_activations",
    "unit_activation",
    "visualise_unit",
]
