"""The recurrent classifier of domain names: known probabilities, a slow reading of its layers, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import dgaintel

# What the package's own network says of these names.
PROBABILITIES = {
    "google.com": 0.0014,
    "wikipedia.org": 0.0005,
    "nytimes.com": 0.014,
    "xjwqzkbvtplmr.com": 0.9997,
    "kq3v9zr8x1ytq.net": 0.9994,
}


@pytest.fixture(scope="module")
def network():
    return dgaintel.load()


@pytest.fixture(scope="module")
def logits(network):
    logit = jax.jit(network.logit)
    return {name: float(logit(network.embed(name))) for name in PROBABILITIES}


@pytest.mark.parametrize("name", PROBABILITIES)
def test_known_names(logits, name):
    expected = PROBABILITIES[name]
    digits = 0.5 * 10.0 ** -(3 if name == "nytimes.com" else 4)  # they were noted rounded
    assert abs(1 / (1 + np.exp(-logits[name])) - expected) <= digits


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _slowly(name):
    """The logit in float64, letter by letter and gate by gate."""
    weights = dgaintel.load_weights()
    conv, lstm, dense = (
        {key: value.astype(float) for key, value in weights[layer].items()} for layer in ("conv", "lstm", "dense")
    )
    letters = [weights["embedding"][dgaintel.ALPHABET.index(letter)] for letter in name.ljust(82, "-")]
    padded = np.pad(np.array(letters, float), [(1, 1), (0, 0)])
    hidden = [np.einsum("kc,kco->o", padded[t : t + 3], conv["kernel"]) + conv["bias"] for t in range(82)]
    pooled = np.maximum(hidden, 0).reshape(41, 2, -1).max(axis=1)
    output, cell = np.zeros(64), np.zeros(64)
    for x in pooled:
        z = x @ lstm["kernel"] + output @ lstm["recurrent_kernel"] + lstm["bias"]
        i, f, c, o = z[:64], z[64:128], z[128:192], z[192:]
        cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(c)
        output = _sigmoid(o) * np.tanh(cell)
    return (output @ dense["kernel"] + dense["bias"]).item()


@pytest.mark.parametrize("name", ["google.com", "kq3v9zr8x1ytq.net"])
def test_logits_agree_with_the_definition(logits, name):
    np.testing.assert_allclose(logits[name], _slowly(name), rtol=0, atol=2e-5)


def test_in_float64_they_agree_to_the_last_digits(network):
    with jax.enable_x64(True):
        params, x = jax.tree.map(
            lambda a: jnp.asarray(a, jnp.float64), (network.params, network.embed("nytimes.com"))
        )
        np.testing.assert_allclose(network.apply(params, x), _slowly("nytimes.com"), rtol=1e-12)


def test_shapes(network):
    embedded = network.embed("a.org")
    assert (embedded.shape, embedded.dtype) == ((82, 128), jnp.float32)
    assert jax.eval_shape(network.logit, embedded).shape == ()
    assert jax.eval_shape(jax.grad(network.logit), embedded).shape == (82, 128)


def test_letters():
    assert dgaintel.encode("A.z-").tolist() == [13, 1, 38] + [0] * 79
    assert dgaintel.encode("ü")[0] == dgaintel.encode(".")[0]
    assert len(dgaintel.encode("a" * 82)) == 82


@pytest.mark.parametrize("name", ["", "a" * 83])
def test_names_of_other_lengths_are_refused(name):
    with pytest.raises(ValueError, match=f"1 to 82 letters, got {len(name)}"):
        dgaintel.encode(name)
