"""Activation maximization against closed forms; its randomness, coordinates, bounds, and errors."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from references.derivations_prototypes import covariance, frequency_scales, hartley_matrix

import jaxplain as jxp
from jaxplain import interior

RNG = np.random.default_rng(0)
ROOT = RNG.normal(size=(4, 4))
A = ROOT @ ROOT.T + np.eye(4)
TARGET, START = RNG.normal(size=4), RNG.normal(size=4)
ROWS = RNG.normal(size=(9, 4)) + 1
W = RNG.normal(size=(4, 3))
KEY = np.array([0, 3], np.uint32)
STEEPEST = optax.sgd(0.05)


def hill(x):
    """Of height 0 at the target."""
    apart = x - jnp.asarray(TARGET)
    return -jnp.vdot(apart, jnp.asarray(A) @ apart) / 2


def tagged(x):
    hidden = jxp.tag(jnp.tanh(x @ jnp.asarray(W)), "hidden")
    return hidden * 2 + 1


def maximise(f, x0=START, *args, key=KEY, **options):
    options = {"optimizer": STEEPEST, "num_steps": 2000, **options}
    return interior.activation_maximization(f, **options)(jnp.asarray(key), jax.tree.map(jnp.asarray, x0), *args)


@pytest.mark.parametrize("parametrisation", [None, interior.fourier()], ids=["pixels", "fourier"])
def test_a_hill_with_l2_and_a_gaussian(parametrisation):
    """Maximum of -(x-t)'A(x-t)/2 - s x'x - (x-m)'C^-1(x-m)/2: A(t-x) - 2 s x + C^-1(m-x) = 0."""
    strength, cov, mean = 0.3, covariance(ROWS, 0.1), ROWS.mean(0)
    found, info = maximise(
        hill,
        regulariser=interior.l2(strength),
        log_prior=interior.gaussian_prior(ROWS),
        parametrisation=parametrisation,
    )
    inverse = np.linalg.inv(cov)
    want = np.linalg.solve(A + 2 * strength * np.eye(4) + inverse, A @ TARGET + inverse @ mean)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    np.testing.assert_allclose(info.value, hill(jnp.asarray(want)), rtol=1e-9)
    np.testing.assert_allclose(info.regulariser, strength * (want @ want), rtol=1e-9)
    np.testing.assert_allclose(info.log_prior, interior.gaussian_prior(ROWS)(jnp.asarray(want)), rtol=1e-9)
    np.testing.assert_allclose(info.gradient_norm, 0, atol=1e-9)
    np.testing.assert_allclose(info.trace[-1], info.value + info.log_prior - info.regulariser, rtol=1e-12)
    assert info.trace.shape == (2000,)
    assert info.finite


def test_the_first_step_by_hand():
    """x + rate * slope; the trace holds the value before it, the norm is that of the slope after it."""
    found, info = maximise(hill, num_steps=1)
    want = START + 0.05 * A @ (TARGET - START)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    np.testing.assert_allclose(info.trace, [hill(jnp.asarray(START))], rtol=1e-12)
    np.testing.assert_allclose(info.gradient_norm, np.linalg.norm(A @ (TARGET - want)), rtol=1e-12)
    assert info.log_prior == info.regulariser == 0


@pytest.mark.parametrize("parametrisation", [None, interior.fourier()], ids=["pixels", "fourier"])
def test_bounds_are_kept(parametrisation):
    """Of a separable hill the maximum in a box is the target, clipped."""
    f = lambda x: -jnp.square(x - jnp.asarray(TARGET)).sum()
    low = TARGET - np.array([1.0, -0.2, 1.0, -0.3])
    options = {"bounds": (low, 5.0), "num_steps": 5000, "parametrisation": parametrisation}
    if (
        parametrisation is None
    ):  # in other coordinates a projection of x is no steepest ascent, and may end elsewhere
        found, info = maximise(f, **options)
        np.testing.assert_allclose(found, np.clip(TARGET, low, 5.0), rtol=1e-9)
        np.testing.assert_allclose(info.gradient_norm, 2 * np.linalg.norm([0.2, 0.3]), rtol=1e-9)
    else:
        found, _ = maximise(f, **options)
    assert (found >= low - 1e-12).all()
    outside, _ = maximise(lambda x: x.sum() * 0, START * 100, bounds=(-1.0, 1.0), num_steps=1)
    np.testing.assert_allclose(outside, np.sign(START))  # where it starts, too


def test_what_can_be_climbed():
    """A class, a unit, a channel, a direction: each is higher at its prototype than where it started."""
    read = lambda x: jxp.capture(tagged, "hidden")(x)[1]["hidden"]
    direction = np.array([1.0, -2.0, 0.5])
    quantities = {
        "class": lambda x: jxp.class_score(tagged)(x, 1),
        "probability": lambda x: jxp.log_probability(tagged)(x, 1),
        "unit": interior.unit_activation(tagged, "hidden", 2),
        "channel": lambda x: read(x)[..., 0].mean(),
        "direction": lambda x: jnp.vdot(read(x), jnp.asarray(direction)),
    }
    for name, f in quantities.items():
        found, info = maximise(f, np.zeros(4), num_steps=200)
        assert info.value > f(jnp.zeros(4)) + 0.5, name
        np.testing.assert_allclose(info.value, f(found), rtol=1e-12)
    unit, _ = maximise(quantities["unit"], np.zeros(4), num_steps=1)
    np.testing.assert_allclose(unit, 0.05 * W[:, 2], rtol=1e-12)


def noisy(key, x):
    return x + jax.random.normal(key, x.shape)


def test_transforms_are_drawn_afresh_and_by_the_key():
    seen = lambda x: x.sum()
    _, info = maximise(seen, np.zeros(4), transforms=[noisy], optimizer=optax.sgd(0.0), num_steps=50)
    assert len(np.unique(info.trace)) == 50
    assert abs(info.trace.mean()) < 5 * 2 / np.sqrt(50)  # of variance 4
    np.testing.assert_allclose(info.value, 0)  # without transforms
    again, other = (
        maximise(hill, key=np.array([0, k], np.uint32), transforms=[noisy], num_steps=5)[0] for k in (3, 4)
    )
    np.testing.assert_array_equal(maximise(hill, transforms=[noisy], num_steps=5)[0], again)
    assert not np.allclose(again, other)
    _, twice = maximise(seen, np.zeros(4), transforms=[noisy, noisy], optimizer=optax.sgd(0.0), num_steps=2000)
    np.testing.assert_allclose(twice.trace.var(), 8, rtol=0.2)  # two different draws a step


def test_priors_and_penalties_do_not_see_transforms():
    away = lambda key, x: x + 100
    _, info = maximise(
        lambda x: x.sum(), np.zeros(4), transforms=[away], regulariser=interior.l2(1.0), num_steps=1
    )
    np.testing.assert_allclose(info.trace, [400])


def test_many_starts_and_labels_by_vmap():
    labels, starts = np.arange(3), RNG.normal(size=(3, 4))
    climb = interior.activation_maximization(
        jxp.log_probability(tagged), optimizer=STEEPEST, num_steps=20, transforms=[noisy]
    )
    keys = jax.random.split(jnp.asarray(KEY), 3)
    many, infos = jax.jit(jax.vmap(climb))(keys, jnp.asarray(starts), labels)
    for k in range(3):
        one, info = climb(keys[k], jnp.asarray(starts[k]), int(labels[k]))
        np.testing.assert_allclose(many[k], one, rtol=1e-11)
        np.testing.assert_allclose(infos.trace[k], info.trace, rtol=1e-11)


def test_one_trace_and_no_callback():
    traces = []

    def counted(x, label):
        traces.append(1)
        return tagged(x)[label]

    climb = jax.jit(interior.activation_maximization(counted, optimizer=STEEPEST, num_steps=7, transforms=[noisy]))
    lowered = climb.lower(jnp.asarray(KEY), jnp.asarray(START), jnp.asarray(1))
    assert "callback" not in lowered.as_text()
    climb(jnp.asarray(KEY), jnp.asarray(START), jnp.asarray(1))
    climb(jnp.asarray(KEY), jnp.asarray(START), jnp.asarray(2))
    assert len(traces) == 1


def test_progress_is_told():
    told = {}
    _, info = maximise(hill, num_steps=5, progress=lambda step, value: told.update({int(step): float(value)}))
    jax.effects_barrier()
    np.testing.assert_allclose([told[k] for k in range(5)], info.trace, rtol=1e-12)


def test_a_tree_with_arguments_and_argnums():
    f = lambda scale, x: -scale * (jnp.square(x["a"] - 1).sum() + jnp.square(x["b"][0] + 2).sum()) + x["n"].sum()
    x0 = {"a": np.zeros(2), "b": (np.zeros((2, 1)),), "n": np.arange(2.0, dtype=np.float32).astype(int)}
    climb = interior.activation_maximization(
        lambda scale, x: f(scale, x | {"n": x["n"].astype(float)}), optimizer=STEEPEST, num_steps=500, argnums=1
    )
    found, info = climb(jnp.asarray(KEY), 2.0, jax.tree.map(jnp.asarray, x0))
    np.testing.assert_allclose(found["a"], np.ones(2), rtol=1e-9)
    np.testing.assert_allclose(found["b"][0], -2 * np.ones((2, 1)), rtol=1e-9)
    assert found["n"] is None
    np.testing.assert_allclose(info.value, 1, rtol=1e-9)


def test_the_default_is_adam():
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a number to the power of a count
        found, _ = interior.activation_maximization(hill, num_steps=3)(jnp.asarray(KEY), jnp.asarray(START))
        want, _ = maximise(hill, num_steps=3, optimizer=optax.adam(0.05))
    np.testing.assert_array_equal(found, want)


def test_an_optimizer_of_ones_own():
    class Halfway:
        """Towards a fixed place; the state counts."""

        def init(self, x):
            return jnp.zeros((), int)

        def update(self, slopes, state, x):
            return (jnp.asarray(TARGET) - x) / 2, state + 1

    found, _ = maximise(hill, optimizer=Halfway(), num_steps=4)
    np.testing.assert_allclose(found, TARGET + (START - TARGET) / 16, rtol=1e-12)


def test_low_precision_is_climbed_in_float32():
    f = lambda x: -jnp.square(x - 3).sum()
    found, _ = maximise(f, np.zeros(3), num_steps=2, optimizer=optax.sgd(1e-3))
    x0 = jnp.zeros(3, jnp.bfloat16)
    low, short = interior.activation_maximization(f, optimizer=optax.sgd(1e-3), num_steps=2)(jnp.asarray(KEY), x0)
    assert low.dtype == jnp.bfloat16
    assert short.value.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(low, float), found, rtol=0.01)


@pytest.mark.parametrize("f", [lambda x: jnp.log(x).sum(), lambda x: jax.nn.relu(x / 0).sum()])
def test_not_finite_is_said(f):
    found, info = maximise(f, -np.ones(3), num_steps=3)
    assert not info.finite
    found, info = maximise(lambda x: jax.nn.relu(x).sum(), np.array([1.0, np.nan]), num_steps=3)
    assert not info.finite
    assert np.isnan(found).all()
    high = jnp.full(2, 6e4, jnp.float16)  # one step past its largest number, 65504, which float32 holds
    climb = interior.activation_maximization(lambda x: x.sum() * 0.5, optimizer=optax.sgd(2e4), num_steps=1)
    found, info = climb(jnp.asarray(KEY), high)
    assert np.isinf(found).all()
    assert not info.finite


@pytest.mark.parametrize("shape", [(5, 4), (4, 4), (3, 5), (6, 1)])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_fourier_coordinates(shape, decay):
    """decode(c) is H (s c) by the slow sums, encode undoes it; gradients are the transpose's."""
    waves = interior.fourier(decay=decay)
    c, slopes = RNG.normal(size=(*shape, 2)), RNG.normal(size=(*shape, 2))
    matrix, scales = hartley_matrix(*shape), frequency_scales(*shape, decay)
    want = np.stack([(matrix.T @ (scales * c[..., k]).ravel()).reshape(shape) for k in range(2)], -1)
    np.testing.assert_allclose(waves.decode(jnp.asarray(c)), want, atol=1e-12)
    np.testing.assert_allclose(waves.encode(jnp.asarray(want)), c, atol=1e-11)
    back = jax.vjp(waves.decode, jnp.asarray(c))[1](jnp.asarray(slopes))[0]
    want = np.stack([scales * (matrix @ slopes[..., k].ravel()).reshape(shape) for k in range(2)], -1)
    np.testing.assert_allclose(back, want, atol=1e-12)
    np.testing.assert_allclose(interior.fourier(axes=(1, 0), decay=decay).encode(jnp.asarray(c)), waves.encode(c))


def test_fourier_of_a_vector_a_number_and_some_axes():
    waves = interior.fourier()
    vector = RNG.normal(size=7)
    np.testing.assert_allclose(waves.decode(waves.encode(jnp.asarray(vector))), vector, atol=1e-12)
    assert waves.encode(jnp.asarray(2.0)) == 2
    rows = interior.fourier(axes=(-1,))
    np.testing.assert_allclose(rows.encode(jnp.asarray([vector, vector]))[1], waves.encode(jnp.asarray(vector)))


def test_penalties_by_hand():
    x = RNG.normal(size=(3, 4, 2))
    tree = {"a": jnp.asarray(x), "b": None, "c": jnp.ones(2)}
    np.testing.assert_allclose(interior.l2(0.5)(tree), 0.5 * ((x**2).sum() + 2), rtol=1e-12)
    want = sum(abs(x[i + 1, j, k] - x[i, j, k]) for i in range(2) for j in range(4) for k in range(2))
    across = sum(abs(x[i, j + 1, k] - x[i, j, k]) for i in range(3) for j in range(3) for k in range(2))
    np.testing.assert_allclose(interior.total_variation(2.0)(jnp.asarray(x)), 2 * (want + across), rtol=1e-12)
    np.testing.assert_allclose(interior.total_variation(2.0, axes=(1,))(jnp.asarray(x)), 2 * across, rtol=1e-12)
    strength = jax.grad(lambda s: interior.total_variation(s)(jnp.asarray(x)))(1.0)  # it may be traced
    np.testing.assert_allclose(strength, want + across, rtol=1e-12)


def test_jitter_wraps_and_takes_every_shift():
    image = np.arange(7 * 6 * 2.0).reshape(7, 6, 2)
    shifted = jax.vmap(interior.jitter(2), (0, None))(
        jax.random.split(jnp.asarray(KEY), 300), {"a": jnp.asarray(image), "b": jnp.asarray(2 * image)}
    )
    found = {
        (i, j)
        for one in np.asarray(shifted["a"])
        for i in range(-2, 3)
        for j in range(-2, 3)
        if (one == np.roll(image, (i, j), (0, 1))).all()
    }
    assert found == {(i, j) for i in range(-2, 3) for j in range(-2, 3)}
    np.testing.assert_array_equal(shifted["b"], 2 * shifted["a"])  # leaves on one grid move together
    np.testing.assert_array_equal(interior.jitter(0)(jnp.asarray(KEY), jnp.asarray(image)), image)


def test_random_blur_is_a_blur():
    image = RNG.normal(size=(6, 5, 1))
    soft = interior.random_blur(1.5)(jnp.asarray(KEY), jnp.asarray(image))
    sigma = 1.5 * float(jax.random.uniform(jnp.asarray(KEY)))
    np.testing.assert_allclose(soft, jxp.blur(sigma)(jnp.asarray(image)), rtol=1e-6)
    with jax.numpy_dtype_promotion("standard"):
        many = jax.vmap(interior.random_blur(1.5), (0, None))(jax.random.split(jnp.asarray(KEY), 50), image)
    assert len(np.unique(np.asarray(many).std((1, 2, 3)).round(9))) == 50


def test_optax_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "optax", None)
    with pytest.raises(ImportError, match=r"pip install jaxplain\[prototypes\]"):
        interior.activation_maximization(hill)
    interior.activation_maximization(hill, optimizer=STEEPEST)


ONE = lambda x: x.sum()
BAD = {
    "must return a scalar": lambda: maximise(lambda x: x),
    "log_prior\\(x\\) must return one float scalar.*\\(4,\\)": lambda: maximise(ONE, log_prior=lambda x: x),
    "regulariser\\(x\\) must return.*int": lambda: maximise(ONE, regulariser=lambda x: 1),
    "no float leaves": lambda: maximise(ONE, np.arange(3)),
    "first argument is a key": lambda: interior.activation_maximization(ONE)(jnp.asarray(START), jnp.asarray(KEY)),
    "num_steps must be": lambda: interior.activation_maximization(ONE, num_steps=0),
    "optimizer needs init.*0.1": lambda: interior.activation_maximization(ONE, optimizer=0.1),
    "optimizer needs init.*adam": lambda: interior.activation_maximization(ONE, optimizer=optax.adam),
    "transforms is a sequence.*2": lambda: interior.activation_maximization(ONE, transforms=[2]),
    "transforms is a sequence": lambda: interior.activation_maximization(ONE, transforms=interior.jitter(1)),
    "as fourier\\(\\) returns": lambda: interior.activation_maximization(ONE, parametrisation=interior.fourier),
    "returns the input's structure": lambda: maximise(ONE, transforms=[lambda key, x: (x, x)]),
    "bounds are a tuple": lambda: maximise(ONE, bounds=1.0),
    r"or \(0.0, jnp.inf\), not \(None, 1.0\)": lambda: maximise(ONE, bounds=(None, 1.0)),
    "low at most high": lambda: maximise(ONE, bounds=(1.0, 0.0)),
    "bounds of shape \\(3,\\) do not fit": lambda: maximise(ONE, bounds=(0.0, np.ones(3))),
    "strength must be at least 0, not -1": lambda: interior.l2(-1),
    "at least 0, not nan": lambda: interior.total_variation(float("nan")),
    "has shape \\(4,\\)": lambda: maximise(ONE, regulariser=interior.total_variation(1.0, axes=(1,))),
    "pixels must be": lambda: interior.jitter(-1),
    "pixels must be a whole": lambda: interior.jitter(0.5),
    "max_sigma must be positive": lambda: interior.random_blur(0.0),
    "decay is": lambda: interior.fourier(decay=-1.0),
    "argnums=2 but": lambda: maximise(ONE, argnums=2),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()


@pytest.mark.parametrize("negative", [np.float32(-1.0), jnp.float32(-1.0), jnp.float32(jnp.nan)])
@pytest.mark.parametrize("make", [interior.l2, interior.total_variation, interior.random_blur])
def test_a_known_strength_is_checked_in_any_type(make, negative):
    with pytest.raises(ValueError, match="must be"):
        make(negative)
