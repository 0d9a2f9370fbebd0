"""The same network, written in many ways, has the same explanation: by every relevance method.

All methods see three spellings of each network (`FULL`), those with a loop, a library and a layout of its own;
those in `CORE` see them all.
"""

import functools

import jax
import numpy as np
import pytest
from engine import spellings_dense, spellings_image, spellings_sequence
from engine.invariance_methods import CORE, answers, differences, methods
from engine.spellings_sequence import ATTENTION, LSTM

import jaxplain as jxp

FULL = {"mixed_1", "scan_remat_jit", "nchw", "linen"}
NETWORKS = {"dense": spellings_dense, "image": spellings_image}
SPELLINGS = [(kind, name) for kind, module in NETWORKS.items() for name in list(module.SPELLINGS)[1:]]


def baseline(x):
    """In general position: no two of its values are equal."""
    return 0.3 * np.random.default_rng(9).normal(size=x.shape)


def chosen(name, x):
    """The methods that are asked about a spelling."""
    every = methods(baseline(x))
    return every if name in FULL else {method: every[method] for method in CORE}


@functools.cache
def plainly(kind):
    """All answers about the plain spelling of a network."""
    module = NETWORKS[kind]
    return answers(module.SPELLINGS["plain"], methods(baseline(module.X)), module.X, module.P)


@pytest.mark.parametrize(("kind", "name"), SPELLINGS, ids=[f"{kind}-{name}" for kind, name in SPELLINGS])
def test_networks(kind, name):
    module = NETWORKS[kind]
    asked, want = chosen(name, module.X), plainly(kind)
    assert all(np.abs(value).max() > 1e-3 for value in want.values())
    got = answers(module.SPELLINGS[name], asked, module.X, module.P)
    assert differences(got, {key: want[key] for key in ["f", *asked]}) == {}


@pytest.mark.parametrize("name", spellings_image.FOR_EPSILON)
def test_spellings_for_epsilon(name):
    """Equal up to the stabiliser."""
    f = spellings_image.FOR_EPSILON[name]
    asked = {key: value for key, value in methods(baseline(spellings_image.X)).items() if key == "lrp_epsilon"}
    got, want = answers(f, asked, spellings_image.X, spellings_image.P), plainly("image")
    assert differences(got, {key: want[key] for key in ["f", *asked]}, rtol=1e-5) == {}


@functools.cache
def plain_sequence(kind):
    """The answers about the plain spelling, and the methods for its kind."""
    given = getattr(spellings_sequence, f"{kind.upper()}_X"), getattr(spellings_sequence, f"{kind.upper()}_P")
    asked = getattr(spellings_sequence, f"{kind}_methods")(baseline(given[0]))
    spellings = getattr(spellings_sequence, kind.upper())
    return answers(spellings["plain"], asked, *given), asked, given


def sequence(kind, f, rtol=1e-9):
    want, asked, given = plain_sequence(kind)
    return differences(answers(f, asked, *given), want, rtol)


@pytest.mark.parametrize("name", list(ATTENTION)[1:])
def test_attention(name):
    # Flax and jax.nn convert to float32 and back in places.
    with jax.numpy_dtype_promotion("standard"):
        # jax.nn's own attention takes its softmax in float32 whatever comes in; f itself is off by 2e-9 then.
        single = name == "dot_product_attention"
        found = sequence("attention", ATTENTION[name], rtol=1e-6 if single else 1e-9)
        assert set(found) <= ({"f"} if single else set()), found


@pytest.mark.parametrize("name", list(LSTM)[1:])
def test_lstm(name):
    assert sequence("lstm", LSTM[name]) == {}


def test_custom_vjp_relu_is_refused_where_its_backward_pass_cannot_change():
    """LRP and DeepLIFT see through it; guided backprop says that it cannot."""
    f = spellings_dense.network(relus=[spellings_dense.kept_relu])
    every = methods(baseline(spellings_dense.X))
    asked = {**chosen("custom_vjp", spellings_dense.X), "guided_backprop": every["guided_backprop"]}
    want = {key: plainly("dense")[key] for key in asked}
    found = differences(answers(f, asked, spellings_dense.X, spellings_dense.P), want)
    assert "custom_vjp" in found.pop("guided_backprop")
    assert found == {}


def test_methods_do_not_see_only_f():
    """The comparison is not vacuous: another function of the same kind has other answers."""
    other = {**spellings_dense.P, "wo": spellings_dense.P["wo"] * 1.1}
    asked = {"rescale": jxp.deep_lift, "lrp": lambda f: jxp.lrp(f, jxp.rules.EPSILON)}
    one, two = (
        answers(spellings_dense.SPELLINGS["plain"], asked, spellings_dense.X, p)
        for p in (spellings_dense.P, other)
    )
    assert set(differences(one, two)) == {"f", "rescale", "lrp"}
