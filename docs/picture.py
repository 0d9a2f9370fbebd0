"""Draws the README's picture: the ten-line example, and a few methods beside it."""

import sys
from pathlib import Path

import jax
import numpy as np

import jaxplain as jxp
from jaxplain.plot import gallery

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

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
