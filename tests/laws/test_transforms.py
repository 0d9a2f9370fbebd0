"""Laws of transforms: an explainer is a pure function, and JAX's transformations see it as one."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import jaxplain as jxp
from laws.methods import METHODS
from laws.networks import first_logit, setting

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
CHUNKED = [m for m in METHODS if m.chunked]


def close(a, b, tolerance=1e-11):
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        scale = max(1e-3, float(jnp.abs(right).max()))
        np.testing.assert_allclose(left, right, rtol=0, atol=tolerance * scale)


@every_method
def test_jit_changes_nothing(method):
    f, xs, p = first_logit(method.image, method.relu)
    result = method.explain(f, xs[0], p)
    assert float(max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(result))) > 1e-6
    close(jax.jit(partial(method.explain, f))(xs[0], p), result)


@every_method
def test_vmap_over_examples_is_a_loop(method):
    f, xs, p = first_logit(method.image, method.relu)
    explain = jax.jit(partial(method.explain, f))
    batched = jax.jit(jax.vmap(partial(method.explain, f), (0, None)))(xs, p)
    for row, x in zip(batched, xs, strict=True):
        close(row, explain(x, p))


@every_method
def test_vmap_over_labels_is_a_loop(method):
    logits, xs, p = setting(method.image, method.relu)
    f = jxp.class_score(logits)
    explain = jax.jit(partial(method.explain, f))
    labels = jnp.arange(3)
    batched = jax.jit(jax.vmap(partial(method.explain, f), (None, 0, None)))(xs[0], labels, p)
    for row, label in zip(batched, labels, strict=True):
        close(row, explain(xs[0], label, p))


def directional_difference(function, at, along, step=1e-5):
    """The central difference of fourth order along a direction."""

    def value(t):
        return function(jax.tree.map(lambda a, d: a + t * step * d, at, along))

    return (8 * (value(1.0) - value(-1.0)) - (value(2.0) - value(-2.0))) / (12 * step)


@every_method
def test_derivatives_of_an_explanation(method):
    """`grad` by the parameters and `jvp` by the input, of a loss of the explanation, against differences."""
    f, xs, p = first_logit(method.image, method.relu)
    rng = np.random.default_rng(5)
    weights = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), jax.eval_shape(partial(method.explain, f), xs[0], p)
    )

    @jax.jit
    def loss(at):
        x, p = at
        result = method.explain(f, x, p)
        return sum(jax.tree.leaves(jax.tree.map(lambda r, w: (w * r + jnp.square(r)).sum(), result, weights)))

    at = (xs[0], p)
    along = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), at)
    expected = float(directional_difference(loss, at, along))
    slopes = jax.jit(jax.grad(loss))(at)
    reverse = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), slopes, along)))
    _, forward = jax.jit(lambda at, along: jax.jvp(loss, (at,), (along,)))(at, along)
    assert abs(expected) > 1e-8
    np.testing.assert_allclose(reverse, expected, rtol=1e-6)
    np.testing.assert_allclose(forward, expected, rtol=1e-6)


@every_method
def test_shard_map_over_four_devices(method):
    f, xs, p = first_logit(method.image, method.relu)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    assert mesh.size == 4
    each = jax.vmap(partial(method.explain, f), (0, None))
    spread = jax.shard_map(
        each, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec("data")
    )
    close(jax.jit(spread)(xs, p), jax.jit(each)(xs, p))


@pytest.mark.parametrize("name", ["gradient_times_input", "integrated_gradients", "lrp", "deep_lift"])
def test_shard_map_of_one_input_over_labels(name):
    """Every device explains the same input for a label of its own: nothing is summed over them."""
    weights = np.random.default_rng(0).normal(size=(5, 4))
    f = jxp.class_score(lambda x: jnp.sin(jax.nn.relu(x @ jnp.asarray(weights))))
    method = {"lrp": lambda f: jxp.lrp(f, jxp.rules.epsilon(0.1))}.get(name, getattr(jxp, name))
    each = jax.vmap(method(f), (None, 0))
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    spread = jax.shard_map(
        each, mesh=mesh, in_specs=(PartitionSpec(), PartitionSpec("data")), out_specs=PartitionSpec("data")
    )
    x, labels = jnp.asarray(np.random.default_rng(1).normal(size=5)), jnp.arange(4)
    close(jax.jit(spread)(x, labels), jax.jit(each)(x, labels))


@pytest.mark.parametrize("method", CHUNKED, ids=lambda m: m.name)
def test_shard_map_in_chunks(method):
    """A scan's carry must vary over the mesh as the data do."""
    f, xs, p = first_logit(method.image, method.relu)
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))

    def one(x, p):
        explain = method.chunked(f, 2)
        return explain(jax.random.key(7), x, p).value if method.stochastic else explain(x, p)

    each = jax.vmap(one, (0, None))
    spread = jax.shard_map(
        each, mesh=mesh, in_specs=(PartitionSpec("data"), PartitionSpec()), out_specs=PartitionSpec("data")
    )
    close(jax.jit(spread)(xs, p), jax.jit(each)(xs, p))


@every_method
def test_one_trace_a_shape_and_none_a_sample(method):
    f, xs, p = first_logit(method.image, method.relu)
    traces = []

    def counted(x, p):
        traces.append(x.shape)
        return f(x, p)

    explain = jax.jit(partial(method.explain, counted))
    explain(xs[0], p)
    assert len(traces) == 1
    explain(xs[1], p)
    assert len(traces) == 1
    explain(xs[0].astype(jnp.float32), jax.tree.map(lambda leaf: leaf.astype(jnp.float32), p))
    assert len(traces) == 2


@pytest.mark.parametrize("method", CHUNKED, ids=lambda m: m.name)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunk_size_changes_nothing(method, size):
    """Chunks that divide the samples, that leave a remainder, that hold them all; still one trace."""
    f, xs, p = first_logit(method.image, method.relu)
    traces = []

    def counted(x, p):
        traces.append(x.shape)
        return f(x, p)

    def run(explain, x, p):
        return tuple(explain(jax.random.key(7), x, p)) if method.stochastic else explain(x, p)

    whole = jax.jit(lambda x, p: run(method.make(f), x, p))(xs[0], p)
    parts = jax.jit(lambda x, p: run(method.chunked(counted, size), x, p))(xs[0], p)
    close(parts, whole)
    assert len(traces) == 1


@every_method
def test_no_host_callback(method):
    f, xs, p = first_logit(method.image, method.relu)
    text = jax.jit(partial(method.explain, f)).lower(xs[0], p).as_text()
    assert "callback" not in text


@every_method
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64], ids=lambda d: d.__name__)
def test_dtype_is_kept(method, dtype):
    f, xs, p = first_logit(method.image, method.relu)
    x, p = jax.tree.map(lambda leaf: leaf.astype(dtype), (xs[0], p))
    shapes = jax.eval_shape(partial(method.explain, f), x, p)
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    "method", [m for m in METHODS if not m.map and "structure" not in m.excused], ids=lambda m: m.name
)
def test_structure_is_kept(method):
    """A pytree comes back as one, with None where a leaf is not a float."""
    f, xs, p = first_logit(method.image, method.relu)
    tree = {"a": xs[0][:2], "ids": jnp.arange(3), "rest": (xs[0][2:],), "none": None}

    def on_tree(x, p):
        return f(jnp.concatenate([x["a"], x["rest"][0]]), p) + x["ids"].sum().astype(jnp.float64) * 0

    explain = method.make(on_tree)
    if method.over_rows:  # they take their background from x
        tree = {k: v for k, v in tree.items() if k != "ids"}
        explain = method.make(lambda x, p: f(jnp.concatenate([x["a"], x["rest"][0]]), p))
    result = explain(jax.random.key(7), tree, p).value if method.stochastic else explain(tree, p)
    assert result["none"] is None
    assert result.get("ids") is None
    assert result["a"].shape == xs[0][:2].shape
    if method.name in ("gradient", "integrated_gradients"):
        close(jnp.concatenate([result["a"], result["rest"][0]]), method.explain(f, xs[0], p))


PRECISE = [m for m in METHODS if "guided_integrated" not in m.name]


@pytest.mark.parametrize("method", PRECISE, ids=lambda m: m.name)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=lambda d: d.__name__)
def test_values_of_lower_precision(method, dtype):
    """What is summed is summed in float32: the error is that of the function itself, not of the method.

    Guided IG is left out: it sorts gradients, and rounding changes their order.
    """
    f, xs, p = first_logit(method.image, method.relu)
    low = jax.jit(partial(method.explain, f))(*jax.tree.map(lambda leaf: leaf.astype(dtype), (xs[0], p)))
    assert bool(jnp.isfinite(low).all())
    if not method.stochastic:  # the noise drawn depends on the type
        exact = jax.jit(partial(method.explain, f))(xs[0], p)
        error = jnp.abs(low.astype(jnp.float64) - exact).max() / jnp.abs(exact).max()
        assert float(error) < method.rounding * float(jnp.finfo(dtype).eps)


def test_smooth_follows_the_argument_that_is_explained():
    f, xs, p = first_logit(False)
    swapped = jxp.gradient(lambda p, x: f(x, p), argnums=1)
    key = jax.random.key(0)
    close(jxp.smooth(swapped)(key, p, xs[0]).value, jxp.smooth(jxp.gradient(f))(key, xs[0], p).value)


ARGNUMS = [jxp.gradient, jxp.gradient_times_input, jxp.saliency, jxp.sensitivity, jxp.taylor]
ARGNUMS += [jxp.integrated_gradients, jxp.blur_integrated_gradients, jxp.guided_integrated_gradients]


@pytest.mark.parametrize("method", ARGNUMS, ids=lambda m: m.__name__)
def test_argnums(method):
    """Explaining the second argument is explaining the function with its arguments swapped."""
    f, xs, p = first_logit(False)
    expected = method(f)(xs[0], p)
    close(method(lambda p, x: f(x, p), argnums=1)(p, xs[0]), expected)
    close(method(lambda p, x: f(x, p), argnums=-1)(p, xs[0]), expected)
    both = method(lambda x, y: f(x, p) * f(y, p), argnums=(0, 1))(xs[0], xs[1])
    assert isinstance(both, tuple)
    assert [leaf.shape for leaf in both] == [xs[0].shape, xs[1].shape]
    stochastic = jxp.smooth(method(lambda p, x: f(x, p), argnums=1), num_samples=2, argnums=1)
    assert stochastic(jax.random.key(0), p, xs[0]).value.shape == xs[0].shape


def test_keyword_arguments_pass_through():
    f, xs, p = first_logit(False)
    close(jxp.gradient(lambda x, *, p: f(x, p))(xs[0], p=p), jxp.gradient(f)(xs[0], p))
    image, xs, p = first_logit(True)
    close(jxp.grad_cam(lambda x, *, p: image(x, p))(xs[0], p=p), jxp.grad_cam(image)(xs[0], p))


def test_methods_nest():
    """An explanation can be explained: the gradient of one pixel's attribution."""
    f, xs, p = first_logit(False)
    hessian = jax.hessian(f)(xs[0], p)
    nested = jxp.gradient(lambda x, p: jxp.gradient(f)(x, p)[2])(xs[0], p)
    close(nested, hessian[2])
    image, images, q = first_logit(True)
    peak = jxp.gradient(lambda x, q: jxp.grad_cam(image, "features")(x, q).max())
    assert peak(images[0], q).shape == images[0].shape
