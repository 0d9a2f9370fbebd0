"""Grid pointing game: how much of a Grad-CAM map lies in the cell whose class is explained.

Four photos of different classes that the network gets right are laid out as a 2 x 2 grid, and the class of each
is explained in turn; the share of the map in that photo's cell would be 1/4 if it were drawn at random
(Boehle et al. 2021, Rao et al. 2022).
"""

import jax
import jax.numpy as jnp
import numpy as np
from zoo import imagenet_photos, preprocess

import jaxplain as jxp
from benchmarks.harness import Row
from benchmarks.networks import lite0_linen

GRIDS = 12


def shares(num_grids: int = GRIDS, seed: int = 0) -> np.ndarray:
    """The share of positive attribution in the right cell, shape (num_grids, 4)."""
    net = lite0_linen.load()
    photos = imagenet_photos()
    images = jnp.stack([jnp.asarray(preprocess(photo.image, margin=0)) for photo in photos])
    labels = np.array([photo.label for photo in photos])
    right = np.flatnonzero(np.asarray(jax.lax.map(jax.jit(net.logits), images)).argmax(1) == labels)

    @jax.jit
    def four_maps(cells, labels):
        rows = [jnp.concatenate([cells[k], cells[k + 1]], axis=1) for k in (0, 2)]
        grid = jnp.concatenate(rows, axis=0)
        explain = jxp.grad_cam(jxp.class_score(net.logits))
        return jax.lax.map(lambda label: explain(grid, label), labels)

    rng, found = np.random.default_rng(seed), []
    while len(found) < num_grids:
        chosen = rng.choice(right, 4, replace=False)
        if len(set(labels[chosen])) == 4:
            maps = np.asarray(four_maps(images[chosen], jnp.asarray(labels[chosen])))
            half = maps.shape[1] // 2
            cells = maps.reshape(4, 2, half, 2, half).sum((2, 4)).reshape(4, 4)
            found.append(np.diagonal(cells) / cells.sum(1))
    return np.array(found)


def run() -> list[Row]:
    found = shares()
    low, high = np.quantile(found, [0.25, 0.75])
    what = f"Grad-CAM's share in the right cell, lite0, {GRIDS} grids: mean"
    return [Row(what, "1 (chance is 0.25)", float(found.mean()), (low, high), float("nan"), "at least 0.80")]
