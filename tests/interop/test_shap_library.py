"""Attributions handed to the shap library."""

import sys

import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from jaxplain import Estimate
from jaxplain.interop import to_shap

NUMERICS = "plain"
pytestmark = pytest.mark.filterwarnings("ignore")  # shap's own, of matplotlib and numba


def test_explanation():
    estimate = Estimate(jnp.array([1.0, -2.0]), jnp.array([0.1, 0.2]))
    explanation = to_shap(estimate, np.array([3.0, 4.0]), 0.5, feature_names=["age", "pulse"])
    np.testing.assert_array_equal(explanation.values, estimate.value)
    np.testing.assert_array_equal(explanation.data, [3.0, 4.0])
    assert explanation.base_values == 0.5
    assert explanation.feature_names == ["age", "pulse"]
    np.testing.assert_array_equal(explanation.error_std, estimate.std_error)


def test_shap_draws_it():
    import shap  # here, for what it warns of when it is imported

    matplotlib.use("agg")
    rows = np.array([[1.0, -2.0], [0.5, 1.0], [-0.25, 0.5]])
    explanation = to_shap(rows, rows + 1, np.full(3, 0.5), feature_names=["age", "pulse"])
    axes = shap.plots.bar(explanation, show=False)
    assert {"age", "pulse"} <= {text.get_text() for text in axes.get_yticklabels()}
    shap.plots.waterfall(explanation[0], show=False)
    labels = {tick.get_text() for axes in plt.gcf().axes for tick in axes.get_yticklabels()}
    assert any("pulse" in label for label in labels)
    plt.close("all")


def test_without_shap(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxplain\[shap\]'"):
        to_shap(np.zeros(2), np.zeros(2))


def test_shapes_that_differ():
    with pytest.raises(ValueError, match="has shape"):
        to_shap(np.zeros(2), np.zeros(3))
    with pytest.raises(ValueError, match="3 feature names"):
        to_shap(np.zeros(2), np.zeros(2), feature_names="abc")
