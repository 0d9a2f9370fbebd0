"""Bad input: an error at trace time that says what is wrong and what to type, or NaN; never a number."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxplain as jxp
from laws.methods import METHODS
from laws.networks import first_logit, setting

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)


@pytest.mark.parametrize("method", [m for m in METHODS if "scalar" not in m.excused], ids=lambda m: m.name)
def test_vector_valued_function_names_class_score(method):
    logits, xs, p = setting(method.image, method.relu)
    with pytest.raises(ValueError, match=r"shape \(3,\).*class_score"):
        jax.eval_shape(partial(method.explain, logits), xs[0], p)


@pytest.mark.parametrize("method", [m for m in METHODS if "integers" not in m.excused], ids=lambda m: m.name)
def test_integer_input_raises(method):
    f, xs, p = first_logit(method.image, method.relu)
    with pytest.raises(TypeError, match=r"no float leaves.*int32.*astype\(float\)"):
        method.explain(lambda x, p: f(x.astype(jnp.float64), p), xs[0].astype(jnp.int32), p)


@every_method
def test_wrong_argnums(method):
    f, xs, p = first_logit(method.image, method.relu)
    if method.over_rows:
        explain = lambda x, p: jxp.expected_gradients(f, xs[:1], argnums=5)(jax.random.key(0), x, p)
    elif method.name.startswith(("rise", "lime")):
        explain = partial(METHOD_BY_NAME[method.name.split("[")[0]](f, argnums=5), jax.random.key(0))
    elif method.name.startswith("occlusion"):
        explain = jxp.occlusion(f, window=2, argnums=5)
    elif method.stochastic:
        explain = lambda x, p: jxp.smooth(jxp.gradient(f), argnums=5)(jax.random.key(0), x, p)
    else:
        explain = METHOD_BY_NAME[method.name.split("[")[0]](f, argnums=5)
    with pytest.raises(ValueError, match=r"argnums=5 but the call has 2 positional argument"):
        explain(xs[0], p)


METHOD_BY_NAME = {name: getattr(jxp, name) for name in jxp.__all__}
INSIDE = ("conductance", "internal_influence", "internal_integrated_gradients")
METHOD_BY_NAME |= {name: partial(getattr(jxp.interior, name), at="features") for name in INSIDE}
METHOD_BY_NAME["visualise_unit"] = partial(jxp.interior.visualise_unit, at="features", unit=1)
METHOD_BY_NAME["activation_maximization"] = lambda f, argnums: partial(
    jxp.interior.activation_maximization(f, argnums=argnums), jax.random.key(0)
)


@pytest.mark.parametrize("argnums", [1.5, "0", True, (), (0, 0)])
def test_malformed_argnums(argnums):
    with pytest.raises((TypeError, ValueError), match="argnums"):
        jxp.gradient(lambda x: x.sum(), argnums=argnums)


@every_method
@pytest.mark.parametrize("relu", [False, True], ids=["smooth", "relu"])
def test_nan_propagates(method, relu):
    """NaN in the input gives NaN in the explanation, also through ReLUs, whose derivative at NaN is 0."""
    f, xs, p = first_logit(method.image, relu or method.relu)
    result = jax.jit(partial(method.explain, f))(xs[0].at[(1,) * xs[0].ndim].set(jnp.nan), p)
    nan = jnp.isnan(jax.tree.leaves(result)[0])
    assert bool(nan.any())
    # Taylor's gradient is taken at the root, which has no NaN.
    assert method.map or method.name == "taylor" or bool(nan.all())


@pytest.mark.parametrize(
    "method", [m for m in METHODS if not m.map and "structure" not in m.excused], ids=lambda m: m.name
)
def test_empty_input_raises(method):
    with pytest.raises(ValueError, match="empty array"):
        method.explain(lambda x, p: x.sum(), jnp.zeros((0, 3)), None)


@pytest.mark.parametrize(
    "returns", [lambda x: (x.sum(),), lambda x: None, lambda x: x.sum() > 0, lambda x: jax.lax.complex(x, x).sum()]
)
def test_function_that_returns_no_float(returns):
    with pytest.raises(TypeError, match="float"):
        jxp.gradient(returns)(jnp.ones(2))
    with pytest.raises(TypeError, match="float"):
        jxp.grad_cam(lambda x: returns(jxp.tag(x, "a")), "a")(jnp.ones((2, 2)))


@pytest.mark.parametrize("method", [m for m in METHODS if m.stochastic], ids=lambda m: m.name)
def test_forgotten_key(method):
    f, xs, p = first_logit(method.image, method.relu)
    with pytest.raises(TypeError, match=r"first argument is a key.*jax\.random\.key\(0\)"):
        method.make(f)(xs[0], p)


BASELINES = {
    "integrated_gradients": lambda b: jxp.integrated_gradients(jnp.sum, b),
    "guided_integrated_gradients": lambda b: jxp.guided_integrated_gradients(jnp.sum, b),
    "taylor": lambda b: jxp.taylor(jnp.sum, b),
    "taylor_remainder": lambda b: jxp.taylor_remainder(jnp.sum, b),
}


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_baseline_of_the_wrong_shape(make):
    for wrong in (jnp.zeros(3), jnp.zeros((1, 2)), lambda x: x[:1]):
        with pytest.raises(ValueError, match=r"has shape .* where the explained argument has \(2, 2\)"):
            make(wrong)(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="structure"):
        make({"a": jnp.zeros(2)})(jnp.ones(2))


@pytest.mark.parametrize("make", BASELINES.values(), ids=BASELINES)
def test_baselines_in_every_form_agree(make):
    x = jnp.array([1.0, 2.0])
    results = [
        make(b)(x) for b in (0.5, jnp.asarray(0.5), np.full(2, 0.5), lambda x: 0.5 + 0 * x, jxp.constant(0.5))
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_background_of_the_wrong_shape():
    x, key = jnp.ones(2), jax.random.key(0)
    for wrong in (jnp.ones(2), jnp.ones((3, 3)), jnp.ones((0, 2))):
        with pytest.raises(ValueError, match="background"):
            jxp.expected_gradients(jnp.sum, wrong)(key, x)
    with pytest.raises(ValueError, match="background"):
        jxp.average_over(lambda b: jxp.gradient(jnp.sum), jnp.ones((0, 2)))
    with pytest.raises(ValueError, match="background"):
        jxp.average_over(lambda b: jxp.gradient(jnp.sum), 1.0)


COUNTS = {
    "integrated_gradients": lambda n: jxp.integrated_gradients(jnp.sum, num_steps=n),
    "blur_integrated_gradients": lambda n: jxp.blur_integrated_gradients(jnp.sum, num_steps=n),
    "guided_integrated_gradients": lambda n: jxp.guided_integrated_gradients(jnp.sum, num_steps=n),
    "expected_gradients": lambda n: jxp.expected_gradients(jnp.sum, jnp.ones((1, 2)), num_samples=n),
    "smooth": lambda n: jxp.smooth(jxp.gradient(jnp.sum), num_samples=n),
}


@pytest.mark.parametrize("make", COUNTS.values(), ids=COUNTS)
@pytest.mark.parametrize("count", [0, -1, 2.5, True, None])
def test_counts_that_are_none(make, count):
    with pytest.raises(ValueError, match=r"num_(steps|samples) must be a whole number of at least 1"):
        make(count)


@pytest.mark.parametrize("size", [0, -2, 1.5])
def test_chunk_size_that_is_none(size):
    with pytest.raises(ValueError, match="chunk_size must be a whole number"):
        jxp.integrated_gradients(jnp.sum, chunk_size=size)(jnp.ones(2))


def test_options_out_of_range():
    wrong = {
        "nodes must be one of": lambda: jxp.integrated_gradients(jnp.sum, nodes="simpson"),
        "num_steps must be .* at least 2": lambda: jxp.integrated_gradients(
            jnp.sum, nodes="trapezoid", num_steps=1
        ),
        "fraction must be above 0": lambda: jxp.guided_integrated_gradients(jnp.sum, fraction=0.0),
        "max_sigma must be positive": lambda: jxp.blur_integrated_gradients(jnp.sum, max_sigma=0.0),
        "sigma must be positive": lambda: jxp.blur(-1.0),
        "moment must be": lambda: jxp.smooth(jxp.gradient(jnp.sum), moment="median"),
        "sigma is a fraction": lambda: jxp.smooth(jxp.gradient(jnp.sum), sigma=-0.1),
        "num_samples must be .* at least 2": lambda: jxp.smooth(
            jxp.gradient(jnp.sum), num_samples=1, moment="variance"
        ),
        "axes=": lambda: jxp.blur_integrated_gradients(jnp.sum, axes=(3,))(jnp.ones((2, 2))),
        "channel_axis=": lambda: jxp.saliency(jnp.sum, channel_axis=2)(jnp.ones((2, 2))),
        "does not broadcast": lambda: jxp.constant(jnp.ones(3))(jnp.ones((2, 2))),
    }
    for message, call in wrong.items():
        with pytest.raises(ValueError, match=message):
            call()


QUANTITIES = [jxp.class_score, jxp.log_probability, jxp.margin, partial(jxp.class_contrast)]


@pytest.mark.parametrize("quantity", QUANTITIES, ids=["score", "log_probability", "margin", "contrast"])
def test_labels(quantity):
    logits = jnp.array([0.5, -1.0, 2.0])
    f = quantity(lambda x: x)
    more = (0,) if isinstance(quantity, partial) else ()
    for bad in (3, -1, np.int64(3)):
        with pytest.raises(ValueError, match="out of range: the network has classes 0 to 2"):
            f(logits, bad, *more)
    for bad in (1.0, "cat", None, True, jnp.array([0, 1]), jnp.array(1.0)):
        with pytest.raises(TypeError, match="a label is"):
            f(logits, bad, *more)
    for bad in (3, -1):
        value, slopes = jax.jit(jax.value_and_grad(f))(logits, jnp.asarray(bad), *more)
        assert bool(jnp.isnan(value))
        assert bool(jnp.isnan(slopes).all())
    for kind in (jnp.int8, jnp.uint8, jnp.int32, jnp.int64):
        np.testing.assert_array_equal(f(logits, jnp.asarray(1, kind), *more), f(logits, 1, *more))


def test_label_types_smaller_than_the_number_of_classes():
    logits = jnp.arange(1000.0)
    assert float(jxp.class_score(lambda x: x)(logits, jnp.asarray(100, jnp.int8))) == 100.0


def test_integer_logits():
    with pytest.raises(TypeError, match="logits_fn must return floats"):
        jxp.class_score(lambda x: x.astype(jnp.int32))(jnp.ones(3), 0)


def test_single_numbers_have_no_range_to_smooth_over():
    with pytest.raises(ValueError, match="an array of one element has none"):
        jxp.smooth(jxp.gradient(lambda d: d["a"] * d["b"]))(jax.random.key(0), {"a": 1.0, "b": 2.0})


def test_batched_logits_say_how_to_batch():
    with pytest.raises(ValueError, match=re.escape("lambda x: logits_fn(x[None])[0]")):
        jxp.class_score(lambda x: x[None])(jnp.ones(3), 0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        jxp.margin(lambda x: x)(jnp.ones(1), 0)
