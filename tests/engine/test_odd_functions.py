"""Odd functions: every method is right about them, or says which operation it has no rule for, and where.

Right means: LRP-0 sums to f(x) and is gradient times input of the function with its gates and statistics held
(`odd_case.Case.same`); with a stabiliser it sums to f(x) nearly; DeepLIFT sums to f(x) - f(x'); and the gradient
of a loss of the explanations agrees with finite differences.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine.odd_case import CASES
from engine.odd_moves import rng_matrix  # noqa: F401  (its cases, too)
from engine.odd_products import REFUSED

import jaxplain as jxp

R = jxp.rules
TABLES = {"lrp_0": R.epsilon(0.0), "epsilon_plus": R.EPSILON_PLUS, "attention": R.ATTENTION}
METHODS = (*TABLES, "deep_lift")
STEP = 1e-5
SMOOTH = ("lrp_0", "deep_lift")  # whose derivative is looked at: the code of the other tables is LRP-0's


def names_for(case):
    """EPSILON_PLUS differs from epsilon where there are convolutions: in images."""
    return METHODS if np.ndim(case.x) == 3 else tuple(name for name in METHODS if name != "epsilon_plus")


def is_float(leaf):
    return jnp.issubdtype(jnp.asarray(leaf).dtype, jnp.floating)


def mapped(change, x):
    """`x` with its float leaves changed."""
    return jax.tree.map(lambda leaf: change(leaf) if is_float(leaf) else leaf, x)


def total(parts):
    return sum(leaf.sum() for leaf in jax.tree.leaves(parts))


def times(parts, u):
    """The sum of products of an attribution, which has None where x has no floats, and a tree like it."""
    return sum((a * b).sum() for a, b in zip(jax.tree.leaves(parts), u, strict=True))


def explainer(name, f, baseline):
    """One of the methods."""
    if name == "deep_lift":
        return jxp.deep_lift(f, jax.tree.map(lambda v: v if is_float(v) else None, baseline))
    return jxp.lrp(f, TABLES[name])


def reference(x):
    """A baseline in general position."""
    rng = np.random.default_rng(4)
    return mapped(lambda v: 0.3 * v + 0.1 + 0.05 * rng.normal(size=np.shape(v)), x)


@functools.cache
def outcome(key):
    """(refusals, everything about the other methods) of a case: one program.

    Answers are taken at x and on both sides of it; the slope is `jax.grad`'s, of the losses of LRP-0 and DeepLIFT
    together.
    """
    case, refused = CASES[key], {}
    x = jax.tree.map(jnp.asarray, case.x)
    rng = np.random.default_rng(5)
    floats = [leaf for leaf in jax.tree.leaves(x) if is_float(leaf)]
    sides = [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in floats]
    steps = [jnp.asarray(rng.normal(size=leaf.shape)) for leaf in floats]
    baseline = reference(x)

    def moved(leaves):
        given = iter(leaves)
        return mapped(lambda _: next(given), x)

    def explained(leaves, names):
        found = {}
        for name in names:
            try:
                found[name] = explainer(name, case.f, baseline)(moved(leaves))
            except jxp.UnsupportedOperation as error:
                refused[name] = str(error)
        return found

    def loss(leaves):
        return sum((times(part, sides) for part in explained(leaves, SMOOTH).values()), jnp.zeros(()))

    def everything(floats):
        around = [jnp.stack([v + k * STEP * s for k in (-1, 0, 1)]) for v, s in zip(floats, steps, strict=True)]
        found = jax.vmap(lambda leaves: explained(leaves, names_for(case)))(around)
        low, _, high = (
            sum(times(jax.tree.map(lambda v: v[k], found[n]), sides) for n in SMOOTH if n in found)
            for k in range(3)
        )
        slope = sum((a * b).sum() for a, b in zip(jax.grad(loss)(floats), steps, strict=True))
        held = None
        if case.same is not None:
            held = jax.grad(lambda leaves: case.same(moved(leaves)))(floats)
            held = [a * b / case.power for a, b in zip(held, floats, strict=True)]
        answers = jax.tree.map(lambda v: v[1], found)
        return answers, (slope, (high - low) / (2 * STEP)), (case.f(moved(floats)), case.f(baseline)), held

    return refused, jax.tree.map(np.asarray, jax.jit(everything)(floats))


def given(key, name):
    """The outcome, unless the method refuses the case: then its message is looked at."""
    refused, found = outcome(key)
    expected = REFUSED.get((key, name))
    if expected is None:
        assert name not in refused, refused[name]
        return found
    assert name in refused, f"{name} of {key} was expected to be refused"
    assert expected in refused[name]
    return None


PAIRS = [(key, name) for key, case in CASES.items() for name in names_for(case)]


@pytest.mark.parametrize(("key", "name"), [(key, name) for key, name in PAIRS if name != "deep_lift"])
def test_relevance(key, name):
    found = given(key, name)
    if found is None:
        return
    (answers, _, (y, _), held), case = found, CASES[key]
    if case.conserves and not case.bias:
        np.testing.assert_allclose(total(answers[name]), y, rtol=1e-9 if name == "lrp_0" else 1e-4)
    if name == "lrp_0" and held is not None:
        scale = max(np.abs(part).max() for part in held)
        for got, want in zip(jax.tree.leaves(answers[name]), held, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-9 * scale, rtol=0)


@pytest.mark.parametrize("key", CASES)
def test_differences(key):
    found = given(key, "deep_lift")
    if found is None:
        return
    answers, _, (y, reference), _ = found
    np.testing.assert_allclose(total(answers["deep_lift"]), y - reference, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("key", CASES)
def test_derivative_of_the_explanation(key):
    """`jax.grad` of a loss of each explanation against finite differences."""
    if not CASES[key].smooth:
        return
    slope, difference = outcome(key)[1][1]
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("key", [key for key, case in CASES.items() if case.bias])
def test_biases_keep_the_rest(key):
    case = CASES[key]
    for table in TABLES.values():
        rows = jxp.coverage(case.f, table)(jnp.asarray(case.x))
        np.testing.assert_allclose(rows.start, rows.end + sum(row.leak for row in rows), rtol=1e-9)


@pytest.mark.parametrize("key", ["causal_finfo", "causal_added", "causal_after"])
@pytest.mark.parametrize("name", ["lrp_0", "attention", "deep_lift"])
def test_masks_of_attention_agree(key, name):
    """However a mask is written, the masked softmax is the same unit."""
    one, other = given("causal_inf", name), given(key, name)
    assert one is not None
    assert other is not None
    # An added mask is a step of its own, with a stabiliser.
    atol = 1e-6 if name == "attention" else 1e-12
    np.testing.assert_allclose(other[0][name], one[0][name], rtol=1e-9, atol=atol)


@pytest.mark.parametrize("key", dict.fromkeys(key for key, _ in REFUSED))
def test_refusals_say_where(key):
    for text in outcome(key)[0].values():
        assert "engine/odd_" in text, text


def positive_part(f, x):
    """z+ of sum(relu(f(x))) for a linear f without bias, from its matrix."""
    matrix = jax.jacobian(f)(x).reshape(-1, x.size)
    parts = np.maximum(matrix * np.asarray(x).reshape(1, -1), 0)
    relevance = np.maximum(matrix @ np.asarray(x).ravel(), 0)
    return (parts / (parts.sum(1, keepdims=True) + 1e-6) * relevance[:, None]).sum(0).reshape(x.shape)


def correlate(**options):
    """A convolution with a kernel that fits the groups."""
    groups = options.get("feature_group_count", 1)
    kernel = np.random.default_rng(groups).normal(size=(3, 2, 4 // groups, 8))
    numbers = ("NHWC", "HWIO", "NHWC")
    settings = {"window_strides": (1, 1), "padding": "SAME", "dimension_numbers": numbers} | options
    return lambda x: jax.lax.conv_general_dilated(x[None], kernel, **settings)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"feature_group_count": 2},
        {"feature_group_count": 4},
        {"rhs_dilation": (2, 1)},
        {"lhs_dilation": (2, 3), "padding": [(1, 2), (1, 1)]},
        {"window_strides": (2, 3), "padding": "VALID"},
        {"padding": [(2, 0), (0, 3)], "lhs_dilation": (2, 1), "window_strides": (1, 2)},
    ],
    ids=["plain", "grouped", "depthwise", "dilated", "transposed", "strided", "lopsided"],
)
def test_positive_parts_of_convolutions(options):
    """Against the convolution as a dense matrix."""
    f, x = correlate(**options), jnp.asarray(np.random.default_rng(7).normal(size=(5, 6, 4)))
    got = jax.jit(jxp.lrp(lambda x: jax.nn.relu(f(x)).sum(), R.EPSILON_PLUS))(x)
    np.testing.assert_allclose(got, positive_part(f, x), rtol=1e-5, atol=1e-7)


def test_integers_must_be_embedded_first():
    """Tokens cannot be explained: the error says to slice at the embedding."""
    table, head = np.random.default_rng(8).normal(size=(10, 6)), np.random.default_rng(9).normal(size=6)

    def f(tokens):
        rows = jxp.tag(jnp.asarray(table)[tokens], "embedding")
        return jax.nn.relu(rows).sum(0) @ head

    tokens = jnp.array([1, 4, 2])
    for method in (jxp.lrp, jxp.deep_lift, jxp.guided_backprop):
        with pytest.raises(TypeError, match="slice_at"):
            method(f)(tokens)
    h, g = jxp.slice_at(f, "embedding")
    z = h(tokens)
    got = jxp.lrp(g, R.epsilon(0.0))(z, tokens)
    np.testing.assert_allclose(got, jax.nn.relu(z) * head[None], rtol=1e-12)
