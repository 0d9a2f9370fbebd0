"""Which letters make a domain name look machine-made? Explains a recurrent network, letter by letter.

Usage:
    python examples/explain_domain.py --out out

The network reads a name through a convolution and an LSTM. Its gates take no relevance: what they let through
does. DeepLIFT compares a name with an empty one. Writes one HTML page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from explain_report import text_page
from rich.console import Console
from rich.table import Table
from zoo import dgaintel

import jaxplain as jxp
from jaxplain import plot

R = jxp.rules
NAMES = ("wikipedia.org", "nytimes.com", "xjwqzkbvtplmr.com", "kq3v9zr8x1ytq.net")
EMPTY = "-"  # the letter that fills a name up to its 82 places
NOTES = {
    "LRP": "The logit, handed down by the epsilon rule. Biases keep a share, so that the sum is not the logit.",
    "DeepLIFT": "What each letter adds to the logit of an empty name. The sum is the difference of the two.",
}


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains the names; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    network = dgaintel.load()
    f, empty = network.logit, network.embed(EMPTY)
    gated = R.rules_for(R.epsilon(), product="gate")
    lrp, deep_lift = jxp.lrp(f, gated), jxp.deep_lift(f, empty)

    @jax.jit
    def explain(x: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        # A letter's share is the sum over the 128 numbers that stand for it.
        return {"LRP": lrp(x).sum(-1), "DeepLIFT": deep_lift(x).sum(-1)}, f(x)

    nothing = float(jax.jit(f)(empty))
    table = Table(title="What do the letters add up to?", title_justify="left", title_style="bold")
    for column in ("name", "machine-made", "method", "sum", "explained", "gap"):
        table.add_column(column, justify="left" if column in ("name", "method") else "right")
    pieces = []
    for name in NAMES:
        shares, logit = jax.device_get(explain(network.embed(name)))
        probability = f"{100 / (1 + np.exp(-logit)):.1f} %"
        for method, values in shares.items():
            explained = logit - nothing if method == "DeepLIFT" else logit
            gap = values.sum() - explained
            table.add_row(name, probability, method, f"{values.sum():.3f}", f"{explained:.3f}", f"{gap:+.2g}")
            rest = values[len(name) :].sum()
            tokens, numbers = [*name, "(padding)"], [*values[: len(name)], rest]
            pieces.append(plot.text(tokens, numbers, title=f"{name}, {probability} machine-made: {method}"))
        table.add_section()
    Console().print(table)
    written = out / "domains.html"
    title = "Which letters make a domain name look machine-made?"
    written.write_text(text_page(title, NOTES, pieces), encoding="utf-8")
    print(f"wrote:\n{written}")
    return [written]


if __name__ == "__main__":
    main()
