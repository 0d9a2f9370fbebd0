"""Does RISE find what the network looks at? `python -m benchmarks.published.rise [masks] [photos]`.

Insertion minus deletion (Petsiuk et al. 2018, section 4): pixels are put into a blurred copy of the photo, or are
taken out of it towards grey, those that a map holds most important first; the area under the curve of the class's
probability. RISE's map against a random one of the same smoothness, paired over the 20 labelled photos of ImageNet
that foolbox carries, with EfficientNet-Lite0.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxplain as jxp

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import zoo
from zoo import lite0_linen

STEPS = 14


def main(masks: int = 500, photos: int = 20) -> None:
    """Print a line a photo, then means and the paired difference."""
    logits = jax.jit(lite0_linen.load().logits)

    def probability(x: jax.Array, label: jax.Array) -> jax.Array:
        return jax.nn.softmax(logits(x))[label]

    explain = jax.jit(jxp.rise(probability, num_masks=masks, chunk_size=2))

    @jax.jit
    def insertion_minus_deletion(value: jax.Array, x: jax.Array, label: jax.Array) -> jax.Array:
        rank = jnp.argsort(jnp.argsort(-value.ravel())).reshape(value.shape)[..., None]
        blurred = jxp.blur(10.0)(x)

        def gap(share: jax.Array) -> jax.Array:
            first = rank < share * value.size
            put, taken = jnp.where(first, x, blurred), jnp.where(first, 0.0, x)
            return probability(put, label) - probability(taken, label)

        curve = jax.lax.map(gap, jnp.linspace(0, 1, STEPS + 1))
        return ((curve[1:] + curve[:-1]) / 2).mean()

    rows = []
    for k, photo in enumerate(zoo.imagenet_photos()[:photos]):
        x, label = jnp.asarray(zoo.preprocess(photo.image)), jnp.int32(photo.label)
        value, error = explain(jax.random.key(k), x, label)
        cells = jax.random.uniform(jax.random.key(1000 + k), (8, 8))
        noise = jax.image.resize(cells, value.shape[:2], "linear")
        ours, random = (float(insertion_minus_deletion(v, x, label)) for v in (value[..., 0], noise))
        rows.append((ours, random))
        contrast = float(value.std() / error.mean())
        print(f"{photo.name}: RISE {ours:+.3f}, random {random:+.3f}; spread / error {contrast:.1f}", flush=True)
    table = np.array(rows)
    difference = table[:, 0] - table[:, 1]
    error = difference.std(ddof=1) / np.sqrt(len(difference))
    ours, random = table.mean(0)
    print(f"{masks} masks, {len(rows)} photos: RISE {ours:.3f}, random {random:.3f}, ", end="")
    print(f"paired difference {difference.mean():.3f} +- {error:.3f}; better on {(difference > 0).sum()}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
