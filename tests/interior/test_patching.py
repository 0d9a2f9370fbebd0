"""Activations taken from another input, or taken away."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain import interior

RNG = np.random.default_rng(5)
X, OTHER, XS = RNG.normal(size=4), RNG.normal(size=4), RNG.normal(size=(7, 4))
W = RNG.normal(size=(4, 3))
WHERE = np.array([True, False, True, False])


def f(x, scale):
    return scale * (jxp.tag(jnp.sin(x), "z") * x**2) @ jnp.asarray(W)


def by_hand(z, x=X):
    return 2.0 * (z * x**2) @ W


def test_patch():
    np.testing.assert_allclose(interior.patch(f, "z", OTHER)(X, 2.0), by_hand(np.sin(OTHER)), rtol=1e-12)
    mixed = np.where(WHERE, np.sin(OTHER), np.sin(X))
    np.testing.assert_allclose(interior.patch(f, "z", OTHER, where=WHERE)(X, 2.0), by_hand(mixed), rtol=1e-12)
    np.testing.assert_allclose(interior.patch(f, "z", X)(X, 2.0), f(X, 2.0), rtol=1e-12)


def test_patch_maps_over_places_and_sources():
    one = jax.jit(jax.vmap(lambda where: interior.patch(f, "z", OTHER, where=where)(X, 2.0)))(
        np.eye(4, dtype=bool)
    )
    for i in range(4):
        mixed = np.where(np.arange(4) == i, np.sin(OTHER), np.sin(X))
        np.testing.assert_allclose(one[i], by_hand(mixed), rtol=1e-12)
    many = jax.vmap(lambda source: interior.patch(f, "z", source)(X, 2.0))(XS)
    np.testing.assert_allclose(many[3], by_hand(np.sin(XS[3])), rtol=1e-12)


def test_patch_of_two_arguments():
    both = lambda x, y: jxp.tag(x * y, "z").sum() + 10 * y.sum()
    patched = interior.patch(both, "z", (OTHER, X), argnums=(1, 0))  # y from OTHER, x from X
    np.testing.assert_allclose(patched(XS[0], XS[1]), (X * OTHER).sum() + 10 * XS[1].sum(), rtol=1e-12)


def test_ablate():
    np.testing.assert_allclose(interior.ablate(f, "z")(X, 2.0), np.zeros(3))
    mean = np.sin(XS).mean(0)
    for chunk_size in (None, 3):
        ablated = interior.ablate(f, "z", "mean", over=XS, chunk_size=chunk_size)
        np.testing.assert_allclose(ablated(X, 2.0), by_hand(mean), rtol=1e-12)
    ablated = interior.ablate(f, "z", "mean", over=XS, where=WHERE)
    np.testing.assert_allclose(ablated(X, 2.0), by_hand(np.where(WHERE, mean, np.sin(X))), rtol=1e-12)


def test_resample_is_the_mean_outcome():
    for chunk_size in (None, 1, 3):
        found = interior.ablate(f_squared, "z", "resample", over=XS, where=WHERE, chunk_size=chunk_size)(X, 2.0)
        every = [by_hand(np.where(WHERE, np.sin(x), np.sin(X))) ** 2 for x in XS]
        np.testing.assert_allclose(found["y"], np.mean(every, 0), rtol=1e-12)


def f_squared(x, scale):
    return {"y": f(x, scale) ** 2}


def test_gradients_go_through():
    slope = jax.grad(lambda x: interior.ablate(f, "z", "mean", over=XS, where=WHERE)(x, 2.0).sum())(jnp.asarray(X))
    outer = np.where(WHERE, np.sin(XS).mean(0), np.sin(X)) * 2 * X
    inner = np.where(WHERE, 0, np.cos(X)) * X**2
    np.testing.assert_allclose(slope, 2.0 * W.sum(1) * (outer + inner), rtol=1e-12)
    source = jax.grad(lambda s: interior.patch(f, "z", s)(X, 2.0).sum())(jnp.asarray(OTHER))
    np.testing.assert_allclose(source, 2.0 * X**2 * W.sum(1) * np.cos(OTHER), rtol=1e-12)


BAD = {
    "how must be": lambda: interior.ablate(f, "z", "median"),
    "'zero' needs no other": lambda: interior.ablate(f, "z", over=XS),
    "'mean' needs other inputs": lambda: interior.ablate(f, "z", "mean"),
    "over holds no inputs": lambda: interior.ablate(f, "z", "mean", over=XS[:0])(X, 1.0),
    "array of bools": lambda: interior.patch(f, "z", OTHER, where=np.ones(4))(X, 1.0),
    r"where \(3,\) does not broadcast": lambda: interior.patch(f, "z", OTHER, where=WHERE[:3])(X, 1.0),
    r"where \(2, 4\) does not broadcast": lambda: interior.patch(f, "z", OTHER, where=np.ones((2, 4), bool))(
        X, 1.0
    ),
    r"\(4,\) for x, but \(3,\)": lambda: interior.patch(lambda x: jxp.tag(x, "z").sum(), "z", OTHER[:3])(X),
    "did you mean 'z'": lambda: interior.patch(f, "zz", OTHER)(X, 1.0),
    "takes the mean of what f returns": lambda: interior.ablate(
        lambda x: jxp.tag(x, "z").argmax(), "z", "resample", over=XS
    )(X),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(message):
    with pytest.raises((ValueError, TypeError), match=message):
        BAD[message]()


STACK = RNG.normal(size=(3, 4, 4))


def layers(x, unrolled, change=lambda k, z: z):
    """Three layers, as a scan or written out, with a change of each layer's value."""
    if not unrolled:
        return jax.lax.scan(lambda h, w: (jxp.tag(jnp.tanh(h @ w), "h"), None), x, jnp.asarray(STACK))[0].sum()
    for k in range(3):
        x = change(k, jnp.tanh(x @ STACK[k]))
    return x.sum()


def test_inside_a_scan_later_rounds_see_what_was_changed_in_earlier_ones():
    scanned = lambda x: layers(x, False)
    off = jnp.asarray([True, True, False, False])
    dropped = layers(X, True, lambda k, z: jnp.where(off, 0.5, z))
    for run in (
        interior.drop_units(scanned, "h", [0, 1], baseline=0.5),
        jax.jit(interior.keep_units(scanned, "h", [2, 3], baseline=0.5)),
    ):
        np.testing.assert_allclose(run(X), dropped, rtol=1e-12)
    zeros = layers(X, True, lambda k, z: jnp.where(off, 0.0, z))
    np.testing.assert_allclose(interior.ablate(scanned, "h", where=off)(X), zeros, rtol=1e-12)
    one_round = np.arange(3)[:, None] == 1
    second = layers(X, True, lambda k, z: z * float(k != 1))
    np.testing.assert_allclose(interior.ablate(scanned, "h", where=one_round)(X), second, rtol=1e-12)
    seen = []
    layers(OTHER, True, lambda k, z: seen.append(z) or z)
    mixed = layers(X, True, lambda k, z: jnp.where(off, seen[k], z))
    np.testing.assert_allclose(interior.patch(scanned, "h", OTHER, where=off)(X), mixed, rtol=1e-12)
    slope = jax.grad(interior.drop_units(jax.checkpoint(scanned), "h", [0, 1]))(jnp.asarray(X))
    np.testing.assert_allclose(
        slope, jax.grad(lambda x: layers(x, True, lambda k, z: jnp.where(off, 0.0, z)))(jnp.asarray(X)), rtol=1e-12
    )
