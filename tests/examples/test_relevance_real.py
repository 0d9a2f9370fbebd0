"""Relevance on pretrained networks: what adds up, to how many digits, and where the rest stays.

The figures in comments were measured on x86-64 with JAX 0.10.2.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import bundled, dgaintel, lite0_equinox, lite0_linen, lite0_nnx, mnist_cnn, preprocess, review_head

import jaxplain as jxp
from jaxplain.metrics import completeness_gap

R = jxp.rules
FRAMEWORKS = {"linen": lite0_linen, "nnx": lite0_nnx, "equinox": lite0_equinox}
ESPRESSO = 967
OPTIMISED = {"xla_backend_optimization_level": 3}  # this network runs longer than it compiles
SENTENCE = "A wonderful, moving film with not a single dull moment."
FIXED_ATTENTION = R.rules_for(R.epsilon(), product="uniform", softmax="detach")


class Problem(NamedTuple):
    """A scalar function of (parameters, input), an input, and a reference for it."""

    f: Any
    params: Any
    x: jax.Array
    reference: jax.Array

    def at(self, dtype):
        """(the function of the input alone, the input, the reference) in a precision."""
        cast = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
        params = cast(self.params)
        return lambda x: self.f(params, x), cast(self.x), cast(self.reference)


def digit():
    network, (first, *_) = mnist_cnn.load(), mnist_cnn.digits()
    x, black = (mnist_cnn.preprocess(pixels) for pixels in (first.pixels, np.zeros((28, 28), np.uint8)))
    return Problem(lambda params, x: network.apply(params, x)[first.label], network.params, x, black)


def domain():
    network = dgaintel.load()
    f, (name, empty) = network.apply, (network.embed(name) for name in ("xjwqzkbvtplmr.com", "-"))
    return Problem(f, network.params, np.asarray(name), np.asarray(empty))


def review():
    network = review_head.load()
    ids = network.tokenize(SENTENCE).ids
    return Problem(network.apply, network.params, np.asarray(network.embed(ids)), np.asarray(network.blank(ids)))


@pytest.fixture(scope="module")
def problems():
    return {"digit": digit(), "domain": domain(), "review": review()}


# --- completeness ---


# Measured: at most 1e-7 (digit), 1e-7 (domain), 3e-6 (review). The sum of DeepLIFT's shares rounds as a sum whose
# terms cancel: for reviews their magnitudes add up to 18 to 40 times the difference. In float64: 6e-16 (review).
FLOAT32_GAP = {"digit": 1e-6, "domain": 1e-6, "review": 1e-5}


def relative_gap(f, x, reference):
    value = jax.jit(jxp.deep_lift(f, reference))(x)
    gap = completeness_gap(f, value, x, reference)
    return abs(float(gap / (f(x) - f(reference))))


@pytest.mark.parametrize("name", FLOAT32_GAP)
def test_deep_lift_is_complete(problems, name):
    assert relative_gap(*problems[name].at(np.float32)) < FLOAT32_GAP[name]
    with jax.enable_x64(True):
        assert relative_gap(*problems[name].at(np.float64)) < 1e-12


# --- conservation ---


# Biases leak; eps takes a share of what it stabilises; a LayerNorm's scale and shift is a "scale" with a bias; the
# first-order expansion of a softmax has a remainder (Achtibat et al. 2024, section 3.3).
LEAKS = {
    "digit": (R.EPSILON, {"conv", "dense"}),
    "domain": (R.EPSILON, {"conv", "dense"}),
    "review": (R.ATTENTION, {"dense", "scale", "softmax"}),
}


@pytest.mark.parametrize("name", LEAKS)
def test_what_does_not_arrive_stays_with_biases(problems, name):
    table, kinds = LEAKS[name]
    with jax.enable_x64(True):
        f, x, _ = problems[name].at(np.float64)
        rows = jxp.coverage(f, table)(x)
        arrived = jax.jit(jxp.lrp(f, table))(x).sum()
        np.testing.assert_allclose(rows.start, f(x), rtol=1e-9)
    size = max(abs(row.relevance_in) for row in rows)
    np.testing.assert_allclose(rows.end + sum(row.leak for row in rows), rows.start, atol=1e-9 * size)
    np.testing.assert_allclose(rows.end, arrived, atol=1e-9 * size)
    assert {row.kind for row in rows if abs(row.leak) > 1e-4 * size} <= kinds


def test_attention_rules_keep_part_of_a_review(problems):
    with jax.enable_x64(True):
        f, x, _ = problems["review"].at(np.float64)
        score = f(x)
        sums = [jax.jit(jxp.lrp(f, table))(x).sum() for table in (R.ATTENTION, FIXED_ATTENTION)]
    # The biases of 6 layers keep the rest, or, with CP-LRP, add to it.
    np.testing.assert_allclose([score, *sums], [1.1035, 0.4828, 2.7023], atol=2e-3)


def test_without_biases_everything_arrives(problems):
    with jax.enable_x64(True):
        problem = problems["digit"]
        bare = {k: v | {"bias": np.zeros_like(v["bias"])} for k, v in problem.params.items()}
        f, x, _ = problem._replace(params=bare).at(np.float64)
        lrp0 = jax.jit(jxp.lrp(f, R.epsilon(0.0)))(x)
        # LRP-0 is gradient times input where there are no biases (Ancona et al. 2018, proposition 1).
        expected = jax.jit(jxp.gradient_times_input(f))(x)
        np.testing.assert_allclose(lrp0, expected, rtol=1e-7, atol=1e-10 * abs(expected).max())
        np.testing.assert_allclose(lrp0.sum(), f(x), rtol=1e-10)


# --- EfficientNet-Lite0 in three frameworks ---


@pytest.fixture(scope="module")
def photo():
    return jnp.asarray(preprocess(bundled("coffee")))


@pytest.fixture(scope="module")
def explained(photo):
    found = {}
    for name, framework in FRAMEWORKS.items():
        f = jxp.class_score(framework.load().logits)
        methods = {"lrp": jxp.lrp(f, R.EPSILON_PLUS_FLAT), "deep_lift": jxp.deep_lift(f, jxp.blur(20.0))}
        together = lambda x, f=f, methods=methods: (
            {k: method(x, ESPRESSO) for k, method in methods.items()},
            f(x, ESPRESSO) - f(jxp.blur(20.0)(x), ESPRESSO),
        )
        found[name] = jax.tree.map(np.asarray, jax.jit(together, compiler_options=OPTIMISED)(photo))
    return found


# DeepLIFT divides small differences by small differences, so it feels rounding more.
@pytest.mark.parametrize(("method", "tolerance"), [("lrp", 1e-3), ("deep_lift", 1e-2)])
def test_frameworks_agree(explained, method, tolerance):
    reference = explained["linen"][0][method]
    for name in ("nnx", "equinox"):
        worst = np.abs(explained[name][0][method] - reference).max() / np.abs(reference).max()
        assert worst < tolerance, (name, worst)


def test_deep_lift_is_complete_on_a_photo(explained):
    for maps, difference in explained.values():
        gap = maps["deep_lift"].astype(np.float64).sum() - difference
        assert abs(gap / difference) < 2e-5, gap / difference  # 49 layers of float32; 17 times as much cancels
