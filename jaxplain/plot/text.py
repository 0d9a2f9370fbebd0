"""Attributions of text: every word on the colour of its value."""

from collections.abc import Sequence

import jinja2
from matplotlib.colors import to_hex
from numpy.typing import ArrayLike

from jaxplain.plot._scale import INK, real, scale_of
from jaxplain.plot.charts import _signed

_PIECE = "##"  # begins a piece that continues the word before it
# Between word and word a line may break, within a word it may not: the pieces of a word stay together.
_TEMPLATE = """\
<figure style="margin: 0; font: 1rem/2 system-ui, sans-serif">
{% if title %}
<figcaption style="font-weight: bold">{{ title }}</figcaption>
{% endif %}
<p style="margin: 0; overflow-wrap: break-word">
{% for word in words %}
<span style="white-space: nowrap">
{%- for piece in word -%}
<span title="{{ piece.value }}" style="background: {{ piece.color }}; color: {{ piece.ink }}; \
padding: .2em 0">{{ piece.text }}</span>
{%- endfor -%}
</span>
{% endfor %}
</p>
<p style="margin: 0; font-size: .8rem">{{ legend }}</p>
</figure>
"""


def text(tokens: Sequence[str], values: ArrayLike, *, title: str | None = None) -> str:
    """Renders a text with every token on the colour of its value: blue below zero, orange above.

    The scale is symmetric and ends at the largest absolute value. A token that begins with ``##`` continues
    the word before it, as tokenizers of BERT's kind mark them, and is joined to it without the mark. Hovering
    over a token shows its value.

    **When it misleads.** The scale is the text's own, so two texts cannot be compared by colour: the line
    below gives its ends. One extreme token, often a mark such as ``[SEP]``, leaves the rest pale. A value
    belongs to a token in its context: the same word elsewhere may get another.

    Args:
      tokens: T tokens, in order.
      values: (T,), one for each token, in units of the explained output; sum over the width of an embedding
        first.
      title: text above.

    Returns:
      An HTML element, ``<figure>``, that needs no other file: show it in a notebook with
      ``IPython.display.HTML``, or write it to a file.

    Raises:
      ValueError: if there are no tokens, one is not a string, ``values`` is not a vector of as many, or it has
        NaN or infinite values.

    >>> page = text(["play", "##ing", "<b>"], [0.5, -1.0, 0.0])
    >>> "ing</span></span>" in page, "##" in page, "&lt;b&gt;" in page
    (True, False, True)
    """
    if isinstance(tokens, str):
        raise ValueError("tokens must be a list of strings, got one string; write tokens=text.split().")
    tokens = list(tokens)
    numbers = real(values, "values")
    if not tokens:
        raise ValueError("tokens is empty; pass at least one token.")
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise ValueError(
                f"token {i} is {type(token).__name__}, not a string; pass words rather than their ids."
            )
    if numbers.ndim != 1:
        raise ValueError(
            f"values must be a vector with one entry a token, got shape {numbers.shape}; of an attribution of "
            "embeddings (T, width), pass attribution.sum(axis=-1)."
        )
    if len(numbers) != len(tokens):
        raise ValueError(f"{len(tokens)} tokens but {len(numbers)} values; each token needs one value.")

    scale = scale_of([numbers], percentile=100.0, signed=True)
    norm, colors = scale.norm(), scale.colors()
    words: list[list[dict[str, str]]] = []
    for token, value in zip(tokens, numbers, strict=True):
        continues = bool(words) and len(token) > len(_PIECE) and token.startswith(_PIECE)
        color = colors(norm(value))
        piece = {
            "text": token.removeprefix(_PIECE) if continues else token,
            "value": _signed(value),
            "color": to_hex(color),
            "ink": _ink(color),
        }
        if continues:
            words[-1].append(piece)
        else:
            words.append([piece])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(_TEMPLATE).render(
        title=title,
        words=words,
        legend=f"blue {_signed(-scale.limit)}, orange {_signed(scale.limit)}, sum {_signed(numbers.sum())}",
    )


def _ink(color: tuple[float, ...]) -> str:
    """The colour of text to set on ``color``: dark, or white where that is easier to read (WCAG contrast)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return INK if luminance > 0.2 else "#ffffff"
