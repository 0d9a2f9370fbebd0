"""What jaxplain relies on in JAX, one test a fact: when a new JAX breaks one, this says which."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec

from jaxplain import _jax


def eqns(f, *args):
    return _jax.open_jaxpr(jax.make_jaxpr(f)(*args))[0].eqns


def only(f, *args):
    (eqn,) = eqns(f, *args)
    return eqn


def test_the_jit_primitive_holds_a_jaxpr_with_as_many_inputs_as_operands():
    eqn = only(jax.jit(lambda x: x + 1), 1.0)
    assert eqn.primitive in _jax.INLINED
    assert _jax.body_of(eqn) is not None


def test_remat_custom_jvp_and_custom_vjp_are_calls_too():
    custom = jax.custom_vjp(jnp.sin)
    custom.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    for f, kind in ((jax.checkpoint(jnp.sin), {_jax.REMAT}), (jax.nn.relu, _jax.CUSTOM), (custom, _jax.CUSTOM)):
        eqn = only(f, 1.0)
        assert eqn.primitive in kind
        assert _jax.body_of(eqn) is not None


def test_remat_is_emitted_again_from_its_parameters():
    eqn = only(jax.checkpoint(jnp.sin, policy=jax.checkpoint_policies.dots_saveable), 1.0)
    assert {"policy", "prevent_cse"} <= set(eqn.params)


def test_binding_an_equation_runs_it_with_its_own_derivative():
    for f in (jax.nn.relu, jax.jit(jnp.sin), jax.checkpoint(jnp.cos), lambda x: checkpoint_name(x, "a")):
        eqn = only(f, 0.0)
        run = lambda x, eqn=eqn: _jax.bind(eqn, eqn.source_info.name_stack, [x])[0]
        np.testing.assert_allclose(run(0.5), f(0.5))
        np.testing.assert_allclose(jax.grad(run)(0.0), jax.grad(f)(0.0))


def test_scan_tells_its_constants_and_carries():
    def f(c, init, xs):
        return jax.lax.scan(lambda s, x: ((s[0] + c * x, s[1]), x), init, xs)

    eqn = next(e for e in eqns(f, 2.0, (0.0, 1.0), jnp.ones(3)) if e.primitive is _jax.SCAN)
    consts, carries = _jax.scan_counts(eqn.params, len(eqn.invars))
    body = _jax.open_jaxpr(_jax.body_of(eqn))[0]
    assert consts + carries + 1 == len(eqn.invars) == len(body.invars)
    assert carries in (1, 2)  # JAX may move a carry that never changes to the constants
    assert {"length", "reverse", "unroll"} <= set(eqn.params)


def test_cond_and_while_hold_their_bodies():
    (cond,) = (
        e for e in eqns(lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), 1.0) if e.primitive is _jax.COND
    )
    assert len(_jax.branches_of(cond)) == 2
    (loop,) = (
        e for e in eqns(lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, x), 1.0)
        if e.primitive is _jax.WHILE
    )  # fmt: skip
    assert len(_jax.branches_of(loop)) == 2


def test_literals_hold_their_value():
    eqn = only(lambda x: x * 2.0, 1.0)
    (literal,) = (atom for atom in eqn.invars if _jax.is_literal(atom))
    assert float(literal.val) == 2.0


def test_tags_and_scopes_are_in_the_program():
    def f(x):
        with jax.named_scope("outer"), jax.named_scope("inner"):
            return checkpoint_name(x, "tagged")

    eqn = only(f, 1.0)
    assert eqn.primitive is _jax.NAME
    assert eqn.params["name"] == "tagged"
    assert str(_jax.name_stack(eqn, None)) == "outer/inner"


def test_the_name_stack_of_a_trace_does_not_hold_that_of_its_caller():
    with jax.named_scope("outside"):
        eqn = only(jnp.sin, 1.0)
    assert str(_jax.name_stack(eqn, None)) == ""


def test_transformations_mark_the_name_stack():
    def f(x):
        with jax.named_scope("net"):
            return jnp.sin(x)

    stacks = {str(_jax.name_stack(e, None)) for e in eqns(jax.grad(f), 1.0)}
    assert any(s.startswith("jvp(net") for s in stacks), stacks
    stacks = {str(_jax.name_stack(e, None)) for e in eqns(jax.vmap(f), jnp.ones(2))}
    assert stacks == {"vmap(net)"}


def test_closed_over_arrays_are_the_same_objects():
    weights = jnp.ones(3)
    closed = jax.make_jaxpr(lambda x: x * weights)(jnp.ones(3))
    assert any(const is weights for const in _jax.open_jaxpr(closed)[1])


def test_closed_over_tracers_are_the_same_objects():
    def f(weights):
        closed = jax.make_jaxpr(lambda x: x * weights)(jnp.ones(3))
        assert any(const is weights for const in _jax.open_jaxpr(closed)[1])
        return weights.sum()

    jax.jit(f)(jnp.ones(3))


def test_convolutions_name_their_channel_axes():
    nhwc = ("NHWC", "HWIO", "NCHW")
    f = lambda x: jax.lax.conv_general_dilated(x, jnp.ones((3, 3, 2, 5)), (1, 1), "SAME", dimension_numbers=nhwc)
    eqn = next(e for e in eqns(f, jnp.ones((1, 4, 4, 2))) if e.primitive is _jax.CONV)
    assert _jax.conv_input_channel_axis(eqn.params) == 3
    assert _jax.conv_channel_axis(eqn.params) == 1


def test_random_primitives_are_known():
    found = {e.primitive for e in eqns(jax.random.bits, jax.random.key(0))}

    def inside(f, *args):
        for eqn in eqns(f, *args):
            body = _jax.body_of(eqn)
            yield eqn.primitive
            if body is not None:
                yield from (e.primitive for e in _jax.open_jaxpr(body)[0].eqns)

    found = set(inside(jax.random.bits, jax.random.key(0)))
    assert any(_jax.is_random(p) for p in found), found


def test_a_jitted_function_is_traced_once_for_vmap_scan_and_a_plain_call():
    traces = []

    @jax.jit
    def f(x):
        traces.append(1)
        return x * 2

    jax.make_jaxpr(lambda xs: (jax.vmap(f)(xs), jax.lax.map(f, xs), jax.vmap(f)(xs[:1])))(jnp.ones(3))
    assert len(traces) == 1


def test_values_say_which_mesh_axes_they_vary_over():
    """A gradient inside `shard_map` is summed over the devices unless what it is taken by varies as they do."""
    mesh = Mesh(np.array(jax.devices()[:4]), ("d",))

    def f(w, x):
        assert _jax.varies(x)
        assert not _jax.varies(w)
        marked, same, key = _jax.vary_together((w, 3, jax.random.key(0)), x)
        assert _jax.varies((marked, key))
        assert same == 3
        slope = jax.grad(lambda w: (w * x).sum())
        return slope(w)[None], slope(marked)[None]

    here, apart = PartitionSpec(), PartitionSpec("d")
    summed, own = jax.jit(jax.shard_map(f, mesh=mesh, in_specs=(here, apart), out_specs=(apart, apart)))(
        jnp.ones(()), jnp.arange(4.0)
    )
    np.testing.assert_array_equal(summed, [6, 6, 6, 6])
    np.testing.assert_array_equal(own, [0, 1, 2, 3])
    assert _jax.vary_together(1.0) == 1.0


def test_source_lines_name_the_users_code():
    assert "test_jax_contract.py" in _jax.source_line(only(lambda x: x * 2.0, 1.0))
