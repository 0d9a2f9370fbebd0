"""The gradient, IG and SmoothGrad cost what their gradients cost."""

from typing import Any

import jax
import jax.numpy as jnp

import jaxplain as jxp
from benchmarks.harness import Row, compare, interleaved, ratio_row, temporary_bytes
from benchmarks.networks import Net, lite0, small_cnn

STEPS = 32
CHUNKS = {"small CNN 64x64": (1, 2, 4, 8, 16, 32), "lite0 224x224": (1, 4, 16)}


def run() -> list[Row]:
    rows = []
    for net in (small_cnn(), lite0()):
        f = jxp.class_score(net.logits)

        def score(x, net=net):
            return net.logits(x)[net.label]

        plain, ours = jax.jit(jax.grad(score)), jax.jit(lambda x, f=f, net=net: jxp.gradient(f)(x, net.label))
        rows.append(
            compare(
                f"gradient, {net.name}",
                lambda ours=ours, net=net: ours(net.x),
                "jax.grad",
                lambda plain=plain, net=net: plain(net.x),
                claim="1.00-1.05",
                rounds=25,
            )
        )
        rows += averaged(net, score, f)
        rows.append(memory(net, f))
    return rows


def averaged(net: Net, score, f) -> list[Row]:
    """IG and SmoothGrad in their best chunk, against that many plain gradients in their best chunk."""
    points = jnp.linspace(0, 1, STEPS)[:, None, None, None] * net.x[None]
    candidates: dict[Any, Any] = {}
    for size in CHUNKS[net.name]:
        many = jax.jit(lambda points, size=size: jax.lax.map(jax.grad(score), points, batch_size=size).sum(0))
        ig = jax.jit(
            lambda x, size=size: jxp.integrated_gradients(f, num_steps=STEPS, chunk_size=size)(x, net.label)
        )
        smoothed = jxp.smooth(jxp.gradient(f), num_samples=STEPS, chunk_size=size)
        smooth = jax.jit(lambda key, x, smoothed=smoothed: smoothed(key, x, net.label).value)
        candidates["gradients", size] = lambda many=many: many(points)
        candidates["integrated_gradients", size] = lambda ig=ig: ig(net.x)
        candidates["smooth(gradient)", size] = lambda smooth=smooth: smooth(jax.random.key(0), net.x)
    seconds = interleaved(candidates, rounds=5 if net.name.startswith("lite0") else 11)

    def best(kind):
        sizes = [size for name, size in seconds if name == kind]
        return min(sizes, key=lambda size: float(jnp.median(jnp.asarray(seconds[kind, size]))))

    base = best("gradients")
    return [
        ratio_row(
            f"{kind}, {STEPS} samples, chunks of {best(kind)}, {net.name}",
            seconds[kind, best(kind)],
            f"{STEPS} gradients in chunks of {base}",
            seconds["gradients", base],
            claim="at most 1.05",
        )
        for kind in ("integrated_gradients", "smooth(gradient)")
    ]


def memory(net: Net, f) -> Row:
    """Temporary memory of IG with 256 steps over that with 32, in chunks of 4: not a time, the same in form."""
    few, many = (
        temporary_bytes(lambda x, n=n: jxp.integrated_gradients(f, num_steps=n, chunk_size=4)(x, net.label), net.x)
        for n in (32, 256)
    )
    what = f"memory of integrated_gradients, 256 steps in chunks of 4, {net.name}"
    return Row(
        what, f"32 steps: {few / 2**20:.1f} MiB", many / few, (many / few, many / few), float("nan"), "1.00"
    )
