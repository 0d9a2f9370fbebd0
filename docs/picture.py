"""Draws the README's pictures: the ten-line example with a few methods beside it, channels inside, prototypes."""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxplain as jxp
from jaxplain.plot import gallery, patches

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import inside_network  # noqa: E402
import inside_prototypes  # noqa: E402
from zoo import bundled, deprocess, lite0_linen, preprocess  # noqa: E402

net = lite0_linen.load()
x = preprocess(bundled("coffee"))
f = jxp.class_score(net.logits)
smoothgrad = jxp.smooth(jxp.gradient(f), num_samples=16, chunk_size=4)
methods = {
    "grad_cam": jxp.grad_cam(f, upsample=True),
    "integrated_gradients": jxp.integrated_gradients(f, chunk_size=4),
    "smooth(gradient)": lambda x, label: smoothgrad(jax.random.key(0), x, label).value,
    "guided_backprop": jxp.guided_backprop(f),
    "guided_grad_cam": jxp.guided_grad_cam(f),
}
maps = {name: np.asarray(jax.jit(explain)(x, 967)) for name, explain in methods.items()}
figure = gallery(maps, deprocess(x), columns=6, title="What spoke for espresso?")
figure.savefig(ROOT / "docs" / "coffee.png", dpi=80)

channels = inside_network.look_into_lite0(jax.jit(net.logits), inside_network.photos())
names = ["photo", *(f"channel {number}" for number in channels.numbers)]
columns = dict(zip(names, channels.pixels, strict=True))
values = [channels.contrast, *channels.influence]
title = f"{inside_network.LABEL} rather than {inside_network.OTHER}: which channels, and what drives them"
label = "what the channel adds to the difference of the two logits (photo: the difference)"
figure = patches([list(columns.values())], [values], title=title, label=label)
figure.set_size_inches(11, 2.9)
figure.savefig(ROOT / "docs" / "inside.png", dpi=80)

found, _ = inside_prototypes.compute()
rows = {"alone": found["plain"].images, "with an expert": found["expert"].images}
title = "What a network takes for each digit: prototypes"
inside_prototypes.prototype_gallery(rows, title=title).savefig(ROOT / "docs" / "prototypes.png", dpi=80)
