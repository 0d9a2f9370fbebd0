"""Measures of explanations: axioms and ground truth for influence now, faithfulness and robustness to come."""

from jaxplain.metrics.axioms import completeness_gap
from jaxplain.training.retraining import leave_one_out, linear_datamodeling_score, subset_retraining

__all__ = ["completeness_gap", "leave_one_out", "linear_datamodeling_score", "subset_retraining"]
