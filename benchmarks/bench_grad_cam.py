"""Grad-CAM costs one forward pass and the backward pass from the site."""

import jax

import jaxplain as jxp
from benchmarks.harness import Row, interleaved, ratio_row
from benchmarks.networks import lite0, small_cnn


def run() -> list[Row]:
    rows = []
    for net in (small_cnn(), lite0()):
        f = jxp.class_score(net.logits)
        explain = jxp.grad_cam(f)
        ours = jax.jit(lambda x, explain=explain, net=net: explain(x, net.label))
        forward = jax.jit(net.logits)
        site = jax.jit(jxp.slice_at(f, jxp.last_conv()).h)(net.x, net.label)
        gradient = jax.jit(jax.grad(f))
        backward = jax.jit(jax.grad(lambda z, net=net: net.head(z)[net.label]))
        seconds = interleaved(
            {
                "grad_cam": lambda ours=ours, net=net: ours(net.x),
                "forward": lambda forward=forward, net=net: forward(net.x),
                "backward": lambda backward=backward, site=site: backward(site),
                "gradient": lambda gradient=gradient, net=net: gradient(net.x, net.label),
            },
            rounds=25,
        )
        both = seconds["forward"] + seconds["backward"]
        what = f"grad_cam, {net.name}"
        rows.append(
            ratio_row(what, seconds["grad_cam"], "forward + backward from the site", both, claim="at most 1.15")
        )
        rows.append(ratio_row(what, seconds["grad_cam"], "jax.grad", seconds["gradient"]))
    return rows
