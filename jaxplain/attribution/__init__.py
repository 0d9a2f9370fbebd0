"""What in the input made the network say this."""

from jaxplain.attribution.augment import average_over, smooth
from jaxplain.attribution.gradients import (
    gradient,
    gradient_times_input,
    saliency,
    sensitivity,
    taylor,
    taylor_remainder,
)
from jaxplain.attribution.paths import (
    blur,
    blur_integrated_gradients,
    constant,
    expected_gradients,
    guided_integrated_gradients,
    integrated_gradients,
    noise,
)

__all__ = [
    "average_over",
    "blur",
    "blur_integrated_gradients",
    "constant",
    "expected_gradients",
    "gradient",
    "gradient_times_input",
    "guided_integrated_gradients",
    "integrated_gradients",
    "noise",
    "saliency",
    "sensitivity",
    "smooth",
    "taylor",
    "taylor_remainder",
]
