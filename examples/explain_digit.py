"""Which strokes make a digit a seven? Explains digits that a small network reads, by handing its score down.

Usage:
    python examples/explain_digit.py --out out

Writes a gallery of digits, and a chart of what every layer of the network receives and passes on.
"""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table
from zoo import mnist_cnn

import jaxplain as jxp
from jaxplain import plot

R = jxp.rules
BLACK, WHITE = (float(mnist_cnn.preprocess(np.full((28, 28), v, np.uint8)).flat[0]) for v in (0, 255))
SHOWN = (0, 1, 7)  # a 7, a 2 and a 9 among mnist_cnn.digits()

# What the total of a map is compared with: the whole score, or the difference to a black image.
WHOLE = {
    "epsilon": R.EPSILON,
    "epsilon, z+ below": R.EPSILON_PLUS,
    "epsilon, z+, flat": R.EPSILON_PLUS_FLAT,
    "epsilon, gamma, box": R.epsilon_gamma_box(BLACK, WHITE),
    "alpha 2, beta 1": R.EPSILON_ALPHA2_BETA1,
}


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains the digits; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    network = mnist_cnn.load()
    f = jxp.class_score(network.logits)
    methods = {name: jxp.lrp(f, table) for name, table in WHOLE.items()}
    methods |= {
        "deep Taylor": jxp.deep_taylor(f, low=BLACK, high=WHITE),
        "DeepLIFT": jxp.deep_lift(f, BLACK),
        "reveal-cancel": jxp.deep_lift(f, BLACK, rule="reveal_cancel"),
    }

    @jax.jit
    def explain(x: jax.Array, label: jax.Array) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        maps = {name: method(x, label) for name, method in methods.items()}
        return maps, f(x, label), f(jnp.full_like(x, BLACK), label)

    digits = [mnist_cnn.digits()[i] for i in SHOWN]
    table = Table(title="What do the maps add up to?", title_justify="left", title_style="bold")
    for column in ("digit", "method", "total", "of the score", "gap"):
        table.add_column(column, justify="left" if column in ("digit", "method") else "right")
    blocks = []
    for digit in digits:
        x, label = jnp.asarray(mnist_cnn.preprocess(digit.pixels)), jnp.int32(digit.label)
        maps, score, black = jax.device_get(explain(x, label))
        captions = {}
        maps = {name: maps[name] for name in methods}  # jit returns them in the alphabet's order
        for name, value in maps.items():
            # DeepLIFT explains the difference to black. In LRP a gap is no error: it is what biases keep.
            explained = score - black if name in ("DeepLIFT", "reveal-cancel") else score
            gap = value.sum() - explained
            captions[name] = f"{value.sum():.2f} of {explained:.2f}"
            table.add_row(str(digit.label), name, f"{value.sum():.3f}", f"{explained:.3f}", f"{gap:+.2g}")
        table.add_section()
        figure = plot.gallery(maps, digit.pixels, columns=9, captions=captions, title=f"Why {digit.label}?")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90, facecolor="white")
        blocks.append(Image.open(buffer))
    Console().print(table)

    page = Image.new("RGB", (max(b.width for b in blocks), sum(b.height for b in blocks)), "white")
    for i, block in enumerate(blocks):
        page.paste(block, (0, sum(b.height for b in blocks[:i])))
    page.save(out / "digits.png")

    first = digits[0]
    flows = jxp.coverage(f, R.EPSILON, params=network.params)
    rows = flows(jnp.asarray(mnist_cnn.preprocess(first.pixels)), first.label)
    # The layers alone, by their names: what only moves or passes relevance on leaks nothing.
    layers = [row._replace(place=row.place.split("/")[0]) for row in rows if row.kind in ("conv", "dense")]
    leak = sum(row.leak for row in rows)
    title = f"A {first.label}: score {rows.start:.2f} = pixels {rows.end:.2f} + biases {leak:+.2f}"
    chart = plot.network(layers, title=title)
    chart.savefig(out / "digit_layers.png", dpi=110, facecolor="white")
    print(f"{title}\nwrote:")
    for path in (written := [out / "digits.png", out / "digit_layers.png"]):
        print(path)
    return written


if __name__ == "__main__":
    main()
