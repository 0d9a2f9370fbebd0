"""Our gradient and path methods against slow derivations of their definitions, in float64."""

import functools
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.attribution.paths import Nodes
from references import derivations as by_hand
from references.compare import QUICK_TO_COMPILE, assert_close
from references.reader import data, network

NETS = ("N1", "N3", "N4")
# Central differences of logits of size 10 with a step of 1e-6: rounding leaves 1e-9 in slopes of size 0.01 to 1.
FINITE_DIFFERENCES = 1e-6


def example(net, row=0):
    """(x, its target as an integer), in float64."""
    return np.asarray(data(net)["x"][row], np.float64), int(data(net)["target"][row])


def stored(net, name):
    return np.asarray(data(net)[name], np.float64)


def compiled(function):
    return jax.jit(function, compiler_options=QUICK_TO_COMPILE)


@functools.cache
def output_of(net):
    """The score of a class and its gradient, both of the bare network."""

    def output(x, label):
        return network(net)(x)[label]

    return jax.jit(output), jax.jit(jax.grad(output))


def slope_at(net, label):
    slope = output_of(net)[1]
    return lambda point: slope(point, label)


def checked(x):
    """Flat indices at which finite differences are taken: all, or of an image every seventh, in all channels."""
    return np.arange(0, x.size, 1 if x.size < 100 else 7)


@functools.cache
def outputs_of(net):
    """The score of the example's class, of many inputs at once."""
    label = example(net)[1]
    return jax.jit(jax.vmap(lambda point: network(net)(point)[label]))


def numeric_gradient(net, at):
    """Central differences at the example or at a stored input."""
    x, _ = example(net)
    point = x if at == "x" else stored(net, at)
    return by_hand.central_differences(outputs_of(net), point, checked(x))


def explained(method, net, *args):
    x, label = example(net)
    return compiled(method)(*args, x, label)


def together(net, explain):
    """Several explanations of the example by name, in one program."""
    return explained(lambda x, label: {name: one(x, label) for name, one in explain.items()}, net)


def score(net):
    return jxp.class_score(network(net))


@pytest.mark.parametrize("net", NETS)
def test_gradient_family(net):
    x, _ = example(net)
    slopes = numeric_gradient(net, "x")
    want = {
        "gradient": slopes,
        "saliency": np.abs(slopes),
        "sensitivity": slopes**2,
        "gradient_times_input": x.ravel()[checked(x)] * slopes,
    }
    got = together(net, {method: getattr(jxp, method)(score(net)) for method in want})
    for method, values in want.items():
        assert_close(got[method].ravel()[checked(x)], values, FINITE_DIFFERENCES)


@pytest.mark.parametrize("net", NETS)
def test_taylor_takes_the_gradient_at_the_root(net):
    (x, label), root, f = example(net), stored(net, "baseline"), output_of(net)[0]
    got = together(net, {"terms": jxp.taylor(score(net), root), "rest": jxp.taylor_remainder(score(net), root)})
    want = (x - root).ravel()[checked(x)] * numeric_gradient(net, "baseline")
    assert_close(got["terms"].ravel()[checked(x)], want, FINITE_DIFFERENCES)
    terms = (x - root) * np.asarray(slope_at(net, label)(root))
    rest = terms.sum() - float(f(x, label) - f(root, label))
    scale = np.abs(terms).sum()
    assert abs(rest) > 1e-3 * scale  # the net is not linear between root and x
    assert_close(got["rest"], rest, 1e-12, scale=scale)


@pytest.mark.parametrize(("net", "baseline"), [("N1", "zero"), ("N1", "baseline"), ("N3", "baseline")])
def test_integrated_gradients(net, baseline):
    (x, label), start, n = example(net), stored(net, baseline), 11
    rules = get_args(Nodes)
    got = together(net, {r: jxp.integrated_gradients(score(net), start, num_steps=n, nodes=r) for r in rules})
    for rule in rules:
        want = by_hand.path_integral(slope_at(net, label), x, start, *by_hand.nodes(rule, n))
        assert_close(got[rule], want, 1e-12)


def test_expected_gradients():
    (x, label), background = example("N1"), stored("N1", "background")
    want = by_hand.expected_gradients(slope_at("N1", label), x, background)
    explain = jxp.expected_gradients(score("N1"), background, num_samples=20_000)
    value, std_error = explained(explain, "N1", jax.random.key(3))
    assert (np.abs(value - want) <= 5 * std_error).all()
    # 20 000 samples of a tenth of the size of the answer, or so: the bound above is a narrow one.
    assert std_error.max() < 0.02 * np.abs(want).max()


def test_blur_integrated_gradients():
    x, label = example("N4")
    want = by_hand.blur_integrated_gradients(slope_at("N4", label), x, max_sigma=6.0, steps=9)
    explain = jxp.blur_integrated_gradients(score("N4"), max_sigma=6.0, num_steps=9)
    assert_close(explained(explain, "N4"), want, 1e-10)


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_blur(sigma):
    x, _ = example("N3")
    assert_close(jxp.blur(sigma)(jnp.asarray(x)), by_hand.blurred(x, sigma), 1e-12)


# On N4 not from zero: before an even image many gradients are equal but for rounding, which then picks the path.
@pytest.mark.parametrize(
    ("net", "baseline"), [("N1", "zero"), ("N1", "baseline"), ("N3", "baseline"), ("N4", "baseline")]
)
def test_guided_integrated_gradients(net, baseline):
    (x, label), start, n = example(net), stored(net, baseline), 12
    fractions = (0.1, 0.25, 1.0)
    guided = functools.partial(jxp.guided_integrated_gradients, score(net), start, num_steps=n)
    got = together(net, {fraction: guided(fraction=fraction) for fraction in fractions})
    for fraction in fractions:
        want = by_hand.guided_integrated_gradients(slope_at(net, label), x, start, n, fraction)
        assert_close(got[fraction], want, 1e-10)


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_guided_path_moves_features_with_equal_gradients_together(fraction):
    """As the algorithm's quantile does: what is symmetric in f and in the input stays so in the attribution."""

    def f(v):
        return (v[0] + v[1]) ** 2 * v[2] + v[2] * v[3]

    x, start, steps = np.array([1.0, 1.0, 2.0, 3.0]), np.full(4, 0.5), 10
    want = by_hand.guided_integrated_gradients(jax.grad(f), x, start, steps, fraction)
    assert want[0] == want[1]
    got = jxp.guided_integrated_gradients(f, start, num_steps=steps, fraction=fraction)(jnp.asarray(x))
    assert_close(got, want, 1e-12)


@pytest.mark.parametrize("moment", ["mean", "square", "variance"])
def test_smooth_of_a_cubic_has_its_moments_in_closed_form(moment):
    """With f = sum a x^3 and noise s e the gradient is 3 a (x + s e)^2, whose moments are those of a normal."""
    a, x, sigma, n = np.array([0.5, -1.0, 2.0]), np.array([-1.0, 0.5, 3.0]), 0.2, 40_000
    s = sigma * (x.max() - x.min())
    b = 3 * a
    raw = [1, x, x**2 + s**2, 0, x**4 + 6 * x**2 * s**2 + 3 * s**4, 0, 0, 0]
    raw[6] = x**6 + 15 * x**4 * s**2 + 45 * x**2 * s**4 + 15 * s**6
    raw[7] = x**8 + 28 * x**6 * s**2 + 210 * x**4 * s**4 + 420 * x**2 * s**6 + 105 * s**8
    mean, square = b * raw[2], b**2 * raw[4]
    fourth_central = b**4 * (raw[7] - 4 * raw[2] * raw[6] + 6 * raw[2] ** 2 * raw[4] - 3 * raw[2] ** 4)
    variance = square - mean**2
    want = {"mean": mean, "square": square, "variance": variance}[moment]
    spread = {
        "mean": variance,
        "square": b**4 * raw[7] - square**2,
        "variance": fourth_central - variance**2,
    }[moment]
    explain = jxp.smooth(
        jxp.gradient(lambda v: (jnp.asarray(a) * v**3).sum()), num_samples=n, sigma=sigma, moment=moment
    )
    value, std_error = compiled(explain)(jax.random.key(11), x)
    exact_error = np.sqrt(spread / n)
    assert (np.abs(value - want) <= 5 * exact_error).all()
    np.testing.assert_allclose(std_error, exact_error, rtol=0.1)
