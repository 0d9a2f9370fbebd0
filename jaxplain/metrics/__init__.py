"""Measures of explanations: axioms now, faithfulness and robustness to come."""

from jaxplain.metrics.axioms import completeness_gap

__all__ = ["completeness_gap"]
