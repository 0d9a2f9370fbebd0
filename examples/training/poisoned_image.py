"""Can one training image make the model misread a test image? Changes a few grey levels, and trains again.

Usage:
    python examples/training/poisoned_image.py --out out

For each attacked digit, the training image with most power over its loss is moved by signed steps along the
influence of its pixels, at most so far from where it was; after each step the model is trained again. As a
control the same image is moved as far in random signs. Attacked are digits that the model reads rightly, those it
is least sure of first: it is easy there. Source: Koh and Liang 2017, section 5.2.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import kit
import numpy as np
from matplotlib.figure import Figure

import jaxplain as jxp

L2 = 0.01


class Result(NamedTuple):
    """By size of the change and attacked digit."""

    loss: np.ndarray  # (digits,) before
    attacked: np.ndarray  # (sizes, digits) loss after
    random: np.ndarray
    flipped: np.ndarray  # whether the digit is misread after
    flipped_random: np.ndarray
    predicted: np.ndarray  # change of the loss by the first step, (sizes, digits)
    actual: np.ndarray
    images: np.ndarray  # (sizes, digits, 8, 8) the training image as it was moved
    original: np.ndarray  # (digits, 8, 8)
    sizes: Sequence[float]
    residual: float


def compute(
    num_train: int = 150,
    num_digits: int = 20,
    sizes: Sequence[float] = (0.125, 0.25, 0.5),
    steps: int = 8,
    classes: Sequence[int] = (3, 5, 8),
) -> Result:
    """Attacks the digits with every size of change."""
    loss = lambda params, example: kit.cross_entropy(kit.linear(params, example.x), example)  # noqa: E731
    curvature = jxp.training.hessian(loss, regularizer=kit.regularizer(L2))
    explain = jxp.influence_of_perturbation(loss, curvature=curvature, solve=jxp.training.dense())

    def fit(train: kit.Data, start: Any) -> Any:
        return kit.newton(kit.objective(loss, L2, train, jnp.ones(num_train)), start, max_steps=15).params

    def pixels(params: Any, train: kit.Data, i: jax.Array, digit: kit.Data) -> tuple[jax.Array, jax.Array]:
        values, info = explain(params, train, train.take(i), digit)
        return values.x, info.residual

    def attack(params: Any, train: kit.Data, digit: kit.Data, size: jax.Array, key: jax.Array) -> Any:
        power, residual = jax.vmap(pixels, (None, None, 0, None))(params, train, jnp.arange(num_train), digit)
        i = jnp.argmax(jnp.abs(power).sum((1, 2)))
        first = train.x[i]

        def moved(x: jax.Array, change: jax.Array) -> kit.Data:
            near = first + jnp.clip(x + change - first, -size, size)
            return train._replace(x=train.x.at[i].set(near.clip(0, 1)))

        def step(_: Any, state: Any) -> Any:
            params, now = state
            now = moved(now.x[i], 2 * size / steps * jnp.sign(pixels(params, now, i, digit)[0]))
            return fit(now, params), now

        tried = moved(first, size / steps * jnp.sign(power[i]))
        predicted = (power[i] * (tried.x[i] - first)).sum() / num_train
        actual = loss(fit(tried, params), digit) - loss(params, digit)
        after, now = jax.lax.fori_loop(0, steps, step, (params, train))
        control = fit(moved(first, size * jax.random.rademacher(key, first.shape)), params)
        ends = [(loss(p, digit), kit.linear(p, digit.x).argmax() != digit.y) for p in (after, control)]
        return *ends[0], *ends[1], predicted, actual, now.x[i], first, residual.max()

    @jax.jit
    def run(train: kit.Data, test: kit.Data) -> Any:
        params = fit(train, kit.linear_params(64, len(classes)))
        losses = jax.vmap(loss, (None, 0))(params, test)
        right = jax.vmap(kit.linear, (None, 0))(params, test.x).argmax(-1) == test.y
        chosen = jnp.argsort(jnp.where(right, -losses, jnp.inf))[:num_digits]
        keys = jax.random.split(jax.random.key(0), num_digits)
        one = lambda size, ik: attack(params, train, test.take(ik[0]), size, ik[1])  # noqa: E731
        many = lambda size: jax.lax.map(partial(one, size), (chosen, keys))  # noqa: E731
        return losses[chosen], jax.lax.map(many, jnp.asarray(sizes))

    data = kit.digits(*classes)
    with jax.enable_x64(True):
        split = kit.split(data, num_train, len(data.y) - num_train)
        before, found = jax.device_get(run(*jax.tree.map(jnp.asarray, split)))
    after, flipped, control, control_flipped, predicted, actual, images, original, residual = found
    return Result(
        before,
        after,
        control,
        flipped,
        control_flipped,
        predicted,
        actual,
        images,
        original[0],
        sizes,
        float(residual.max()),
    )


def pictures(rows: dict[str, np.ndarray], title: str) -> Figure:
    """Rows of small pictures, named."""
    columns = max(len(row) for row in rows.values())
    figure = Figure((columns + 1, len(rows) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    for i, (name, row) in enumerate(rows.items()):
        for j, picture in enumerate(row):
            ax = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            ax.imshow(picture, cmap="gray", vmin=0.0, vmax=1.0)
            ax.set(xticks=[], yticks=[])
            if j == 0:
                ax.set_ylabel(name, fontsize=8)
    return figure


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Attacks and counts; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    result, rows = compute(), []
    total = len(result.loss)
    for i, size in enumerate(result.sizes):
        r, slope = kit.agreement(result.predicted[i], result.actual[i])
        counts = (f"{flips.sum()} of {total}" for flips in (result.flipped[i], result.flipped_random[i]))
        row = [f"{size:g}", *counts]
        losses = (result.loss, result.attacked[i], result.random[i])
        rows.append([*row, *(f"{v.mean():.2f}" for v in losses), f"{r:.3f}", f"{slope:.2f}"])
    columns = ["moved by", "misread", "random", "loss", "after", "random", "R", "slope"]
    kit.show("One training image changed, of 150; grey levels run from 0 to 1", columns, rows)
    print(
        "random: the same image moved as far in random signs; R, slope: of the predicted on the retrained\n"
        f"change of the loss by the first step of eight; residual of the systems at most {result.residual:.0e}"
    )

    figure = pictures(
        {
            "as it was": result.original[:8],
            **{f"moved by {size:g}": result.images[i, :8] for i, size in enumerate(result.sizes)},
        },
        "The one training image that was changed, for eight attacked digits",
    )
    return kit.write(figure, out / "training_poisoned.png", time.perf_counter() - begin)


if __name__ == "__main__":
    main()
