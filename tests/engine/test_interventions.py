"""Capture, plant and slice: the values are right, and the function stays what it was, derivatives included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from jaxplain.engine.channels import channel_axes
from jaxplain.engine.interventions import cut_at
from jaxplain.engine.trace import trace

W = np.random.default_rng(0).normal(size=(3, 4, 4)) / 2
X = np.random.default_rng(1).normal(size=4)


def chain(x, w):
    """Three layers with a tag after each; the output is not linear in any of them."""
    for k in range(3):
        x = jxp.tag(jnp.tanh(w[k] @ x), f"h{k}")
    return jnp.square(x).sum()


def rematted(x, w):
    for k in range(3):
        x = jax.checkpoint(lambda x, w, k=k: jxp.tag(jnp.tanh(w @ x), f"h{k}"))(x, w[k])
    return jnp.square(x).sum()


def jitted(x, w):
    for k in range(3):
        x = jax.jit(lambda x, w, k=k: jxp.tag(jnp.tanh(w @ x), f"h{k}"))(x, w[k])
    return jnp.square(x).sum()


def scanned(x, w):
    def layer(x, w):
        x = jxp.tag(jnp.tanh(w @ x), "h")
        return x, x.sum()

    x, _ = jax.lax.scan(layer, x, w)
    return jnp.square(x).sum()


def remat_scan(x, w):
    layer = jax.checkpoint(lambda x, w: (jxp.tag(jnp.tanh(w @ x), "h"), None))
    return jnp.square(jax.lax.scan(layer, x, w)[0]).sum()


def reversed_scan(x, w):
    layer = lambda x, w: (jxp.tag(jnp.tanh(w @ x), "h"), None)
    return jnp.square(jax.lax.scan(layer, x, w[::-1], reverse=True)[0]).sum()


@pytest.fixture(scope="module")
def truth():
    x, hidden = jnp.asarray(X), []
    for w in W:
        x = jnp.tanh(jnp.asarray(w) @ x)
        hidden.append(x)
    return jnp.stack(hidden)


FLAT = {"plain": chain, "remat": rematted, "jit": jitted}
SCANS = {"scan": scanned, "remat_scan": remat_scan, "reversed_scan": reversed_scan}


@pytest.mark.parametrize("f", FLAT.values(), ids=FLAT)
def test_capture(f, truth):
    y, values = jxp.capture(f, "h0", "h1", "h2")(jnp.asarray(X), jnp.asarray(W))
    np.testing.assert_allclose(y, jnp.square(truth[2]).sum(), rtol=1e-14)
    np.testing.assert_allclose(jnp.stack([values[f"h{k}"] for k in range(3)]), truth, rtol=1e-14)


@pytest.mark.parametrize("f", SCANS.values(), ids=SCANS)
def test_capture_in_a_scan_stacks_iterations(f, truth):
    y, values = jxp.capture(f, "h")(jnp.asarray(X), jnp.asarray(W))
    np.testing.assert_allclose(y, jnp.square(truth[2]).sum(), rtol=1e-14)
    expected = truth[::-1] if f is reversed_scan else truth
    np.testing.assert_allclose(values["h"], expected, rtol=1e-14)


def test_capture_in_a_scan_of_a_scan():
    def outer(x, w):
        step = lambda x, _: (jxp.tag(jnp.sin(w @ x), "h"), None)
        return jax.lax.scan(step, x, None, length=2)[0], None

    y, values = jxp.capture(lambda x, w: jax.lax.scan(outer, x, w)[0].sum(), "h")(jnp.asarray(X), jnp.asarray(W))
    assert values["h"].shape == (3, 2, 4)
    np.testing.assert_allclose(values["h"][-1, -1].sum(), y, rtol=1e-14)
    np.testing.assert_allclose(values["h"][1, 0], jnp.sin(jnp.asarray(W[1]) @ values["h"][0, 1]), rtol=1e-14)


@pytest.mark.parametrize("f", [*FLAT.values(), *SCANS.values()], ids=[*FLAT, *SCANS])
def test_capture_keeps_derivatives(f):
    """The captured function has f's gradients, and those of what it captures."""
    at = "h" if f in SCANS.values() else "h1"
    args = (jnp.asarray(X), jnp.asarray(W))
    plain = jax.grad(f, (0, 1))(*args)
    through = jax.grad(lambda *a: jxp.capture(f, at)(*a)[0], (0, 1))(*args)
    for a, b in zip(plain, through, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    inside = lambda x: jxp.capture(f, at)(x, args[1])[1][at].sum()
    expected = (inside(args[0] + 1e-6 * args[0]) - inside(args[0] - 1e-6 * args[0])) / 2e-6
    np.testing.assert_allclose((jax.grad(inside)(args[0]) * args[0]).sum(), expected, rtol=1e-7)


@pytest.mark.parametrize("f", FLAT.values(), ids=FLAT)
def test_plant(f, truth):
    args = (jnp.asarray(X), jnp.asarray(W))
    np.testing.assert_allclose(jxp.plant(f, {"h1": truth[1]})(*args), f(*args), rtol=1e-14)
    other = jnp.arange(4.0)
    expected = jnp.square(jnp.tanh(args[1][2] @ other)).sum()
    np.testing.assert_allclose(jxp.plant(f, {"h1": other})(*args), expected, rtol=1e-14)
    # Later sites win: what is planted after another cuts it off.
    both = jxp.plant(f, {"h0": jnp.ones(4), "h1": other})(*args)
    np.testing.assert_allclose(both, expected, rtol=1e-14)


@pytest.mark.parametrize("f", SCANS.values(), ids=SCANS)
def test_plant_in_a_scan(f, truth):
    args = (jnp.asarray(X), jnp.asarray(W))
    values = truth.at[2].set(jnp.arange(4.0))
    values = values[::-1] if f is reversed_scan else values
    np.testing.assert_allclose(jxp.plant(f, {"h": values})(*args), 14.0, rtol=1e-14)


@pytest.mark.parametrize("f", [*FLAT.values(), *SCANS.values()], ids=[*FLAT, *SCANS])
def test_slices_compose_to_the_function(f, truth):
    at = "h" if f in SCANS.values() else "h1"
    args = (jnp.asarray(X), jnp.asarray(W))
    h, g = jxp.slice_at(f, at)
    np.testing.assert_allclose(g(h(*args), *args), f(*args), rtol=1e-14)
    if at == "h1":
        np.testing.assert_allclose(h(*args), truth[1], rtol=1e-14)
        expected = jax.grad(lambda z: jnp.square(jnp.tanh(args[1][2] @ z)).sum())(truth[1])
        np.testing.assert_allclose(jxp.gradient(g)(h(*args), *args), expected, rtol=1e-13)
        # The chain rule through the two halves is the gradient of the whole.
        _, pull = jax.vjp(lambda x: h(x, args[1]), args[0])
        np.testing.assert_allclose(pull(expected)[0], jax.grad(f)(*args), rtol=1e-13)


def test_each_half_holds_only_what_it_needs():
    w = jnp.asarray(W)
    f = lambda x: jxp.tag(jnp.sin(w[0] @ x), "z") @ jnp.cos(w[1] @ x)
    names = lambda half, *args: {eqn.primitive.name for eqn in jax.make_jaxpr(half)(*args).eqns}
    h, g = jxp.slice_at(f, "z")
    assert names(h, jnp.asarray(X)) >= {"sin"}
    assert "cos" not in names(h, jnp.asarray(X))
    assert names(g, jnp.ones(4), jnp.asarray(X)) >= {"cos"}
    assert "sin" not in names(g, jnp.ones(4), jnp.asarray(X))


def test_strict_slices_refuse_a_bypass():
    f = lambda x: (jxp.tag(jnp.sin(x), "branch") + x).sum()
    h, _ = jxp.slice_at(f, "branch", strict=True)
    with pytest.raises(jxp.SiteError, match=r"1 value\(s\) that depend on the input bypass site 'branch'"):
        h(jnp.asarray(X))
    h, g = jxp.slice_at(lambda x: (jxp.tag(jnp.sin(x) + x, "sum") * 2).sum(), "sum", strict=True)
    x = jnp.asarray(X)
    np.testing.assert_allclose(g(h(x), x), (2 * (jnp.sin(x) + x)).sum(), rtol=1e-14)


def test_planting_the_wrong_shape():
    with pytest.raises(ValueError, match=r"site 'h1' has shape \(4,\), but a value of shape \(3,\) was given"):
        jxp.plant(chain, {"h1": jnp.ones(3)})(jnp.asarray(X), jnp.asarray(W))
    _, g = jxp.slice_at(scanned, "h")
    with pytest.raises(ValueError, match=r"site 'h' has shape \(3, 4\)"):
        g(jnp.ones(4), jnp.asarray(X), jnp.asarray(W))


def test_custom_derivatives_survive():
    """Inlining a custom_jvp or custom_vjp would replace its derivative: at 0, relu's is 0 and max(x, 0)'s 1/2."""

    @jax.custom_vjp
    def straight_through(x):
        return jnp.round(x)

    straight_through.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (3 * g,))
    f = lambda x: (jxp.tag(jax.nn.relu(x), "r") + straight_through(x)).sum()
    x = jnp.array([0.0, 1.0, -1.0])
    through = lambda x: jxp.capture(f, "r")(x)[0]
    np.testing.assert_array_equal(jax.grad(through)(x), jax.grad(f)(x))
    np.testing.assert_array_equal(jax.grad(f)(x), [3.0, 4.0, 3.0])


def test_results_of_any_structure_and_other_arguments():
    def f(x, scale, *, name, table):
        z = jxp.tag(x * scale, "z")
        return {"sum": z.sum(), name: (z, table["ids"])}

    x, table = jnp.ones(3), {"ids": jnp.arange(2), "note": "text"}
    y, values = jxp.capture(f, "z")(x, 2, name="both", table=table)
    np.testing.assert_array_equal(values["z"], 2 * x)
    assert set(y) == {"sum", "both"}
    np.testing.assert_array_equal(y["both"][1], [0, 1])
    y = jxp.plant(f, {"z": jnp.zeros(3)})(x, 2, name="both", table=table)
    assert float(y["sum"]) == 0.0


def test_effects_and_random_numbers_are_kept(capfd):
    def f(x, key):
        jax.debug.print("seen {}", x.sum())
        noise = jax.random.normal(key, x.shape) - jax.random.normal(jax.random.fold_in(key, 1), x.shape)
        return jxp.tag(x + noise, "z").sum()

    x, key = jnp.asarray(X), jax.random.key(0)
    y, _ = jxp.capture(f, "z")(x, key)
    jax.effects_barrier()
    assert capfd.readouterr().out.count("seen") == 1
    np.testing.assert_allclose(y, f(x, key), rtol=1e-14)


def test_equal_operations_are_one_site():
    w = jnp.asarray(W[0])
    f = lambda x: jnp.where(w @ x > 0, w @ x, 0.0).sum()
    kinds = [row.kind for row in jxp.list_sites(f)(jnp.asarray(X))]
    assert kinds == ["dense", "activation", "sum"]


def test_interventions_compose_with_transforms():
    xs, w = jnp.stack([jnp.asarray(X), 2 * jnp.asarray(X)]), jnp.asarray(W)
    for f, at in ((chain, "h1"), (scanned, "h"), (rematted, "h1")):
        batched = jax.jit(jax.vmap(lambda x: jxp.capture(f, at)(x, w)[1][at]))(xs)
        for row, x in zip(batched, xs, strict=True):
            np.testing.assert_allclose(row, jxp.capture(f, at)(x, w)[1][at], rtol=1e-13)
        h, g = jxp.slice_at(f, at)
        outside = jax.jit(jax.vmap(jax.grad(lambda x: g(h(x, w), x, w))))(xs)
        np.testing.assert_allclose(outside[1], jax.grad(f)(xs[1], w), rtol=1e-12)


def test_remat_saves_memory_still():
    """A capture inside a remat re-emits it: what it recomputes is not stored for the backward pass."""
    captured = lambda x, w: jxp.capture(rematted, "h1")(x, w)[0]
    text = str(jax.make_jaxpr(captured)(jnp.asarray(X), jnp.asarray(W)))
    assert text.count("remat") >= 3 or text.count("checkpoint") >= 3


def test_nothing_is_retraced():
    traces = []

    def f(x, w):
        traces.append(1)
        return chain(x, w)

    jxp.capture(f, "h0", "h1")(jnp.asarray(X), jnp.asarray(W))
    assert len(traces) == 1
    jxp.grad_cam(lambda x: f(x.mean((0, 1)), jnp.asarray(W)) + jxp.tag(x, "site").sum(), "site")(
        jnp.ones((2, 2, 4))
    )
    assert len(traces) == 2


def test_channel_axes_are_followed():
    k = jnp.ones((3, 3, 2, 5))
    kernel = jnp.transpose(k, (3, 2, 0, 1))

    def f(x):  # channels first
        y = jax.lax.conv_general_dilated(x[None], kernel, (1, 1), "SAME")[0]
        y = jxp.tag(jax.nn.relu(y) * 2.0, "first")
        return jxp.tag(jnp.transpose(y, (1, 2, 0)), "last").sum()

    traced = trace(f, (jnp.ones((2, 6, 6)),), {})
    axes = channel_axes(traced.program)
    for name, axis in {"first": 0, "last": 2}.items():
        assert axes[cut_at(traced, name).site.value] == axis
