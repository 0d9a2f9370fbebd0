"""Which training images made the network misread this digit? Shows those that helped it and those that harmed.

Usage:
    python examples/explain_training.py --out out

A small convolutional network is trained on real digits. For digits that it misreads, influence says what each
training image did to the loss; then the network is really trained on without the most harmful ones, the most
helpful ones, and as many drawn at random. Writes a picture of the first misread digit with its images.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from training import kit

import jaxplain as jxp
from jaxplain import plot

L2, DAMPING, REMOVED, RANDOM = 0.003, 0.003, 10, 4


class Result(NamedTuple):
    """What was found, for the misread digits."""

    train: kit.Data
    digits: kit.Data
    num_misread: int
    num_test: int
    gradient: float  # left after training
    values: np.ndarray  # influence, (digits, train)
    info: Any
    read: np.ndarray  # as what each digit is read
    reread: np.ndarray  # and without its harmful images
    loss: np.ndarray  # of each digit, with all images, trained on like the others
    # Changes of the loss (digits, 3): without the harmful images, the helpful ones, random ones.
    predicted: np.ndarray
    actual: np.ndarray


def compute(num_train: int = 300, num_digits: int = 4, steps: int = 1000, more: int = 300) -> Result:
    """Trains, explains, and trains again without the images that were named."""
    train, test = jax.tree.map(jnp.asarray, kit.split(kit.digits(), num_train, 1797 - num_train))
    predict_all = jax.vmap(kit.cnn, (None, 0))

    def loss(params: Any, example: kit.Data) -> jax.Array:
        return kit.cross_entropy(kit.cnn(params, example.x), example)

    @partial(jax.jit, static_argnames=("steps", "rate"))
    def fit(start: Any, weights: jax.Array, steps: int, rate: float) -> kit.Fit:
        return kit.adam(kit.objective(loss, L2, train, weights), start, steps=steps, rate=rate)

    params, gradient = fit(kit.cnn_params(jax.random.key(0)), jnp.ones(num_train), steps, 0.02)
    read = np.asarray(jax.jit(predict_all)(params, test.x).argmax(-1))
    misread = np.flatnonzero(read != test.y)
    digits = test.take(misread[:num_digits])

    curvature = jxp.training.gauss_newton(
        lambda params, example: kit.cnn(params, example.x),
        kit.cross_entropy,
        regularizer=kit.regularizer(L2),
        damping=DAMPING,
    )
    solve = jxp.training.cg(max_steps=300, tol=1e-4)
    values, info = jax.device_get(jxp.influence(loss, curvature=curvature, solve=solve)(params, train, digits))

    order = np.argsort(values)
    groups = [*order[:, -REMOVED:], *order[:, :REMOVED]]  # harmful, helpful
    rng = np.random.default_rng(0)
    groups += [rng.choice(num_train, REMOVED, replace=False) for _ in range(RANDOM)]
    masks = np.ones((1 + len(groups), num_train))
    for mask, group in zip(masks[1:], groups, strict=True):
        mask[group] = 0

    def retrained(_: Any, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        again = fit(params, weights, more, 0.003).params
        return jax.vmap(loss, (None, 0))(again, digits), predict_all(again, digits.x).argmax(-1)

    # All of them trained on from where training ended; the first with all images, to compare with.
    losses, reads = jax.device_get(jax.jit(jxp.training.subset_retraining(retrained))(jax.random.key(0), masks))
    k = len(digits.y)
    change = (losses[1:] - losses[0]).T  # (digits, groups)
    effect = jax.device_get(jxp.removal_effect(values, num_train)) @ (1 - masks[1:]).T
    own = np.arange(k)
    pick = lambda a: np.stack([a[own, own], a[own, k + own], a[:, 2 * k :].mean(1)], 1)  # noqa: E731
    return Result(
        jax.device_get(train),
        jax.device_get(digits),
        len(misread),
        len(test.y),
        float(gradient),
        values,
        info,
        read[misread[:num_digits]],
        reads[1 + own, own],
        losses[0],
        pick(effect),
        pick(change),
    )


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains misread digits; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    found = compute()
    print(
        f"{found.num_misread} of {found.num_test} digits misread after training on {len(found.train.y)}; gradient "
        f"left {found.gradient:.1e}\n{len(found.digits.y)} systems solved in up to {found.info.num_steps.max()} "
        f"steps of conjugate gradients, residual at most {found.info.residual.max():.1e}"
    )
    rows = []
    for i, label in enumerate(found.digits.y):
        numbers = (f"{p:+.2f} / {a:+.2f}" for p, a in zip(found.predicted[i], found.actual[i], strict=True))
        reading = f"{found.read[i]}, then {found.reread[i]}"
        rows.append([str(label), reading, f"{found.loss[i]:.2f}", *numbers])
    title = f"Loss without {REMOVED} training images: predicted / retrained"
    kit.show(title, ["digit", "read as", "loss", "harmful", "helpful", "random"], rows)
    r, slope = kit.agreement(found.predicted, found.actual)
    print(f"predicted against retrained: R {r:.2f}, slope {slope:.2f}")

    figure = plot.influence_table(
        found.train.x,
        found.values[0],
        test_image=found.digits.x[0],
        names=[f"a {label}" for label in found.train.y],
        test_name=f"a {found.digits.y[0]}, read as {found.read[0]}",
        title="Which training images helped to read this digit, and which harmed?",
        label="influence on its loss",
    )
    return kit.write(figure, out / "training.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
