"""LRP and its relatives: zennit's and captum's answers, and the slow derivations for every rule.

Rules that no peer answers for are compared in float64; float32 is for the cases and for N4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from references import derivations_lrp as by_hand
from references.compare import PRECISIONS, assert_close, by_row, score, select, tolerance
from references.derivations_units import units
from references.reader import cases

# Cases that are not ours: the derivations reproduce them (test_derivations_lrp.DEVIATIONS).
SIGNED = "captum's rule on signed inputs is another one"
PASSED = "zennit passes relevance through a BatchNorm that it does not merge; ours is folded"
NOT_OURS = {
    "zennit.beta_smooth@N1": "no such method: the gradient of a smoothed ReLU",
    "zennit.beta_smooth@N3": "no such method: the gradient of a smoothed ReLU",
    **{
        f"captum.lrp[{rule}{bias}]@{net}": SIGNED
        for rule in ("gamma-0.25", "alpha1beta0")
        for bias in ("", "-nobias")
        for net in ("N1", "N3")
    },
    **{
        f"zennit.lrp_composite[{name}]@N4": PASSED
        for name in (
            "epsilon_plus",
            "epsilon_plus_flat",
            "epsilon_alpha2_beta1",
            "epsilon_alpha2_beta1_flat",
            "epsilon_gamma_box",
        )
    },
}
METHODS = ("lrp", "lrp_composite", "excitation_backprop", "deconvnet", "guided_backprop")
CASES = [param for param in select("lrp", METHODS) if param.id not in NOT_OURS]
CONTRASTS = select("own", ["contrastive_mwp"])
# The own reading has no stabiliser in its denominators.
WITHOUT_EPS = 1e-5
NETS = ("N1", "N3", "N4")


def library(f, name):
    """The explainer of the library by the names of this file."""
    from jaxplain import rules

    box = rules.z_box(-1.0, 1.0)
    if name.startswith("deep taylor"):
        return jxp.deep_taylor(f, low=-1.0, high=1.0) if "box" in name else jxp.deep_taylor(f)
    table = {
        "epsilon": rules.EPSILON,
        "epsilon bare": rules.epsilon(),
        "lrp 0": rules.rules_for(rules.epsilon(0.0)),
        "epsilon 0.25": rules.rules_for(rules.epsilon(0.25)),
        "epsilon nobias": rules.epsilon(bias="ignore"),
        "epsilon 1e-9": rules.rules_for(rules.epsilon(1e-9), {}, eps=1e-9),
        "z_plus": rules.z_plus(),
        "z_plus nobias": rules.z_plus(bias="ignore"),
        "alpha_beta 1 0": rules.alpha_beta(1.0, 0.0),
        "alpha_beta 2 1": rules.alpha_beta(2.0, 1.0),
        "alpha_beta nobias": rules.alpha_beta(bias="ignore"),
        "gamma": rules.gamma(0.25),
        "gamma nobias": rules.gamma(0.25, bias="ignore"),
        "gamma 2, eps 0.01": rules.rules_for(rules.gamma(2.0, eps=0.01), eps=0.01),
        "w_square": rules.w_square(),
        "w_square nobias": rules.w_square(bias="ignore"),
        "flat": rules.flat(),
        "z_box": rules.z_box(-2.0, 1.5),
        "first w_square": rules.rules_for(rules.epsilon(), {rules.first: rules.w_square()}),
        "first flat": rules.rules_for(rules.epsilon(), {rules.first: rules.flat()}),
        "first box, z_plus": rules.rules_for(rules.z_plus(), {rules.first: box}),
        "first w_square, z_plus": rules.rules_for(rules.z_plus(), {rules.first: rules.w_square()}),
        "last w_square, z_plus": rules.rules_for(rules.z_plus(), {rules.last: rules.w_square()}),
        "named": rules.rules_for(
            rules.epsilon(), {rules.named("fc1"): rules.gamma(), rules.named("conv2"): rules.w_square()}
        ),
        "epsilon_plus": rules.EPSILON_PLUS,
        "epsilon_plus_flat": rules.EPSILON_PLUS_FLAT,
        "epsilon_alpha2_beta1": rules.EPSILON_ALPHA2_BETA1,
        "epsilon_alpha2_beta1_flat": rules.EPSILON_ALPHA2_BETA1_FLAT,
        "epsilon_gamma_box": rules.epsilon_gamma_box(-1.0, 1.0),
        "dense and conv": rules.rules_for(
            rules.w_square(), {rules.dense: rules.epsilon(), rules.conv: rules.gamma()}
        ),
    }
    return jxp.lrp(f, table[name])


# Name -> (default rule, the others, eps of sums and averages), by hand.
RULES = {
    "epsilon": (by_hand.epsilon(), {}),
    "epsilon bare": (by_hand.epsilon(), {}),
    "lrp 0": (by_hand.epsilon(0.0), {}),
    "epsilon 0.25": (by_hand.epsilon(0.25), {}),
    "epsilon nobias": (by_hand.unbiased(by_hand.epsilon()), {}),
    "epsilon 1e-9": (by_hand.epsilon(1e-9), {}, 1e-9),
    "z_plus": (by_hand.z_plus(), {}),
    "z_plus nobias": (by_hand.unbiased(by_hand.z_plus()), {}),
    "alpha_beta 1 0": (by_hand.alpha_beta(1, 0), {}),
    "alpha_beta 2 1": (by_hand.alpha_beta(2, 1), {}),
    "alpha_beta nobias": (by_hand.unbiased(by_hand.alpha_beta(2, 1)), {}),
    "gamma": (by_hand.gamma(), {}),
    "gamma nobias": (by_hand.unbiased(by_hand.gamma()), {}),
    "gamma 2, eps 0.01": (by_hand.gamma(2.0, 0.01), {}, 0.01),
    "w_square": (by_hand.w_square(), {}),
    "w_square nobias": (by_hand.unbiased(by_hand.w_square()), {}),
    "flat": (by_hand.flat(), {}),
    "z_box": (by_hand.z_box(-2.0, 1.5), {}),
    "first w_square": (by_hand.epsilon(), {"first": by_hand.w_square()}),
    "first flat": (by_hand.epsilon(), {"first": by_hand.flat()}),
    "first box, z_plus": (by_hand.z_plus(), {"first": by_hand.z_box(-1, 1)}),
    "first w_square, z_plus": (by_hand.z_plus(), {"first": by_hand.w_square()}),
    "last w_square, z_plus": (by_hand.z_plus(), {"last": by_hand.w_square()}),
    "named": (by_hand.epsilon(), {"named": {"fc1": by_hand.gamma(), "conv2": by_hand.w_square()}}),
    "deep taylor": (by_hand.unbiased(by_hand.z_plus()), {"first": by_hand.unbiased(by_hand.w_square())}),
    "deep taylor in a box": (by_hand.unbiased(by_hand.z_plus()), {"first": by_hand.z_box(-1, 1)}),
    "epsilon_plus": (by_hand.epsilon(), {"conv": by_hand.z_plus()}),
    "epsilon_plus_flat": (by_hand.epsilon(), {"conv": by_hand.z_plus(), "first": by_hand.flat()}),
    "epsilon_alpha2_beta1": (by_hand.epsilon(), {"conv": by_hand.alpha_beta()}),
    "epsilon_alpha2_beta1_flat": (by_hand.epsilon(), {"conv": by_hand.alpha_beta(), "first": by_hand.flat()}),
    "epsilon_gamma_box": (by_hand.epsilon(), {"conv": by_hand.gamma(), "first": by_hand.z_box(-1, 1)}),
    "dense and conv": (by_hand.epsilon(), {"conv": by_hand.gamma()}),
}
# On N4, where a derivation takes a second, the rules that fold a BatchNorm each in its own way.
ON_N4 = (
    "epsilon",
    "gamma",
    "alpha_beta 2 1",
    "w_square",
    "first w_square, z_plus",
    "first box, z_plus",
    "deep taylor",
    "deep taylor in a box",
    "epsilon_plus_flat",
    "epsilon_gamma_box",
)
# Variant of a case -> name here.
VARIANTS = {
    "epsilon-1e-6": "epsilon",
    "epsilon-0.25": "epsilon 0.25",
    "epsilon-1e-6-nobias": "epsilon nobias",
    "epsilon": "epsilon 1e-9",  # captum
    "zplus": "z_plus",
    "alphabeta-1-0": "alpha_beta 1 0",
    "alphabeta-2-1": "alpha_beta 2 1",
    "gamma-0.25": "gamma",
    "wsquare-first-epsilon": "first w_square",
    "flat-first-epsilon": "first flat",
    "wsquare-all": "w_square",
    "flat-all": "flat",
    "zbox-first-zplus": "first box, z_plus",
    "wsquare-first-zplus": "first w_square, z_plus",
}


def named(net):
    """The names of RULES that a network is asked for; in N1 there is no convolution to choose."""
    if net == "N4":
        return ON_N4
    without_convolutions = ("named", "dense and conv", "epsilon_gamma_box") if net == "N1" else ()
    return [name for name in RULES if name not in without_convolutions]


def explainer(net, name):
    """What is asked of a network under a name."""
    from jaxplain import rules

    f = score(asked(net))
    what, _, layer = name.partition(" at ")
    if layer:
        return {
            "gamma": lambda: jxp.lrp(f, rules.gamma(), at=layer),
            "mwp": lambda: jxp.excitation_backprop(f, at=layer),
            "c_mwp": lambda: jxp.contrastive_excitation_backprop(f, at=layer),
        }[what]()
    if name == "z_plus from 1":
        return jxp.lrp(f, rules.z_plus(), init=1.0)
    if name in ("excitation_backprop", "guided_backprop", "deconvnet"):
        return getattr(jxp, name)(f)
    return library(f, name)


SITES = {"N1": ("relu1", "fc2"), "N3": ("relu1", "pool1", "relu2", "pool2"), "N4": ("relu1", "res1", "relu3")}


@functools.cache
def answer(net, name, dtype):
    """One program each: thirty explanations in one take XLA minutes."""
    return by_row({name: explainer(net, name)}, [asked(net)], dtype)[name]


def asked(net):
    """A case of the network: they all have the same examples."""
    return next(case for case in cases("lrp") if case.net == net)


def name_of(case):
    if case.method == "excitation_backprop":
        return "excitation_backprop" if case.variant == "nobias" else "z_plus from 1"
    if case.method in ("guided_backprop", "deconvnet"):
        return case.method
    return case.variant if case.method == "lrp_composite" else VARIANTS[case.variant]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CASES)
def test_case(case, dtype):
    got, want = answer(case.net, name_of(case), dtype), case.outputs["attr"]
    assert got.dtype == dtype
    rtol = tolerance(want, dtype)
    if case.id.startswith("captum") and case.net == "N3":  # its pooling shares a little otherwise, by 1e-9
        rtol = max(rtol, want["rtol"])
    assert_close(got, want["f64"], rtol)
    if "delta" in case.outputs:
        explained = own_logits(case)
        gap = explained - np.asarray(got, np.float64).reshape(len(got), -1).sum(1)
        assert_close(gap, case.outputs["delta"]["f64"], max(1e-6, rtol), scale=np.abs(explained).max())


def own_logits(case):
    made, inputs = units(case.net), case.inputs
    start = [by_hand.at_target(made, x, int(t)) for x, t in zip(inputs["x"], inputs["target"], strict=True)]
    return np.array([R.sum() for R in start])


def example(net):
    """The first example with its target and its relevance at the output."""
    case = asked(net)
    x, target = np.asarray(case.inputs["x"][0], float), int(case.inputs["target"][0])
    return x, target, by_hand.at_target(units(net), x, target)


@functools.cache
def derived(net, name):
    default, others, *eps = RULES[name]
    made, (x, _, start) = units(net), example(net)
    return by_hand.relevances(made, x, start, by_hand.chosen(made, default, **others), *eps)


@pytest.mark.parametrize(
    ("net", "name", "dtype"),
    [(net, name, "float64") for net in NETS for name in named(net)] + [("N4", name, "float32") for name in ON_N4],
)
def test_rule(net, name, dtype):
    got = answer(net, name, dtype)[0]
    # w^2 gives relevance to values that are 0, so residual sums near 0 divide by what float32 rounded.
    single = 1e-4 if name == "w_square" else 1e-5
    assert_close(got, derived(net, name)["x"].reshape(got.shape), {"float64": 1e-9, "float32": single}[dtype])


@pytest.mark.parametrize(("net", "layer"), [(net, layer) for net in NETS for layer in SITES[net]])
def test_relevance_inside(net, layer):
    got = answer(net, f"gamma at {layer}", "float64")[0]
    assert_close(got, derived(net, "gamma")[layer].reshape(got.shape), 1e-9)


@pytest.mark.parametrize("net", NETS)
def test_excitation(net):
    x, target, _ = example(net)
    choose = by_hand.everywhere(by_hand.unbiased(by_hand.z_plus()))
    mwp, dual = by_hand.contrast(units(net), x, target, choose)
    got = answer(net, "excitation_backprop", "float64")[0]
    assert_close(got, mwp["x"].reshape(x.shape), 1e-9)
    for layer in SITES[net]:
        for name, want in {"mwp": mwp[layer], "c_mwp": mwp[layer] - dual[layer]}.items():
            inside = answer(net, f"{name} at {layer}", "float64")[0]
            assert_close(inside, want.reshape(inside.shape), 1e-9)


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("case", CONTRASTS)
def test_contrast(case, dtype):
    sites = (f"{name} at {case.params['layer']}" for name in ("mwp", "c_mwp"))
    mwp, c_mwp = (np.asarray(answer(case.net, site, dtype), np.float64) for site in sites)
    for name, ours in {"mwp": mwp, "c_mwp": c_mwp, "dual": mwp - c_mwp}.items():
        want = case.outputs[name]["f64"]
        assert_close(ours, want, WITHOUT_EPS, scale=np.abs(case.outputs["mwp"]["f64"]).max())


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_changed_backward_passes(net, method):
    x, target, _ = example(net)
    start = by_hand.at_target(units(net), x, target, 1.0)
    want = by_hand.guided(units(net), x, start, by_hand.RELU_PASSES[method])
    assert_close(answer(net, method, "float64")[0], want.reshape(x.shape), 1e-10)


def test_passing_leaves_relevance_where_it_is():
    from jaxplain import rules

    W, v, x = np.array([[1.0, -2.0], [3.0, 0.5]]), np.array([2.0, -1.0]), np.array([1.0, 4.0])

    def f(x):
        return jax.nn.relu(x @ jnp.asarray(W)) @ jnp.asarray(v)

    table = rules.rules_for(rules.passing(), {rules.last: rules.epsilon(0.0)})
    assert x @ W @ v > 0
    assert_close(jxp.lrp(f, table)(jnp.asarray(x)), np.maximum(x @ W, 0) * v, 1e-12)
