"""Shapley values: games of a mask, estimators for any of them, and explanations in the shape of the input."""

from jaxplain.shapley.closed_forms import linear_shap, low_order, max_shap
from jaxplain.shapley.exact import exact
from jaxplain.shapley.explainers import exact_shap, gaussian_process_shap, kernel_shap, permutation_shap, qii
from jaxplain.shapley.games import conditional_gaussian, game, num_players
from jaxplain.shapley.gaussian import gaussian_process
from jaxplain.shapley.interactions import interactions, sampled_interactions
from jaxplain.shapley.kernel import kernel
from jaxplain.shapley.permutation import permutation

__all__ = [
    "conditional_gaussian",
    "exact",
    "exact_shap",
    "game",
    "gaussian_process",
    "gaussian_process_shap",
    "interactions",
    "kernel",
    "kernel_shap",
    "linear_shap",
    "low_order",
    "max_shap",
    "num_players",
    "permutation",
    "permutation_shap",
    "qii",
    "sampled_interactions",
]
