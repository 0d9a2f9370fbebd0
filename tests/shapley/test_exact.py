"""Enumeration, interactions and closed forms against their definitions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_shapley as by_hand
from shapley.games_of_tests import of, table

from jaxplain import shapley

ROUNDING = 1e-12  # of values of size 1, summed with weights that sum to 1


def test_the_derivations_agree():
    values = table(5)
    np.testing.assert_allclose(by_hand.by_orders(values), by_hand.by_subsets(values), atol=ROUNDING)
    sizes = np.array([i.bit_count() for i in range(32)])[1:-1]
    weights = np.array([1 / (len(list(itertools.combinations(range(5), s))) * s * (5 - s)) for s in sizes])
    regression = by_hand.weighted_regression(values, np.arange(1, 31), weights)
    np.testing.assert_allclose(regression, by_hand.by_subsets(values), atol=ROUNDING)


@pytest.mark.parametrize("players", [1, 2, 5, 8])
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_exact(players, chunk_size):
    values = table(players)
    got = jax.jit(lambda t: shapley.exact(of(t), players, chunk_size=chunk_size))(values)
    np.testing.assert_allclose(got, by_hand.by_subsets(values), atol=ROUNDING)


def test_three_programmers():
    lines = {(): 0, (0,): 10, (1,): 30, (2,): 5, (0, 1): 50, (0, 2): 40, (1, 2): 35, (0, 1, 2): 100}
    values = np.zeros(8)
    for team, amount in lines.items():
        values[sum(1 << i for i in team)] = amount
    np.testing.assert_allclose(shapley.exact(of(values), 3), [205 / 6, 250 / 6, 145 / 6], atol=1e-12)


def test_twenty_players():
    """A product of three and a sum over the rest, at the limit."""
    v = lambda mask: 6.0 * mask[0] * mask[1] * mask[2] + (mask[3:] * jnp.arange(17.0)).sum()
    got = jax.jit(lambda: shapley.exact(v, 20))()
    # 2^20 values of size 100 are summed.
    np.testing.assert_allclose(got, np.append([2.0] * 3, np.arange(17.0)), atol=1e-9)


def test_axioms():
    """Of random games: efficiency, symmetry, dummy (exactly), additivity."""
    first, second = table(6), table(6, 1)
    phi = lambda t: shapley.exact(of(t), 6)
    np.testing.assert_allclose(phi(first).sum(), first[-1] - first[0], atol=ROUNDING)
    np.testing.assert_allclose(phi(2 * first - second), 2 * phi(first) - phi(second), atol=ROUNDING)
    cube = first.reshape((2,) * 6)
    blind = np.broadcast_to(cube.take([0], axis=2), cube.shape).ravel()  # axis 2 is player 3
    assert float(phi(blind)[3]) == 0.0
    even = (cube + cube.swapaxes(0, 5)).ravel()  # players 5 and 0
    np.testing.assert_allclose(phi(even)[0], phi(even)[5], atol=ROUNDING)


@pytest.mark.parametrize("index", ["sii", "stii", "banzhaf"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_interactions(index, order):
    values = table(5)
    got = jax.jit(lambda t: shapley.interactions(of(t), 5, order=order, index=index, chunk_size=7))(values)
    assert got.shape == (5,) * order
    for entry in itertools.product(range(5), repeat=order):
        team = tuple(sorted(set(entry)))
        want = by_hand.interaction(values, team, index, order)
        np.testing.assert_allclose(got[entry], want, atol=ROUNDING, err_msg=str(entry))


def test_interactions_of_one_and_their_sums():
    values = table(6)
    v = of(values)
    np.testing.assert_allclose(jnp.diag(shapley.interactions(v, 6)), shapley.exact(v, 6), atol=ROUNDING)
    taylor = shapley.interactions(v, 6, index="stii")
    total = jnp.diag(taylor).sum() + jnp.triu(taylor, 1).sum()
    np.testing.assert_allclose(total, values[-1] - values[0], atol=ROUNDING)


@pytest.mark.parametrize("index", ["sii", "stii", "banzhaf"])
def test_sampled_interactions(index):
    """Over 200 keys unbiased, and with the standard error they claim."""
    values = table(5)
    estimate = shapley.sampled_interactions(of(values), 5, num_samples=16, index=index)
    value, error = jax.jit(jax.vmap(estimate))(jax.random.split(jax.random.key(0), 200))
    want = np.asarray(shapley.interactions(of(values), 5, index=index))
    spread = value.std(0, ddof=1)
    off = np.abs(value.mean(0) - want)
    assert (off <= 5 * spread / np.sqrt(200) + ROUNDING).all()
    sampled = spread > ROUNDING
    assert sampled.any()
    ratio = np.sqrt((error**2).mean(0))[sampled] / spread[sampled]
    assert ratio.min() > 0.8  # 200 runs know a spread to 5 %
    assert ratio.max() < 1.25


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_low_order(order):
    """Exact when no more players interact, and the sum of dividends otherwise."""
    values = table(5)
    dividends = np.array([by_hand.derivative(values, tuple(by_hand.members(i, 5)), 0) for i in range(32)])
    size = np.array([i.bit_count() for i in range(32)])
    cut = np.where(size <= order, dividends, 0)
    small = np.array([sum(cut[t] for t in range(32) if t & s == t) for s in range(32)])
    got = jax.jit(lambda t: shapley.low_order(of(t), 5, order=order, chunk_size=4))(values)
    np.testing.assert_allclose(got, by_hand.by_subsets(small), atol=1e-11)  # sums of alternating signs


def test_low_order_far_from_zero():
    def v(mask):
        on = mask.astype(jnp.float32)
        return 1e6 + 8 * on[0] * on[1] + on.sum()

    want = np.ones(12) + 4 * (np.arange(12) < 2)
    np.testing.assert_allclose(shapley.low_order(v, 12, order=3), want, atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_max_shap(seed):
    rng = np.random.default_rng(seed)
    x, r = rng.integers(-3, 4, size=(2, 6)) / 2 if seed % 2 else rng.normal(size=(2, 6))  # with and without ties
    inside = np.arange(64)[:, None] >> np.arange(6) & 1
    values = np.where(inside, x, r).max(1)
    np.testing.assert_allclose(shapley.max_shap(x, r), by_hand.by_subsets(values), atol=ROUNDING)
    values = np.where(inside, x, 0.5).max(1)
    np.testing.assert_allclose(shapley.max_shap(x, 0.5), by_hand.by_subsets(values), atol=ROUNDING)


def test_examples_of_the_shap_paper():
    """Figure 4: a score of 2 for fever and cough, 5 for one of them; the best of 5, 4 and 0 answers."""
    np.testing.assert_allclose(shapley.max_shap(np.array([5.0, 4.0, 0.0])), [3, 2, 0], atol=1e-15)
    np.testing.assert_allclose(shapley.exact(of(np.array([0.0, 5.0, 5.0, 2.0])), 2), [1, 1], atol=1e-15)


def test_linear_shap():
    rng = np.random.default_rng(3)
    w, mean, x = rng.normal(size=(3, 6))
    factor = rng.normal(size=(6, 6))
    covariance = factor @ factor.T + 0.1 * np.eye(6)
    independent = shapley.linear_shap(w, mean)(x)
    np.testing.assert_allclose(
        independent, by_hand.by_subsets(by_hand.gaussian_game(w, mean, np.eye(6), x)), atol=1e-9
    )
    want = by_hand.by_subsets(by_hand.gaussian_game(w, mean, covariance, x))
    got = jax.jit(shapley.linear_shap(w, mean, covariance))(x)
    np.testing.assert_allclose(got, want, atol=1e-9)
    # The same through a background of draws: their mean is the conditional mean.
    likely = shapley.conditional_gaussian(jax.random.key(0), mean, covariance, num_samples=4)
    by_draws = shapley.exact_shap(lambda z: (jnp.asarray(w) * z).sum(), likely)(jnp.asarray(x))
    np.testing.assert_allclose(by_draws, want, atol=1e-9)


def test_linear_shap_of_whole_numbers():
    x = np.array([2.7, 1.2])
    np.testing.assert_allclose(shapley.linear_shap([1, 2], 0.5)(x), [2.2, 1.4], rtol=1e-6)
    alike = np.array([[1.0, 0.5], [0.5, 1.0]])
    want = shapley.linear_shap([1.0, 0.0], 0.5, alike)(x)
    np.testing.assert_array_equal(shapley.linear_shap([1, 0], 0.5, alike)(x), want)
    assert shapley.conditional_gaussian(jax.random.key(0), [0, 0], np.eye(2, dtype=int)).draws.dtype == want.dtype


def test_a_singular_covariance_gives_nan():
    # Of rank 2, to rounding: elimination finds a pivot that is rounding, and so any number.
    part = np.random.default_rng(0).normal(size=(4, 2))
    covariance, mean, x = part @ part.T, np.zeros(4), np.arange(4.0)
    assert np.isnan(shapley.linear_shap(np.ones(4), mean, covariance)(x)).all()
    likely = shapley.conditional_gaussian(jax.random.key(0), mean, covariance, num_samples=2)
    v = shapley.game(jnp.sum, likely)(jnp.asarray(x))
    assert np.isnan(v(jnp.array([1.0, 1.0, 1.0, 0.0])))
    assert np.isfinite(v(jnp.array([1.0, 0.0, 1.0, 0.0])))


def test_conditional_gaussian_spread():
    """Of a square, the mean over draws is that of the conditional distribution: mean^2 + variance."""
    covariance = np.array([[1.0, 0.6], [0.6, 1.0]])
    likely = shapley.conditional_gaussian(jax.random.key(0), np.zeros(2), covariance, num_samples=20_000)
    v = shapley.game(lambda z: z[1] ** 2, likely)(jnp.array([1.5, 0.0]))
    want = (0.6 * 1.5) ** 2 + 1 - 0.36
    # The spread of z^2 is at most 2.4, of 10,000 independent pairs.
    np.testing.assert_allclose(v(jnp.array([1.0, 0.0])), want, atol=5 * 2.4 / 100)
