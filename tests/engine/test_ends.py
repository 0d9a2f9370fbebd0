"""The first and the last affine units, in loops too: a scan's first round is not like the others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp

R = jxp.rules
RNG = np.random.default_rng(3)
STACK = RNG.normal(size=(5, 4, 4))
SHIFTS = RNG.normal(size=(5, 4)) * 0.3
HEAD = RNG.normal(size=4)
U, V = RNG.normal(size=(2, 4, 4))
X = RNG.normal(size=4)
ROWS = RNG.normal(size=(5, 4))

EPS = 1e-3
TABLES = {
    "epsilon": R.epsilon(EPS),
    "box first": R.rules_for(R.epsilon(EPS), {R.first: R.z_box(-4.0, 4.0, eps=EPS)}),
    "both": R.rules_for(R.gamma(0.2, eps=EPS), {R.first: R.flat(), R.last: R.z_plus(eps=EPS)}),
}


def loop(step, carry, items, length, *, scan, reverse=False, unroll=1):
    """`lax.scan`, or the same by a Python loop."""
    items = jax.tree.map(jnp.asarray, items)
    if scan:
        return jax.lax.scan(step, carry, items, length=length, reverse=reverse, unroll=unroll)
    ys = []
    for k in range(length)[:: -1 if reverse else 1]:
        carry, y = step(carry, jax.tree.map(lambda a, k=k: a[k], items))
        ys.append(y)
    return carry, jax.tree.map(lambda *parts: jnp.stack(parts), *ys[:: -1 if reverse else 1])


def layer(x, weights):
    w, b = weights
    return jax.nn.relu(w @ x + b), None


def layers(x, scan, **options):
    return loop(layer, x, (STACK, SHIFTS), 5, scan=scan, **options)[0].sum()


def headed(x, scan):
    return HEAD @ loop(layer, x, (STACK, SHIFTS), 5, scan=scan)[0]


def residual(x, scan):
    step = lambda x, w: (x + U @ layer(x, w)[0], None)
    return HEAD @ loop(step, x, (STACK, SHIFTS), 5, scan=scan)[0]


def reverse(x, scan):
    return layers(x, scan, reverse=True, unroll=2)


def every_state(x, scan):
    step = lambda x, w: (layer(x, w)[0], layer(x, w)[0])
    return jax.nn.relu(loop(step, x, (STACK, SHIFTS), 5, scan=scan, reverse=True)[1]).sum()


def nested(x, scan):
    def outer(x, weights):
        return loop(layer, x, weights, 2, scan=scan)[0], None

    items = (STACK[:4].reshape(2, 2, 4, 4), SHIFTS[:4].reshape(2, 2, 4))
    return loop(outer, x, items, 2, scan=scan)[0].sum()


def nested_longer(x, scan):
    """Three rounds of three: what is in the middle of the outer loop is neither first nor last."""

    def outer(x, weights):
        return loop(layer, x, weights, 3, scan=scan)[0], None

    again = lambda a: jnp.stack([a[:3], a[1:4], a[2:]])
    return loop(outer, x, (again(STACK), again(SHIFTS)), 3, scan=scan)[0].sum()


def rematted(x, scan):
    step = jax.checkpoint(layer)
    return loop(step, x, (STACK, SHIFTS), 5, scan=scan)[0].sum()


def delayed(x, scan):
    """Two carries that swap: which of them has been through a layer changes from round to round."""
    step = lambda c, w: ((layer(c[1], w)[0], c[0]), None)
    a, b = loop(step, (x, x[::-1]), (STACK, SHIFTS), 5, scan=scan)[0]
    return a.sum() + b.sum()


def recurrent(x, scan):
    step = lambda h, row: (jnp.tanh(U @ row + V @ h), h)
    h, hs = loop(step, 0.0 * x, jnp.stack([x, x[::-1], x]), 3, scan=scan)
    return HEAD @ h + hs[1:].sum()


def single(x, scan):
    return loop(layer, x, (STACK[:1], SHIFTS[:1]), 1, scan=scan)[0].sum()


LOOPS = {
    f.__name__: f
    for f in (
        layers,
        headed,
        residual,
        reverse,
        every_state,
        nested,
        nested_longer,
        rematted,
        delayed,
        recurrent,
        single,
    )
}


@pytest.mark.parametrize(
    ("name", "table"),
    [(name, table) for name in LOOPS for table in TABLES if table != "epsilon" or "nested" in name],
)
def test_a_loop_by_scan_is_the_loop_unrolled(name, table):
    f = LOOPS[name]
    scanned = jax.jit(jxp.lrp(lambda x: f(x, True), TABLES[table]))(jnp.asarray(X))
    unrolled = jax.jit(jxp.lrp(lambda x: f(x, False), TABLES[table]))(jnp.asarray(X))
    np.testing.assert_allclose(scanned, unrolled, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["layers", "reverse", "nested"])
def test_deep_taylor_of_a_loop(name):
    f = LOOPS[name]
    for bounds in ({}, {"low": -4.0, "high": 4.0}):
        scanned, unrolled = (
            jxp.deep_taylor(lambda x, s=s: f(x, s), **bounds)(jnp.asarray(X)) for s in (True, False)
        )
        assert np.abs(unrolled).max() > 1e-6
        np.testing.assert_allclose(scanned, unrolled, rtol=1e-9, atol=1e-9)


def test_what_arrives_inside_a_split_scan():
    def f(x, scan):
        def step(x, w):
            h = jxp.tag(layer(x, w)[0], "h")
            return h, None

        return HEAD @ loop(step, x, (STACK, SHIFTS), 5, scan=scan)[0]

    table = TABLES["both"]
    inside = jxp.lrp(lambda x: f(x, True), table, at="h")(jnp.asarray(X))
    assert inside.shape == (5, 4)
    for k in range(5):

        def g(x, k=k):
            for n, w in enumerate(zip(*map(jnp.asarray, (STACK, SHIFTS)), strict=True)):
                x = layer(x, w)[0]
                x = jxp.tag(x, "here") if n == k else x
            return HEAD @ x

        np.testing.assert_allclose(inside[k], jxp.lrp(g, table, at="here")(jnp.asarray(X)), rtol=1e-9, atol=1e-9)


def test_coverage_names_both_rules_of_a_loop():
    table = jxp.coverage(lambda x: layers(x, True), TABLES["box first"])(jnp.asarray(X))
    (rule,) = {row.rule for row in table if row.kind == "dense"}
    assert rule == "ZBox, Epsilon"
    assert abs(table.start - table.end - sum(row.leak for row in table)) < 1e-9


def test_an_empty_loop():
    f = lambda x: HEAD @ loop(layer, x, (STACK[:0], SHIFTS[:0]), 0, scan=True)[0]
    np.testing.assert_allclose(jxp.lrp(f, R.epsilon(0.0))(jnp.asarray(X)), HEAD * X, rtol=1e-12)


@pytest.mark.parametrize("name", ["layers", "nested_longer"])
def test_loops_without_position_are_one_scan(name):
    text = str(jax.make_jaxpr(jxp.lrp(lambda x: LOOPS[name](x, True), R.EPSILON))(jnp.asarray(X)))
    plain = str(jax.make_jaxpr(jax.grad(lambda x: LOOPS[name](x, True)))(jnp.asarray(X)))
    assert text.count(" scan[") == plain.count(" scan[")


def test_loops_are_split_only_where_the_table_asks():
    text = str(jax.make_jaxpr(jxp.lrp(lambda x: layers(x, True), R.EPSILON))(jnp.asarray(X)))
    split = str(jax.make_jaxpr(jxp.lrp(lambda x: layers(x, True), TABLES["both"]))(jnp.asarray(X)))
    assert text.count(" scan[") == 2  # there and back
    assert split.count(" scan[") == 6
