"""Explanations in the shape of the input: their game, groups, links, and what they ask of the model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_shapley as by_hand

import jaxplain as jxp
from jaxplain import shapley

RNG = np.random.default_rng(0)
X, BACKGROUND = RNG.normal(size=6), RNG.normal(size=(7, 6))
W = RNG.normal(size=(6, 4))
GROUPS = np.array([0, 1, 1, 2, 0, 2])
KEY = jax.random.key(0)


def f(x):
    return jnp.tanh(x @ jnp.asarray(W)).prod() + x[0] * x[3]


def in_numpy(x):
    return np.tanh(x @ W).prod() + x[0] * x[3]


SAMPLED = {
    "kernel_shap": partial(jxp.kernel_shap, budget=64),
    "gaussian_process_shap": partial(jxp.gaussian_process_shap, budget=64),
    "permutation_shap": partial(jxp.permutation_shap, num_permutations=4),
}


@pytest.mark.parametrize("labels", [np.arange(6), GROUPS], ids=["elements", "groups"])
@pytest.mark.parametrize("chunk_size", [None, 3, 20])
def test_exact_shap(labels, chunk_size):
    values = by_hand.marginal_game(in_numpy, X, BACKGROUND, labels)
    share = (by_hand.by_subsets(values) / np.bincount(labels))[labels]
    given = {"groups": None if len(set(labels)) == 6 else labels, "chunk_size": chunk_size}
    got = jax.jit(jxp.exact_shap(f, BACKGROUND, **given))(X)
    np.testing.assert_allclose(got, share, atol=1e-12)
    for name in ("kernel_shap", "gaussian_process_shap"):
        value, error = jax.jit(SAMPLED[name](f, BACKGROUND, **given))(KEY, X)
        np.testing.assert_allclose(value, share, atol=1e-9, err_msg=name)
        np.testing.assert_array_equal(error, 0)
    got = jxp.permutation_shap(f, BACKGROUND, **given)(KEY, X).value
    np.testing.assert_allclose(got.sum(), values[-1] - values[0], atol=1e-12)


def test_game_and_number_of_players():
    v = shapley.game(f, BACKGROUND, groups=GROUPS)(X)
    values = by_hand.marginal_game(in_numpy, X, BACKGROUND, GROUPS)
    masks = (np.arange(8)[:, None] >> np.arange(3) & 1).astype(float)
    np.testing.assert_allclose([v(mask) for mask in masks], values, atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.vmap(v))(masks), values, atol=1e-12)
    np.testing.assert_allclose(v(masks[5].astype(bool)), values[5], atol=1e-12)
    assert shapley.num_players(GROUPS, X) == 3
    assert shapley.num_players(None, X) == 6


def test_link_is_applied_to_the_mean():
    probability = lambda x: jax.nn.sigmoid(f(x))
    logit = lambda p: jnp.log(p) - jnp.log1p(-p)
    values = by_hand.marginal_game(lambda x: 1 / (1 + np.exp(-in_numpy(x))), X, BACKGROUND, np.arange(6))
    want = by_hand.by_subsets(np.log(values / (1 - values)))
    np.testing.assert_allclose(jxp.exact_shap(probability, BACKGROUND, link=logit)(X), want, atol=1e-12)


def test_structures_images_and_arguments():
    """A pytree with groups over leading axes, and an argument that is not explained."""
    x = {"image": jnp.ones((4, 4, 2)), "scale": jnp.asarray(2.0), "ids": jnp.arange(3)}
    groups = {"image": np.repeat(np.arange(4), 4).reshape(4, 4), "scale": np.array(4), "ids": None}
    background = {"image": np.zeros((1, 4, 4, 2)), "scale": np.zeros(1), "ids": None}
    g = lambda weight, x: weight * x["scale"] * x["image"][:2].sum() + x["ids"].sum().astype(weight.dtype)
    explain = jxp.exact_shap(g, background, groups=groups, argnums=1)
    got = explain(jnp.asarray(0.5), x)
    assert got["ids"] is None
    np.testing.assert_allclose(got["scale"], 8.0, atol=1e-12)  # half of 0.5 * 2 * 16
    np.testing.assert_allclose(got["image"][:2], 4.0 / 8, atol=1e-12)  # a quarter each for 8 elements
    np.testing.assert_array_equal(got["image"][2:], 0)


def test_sites_as_players():
    """Hidden units are players of the second half of a slice."""
    network = lambda x: (jxp.tag(jnp.tanh(x @ jnp.asarray(W)), "hidden") ** 2).sum()
    h, g = jxp.slice_at(network, "hidden")
    rest = lambda z: g(z, jnp.asarray(X))
    got = jxp.exact_shap(rest, np.zeros((1, 4)))(h(jnp.asarray(X)))
    np.testing.assert_allclose(got, np.tanh(X @ W) ** 2, atol=1e-12)


def test_qii():
    values = by_hand.marginal_game(in_numpy, X, BACKGROUND, np.arange(6))
    explain = jax.jit(jxp.qii(f, BACKGROUND, chunk_size=4))
    np.testing.assert_allclose(explain(X), [values[63] - values[63 - (1 << i)] for i in range(6)], atol=1e-12)
    got = jxp.qii(f, BACKGROUND, kind="shapley")(X)
    influence = values[63] - values[63 - np.arange(64)]  # of the set that is replaced
    np.testing.assert_allclose(got, by_hand.by_subsets(influence), atol=1e-12)
    given = np.array([1, 0, 0, 1, 0, 0], bool)
    got = jxp.qii(f, BACKGROUND, kind="marginal", given=given)(X)
    want = [influence[0b001001 | 1 << i] - influence[0b001001] for i in range(6)]
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_array_equal(got[given], 0)


@pytest.mark.parametrize("name", SAMPLED)
def test_memory_does_not_grow_with_the_budget(name):
    """Of a wide network, in chunks: a longer list of masks and values, but no more activations at once."""
    first, second = jnp.ones((12, 2000)), jnp.ones((2000, 20))
    wide = lambda x: jnp.tanh(jnp.tanh(x @ first) @ second).sum()

    def temporary(budget):
        option = {"num_permutations": budget // 12 * 2 // 2} if name == "permutation_shap" else {"budget": budget}
        explain = getattr(jxp, name)(wide, np.zeros((1, 12)), chunk_size=16, **option)
        lowered = jax.jit(explain).lower(KEY, jnp.ones(12))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporary(96), temporary(960)
    assert few > 16 * 2000 * 8  # a chunk's activations
    extra = 480 * 480 * 8 * 8 if name == "gaussian_process_shap" else 960 * 12 * 8 * 8  # its matrix; the masks
    assert many - few < extra


def test_bad_input():
    x = jnp.asarray(X)
    everything = [jxp.exact_shap, jxp.qii, *SAMPLED.values()]
    for make in everything:
        call = lambda *given, make=make, **options: make(f, *given, **options)(
            *([x] if make in everything[:2] else [KEY, x])
        )
        for wrong in (np.ones((0, 6)), np.ones((2, 5)), np.ones(6)):
            with pytest.raises(ValueError, match="background"):
                call(wrong)
        with pytest.raises(ValueError, match="do not cover"):
            call(BACKGROUND, groups=GROUPS[:5])
        with pytest.raises(ValueError, match="every number from 0"):
            call(BACKGROUND, groups=GROUPS + 1)
        with pytest.raises(TypeError, match="whole numbers"):
            call(BACKGROUND, groups=GROUPS / 2)
        with pytest.raises(ValueError, match="chunk_size"):
            call(BACKGROUND, chunk_size=0)
    with pytest.raises(ValueError, match="too small for 6 players"):
        jxp.kernel_shap(f, BACKGROUND, budget=5)(KEY, x)
    with pytest.raises(ValueError, match=r"30 players have 2\^30 = 1073741824 coalitions.*kernel_shap"):
        jxp.exact_shap(jnp.sum, np.zeros((1, 30)))(jnp.ones(30))
    with pytest.raises(ValueError, match="kind must be"):
        jxp.qii(f, BACKGROUND, kind="banzhaf")
    for given in ({"kind": "marginal"}, {"given": np.ones(6, bool)}):
        with pytest.raises(ValueError, match="given="):
            jxp.qii(f, BACKGROUND, **given)
    with pytest.raises(ValueError, match="there are 6 players"):
        jxp.qii(f, BACKGROUND, kind="marginal", given=np.ones(3, bool))(x)
    with pytest.raises(ValueError, match="its mask has shape"):
        shapley.game(f, BACKGROUND)(x)(jnp.ones(5))
    with pytest.raises(ValueError, match="mean has 2 element"):
        shapley.game(f, shapley.conditional_gaussian(KEY, np.zeros(2), np.eye(2)))(x)(jnp.ones(6))


def test_nan_models_give_nan():
    broken = lambda x: jnp.log(x[0]) + x[1]
    x = jnp.array([-1.0, 1.0, 0.0])
    assert np.isnan(jxp.exact_shap(broken, np.ones((1, 3)))(x)).all()
    for make in SAMPLED.values():
        assert np.isnan(make(broken, np.ones((1, 3)))(KEY, x).value).all()
