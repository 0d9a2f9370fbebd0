"""Which words make a review praise or blame? Explains a sentence encoder with a trained head, word by word.

Usage:
    python examples/explain_text.py --out out

Four methods explain the words' vectors, just before the network's first LayerNorm: that makes the vectors' length
irrelevant, so relevance passes through it with its statistics held fixed. LIME and Kernel SHAP only put [MASK] in
the place of words and watch the score. Writes one HTML page.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from explain_report import text_page
from rich.console import Console
from rich.table import Table
from zoo import minilm, review_head

import jaxplain as jxp
from jaxplain import plot

R = jxp.rules
SENTENCES = (
    "A wonderful, moving film with not a single dull moment.",
    "The plot is not bad, but the acting is dreadful.",
    "I expected very little of it, and was pleasantly surprised.",
)  # of as many words each: one compiled program serves all
LENGTH = 20  # tokens; shorter sentences are padded, for the same reason
COPIES, AT_ONCE = 160, 16  # of a sentence, for each of LIME and Kernel SHAP
NOTES = {
    "AttnLRP": "The score handed down by LRP's rules for attention. Biases keep a share of it.",
    "CP-LRP": "The same with the attention weights held fixed: it sees what is passed on, not why.",
    "DeepLIFT": "What each word adds when it takes the place of [MASK]. The sum is the difference of the scores.",
    "integrated gradients": "The same question, answered along a straight path in 32 steps.",
    "LIME": f"A linear model of the score, from {COPIES} copies with masked words; its fit says how far it holds.",
    "Kernel SHAP": "What each word adds to the score, averaged over which of the others are there or [MASK].",
}


class Shares(NamedTuple):
    """What the words of a sentence get from a method.

    Attributes:
        values: (T,), one number a token; pieces of a word share its own alike.
        explained: what their sum should be.
        trust: a few words on how far to trust them, where the method tells.
    """

    values: np.ndarray
    explained: float
    trust: str = ""


def words_of(tokens: minilm.Tokens) -> np.ndarray:
    """(T,): the number of the word that each token is a piece of; -1 for marks and padding."""
    owner, count = np.full(len(tokens.words), -1), 0
    for i in range(1, int(tokens.mask.sum()) - 1):
        count += not (tokens.words[i].startswith("##") and count)
        owner[i] = count - 1
    return owner


def explainer(f: Callable[..., jax.Array]) -> Callable[..., dict[str, Shares]]:
    """`explain(tokens, x, blank)`: what each method says of a sentence with the vectors `x`."""
    fixed_attention = R.rules_for(R.epsilon(), product="uniform", softmax="detach")
    vectors = {
        "AttnLRP": jxp.lrp(f, R.ATTENTION),
        "CP-LRP": jxp.lrp(f, fixed_attention),
    }

    @jax.jit
    def by_vectors(x: jax.Array, blank: jax.Array, mask: jax.Array) -> Any:
        maps = {name: method(x, mask) for name, method in vectors.items()}
        maps["DeepLIFT"] = jxp.deep_lift(f, blank)(x, mask)
        maps["integrated gradients"] = jxp.integrated_gradients(f, blank, num_steps=32, chunk_size=4)(x, mask)
        # A word's share is the sum over the 384 numbers that stand for it.
        return {name: value.sum(-1) for name, value in maps.items()}, f(x, mask), f(blank, mask)

    def with_words(
        kept: jax.Array, x: jax.Array, blank: jax.Array, mask: jax.Array, owner: jax.Array
    ) -> jax.Array:
        return f(jnp.where(kept[owner][:, None] > 0, x, blank), mask)  # marks are the same in both

    @jax.jit
    def by_words(keys: jax.Array, everything: jax.Array, *given: jax.Array) -> Any:
        nothing = jnp.zeros_like(everything)[None]
        lime = jxp.lime(with_words, num_samples=COPIES, chunk_size=AT_ONCE)
        shap = jxp.kernel_shap(with_words, nothing, budget=COPIES, chunk_size=AT_ONCE)
        return lime(keys[0], everything, *given), shap(keys[1], everything, *given)

    def explain(tokens: minilm.Tokens, x: jax.Array, blank: jax.Array) -> dict[str, Shares]:
        owner, mask = words_of(tokens), jnp.asarray(tokens.mask)
        pieces = np.bincount(owner[owner >= 0])
        maps, score, nothing = jax.device_get(by_vectors(x, blank, mask))
        given = x, blank, mask, jnp.asarray(owner)
        lime, shap = jax.device_get(by_words(jax.random.split(jax.random.key(0)), jnp.ones(len(pieces)), *given))
        explained = {name: score if name in vectors else score - nothing for name in maps}
        found = {name: Shares(value, float(explained[name])) for name, value in maps.items()}

        def spread(words: np.ndarray) -> np.ndarray:
            return np.where(owner >= 0, (words / pieces)[owner], 0)

        error = np.sqrt(np.square(shap.std_error).mean())
        # LIME's linear model, intercept and all, should give the score of the whole sentence.
        found["LIME"] = Shares(spread(lime.value), float(score - lime.intercept), f"fit R² {lime.score:.2f}")
        found["Kernel SHAP"] = Shares(spread(shap.value), float(score - nothing), f"standard error {error:.2f}")
        return {name: found[name] for name in NOTES}

    return explain


def main(argv: Sequence[str] | None = None) -> list[Path]:
    """Explains the sentences; returns the files written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="where to write")
    out: Path = parser.parse_args(argv).out
    out.mkdir(parents=True, exist_ok=True)

    network = review_head.load()
    f = jax.jit(network.logit)
    explain = explainer(f)

    table = Table(title="What do the words add up to?", title_justify="left", title_style="bold")
    for column in ("sentence", "method", "sum", "explained", "gap"):
        table.add_column(column, justify="left" if column in ("sentence", "method") else "right")
    pieces = []
    for sentence in SENTENCES:
        tokens = network.tokenize(sentence, LENGTH)
        x = network.embed(tokens.ids)
        score = float(f(x, jnp.asarray(tokens.mask)))
        verdict = "praise" if score > 0 else "blame"
        count = int(tokens.mask.sum())
        for i, (method, (values, explained, trust)) in enumerate(
            explain(tokens, x, network.blank(tokens.ids)).items()
        ):
            row = f"{values.sum():+.4f}", f"{explained:+.4f}", f"{values.sum() - explained:+.1g}"
            table.add_row("" if i else sentence, method, *row)
            title = f"{verdict} ({score:+.2f}): {method}, sum {row[0]} of {row[1]}"
            title += f", {trust}" if trust else ""
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
