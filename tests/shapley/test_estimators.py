"""Sampled Shapley values: equal to enumeration where all is evaluated, near it and honest where not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import derivations_shapley as by_hand
from shapley.games_of_tests import of, smooth_table, table

from jaxplain import shapley
from jaxplain.shapley import coalitions, gaussian
from jaxplain.shapley.kernel import collect, fit

PLAYERS = 6
ESTIMATORS = {
    "permutation": partial(shapley.permutation, num_permutations=32),
    "permutation, single": partial(shapley.permutation, num_permutations=32, antithetic=False),
    "kernel": partial(shapley.kernel, budget=40),
    "kernel, leverage": partial(shapley.kernel, budget=40, sampling="leverage"),
    "kernel, unpaired": partial(shapley.kernel, budget=40, paired=False),
    "gaussian_process": partial(shapley.gaussian_process, budget=28),
}
every_estimator = pytest.mark.parametrize("make", ESTIMATORS.values(), ids=ESTIMATORS)


@pytest.mark.parametrize("budget", [64, 1000])
@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sampling", ["kernel", "leverage"])
def test_kernel_with_the_whole_budget_is_enumeration(budget, paired, sampling):
    values = table(PLAYERS)
    estimate = shapley.kernel(of(values), PLAYERS, budget=budget, paired=paired, sampling=sampling)
    value, error = jax.jit(estimate)(jax.random.key(0))
    np.testing.assert_allclose(value, by_hand.by_subsets(values), atol=1e-9)
    np.testing.assert_array_equal(error, 0)


def test_gaussian_process_with_the_whole_budget_is_enumeration():
    values = table(PLAYERS)
    value, error = shapley.gaussian_process(of(values), PLAYERS, budget=64)(jax.random.key(0))
    np.testing.assert_allclose(value, by_hand.by_subsets(values), atol=1e-9)
    np.testing.assert_array_equal(error, 0)
    # One pair short of it, the fit itself must know nearly everything.
    value, _ = shapley.gaussian_process(of(smooth_table(6)), 6, budget=62)(jax.random.key(0))
    np.testing.assert_allclose(value, by_hand.by_subsets(smooth_table(6)), atol=1e-3)


@pytest.mark.parametrize("players", [1, 2, 3])
@pytest.mark.parametrize("budget", [8, 9])
def test_few_players(players, budget):
    values = table(players)
    for make in (shapley.kernel, shapley.gaussian_process, partial(shapley.kernel, paired=False)):
        value, error = make(of(values), players, budget=budget)(jax.random.key(0))
        np.testing.assert_allclose(value, by_hand.by_subsets(values), atol=1e-12)
        np.testing.assert_array_equal(error, 0)
    single = shapley.permutation(of(values), players, num_permutations=4)(jax.random.key(0))
    assert single.value.shape == (players,)


@every_estimator
def test_efficiency_is_exact(make):
    values = table(PLAYERS)
    value = jax.jit(jax.vmap(make(of(values), PLAYERS)))(jax.random.split(jax.random.key(0), 20)).value
    np.testing.assert_allclose(value.sum(1), values[-1] - values[0], atol=1e-12)


@every_estimator
def test_estimates_are_near_and_honest(make):
    """Over 200 keys: the mean within 5 standard errors of the truth, errors as large as they are said to be."""
    values = smooth_table(PLAYERS, seed=1)
    want = by_hand.by_subsets(values)
    value, error = jax.jit(jax.vmap(make(of(values), PLAYERS)))(jax.random.split(jax.random.key(0), 200))
    off = np.asarray(value) - want
    # A single estimate: with few units and more the errors have long tails, but hardly ever beyond 5.
    assert (np.abs(off) > 5 * error + 1e-9).mean() < 0.02
    spread = np.sqrt((off**2).mean(0))
    claimed = np.sqrt((np.asarray(error) ** 2).mean(0))
    # 200 runs know a spread to 5 %; what is claimed is itself estimated from some ten residuals, and of a
    # Gaussian process believed before it is seen.
    assert 0.75 < np.median(claimed / spread) < 1.6
    assert (claimed / spread).min() > 0.5


@pytest.mark.parametrize("name", ["permutation", "permutation, single"])
def test_orders_are_unbiased(name):
    values = table(PLAYERS, seed=2)
    value, error = jax.jit(jax.vmap(ESTIMATORS[name](of(values), PLAYERS)))(
        jax.random.split(jax.random.key(3), 400)
    )
    spread = value.std(0, ddof=1)
    assert (np.abs(value.mean(0) - by_hand.by_subsets(values)) < 5 * spread / 20).all()
    ratio = np.sqrt((error**2).mean(0)) / spread
    assert ratio.min() > 0.85  # 400 runs know a spread to 4 %
    assert ratio.max() < 1.15


def test_a_dummy_gets_exactly_nothing_from_orders():
    cube = table(PLAYERS).reshape((2,) * PLAYERS)
    blind = np.broadcast_to(cube.take([0], axis=2), cube.shape).ravel()  # axis 2 is player 3
    value, error = shapley.permutation(of(blind), PLAYERS, num_permutations=8)(jax.random.key(0))
    assert float(value[3]) == float(error[3]) == 0.0


def test_pairs_cancel_interactions_of_two():
    """All paired estimates of a game of pairs are exact, from any sample."""
    rng = np.random.default_rng(0)
    z = np.arange(2**PLAYERS)[:, None] >> np.arange(PLAYERS) & 1
    values = z @ rng.normal(size=PLAYERS) + np.einsum("si,ij,sj->s", z, rng.normal(size=(6, 6)), z)
    want = by_hand.by_subsets(values)
    for make in (
        partial(shapley.permutation, num_permutations=2),
        partial(shapley.kernel, budget=30),
        partial(shapley.kernel, budget=30, sampling="leverage"),
    ):
        np.testing.assert_allclose(make(of(values), PLAYERS)(jax.random.key(1)).value, want, atol=1e-9)


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sampling", ["kernel", "leverage"])
def test_kernel_solves_the_regression(paired, sampling):
    """Of the coalitions drawn, the estimate is the constrained weighted least-squares solution."""
    values = table(PLAYERS)
    made = coalitions.plan(PLAYERS, 36, paired=paired, sampling=sampling)
    masks = coalitions.draw(jax.random.key(5), made)
    got = fit(made, collect(of(values), made, masks, None)).value
    indices = np.asarray(masks) @ (1 << np.arange(PLAYERS))
    weights = made.weights
    if paired:
        indices, weights = np.concatenate([indices, 63 - indices]), np.concatenate([weights, weights])
    np.testing.assert_allclose(got, by_hand.weighted_regression(values, indices, weights), atol=1e-10)


def test_gaussian_process_is_the_posterior_of_its_coefficients():
    """In the space of covariances, and, by hand, in that of one coefficient for every odd set."""
    values = smooth_table(5)
    made = coalitions.plan(5, 24, paired=True, sampling="leverage")
    masks = coalitions.draw(jax.random.key(5), made)
    asked = collect(of(values), made, masks, None)
    rho = 0.3 * np.array([1.0, 0.8, 0.1, 0.5, 0.3])
    signs = np.concatenate([2.0 * np.asarray(masks) - 1, np.ones((1, 5))])
    indices = np.asarray(masks) @ (1 << np.arange(5))
    rows = np.append(indices, 31)
    halves = jnp.asarray((values[rows] - values[31 - rows]) / 2)
    best = gaussian.fitted(jnp.asarray(signs), halves, jnp.asarray(rho))
    shares, prior = gaussian.shapley_of_process(jnp.asarray(signs), jnp.asarray(rho))
    want, deviation = by_hand.odd_process(values, indices, rho)
    # The little noise that steadies the fit, 10 n eps, through a matrix of condition 1e5.
    np.testing.assert_allclose(best.coefficients @ shares, want, atol=1e-8)
    known = jnp.linalg.solve(best.root, shares)
    variance = best.variance * (prior - (known**2).sum(0))
    np.testing.assert_allclose(jnp.sqrt(variance), deviation, atol=1e-6)
    assert asked.total == values[-1] - values[0]


@pytest.mark.parametrize("paired", [True, False])
def test_coalitions_are_drawn_without_replacement_and_evenly(paired):
    made = coalitions.plan(8, 120, paired=paired, sampling="leverage")
    drawn = jax.jit(jax.vmap(lambda key: coalitions.draw(key, made)))(jax.random.split(jax.random.key(0), 400))
    assert drawn.shape == (400, made.units, 8)
    sizes = np.array([s.size for s in made.strata])[made.stratum]
    np.testing.assert_array_equal(drawn.sum(2), np.broadcast_to(sizes, (400, made.units)))
    indices = np.asarray(drawn) @ (1 << np.arange(8))
    both = np.concatenate([indices, 255 - indices], 1) if paired else indices
    assert all(len(set(row)) == len(row) for row in both)
    for number, stratum in enumerate(made.strata):
        mine = np.asarray(drawn[:, made.stratum == number])
        if stratum.halved:
            assert mine[..., 0].all()
            mine, share = mine[..., 1:], (stratum.size - 1) / 7
        else:
            share = stratum.size / 8
        # Each player's share over 400 draws, of standard error at most 0.5 / sqrt(400).
        np.testing.assert_allclose(mine.mean((0, 1)), share, atol=5 * 0.5 / 20)


def test_large_classes_are_drawn_without_replacement():
    strata = [coalitions.Stratum(3, 30, 35, halved=False), coalitions.Stratum(4, 9, 20, halved=True)]
    masks = np.asarray(jax.jit(lambda key: coalitions.draw_different(key, 7, strata))(jax.random.key(0)))
    assert len({tuple(row) for row in masks.tolist()}) == 39
    np.testing.assert_array_equal(masks.sum(1), [3] * 30 + [4] * 9)
    assert masks[30:, 0].all()
    made = coalitions.plan(40, 600, paired=True, sampling="leverage")
    drawn = np.asarray(jax.jit(lambda key: coalitions.draw(key, made))(jax.random.key(0)))
    assert len({row.tobytes() for row in drawn}) == made.units == 299


@pytest.mark.parametrize("sampling", ["kernel", "leverage"])
@pytest.mark.parametrize("players", [2, 3, 5, 9, 10, 40, 1000])
@pytest.mark.parametrize("paired", [True, False])
def test_plans_spend_the_budget(players, sampling, paired):
    for budget in (2 * players + 2, 3 * players + 5, 5000):
        made = coalitions.plan(players, budget, paired=paired, sampling=sampling)
        asked = 2 + made.units * (2 if paired else 1)
        left = budget - asked
        everything = sum(s.total for s in made.strata) == made.units and made.covers
        assert everything or 0 <= left <= (1 if paired else 0)
        assert all(0 < s.drawn <= s.total for s in made.strata)
        assert made.strata[0].drawn == made.strata[0].total  # single players
        # The weights of the drawn units stand for all coalitions of all sizes.
        if made.covers:
            np.testing.assert_allclose(made.weights.sum(), 1, atol=1e-12)


def test_sizes_that_are_left_out_leave_the_error_unknown():
    value, error = shapley.kernel(of(table(PLAYERS)), PLAYERS, budget=14)(jax.random.key(0))
    assert np.isfinite(value).all()
    assert np.isnan(error).all()


def test_one_pair_has_no_known_error():
    estimate = shapley.permutation(of(table(PLAYERS)), PLAYERS, num_permutations=2)(jax.random.key(0))
    assert np.isnan(estimate.std_error).all()


@every_estimator
def test_chunks_change_nothing_and_one_trace(make):
    values, key = table(PLAYERS), jax.random.key(0)
    traces = []

    def v(mask):
        traces.append(1)
        return of(values)(mask)

    whole = make(of(values), PLAYERS)(key)
    for size in (1, 5, 7, 1000):
        traces.clear()
        parts = jax.jit(make(v, PLAYERS, chunk_size=size))(key)
        np.testing.assert_allclose(parts.value, whole.value, atol=1e-9)
        np.testing.assert_allclose(parts.std_error, whole.std_error, atol=1e-9)
        assert len(traces) == 1


@every_estimator
def test_constant_games_and_nan(make):
    constant = make(lambda mask: 3.0 + 0 * mask[0], PLAYERS)(jax.random.key(0))
    np.testing.assert_allclose(constant.value, 0, atol=1e-12)
    np.testing.assert_allclose(constant.std_error, 0, atol=1e-7)
    broken = make(lambda mask: jnp.where(mask.sum() == 3, jnp.nan, mask[0]), PLAYERS)(jax.random.key(0))
    assert np.isnan(broken.value).all()


@every_estimator
def test_single_precision(make):
    """In float32 the estimate is that of float64, to some 100 roundings."""
    with jax.enable_x64(False):
        values = smooth_table(PLAYERS).astype(np.float32)
        key = jax.random.key(0)
        low = make(of(values), PLAYERS)(key).value
        assert low.dtype == jnp.float32
        want = by_hand.by_subsets(values.astype(np.float64))
    assert np.abs(np.asarray(low) - want).max() < 1.0
    np.testing.assert_allclose(low.sum(), values[-1] - values[0], atol=1e-5)


def test_too_few_too_many_and_wrong_options():
    v, key = of(table(5)), jax.random.key(0)
    for budget in (4, 11):
        for make in (shapley.kernel, shapley.gaussian_process):
            with pytest.raises(ValueError, match=r"too small for 5 players.*at least 12"):
                make(v, 5, budget=budget)
            with pytest.raises(ValueError, match="budget must be a whole number"):
                make(v, 5, budget=20.0)
    with pytest.raises(ValueError, match=r"21 players have 2\^21 = 2097152 coalitions.*shapley\.kernel"):
        shapley.exact(v, 21)
    with pytest.raises(ValueError, match=r"25 players have .*kernel"):
        shapley.interactions(v, 25)
    with pytest.raises(ValueError, match="dense fit"):
        shapley.gaussian_process(v, 30, budget=10_000)
    with pytest.raises(ValueError, match="sampling must be"):
        shapley.kernel(v, 5, budget=20, sampling="uniform")
    with pytest.raises(ValueError, match="must be even"):
        shapley.permutation(v, 5, num_permutations=3)
    with pytest.raises(ValueError, match="index must be"):
        shapley.interactions(v, 5, index="fsii")
    with pytest.raises(ValueError, match="order must be at most"):
        shapley.low_order(v, 5, order=6)
    with pytest.raises(ValueError, match="order must be at most"):
        shapley.interactions(v, 5, order=6)
    for players in (0, -1, 2.0, True):
        with pytest.raises(ValueError, match="num_players must be a whole number"):
            shapley.exact(v, players)
    for make in ESTIMATORS.values():
        with pytest.raises(TypeError, match="first argument is a key"):
            make(v, 5)(3)
    with pytest.raises(ValueError, match="game must return a scalar"):
        shapley.kernel(lambda mask: mask, 5, budget=20)(key)
    with pytest.raises(TypeError, match="real number"):
        shapley.exact(lambda mask: jax.lax.complex(mask[0], mask[0]), 3)
    with pytest.raises(ValueError, match="max_shap"):
        shapley.max_shap(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="covariance must be"):
        shapley.linear_shap(np.ones(3), np.zeros(3), np.eye(2))
    with pytest.raises(ValueError, match="shape of weights"):
        shapley.linear_shap(np.ones(3), 0.0)(np.ones(2))
    with pytest.raises(ValueError, match="num_samples must be even"):
        shapley.conditional_gaussian(key, np.zeros(2), np.eye(2), num_samples=3)
    with pytest.raises(ValueError, match="square matrix"):
        shapley.conditional_gaussian(key, np.zeros(2), np.eye(3))
