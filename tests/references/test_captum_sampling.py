"""Captum's sampling methods: estimates within five of their own standard errors, and those of the right size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from references.compare import QUICK_TO_COMPILE, assert_close, rows, score, select, tolerance
from references.reader import Case

NUM_SAMPLES = {"N1": 4000, "N3": 200}


def gradient_shap(case):
    return jxp.expected_gradients(score(case), case.inputs["background"], num_samples=NUM_SAMPLES[case.net])


def smooth(moment):
    """Captum's noise is absolute, ours a fraction of the example's range: this fraction of it is as much."""

    def method(case):
        def smoothed(key, x, label):
            sigma = case.params["stdev"] / (x.max() - x.min())
            base = jxp.gradient(score(case))
            explain = jxp.smooth(base, num_samples=NUM_SAMPLES[case.net], sigma=sigma, moment=moment)
            return explain(key, x, label)

        return smoothed

    return method


METHODS = {
    "gradient_shap": gradient_shap,
    "smoothgrad": smooth("mean"),
    "smoothgrad_sq": smooth("square"),
    "vargrad": smooth("variance"),
}
CASES = select("captum_pert", METHODS)
DETERMINISTIC = select("captum_pert", ["sensitivity_max"])


def wanted(case: Case):
    """(what is estimated, its own standard error): the exact value where there is one."""
    output = case.outputs["attr"]
    if "exact" in output:
        return output["exact"], np.zeros(output["shape"])
    # Captum's variance is mean(g^2) - mean(g)^2 in runs of `per_run` samples: too small by (n - 1) / n.
    n = case.params["per_run"]
    unbiased = n / (n - 1) if case.method == "vargrad" else 1.0
    return unbiased * output["f64"], unbiased * output["stderr"]


@pytest.mark.parametrize("case", CASES)
def test_estimate(case):
    x, labels = rows(case, "float64")
    explain = jax.jit(jax.vmap(METHODS[case.method](case)), compiler_options=QUICK_TO_COMPILE)
    value, std_error = explain(jax.random.split(jax.random.key(20), len(x)), x, labels)
    want, want_error = wanted(case)
    error = np.hypot(std_error, want_error)
    assert value.shape == want.shape
    assert (np.abs(value - want) <= 5 * error + 1e-12 * np.abs(want).max()).all()
    # Errors that are too large would let anything pass: in standard errors, the deviations are of size 1.
    deviations = ((value - want) / np.where(error > 0, error, np.inf))[error > 0]
    assert deviations.size > 0.5 * want.size
    assert 0.7 < np.sqrt(np.square(deviations).mean()) < 1.3


@pytest.mark.parametrize("case", [param for param in CASES if "exact" in param.values[0].outputs["attr"]])
def test_captums_own_estimate_is_as_near(case):
    output = case.outputs["attr"]
    gap = np.abs(output["f64"] - output["exact"])
    assert (gap <= 5 * output["stderr"] + 1e-12 * np.abs(output["exact"]).max()).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", DETERMINISTIC)
def test_gradients_at_given_perturbations(case, dtype):
    """Captum's largest relative change of the gradient over given perturbations (the metric comes later)."""
    slope = jxp.gradient(score(case))
    given = jnp.asarray(case.inputs["perturbation"], dtype)
    x, labels = rows(case, dtype)

    def largest(perturbations, x, label):
        here = slope(x, label)
        there = jax.vmap(lambda p: slope(x + p, label))(perturbations)
        changes = jnp.linalg.norm((there - here[None]).reshape(len(perturbations), -1), axis=1)
        return changes.max() / jnp.linalg.norm(here)

    got = jax.jit(jax.vmap(largest), compiler_options=QUICK_TO_COMPILE)(given, x, labels)
    assert_close(got, case.outputs["value"]["f64"], tolerance(case.outputs["value"], dtype))
