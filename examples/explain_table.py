"""What makes diabetes worse, says a network, and what says a forest? Explains two models of one table, row by row.

Usage:
    python examples/explain_table.py --out out

442 patients, ten columns, and how far the disease had progressed a year later. A small Flax network and
scikit-learn's boosted forest, which JAX sees as a black box, are both explained by Shapley values: exactly, and by
Kernel SHAP with a twelfth of the evaluations, to see whether its standard error tells its real error. Writes the
columns' importance, the patient on whom the models differ most, and all test patients, each for both models.

References:
    Efron, Hastie, Johnstone and Tibshirani, "Least angle regression", Annals of Statistics 2004: the data.
"""

import io
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_diabetes
from sklearn.ensemble import GradientBoostingRegressor
from training import kit

import jaxplain as jxp
from jaxplain import interop, plot

COLUMNS = (
    "age", "sex (1 or 2)", "body mass index", "blood pressure", "cholesterol", "LDL", "HDL", "cholesterol / HDL",
    "log triglycerides", "blood sugar",
)  # fmt: skip
UNIT = "points of disease progression"
BUDGET = 80  # coalitions of Kernel SHAP, of 1024
NETWORK, FOREST = "network", "boosted forest"


class Explained(NamedTuple):
    """A model and what was found of it on the test patients.

    Attributes:
        r2: the share of the outcome's variance that it predicts.
        predicted: (patients,).
        base: the mean prediction over the background.
        values: (patients, columns), exact Shapley values.
        estimate: likewise, Kernel SHAP's.
        error: (patients, columns), the standard errors that it states.
        seconds: for the exact values, and for the estimates; compiling included.
    """

    r2: float
    predicted: np.ndarray
    base: float
    values: np.ndarray
    estimate: np.ndarray
    error: np.ndarray
    seconds: tuple[float, float]


class Result(NamedTuple):
    """The test patients, and each model explained on them."""

    x: np.ndarray
    models: dict[str, Explained]


class Network(nn.Module):
    """Two dense layers and the output, for one patient."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (columns,) to a scalar."""
        for width in (32, 16):
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(1)(x)[0]


def train_network(x: np.ndarray, y: np.ndarray, steps: int) -> Callable[[jax.Array], jax.Array]:
    """A network trained by AdamW on all rows at once; a function of one row in the table's own units."""
    (centre, spread), (mean, scale) = ((v.mean(0), v.std(0)) for v in (x, y))
    network, optimizer = Network(), optax.adamw(optax.cosine_decay_schedule(0.01, steps), weight_decay=10.0)
    inputs, targets = jnp.asarray((x - centre) / spread), jnp.asarray((y - mean) / scale)

    def output(params: Any, row: jax.Array) -> jax.Array:
        return jnp.asarray(network.apply(params, row))

    def loss(params: Any) -> jax.Array:
        return jnp.square(jax.vmap(partial(output, params))(inputs) - targets).mean()

    @jax.jit
    def fit(params: Any) -> Any:
        def step(state: Any, _: Any) -> Any:
            params, memory = state
            change, memory = optimizer.update(jax.grad(loss)(params), memory, params)
            return (optax.apply_updates(params, change), memory), None

        return jax.lax.scan(step, (params, optimizer.init(params)), None, length=steps)[0][0]

    params = fit(network.init(jax.random.key(0), inputs[0]))

    return lambda row: mean + scale * output(params, (row - centre) / spread)


def train_forest(x: np.ndarray, y: np.ndarray, trees: int) -> Callable[[jax.Array], jax.Array]:
    """A boosted forest as a function of one row: called with whole batches, and without derivatives."""
    forest = GradientBoostingRegressor(
        n_estimators=trees,
        learning_rate=0.05,
        max_leaf_nodes=6,
        min_samples_leaf=10,
        subsample=0.5,
        random_state=0,
    )
    return interop.numpy_function(forest.fit(x, y).predict)


def explain(
    f: Callable[[jax.Array], jax.Array], x: np.ndarray, y: np.ndarray, background: np.ndarray
) -> Explained:
    """The Shapley values of a model's predictions, exactly and estimated."""
    exact = jax.jit(lambda rows: jax.lax.map(jxp.exact_shap(f, background), rows))
    kernel = jxp.kernel_shap(f, background, budget=BUDGET)
    sampled = jax.jit(lambda keys, rows: jax.lax.map(lambda both: kernel(*both), (keys, rows)))
    begin = time.perf_counter()
    values = np.asarray(exact(x))
    middle = time.perf_counter()
    estimate, error = jax.device_get(sampled(jax.random.split(jax.random.key(1), len(x)), x))
    seconds = middle - begin, time.perf_counter() - middle
    predict = jax.jit(jax.vmap(f))
    predicted, base = np.asarray(predict(x)), float(predict(background).mean())
    r2 = 1 - np.square(predicted - y).mean() / y.var()
    return Explained(float(r2), predicted, base, values, estimate, error, seconds)


def compute(num_test: int = 100, num_background: int = 40, steps: int = 400, trees: int = 60) -> Result:
    """Trains both models and explains their predictions for patients they have not seen."""
    table, outcome = load_diabetes(return_X_y=True, scaled=False)
    data = kit.Data(np.asarray(table, np.float32), np.asarray(outcome, np.float32))
    train, test = kit.split(data, len(data.y) - num_test, num_test)
    background = train.x[:num_background]  # the split is in random order
    models = {
        NETWORK: train_network(train.x, train.y, steps),
        FOREST: train_forest(train.x, train.y, trees),
    }
    return Result(test.x, {name: explain(f, test.x, test.y, background) for name, f in models.items()})


def show(found: Result) -> None:
    """Prints how good the models are, and whether the values keep their promises."""
    rows = []
    for name, model in found.models.items():
        gap = abs(model.values.sum(1) + model.base - model.predicted).max()
        real = np.sqrt(np.square(model.estimate - model.values).mean())
        stated = np.sqrt(np.square(model.error).mean())
        times = " / ".join(f"{s:.1f} s" for s in model.seconds)
        rows.append([name, f"{model.r2:.2f}", f"{gap:.1g}", f"{stated:.2f}", f"{real:.2f}", times])
    columns = ["model", "R² on test rows", "worst gap of sum", "stated error", "real error", "exact / kernel"]
    kit.show(f"Shapley values of {len(found.x)} patients, and Kernel SHAP with {BUDGET} of 1024", columns, rows)


def words(row: np.ndarray) -> list[str]:
    """A patient's columns with their numbers."""
    return [f"{name} = {number:.3g}" for name, number in zip(COLUMNS, row, strict=True)]


def draw(found: Result) -> dict[str, list[Figure]]:
    """The pictures by name, one for each model."""
    differ = np.subtract(*(model.predicted for model in found.models.values()))
    patient = int(abs(differ).argmax())
    pictures: dict[str, list[Figure]] = {"table_importance": [], "table_patient": [], "table_patients": []}
    for name, model in found.models.items():
        size = abs(model.values)
        pictures["table_importance"].append(
            plot.bars(
                size.mean(0),
                COLUMNS,
                std_error=size.std(0) / np.sqrt(len(size)),
                title=f"What matters to the {name}?",
                label=f"mean |Shapley value|, {UNIT}",
            )
        )
        pictures["table_patient"].append(
            plot.waterfall(
                model.values[patient],
                words(found.x[patient]),
                base=model.base,
                title=f"Why {model.predicted[patient]:.0f}, says the {name}?",
                label=UNIT,
            )
        )
        pictures["table_patients"].append(
            plot.beeswarm(
                model.values,
                found.x,
                COLUMNS,
                title=f"{len(found.x)} patients, says the {name}",
                label=f"Shapley value, {UNIT}",
            )
        )
    for figures in pictures.values():  # the two side by side, so on one scale
        limits = np.array([figure.axes[0].get_xlim() for figure in figures])
        for figure in figures:
            figure.axes[0].set_xlim(limits[:, 0].min(), limits[:, 1].max())
    return pictures


def side_by_side(figures: Sequence[Figure]) -> Image.Image:
    """One picture of several figures."""
    images = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        images.append(Image.open(buffer))
    page = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    for i, image in enumerate(images):
        page.paste(image, (sum(before.width for before in images[:i]), 0))
    return page


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains both models; returns the files written."""
    out, begin = kit.out_folder(__doc__, argv), time.perf_counter()
    found = compute()
    show(found)
    written = []
    for name, figures in draw(found).items():
        written.append(out / f"{name}.png")
        side_by_side(figures).save(written[-1])
    print(f"{time.perf_counter() - begin:.0f} s; wrote:", *written, sep="\n")
    return written


if __name__ == "__main__":
    main()
