"""Every method, once: a new one joins all laws by an entry here.

`make(f)` builds the explainer of `f(x, p) -> scalar` with small settings. `complete` gives the amount that
its result sums to, as a function of (fx, x); None where nothing is promised. What a method is excused from,
and why, stands beside it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxplain as jxp


@dataclasses.dataclass(frozen=True)
class Method:
    name: str
    make: Callable[..., Any]
    stochastic: bool = False
    image: bool = False  # needs the small convolutional network
    relu: bool = False  # needs a network with ReLUs
    map: bool = False  # returns a map over a site, not the structure of x
    complete: Callable[..., Any] | None = None
    gap: float = 1e-10  # of completeness, relative: the quadrature's, where there is one
    rounding: float = 20  # the error in lower precision, in units of its eps
    chunked: Callable[..., Any] | None = None  # make(f, chunk_size)
    over_rows: bool = False  # takes a background, which the tests make from x
    excused: dict[str, str] = dataclasses.field(default_factory=dict)

    def explain(self, f, x, *args):
        """The result with a fixed key; the value alone of an estimate."""
        explain = self.make(f)
        return explain(jax.random.key(7), x, *args).value if self.stochastic else explain(x, *args)


def at_zero(fx, x):
    return fx(x) - fx(jax.tree.map(jnp.zeros_like, x))


def at_blur(fx, x):
    return fx(x) - fx(jxp.blur(3.0)(x))


def background_like(x):
    return jax.tree.map(lambda v: jnp.stack([jnp.zeros_like(v), jnp.full_like(v, 0.5)]), x)


def over_background(make):
    """A background in the shape of x, so that one entry serves every law."""

    def build(f, **options):
        def explain(key, x, *args):
            return make(f, background_like(x), **options)(key, x, *args)

        return explain

    return build


def over_rows(method, **options):
    """The same for a method without a key."""

    def build(f, **more):
        return lambda x, *args: method(f, background_like(x), **{**options, **more})(x, *args)

    return build


def sampled_games(method, count, more_than=0, **options):
    """A sampled Shapley method with `num_samples` translated to what it counts."""

    def build(f, num_samples=16, **more):
        given = {count: num_samples + more_than, **options, **more}
        return over_background(method)(f, **given)

    return build


def at_background(fx, x):
    return fx(x) - jax.vmap(fx)(background_like(x)).mean()


def averaged(f, **options):
    def explain(x, *args):
        each = lambda b: jxp.integrated_gradients(f, b, num_steps=3)
        return jxp.average_over(each, background_like(x), **options)(x, *args)

    return explain


def site_method(method, **options):
    def build(f, **more):
        return method(f, "features", **options, **more)

    return build


def of_one(build):
    """A method over a distribution of inputs, with one input for it."""

    def explained(f, **more):
        explain = build(f, **more)
        return lambda x, *args, **kwargs: explain(jax.tree.map(lambda leaf: leaf[None], x), *args, **kwargs)

    return explained


def ig(**options):
    return lambda f, **more: jxp.integrated_gradients(f, **{"num_steps": 6, **options, **more})


def smooth_of(method, **options):
    return lambda f, **more: jxp.smooth(method(f), **{"num_samples": 4, **options, **more})


def chunked(make):
    return lambda f, size: make(f, chunk_size=size)


expected = over_background(lambda f, b, **o: jxp.expected_gradients(f, b, **{"num_samples": 5, **o}))
sorts = "its path is chosen by sorting gradients of f, so it is not linear in f"
squares = "it squares"

R = jxp.rules
stabilised = "its sums are stabilised by 1e-6"
# An eps of the layers' own size, so that finite differences mean something; none in sums, so that all is linear.
LRP_TABLES = {
    "epsilon": R.rules_for(R.epsilon(0.1), eps=0.0),
    "gamma": R.rules_for(R.gamma(0.3, eps=0.1), eps=0.0),
    "alpha_beta": R.rules_for(R.alpha_beta(eps=0.1), eps=0.0),
    "z_plus, w_square first": R.rules_for(R.z_plus(eps=0.1), {R.first: R.w_square()}, eps=0.0),
    "gamma, flat first": R.rules_for(R.gamma(0.3, eps=0.1), {R.first: R.flat()}, eps=0.0),
    "epsilon, box first": R.rules_for(R.epsilon(0.1), {R.first: R.z_box(-5.0, 5.0, eps=0.1)}, eps=0.0),
}


def deep_shap(f, **options):
    return lambda x, *args: jxp.deep_shap(f, background_like(x), **options)(x, *args)


few_orders = sampled_games(jxp.permutation_shap, "num_permutations")
few_masks = sampled_games(jxp.kernel_shap, "budget", 4)
few_leverage = sampled_games(jxp.kernel_shap, "budget", 4, sampling="leverage")
few_process = sampled_games(jxp.gaussian_process_shap, "budget", 4)
positions = "equal coalitions at other places of a batch may round otherwise: exact in tests/shapley"
biased = "a ratio, biased by the order of its variance, or a prior: tests/shapley compares with the truth"
regression = "a regression on sampled coalitions gives it rounding, or its share of the error"
SAMPLED_GAME: dict[str, Any] = {"stochastic": True, "complete": at_background, "over_rows": True}

AT_A_SITE: dict[str, Any] = {
    "image": True,
    "relu": True,
    "map": True,
    "excused": {
        "structure": "the shape of the site",
        "argnums": "its site depends on the argument",
        "linear": "two logits of it have its site twice",
    },
}


def climbed(f):
    """Where three steps lead."""

    def explain(x, *args):
        maximise = jxp.interior.activation_maximization(
            f,
            regulariser=jxp.interior.l2(0.1),
            log_prior=lambda x: -sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(x)),
            optimizer=optax.sgd(0.2, momentum=0.5),
            num_steps=3,
            transforms=[jxp.interior.random_blur(1.0)],
            parametrisation=jxp.interior.fourier(),
        )
        return maximise(jax.random.key(7), x, *args)[0]

    return explain


def away(method, **options):
    """A black-box method on a small budget; `num_samples` is what the law of standard errors sets."""

    def build(f, num_samples=None, **more):
        budget = {} if num_samples is None else {"num_masks" if method is jxp.rise else "num_samples": num_samples}
        return method(f, **{**options, **budget, **more})

    return build


def black_box(name, make, **fields):
    return Method(name, make, chunked=chunked(make), **fields)


ONE_ARRAY = {"structure": "it explains one array"}
RISE = away(jxp.rise, num_masks=5, grid=2, baseline=0.5)
LIME = away(jxp.lime, num_samples=23, ridge=0.1)
METHODS = [
    Method("gradient", jxp.gradient),
    Method("gradient_times_input", jxp.gradient_times_input),
    Method("sensitivity", jxp.sensitivity, excused={"linear": squares}),
    Method("saliency", jxp.saliency, excused={"linear": "it takes magnitudes"}),
    Method("taylor", lambda f: jxp.taylor(f, 0.25)),
    Method("integrated_gradients", ig(), complete=at_zero, gap=1e-4, chunked=chunked(ig())),
    *(
        Method(f"integrated_gradients[{rule}]", ig(nodes=rule, num_steps=40), complete=at_zero, gap=gap)
        for rule, gap in {"midpoint": 1e-3, "trapezoid": 1e-3, "left": 0.1, "right": 0.1}.items()
    ),
    Method("expected_gradients", expected, stochastic=True, over_rows=True, chunked=chunked(expected)),
    Method(
        "blur_integrated_gradients",
        lambda f, **o: jxp.blur_integrated_gradients(f, max_sigma=3.0, **{"num_steps": 16, **o}),
        complete=at_blur,
        gap=1e-3,
        chunked=chunked(lambda f, **o: jxp.blur_integrated_gradients(f, max_sigma=3.0, num_steps=16, **o)),
        excused={"dummy": "a blurred neighbour moves the ignored input, but f does not see it: tested apart"},
    ),
    Method(
        "guided_integrated_gradients",
        lambda f: jxp.guided_integrated_gradients(f, num_steps=200, fraction=0.3),
        complete=at_zero,
        gap=0.05,
        excused={"linear": sorts},
    ),
    Method("smooth[mean]", smooth_of(jxp.gradient), stochastic=True, chunked=chunked(smooth_of(jxp.gradient))),
    Method(
        "smooth[square]",
        smooth_of(jxp.gradient, moment="square"),
        stochastic=True,
        chunked=chunked(smooth_of(jxp.gradient, moment="square")),
        excused={"linear": squares},
    ),
    Method(
        "smooth[variance]",
        smooth_of(jxp.gradient, moment="variance"),
        stochastic=True,
        chunked=chunked(smooth_of(jxp.gradient, moment="variance")),
        excused={"linear": squares},
    ),
    Method("average_over", averaged, over_rows=True, chunked=chunked(averaged)),
    *(
        Method(
            method.__name__,
            site_method(method),
            image=True,
            map=True,
            excused={
                "structure": "a map over the site's space",
                "dummy": "a map over the site's space, not over inputs",
                "argnums": "its site depends on the argument",
                "linear": "the relu, or the weights, are not linear in f",
            },
        )
        for method in (
            jxp.grad_cam,
            jxp.grad_cam_elementwise,
            jxp.grad_cam_pp,
            jxp.xgrad_cam,
            jxp.hires_cam,
            jxp.layer_cam,
            jxp.eigen_grad_cam,
            jxp.eigen_cam,
            jxp.cam,
        )
    ),
    *(
        Method(
            method.__name__,
            site_method(method),
            image=True,
            map=True,
            chunked=chunked(site_method(method)),
            excused={"structure": "a map over the site's space", "linear": "its weights are not linear in f"},
        )
        for method in (jxp.score_cam, jxp.ablation_cam)
    ),
    Method(
        "grad_cam[upsample]",
        site_method(jxp.grad_cam, upsample=True, relu=False),
        image=True,
        map=True,
        excused={"linear": "it is: tested through cam"},
    ),
    Method(
        "smooth[grad_cam]",
        smooth_of(site_method(jxp.grad_cam, relu=False)),
        stochastic=True,
        image=True,
        map=True,
        excused={"linear": "it is, but Grad-CAM's site must be in both functions"},
    ),
    *(
        Method(
            method.__name__,
            method,
            relu=True,
            excused={
                "linear": "it keeps the positive part",
            },
        )
        for method in (jxp.guided_backprop, jxp.deconvnet)
    ),
    Method(
        "guided_grad_cam",
        site_method(jxp.guided_grad_cam),
        image=True,
        relu=True,
        excused={
            "linear": "it keeps the positive part",
            "dummy": "the test function is one of vectors",
            "structure": "it explains one array",
        },
    ),
    *(
        Method(f"lrp[{name}]", lambda f, table=table: jxp.lrp(f, table), image=True, relu=True)
        for name, table in LRP_TABLES.items()
    ),
    Method("lrp[attention]", lambda f: jxp.lrp(f, R.rules_for(R.epsilon(0.1), product="uniform", eps=0.0))),
    Method("deep_taylor", jxp.deep_taylor, image=True, relu=True, excused={"linear": stabilised}),
    Method("deep_taylor[box]", lambda f: jxp.deep_taylor(f, low=-5.0, high=5.0), excused={"linear": stabilised}),
    Method("excitation_backprop", jxp.excitation_backprop, relu=True, excused={"linear": stabilised}),
    Method(
        "contrastive_excitation_backprop",
        jxp.contrastive_excitation_backprop,
        image=True,
        relu=True,
        excused={
            "linear": "it wants one last layer and negates it",
            "dummy": "the test function ends in an activation",
        },
    ),
    Method("lrp[at]", site_method(lambda f, at: jxp.lrp(f, LRP_TABLES["gamma"], at=at)), **AT_A_SITE),
    *(
        Method(
            name, site_method(method, num_steps=6), chunked=chunked(site_method(method, num_steps=6)), **AT_A_SITE
        )
        for name, method in (
            ("conductance", jxp.interior.conductance),
            ("internal_integrated_gradients", jxp.interior.internal_integrated_gradients),
        )
    ),
    *(
        Method(
            name,
            of_one(site_method(jxp.interior.internal_influence, times_activation=times)),
            **AT_A_SITE | {"excused": AT_A_SITE["excused"] | {"integers": "tokens have influence inside"}},
        )
        for name, times in (("internal_influence", False), ("internal_influence[times_activation]", True))
    ),
    Method(
        "visualise_unit",
        lambda f: jxp.interior.visualise_unit(f, "features", 1),
        image=True,
        excused={
            "scalar": "it explains a unit, whatever f returns",
            "dummy": "the test function is one of vectors",
            "linear": "of a sum of two functions it has the site twice",
        },
    ),
    Method(
        "activation_maximization",
        climbed,
        excused={
            "linear": "the way up is not linear in f",
            "dummy": "an input that f does not use stays where it starts",
        },
    ),
    Method("deep_lift", jxp.deep_lift, complete=at_zero, rounding=40),  # a quotient of differences
    Method("deep_lift[image]", jxp.deep_lift, image=True, relu=True, complete=at_zero),
    *(
        Method(
            f"deep_lift[reveal_cancel, {'image' if image else 'vector'}]",
            lambda f: jxp.deep_lift(f, rule="reveal_cancel"),
            image=image,
            relu=image,
            complete=at_zero,
        )
        for image in (False, True)
    ),
    Method("deep_shap", deep_shap, over_rows=True, chunked=chunked(deep_shap)),
    # A difference of two outputs has the rounding of both.
    black_box("ablation", away(jxp.ablation), rounding=60),
    black_box(
        "occlusion",
        away(jxp.occlusion, window=2, stride=1, baseline=0.5),
        rounding=60,
        excused={**ONE_ARRAY, "dummy": "it is covered together with its neighbours"},
    ),
    black_box(
        "occlusion[image]",
        away(jxp.occlusion, window=(3, 2), stride=2),
        image=True,
        rounding=60,
        excused={**ONE_ARRAY, "dummy": "the test function is one of vectors"},
    ),
    *(
        black_box(
            name,
            RISE,
            image=image,
            stochastic=True,
            excused={**ONE_ARRAY, "dummy": "a place that does not matter gets the mean output, not 0"},
        )
        for name, image in (("rise", False), ("rise[image]", True))
    ),
    black_box(
        "lime",
        LIME,
        stochastic=True,
        excused={
            "dummy": "a regression on few draws: tested apart",
            "calibration": "a penalised fit: tested apart",
        },
    ),
    black_box(
        "lime[uniform]",
        away(jxp.lime, num_samples=23, ridge=0.1, sampling="uniform"),
        stochastic=True,
        excused={
            "dummy": "a regression on few draws: tested apart",
            "calibration": "a penalised fit: tested apart",
        },
    ),
    Method(
        "exact_shap",
        over_rows(jxp.exact_shap),
        complete=at_background,
        over_rows=True,
        chunked=chunked(over_rows(jxp.exact_shap)),
    ),
    Method("qii", over_rows(jxp.qii), over_rows=True, chunked=chunked(over_rows(jxp.qii))),
    Method("qii[shapley]", over_rows(jxp.qii, kind="shapley"), complete=at_background, over_rows=True),
    Method(
        "permutation_shap",
        few_orders,
        chunked=chunked(few_orders),
        excused={"dummy": positions},
        **SAMPLED_GAME,
    ),
    Method(
        "kernel_shap",
        few_masks,
        chunked=chunked(few_masks),
        excused={"dummy": regression, "unbiased": biased},
        **SAMPLED_GAME,
    ),
    Method(
        "kernel_shap[leverage]", few_leverage, excused={"dummy": regression, "unbiased": biased}, **SAMPLED_GAME
    ),
    Method(
        "gaussian_process_shap",
        few_process,
        chunked=chunked(few_process),
        excused={"dummy": regression, "unbiased": biased, "linear": "its prior is chosen by the game"},
        **SAMPLED_GAME,
    ),
]
