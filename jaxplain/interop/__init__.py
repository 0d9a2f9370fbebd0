"""Thin adapters to what other libraries take and give."""

from jaxplain.interop.callables import numpy_function
from jaxplain.interop.shap_library import to_shap

__all__ = ["numpy_function", "to_shap"]
