"""Which words make a review praise or blame? Explains a sentence encoder with a trained head, word by word.

Usage:
    python examples/explain_text.py --out out

The methods explain the words' vectors, just before the network's first LayerNorm: that makes the vectors' length
irrelevant, so relevance passes through it with its statistics held fixed. Writes one HTML page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from explain_report import text_page
from rich.console import Console
from rich.table import Table
from zoo import review_head

import jaxplain as jxp
from jaxplain import plot

R = jxp.rules
SENTENCES = (
    "A wonderful, moving film with not a single dull moment.",
    "The plot is not bad, but the acting is dreadful.",
    "I expected little and was pleasantly surprised.",
)
LENGTH = 20  # tokens; shorter sentences are padded, so that one compiled program serves all
NOTES = {
    "AttnLRP": "The score handed down by LRP's rules for attention. Biases keep a share of it.",
    "CP-LRP": "The same with the attention weights held fixed: it sees what is passed on, not why.",
    "DeepLIFT": "What each word adds when it takes the place of [MASK]. The sum is the difference of the scores.",
    "integrated gradients": "The same question, answered along a straight path in 32 steps.",
}


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains the sentences; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    network = review_head.load()
    f = network.logit
    fixed_attention = R.rules_for(R.epsilon(), product="uniform", softmax="detach")

    @jax.jit
    def explain(
        x: jax.Array, blank: jax.Array, mask: jax.Array
    ) -> tuple[dict[str, jax.Array], jax.Array, jax.Array]:
        maps = {
            "AttnLRP": jxp.lrp(f, R.ATTENTION)(x, mask),
            "CP-LRP": jxp.lrp(f, fixed_attention)(x, mask),
            "DeepLIFT": jxp.deep_lift(f, blank)(x, mask),
            "integrated gradients": jxp.integrated_gradients(f, blank, num_steps=32, chunk_size=4)(x, mask),
        }
        # A word's share is the sum over the 384 numbers that stand for it.
        return {name: value.sum(-1) for name, value in maps.items()}, f(x, mask), f(blank, mask)

    table = Table(title="What do the words add up to?", title_justify="left", title_style="bold")
    for column in ("sentence", "method", "sum", "explained", "gap"):
        table.add_column(column, justify="left" if column in ("sentence", "method") else "right")
    pieces = []
    for sentence in SENTENCES:
        tokens = network.tokenize(sentence, LENGTH)
        given = network.embed(tokens.ids), network.blank(tokens.ids), jnp.asarray(tokens.mask)
        shares, score, nothing = jax.device_get(explain(*given))
        verdict = "praise" if score > 0 else "blame"
        count = int(tokens.mask.sum())
        for i, method in enumerate(NOTES):
            values = shares[method]
            explained = score if "LRP" in method else score - nothing
            gap = values.sum() - explained
            row = f"{values.sum():+.4f}", f"{explained:+.4f}", f"{gap:+.1g}"
            table.add_row("" if i else sentence, method, *row)
            title = f"{verdict} ({score:+.2f}): {method}, sum {row[0]} of {row[1]}"
            pieces.append(plot.text(tokens.words[:count], values[:count], title=title))
        table.add_section()
    Console().print(table)
    print(f"The head gets {100 * network.accuracy:.0f} % of 300 other reviews right.")
    written = out / "reviews.html"
    written.write_text(text_page("Which words make a review praise or blame?", NOTES, pieces), encoding="utf-8")
    print(f"wrote:\n{written}")
    return [written]


if __name__ == "__main__":
    main()
