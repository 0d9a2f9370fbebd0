"""What in the input made the network say this."""

from jaxplain.attribution.activation_maps import (
    cam,
    grad_cam,
    grad_cam_elementwise,
    grad_cam_pp,
    hires_cam,
    layer_cam,
    xgrad_cam,
)
from jaxplain.attribution.activation_scores import ablation_cam, eigen_cam, eigen_grad_cam, score_cam
from jaxplain.attribution.augment import average_over, smooth
from jaxplain.attribution.baselines import blur, constant, noise
from jaxplain.attribution.coverage import coverage
from jaxplain.attribution.deep_lift import deep_lift, deep_shap
from jaxplain.attribution.excitation import contrastive_excitation_backprop, excitation_backprop
from jaxplain.attribution.gradients import (
    gradient,
    gradient_times_input,
    saliency,
    sensitivity,
    taylor,
    taylor_remainder,
)
from jaxplain.attribution.lrp import deep_taylor, lrp
from jaxplain.attribution.paths import (
    blur_integrated_gradients,
    expected_gradients,
    guided_integrated_gradients,
    integrated_gradients,
)
from jaxplain.attribution.perturbation import ablation, occlusion, rise
from jaxplain.attribution.relevance import deconvnet, guided_backprop, guided_grad_cam
from jaxplain.attribution.surrogate import lime
from jaxplain.attribution.surrogate_data import (
    mean_within,
    pick_representatives,
    superpixels,
    words,
)
from jaxplain.attribution.surrogate_fit import Surrogate, fit_surrogate
from jaxplain.attribution.surrogate_table import tabular

__all__ = [
    "Surrogate",
    "ablation",
    "ablation_cam",
    "average_over",
    "blur",
    "blur_integrated_gradients",
    "cam",
    "constant",
    "contrastive_excitation_backprop",
    "coverage",
    "deconvnet",
    "deep_lift",
    "deep_shap",
    "deep_taylor",
    "eigen_cam",
    "eigen_grad_cam",
    "excitation_backprop",
    "expected_gradients",
    "fit_surrogate",
    "grad_cam",
    "grad_cam_elementwise",
    "grad_cam_pp",
    "gradient",
    "gradient_times_input",
    "guided_backprop",
    "guided_grad_cam",
    "guided_integrated_gradients",
    "hires_cam",
    "integrated_gradients",
    "layer_cam",
    "lime",
    "lrp",
    "mean_within",
    "noise",
    "occlusion",
    "pick_representatives",
    "rise",
    "saliency",
    "score_cam",
    "sensitivity",
    "smooth",
    "superpixels",
    "tabular",
    "taylor",
    "taylor_remainder",
    "words",
    "xgrad_cam",
]
