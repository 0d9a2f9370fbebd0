"""Attribution and influence for any JAX function, as pure function transforms used like `jax.grad`."""

from jaxplain._estimate import Estimate

# What in the input.
from jaxplain.attribution import (
    ablation_cam,
    average_over,
    blur,
    blur_integrated_gradients,
    cam,
    constant,
    eigen_cam,
    eigen_grad_cam,
    expected_gradients,
    grad_cam,
    grad_cam_elementwise,
    grad_cam_pp,
    gradient,
    gradient_times_input,
    guided_integrated_gradients,
    hires_cam,
    integrated_gradients,
    layer_cam,
    noise,
    saliency,
    score_cam,
    sensitivity,
    smooth,
    taylor,
    taylor_remainder,
    xgrad_cam,
)

# Inside the function.
from jaxplain.engine import (
    SiteError,
    Slice,
    UnsupportedOperation,
    capture,
    last_conv,
    list_sites,
    nth,
    plant,
    slice_at,
    tag,
)

# What is explained.
from jaxplain.quantities import class_contrast, class_score, log_probability, margin

__version__ = "0.1.0.dev0"

__all__ = [
    "Estimate",
    "SiteError",
    "Slice",
    "UnsupportedOperation",
    "ablation_cam",
    "average_over",
    "blur",
    "blur_integrated_gradients",
    "cam",
    "capture",
    "class_contrast",
    "class_score",
    "constant",
    "eigen_cam",
    "eigen_grad_cam",
    "expected_gradients",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_pp",
    "gradient",
    "gradient_times_input",
    "guided_integrated_gradients",
    "hires_cam",
    "integrated_gradients",
    "last_conv",
    "layer_cam",
    "list_sites",
    "log_probability",
    "margin",
    "noise",
    "nth",
    "plant",
    "saliency",
    "score_cam",
    "sensitivity",
    "slice_at",
    "smooth",
    "tag",
    "taylor",
    "taylor_remainder",
    "xgrad_cam",
]
