"""The experts' log densities against derivations from their definitions; they are normalised; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references.derivations_prototypes import covariance, expectation_maximisation, gaussian_log_density

from jaxplain import interior

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(9, 4)) @ RNG.normal(size=(4, 4)) + RNG.normal(size=4)
KINDS = np.concatenate([RNG.normal(size=(12, 2)) * 0.4 + at for at in ((-2, 0), (2, 1), (0, 3))])
KEY = np.array([0, 7], np.uint32)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 1.0])
def test_gaussian_is_its_definition(shrinkage):
    log_prior = interior.gaussian_prior(ROWS, shrinkage=shrinkage)
    cov = covariance(ROWS, shrinkage)
    for x in RNG.normal(size=(3, 4)):
        want = gaussian_log_density(x, ROWS.mean(0), cov)
        np.testing.assert_allclose(log_prior(jnp.asarray(x)), want, rtol=1e-11)
        slope = jax.grad(log_prior)(jnp.asarray(x))
        np.testing.assert_allclose(slope, -np.linalg.solve(cov, x - ROWS.mean(0)), rtol=1e-9)


def test_leaves_that_are_no_floats_are_left_out_of_data_and_input():
    data = {"a": ROWS, "number": np.arange(9)}
    x = {"a": jnp.asarray(ROWS[0]), "number": jnp.asarray(3)}
    np.testing.assert_allclose(interior.gaussian_prior(data)(x), interior.gaussian_prior(ROWS)(x["a"]), rtol=1e-12)


def test_an_image_and_a_tree_are_their_numbers():
    flat = interior.gaussian_prior(ROWS)(jnp.asarray(ROWS[0]))
    image = interior.gaussian_prior(ROWS.reshape(9, 2, 2))
    tree = interior.gaussian_prior({"a": ROWS[:, :1], "b": ROWS[:, 1:].reshape(9, 3, 1)})
    np.testing.assert_allclose(image(jnp.asarray(ROWS[0].reshape(2, 2))), flat, rtol=1e-12)
    x = {"a": jnp.asarray(ROWS[0, :1]), "b": jnp.asarray(ROWS[0, 1:].reshape(3, 1))}
    np.testing.assert_allclose(jax.jit(tree)(x), flat, rtol=1e-12)


@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_mixture_is_expectation_maximisation(shrinkage):
    """From the same starts, which are the examples that the key draws."""
    starts = KINDS[np.asarray(jax.random.choice(jnp.asarray(KEY), len(KINDS), (3,), replace=False))]
    trace, shares, means, cov = expectation_maximisation(KINDS, starts, shrinkage, 6)
    log_prior, info = interior.mixture_prior(KEY, KINDS, num_components=3, shrinkage=shrinkage, num_steps=6)
    np.testing.assert_allclose(info.trace, trace, rtol=1e-6)
    for x in RNG.normal(size=(3, 2)):
        parts = [s * np.exp(gaussian_log_density(x, m, cov)) for s, m in zip(shares, means, strict=True)]
        np.testing.assert_allclose(log_prior(jnp.asarray(x)), np.log(sum(parts)), rtol=1e-6)
    if shrinkage == 0:
        assert (np.diff(info.trace) > -1e-9).all()


def test_one_component_is_the_gaussian():
    log_prior, _ = interior.mixture_prior(KEY, ROWS, num_components=1, num_steps=1)
    x = jnp.asarray(ROWS[0] + 1)
    np.testing.assert_allclose(log_prior(x), interior.gaussian_prior(ROWS)(x), rtol=1e-8)


def test_the_mixture_is_normalised():
    """By the sum over a grid that holds all but nothing of it."""
    log_prior, _ = interior.mixture_prior(KEY, KINDS, num_components=3, shrinkage=0.1)
    grid = np.stack(np.meshgrid(np.linspace(-8, 8, 321), np.linspace(-8, 10, 361)), -1).reshape(-1, 2)
    density = np.exp(jax.vmap(log_prior)(jnp.asarray(grid)))
    np.testing.assert_allclose(density.sum() * 0.05**2, 1, rtol=1e-6)


def test_more_components_than_kinds_and_copies_of_examples():
    """Components that meet share their examples; none turns the density into NaN."""
    log_prior, info = interior.mixture_prior(KEY, np.repeat(KINDS, 2, 0), num_components=40, num_steps=30)
    assert np.isfinite(info.trace).all()
    assert np.isfinite(jax.vmap(log_prior)(jnp.asarray(KINDS))).all()


def test_by_its_key():
    one, same, other = (
        interior.mixture_prior(jax.random.key(k), KINDS, num_components=4, num_steps=2)[1].trace for k in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_a_batch_of_inputs_in_low_precision():
    log_prior = interior.gaussian_prior(ROWS)
    low = jnp.asarray(ROWS, jnp.bfloat16)
    # Only the input is of few digits: the density is that of the numbers it was rounded to.
    want = jax.vmap(log_prior)(low.astype(jnp.float64))
    np.testing.assert_allclose(jax.vmap(log_prior)(low), want, rtol=1e-12)


NAN = np.where(np.arange(4) == 2, np.nan, ROWS)
BAD = {
    "from 0 to 1, not 1.5": lambda: interior.gaussian_prior(ROWS, shrinkage=1.5),
    "from 0 to 1, not -0.1": lambda: interior.mixture_prior(KEY, ROWS, num_components=2, shrinkage=-0.1),
    "singular.*shrinkage=0.1": lambda: interior.gaussian_prior(ROWS[:3], shrinkage=0.0),
    "singular.*alike": lambda: interior.gaussian_prior(np.ones((5, 2))),
    "at least 2 examples.*\\(1, 4\\)": lambda: interior.gaussian_prior(ROWS[:1]),
    "at least 2 examples": lambda: interior.gaussian_prior({"a": ROWS, "b": ROWS[:4]}),
    "NaN or infinity": lambda: interior.gaussian_prior(NAN),
    "data holds none: int64": lambda: interior.gaussian_prior(np.ones((4, 2), int)),
    "examples of shape \\(4,\\).*no batch": lambda: interior.gaussian_prior(ROWS)(jnp.asarray(ROWS)),
    "but x has \\[\\(2,\\)\\]": lambda: interior.gaussian_prior(ROWS)(jnp.ones(2)),
    "num_components=10 but there are 9": lambda: interior.mixture_prior(KEY, ROWS, num_components=10),
    "num_components must be": lambda: interior.mixture_prior(KEY, ROWS, num_components=0),
    "num_steps must be": lambda: interior.mixture_prior(KEY, ROWS, num_components=1, num_steps=0),
    "first argument is a key": lambda: interior.mixture_prior(ROWS, KEY, num_components=2),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()
