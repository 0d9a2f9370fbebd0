"""Internal influence costs the forward pass and the backward pass from the site, of a batch."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row
from benchmarks.networks import Net, lite0, small_cnn


def run() -> list[Row]:
    return [row for net, batch in ((small_cnn(), 16), (lite0(), 4)) for row in one(net, batch)]


def one(net: Net, batch: int) -> list[Row]:
    """The rows of a network: at its last convolution, over a batch of noisy copies of its input."""
    noise = np.random.default_rng(0).normal(size=(batch, *net.x.shape))
    xs = net.x[None] + jnp.asarray(0.1 * noise, jnp.float32)
    f, at = jxp.class_score(net.logits), jxp.last_conv()
    explain = jax.jit(lambda xs: jxp.interior.internal_influence(f, at)(xs, net.label))
    h = jax.jit(jax.vmap(lambda x: jxp.slice_at(f, at).h(x, net.label)))
    zs = h(xs)
    forward = jax.jit(jax.vmap(net.logits))
    # Of head and forward the part above the site runs twice, which is little: a mean and a dense layer.
    backward = jax.jit(lambda zs: jax.vmap(jax.grad(lambda z: net.head(jax.nn.relu(z))[net.label]))(zs).mean(0))
    gradient = jax.jit(lambda xs: jax.vmap(jax.grad(lambda x: f(x, net.label)))(xs).mean(0))
    seconds = interleaved(
        {
            "ours": lambda: explain(xs),
            "forward": lambda: forward(xs),
            "backward": lambda: backward(zs),
            "gradient": lambda: gradient(xs),
        },
        rounds=25,
    )
    both, what = seconds["forward"] + seconds["backward"], f"internal influence, {net.name}, batch {batch}"
    baseline = "forward + backward from the site"
    return [
        ratio_row(what, seconds["ours"], baseline, both, claim="at most 1.1"),
        ratio_row(what, seconds["ours"], "jax.grad", seconds["gradient"]),
    ]
