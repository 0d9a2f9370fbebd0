"""The relevance methods that must not depend on how a network is written, and how their answers are compared."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp

R = jxp.rules


def methods(baseline):
    """`{name: method(f)}` of the methods for networks of ReLUs."""
    tables = {
        "epsilon": R.EPSILON,
        "epsilon_gamma_box": R.epsilon_gamma_box(-3.0, 3.0),
        "epsilon_plus_flat": R.EPSILON_PLUS_FLAT,
        "epsilon_alpha2_beta1": R.EPSILON_ALPHA2_BETA1,
        "alpha2_beta1": R.alpha_beta(),
        "gamma": R.gamma(0.3),
        "z_plus": R.Z_PLUS,
        "w_square_first": R.rules_for(R.epsilon(), {R.first: R.w_square()}),
    }
    return {
        **{f"lrp_{name}": lambda f, table=table: jxp.lrp(f, table) for name, table in tables.items()},
        "deep_taylor": jxp.deep_taylor,
        "rescale": lambda f: jxp.deep_lift(f, jnp.asarray(baseline)),
        "reveal_cancel": lambda f: jxp.deep_lift(f, jnp.asarray(baseline), rule="reveal_cancel"),
        "excitation": jxp.excitation_backprop,
        "guided_backprop": jxp.guided_backprop,
        "deconvnet": jxp.deconvnet,
    }


# Whose rules differ in what they need to know of a unit: signs, ends, what follows it.
CORE = (
    "lrp_epsilon_gamma_box",
    "lrp_alpha2_beta1",
    "lrp_w_square_first",
    "reveal_cancel",
)


def answers(f, some, x, p):
    """f(x) and the answers of methods, of one program; an error stands for an answer that there is none of."""
    failed = {}

    def everything(x, p):
        found = {"f": f(x, p)}
        for name, method in some.items():
            try:
                found[name] = method(f)(x, p)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
        return found

    given = jax.tree.map(jnp.asarray, (x, p))
    return jax.tree.map(np.asarray, jax.jit(everything)(*given)) | failed


def differences(got, want, rtol=1e-9):
    """What differs, as {name: by how much, relative to the largest number}; for f itself beyond 1e-12."""
    found = {}
    for name, b in want.items():
        a = got[name]
        if isinstance(a, str) or isinstance(b, str):
            found[name] = a if isinstance(a, str) else f"reference: {b}"
            continue
        a = a.reshape(b.shape) if a.size == b.size else a
        gap = np.abs(a - b).max() / np.abs(b).max()
        if not gap <= (1e-12 if name == "f" else rtol):
            found[name] = float(gap)
    return found
