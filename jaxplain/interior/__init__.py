"""What happens inside: influence of internal values on the output, and functions without some of their units."""

from jaxplain.interior.influence import (
    conductance,
    internal_influence,
    internal_integrated_gradients,
    neuron_gradient,
    unit_activation,
)
from jaxplain.interior.parametrisations import Parametrisation, fourier
from jaxplain.interior.priors import PriorInfo, gaussian_prior, mixture_prior
from jaxplain.interior.prototypes import PrototypeInfo, activation_maximization
from jaxplain.interior.regularisers import jitter, l2, random_blur, total_variation
from jaxplain.interior.units import drop_units, keep_units, rank_units

__all__ = [
    "Parametrisation",
    "PriorInfo",
    "PrototypeInfo",
    "activation_maximization",
    "conductance",
    "drop_units",
    "fourier",
    "gaussian_prior",
    "internal_influence",
    "internal_integrated_gradients",
    "jitter",
    "keep_units",
    "l2",
    "mixture_prior",
    "neuron_gradient",
    "random_blur",
    "rank_units",
    "total_variation",
    "unit_activation",
]
