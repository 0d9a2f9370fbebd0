"""A self-contained HTML report: one file, figures embedded, no scripts and nothing fetched from a network."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jinja2
from matplotlib.figure import Figure

_WIDE = 8.0  # inches; a wider figure takes a whole row of the report
_PIXELS_PER_INCH = 96  # of CSS

_TEMPLATE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; --page: #f6f6f4; --card: #ffffff; --ink: #1d1d1f; --faded: #5c5c63;
  --rule: #dededb; --accent: #1f5f9f; --care: #9a4a06; }
@media (prefers-color-scheme: dark) {
  :root { --page: #131416; --card: #1e2023; --ink: #ececee; --faded: #a9a9b2; --rule: #35373c;
    --accent: #86b9ea; --care: #f0a35c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 82rem; background: var(--page);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 2.75rem 0 .75rem; }
h3 { font-size: 1.05rem; line-height: 1.3; margin: 0; }
p { margin: 0 0 .6rem; max-width: 46rem; }
a { color: var(--accent); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; margin: 0; padding: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 23rem), 1fr)); gap: 1.25rem;
  margin-top: 1.25rem; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: .75rem; padding: 1.1rem;
  display: flex; flex-direction: column; gap: .8rem; min-width: 0; }
.wide { grid-column: 1 / -1; }
.wide img { min-width: 44rem; }
.scroll { overflow-x: auto; }
.card p { margin: 0; }
.card img { display: block; max-width: 100%; height: auto; margin: 0 auto; border-radius: .4rem;
  background: #fff; }
.shows b { color: var(--accent); }
.care b { color: var(--care); }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem 1rem; margin: 0; font-size: .9rem;
  border-top: 1px solid var(--rule); padding-top: .7rem; }
dt { color: var(--faded); }
dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; min-width: 0; }
.table { margin-top: 1.25rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faded); padding-bottom: .4rem; }
th, td { text-align: left; padding: .4rem .9rem .4rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { color: var(--faded); font-weight: 600; }
td.number { text-align: right; }
</style>
</head>
<body>
<header>
<h1>{{ title }}</h1>
{% if sections | length > 1 %}
<nav aria-label="Sections"><ul>
{% for section in sections %}
<li><a href="#section-{{ loop.index }}">{{ section.heading }}</a></li>
{% endfor %}
</ul></nav>
{% endif %}
</header>
<main>
{% for section in sections %}
<section id="section-{{ loop.index }}">
<h2>{{ section.heading }}</h2>
{% for line in section.intro %}
<p>{{ line }}</p>
{% endfor %}
{% if section.cards %}
<div class="cards">
{% for card in section.cards %}
{% set picture = embed(card.figure) %}
<article class="card{{ ' wide' if picture.wide }}">
<h3>{{ card.title }}</h3>
<div class="scroll"{{ ' tabindex=0' if picture.wide }}>
<img src="{{ picture.source }}" width="{{ picture.width }}" height="{{ picture.height }}" \
alt="{{ card.alt or card.title ~ ': ' ~ card.shows }}">
</div>
<p class="shows"><b>What it shows.</b> {{ card.shows }}</p>
<p class="care"><b>When not to trust it.</b> {{ card.caution }}</p>
{% if card.facts %}
<dl>
{% for label, value in card.facts %}
<dt>{{ label }}</dt><dd>{{ value | shown }}</dd>
{% endfor %}
</dl>
{% endif %}
</article>
{% endfor %}
</div>
{% endif %}
{% for table in section.tables %}
<div class="table scroll" tabindex="0"><table>
{% if table.caption %}
<caption>{{ table.caption }}</caption>
{% endif %}
<thead><tr>{% for cell in table.header %}<th scope="col">{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in table.rows %}
<tr>{% for cell in row %}<td{{ ' class=number' if cell is number }}>{{ cell | shown }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endfor %}
</section>
{% endfor %}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class Card:
    """One figure of a report and what a reader must know about it.

    Args:
      title: heading of the card.
      figure: any matplotlib figure; one wider than 8 inches takes a whole row.
      shows: one line, what the picture shows.
      caution: one line, when not to trust it.
      facts: (label, value) pairs listed below; floats are shown with four significant digits.
      alt: text for those who cannot see the picture; by default the title and ``shows``.

    >>> card = Card("Gradient", Figure(), "Slope of the logit.", "Saturated units.", [("sum", 0.25)])
    >>> card.facts
    [('sum', 0.25)]
    """

    title: str
    figure: Figure
    shows: str
    caution: str
    facts: Sequence[tuple[str, Any]] = ()
    alt: str = ""


@dataclass(frozen=True)
class Table:
    """A table of a report; floats are shown with four significant digits, numbers aligned right.

    Args:
      header: names of the columns.
      rows: one sequence for each row, as long as the header.
      caption: a line above the table.

    Raises:
      ValueError: if a row and the header differ in length.

    >>> Table(["method", "seconds"], [["gradient", 0.01], ["lrp", 0.02]]).header
    ['method', 'seconds']
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""

    def __post_init__(self) -> None:
        for i, row in enumerate(self.rows):
            if len(row) != len(self.header):
                raise ValueError(f"row {i} has {len(row)} cells but the header has {len(self.header)}.")


@dataclass(frozen=True)
class Section:
    """A section of a report: heading, introduction, cards, tables.

    Args:
      heading: text of the heading.
      intro: paragraphs of plain text.
      cards: figures with their explanations, laid out in a grid.
      tables: tables below the cards.

    Raises:
      ValueError: if ``intro`` is one string, which would become a paragraph for each letter.

    >>> Section("Digits", ["Ten classes."]).cards
    ()
    """

    heading: str
    intro: Sequence[str] = ()
    cards: Sequence[Card] = ()
    tables: Sequence[Table] = ()

    def __post_init__(self) -> None:
        if isinstance(self.intro, str):
            raise ValueError("intro must be a list of paragraphs, got one string; write intro=[text].")


def report(
    title: str,
    sections: Sequence[Section],
    *,
    image_format: Literal["png", "jpeg"] = "png",
    dpi: float = 144,
) -> str:
    """Renders a report as one HTML page that needs no other file and no network.

    All text is escaped; only a ``markupsafe.Markup`` string goes in as HTML. The page follows the reader's
    light or dark mode and fits a phone. A content security policy inside it forbids scripts and requests.

    **When it misleads.** A figure is a picture taken at ``dpi``: fine structure of a large map can be lost,
    and ``"jpeg"``, smaller for photos, adds faint patterns of its own. Floats are rounded to four digits.

    Args:
      title: heading of the page.
      sections: what it holds, in order.
      image_format: ``"png"`` (exact) or ``"jpeg"`` (smaller for photos).
      dpi: resolution of the embedded figures, pixels per inch.

    Returns:
      The page; write it with ``pathlib.Path(name).write_text(page, encoding="utf-8")``.

    Raises:
      ValueError: for an unknown ``image_format``.

    >>> from matplotlib.figure import Figure
    >>> card = Card("Gradient", Figure(), "Slope of the logit.", "Saturated units.", [("sum", 0.25)])
    >>> page = report("Digits & letters", [Section("A five", ["One example."], [card])])
    >>> "<h1>Digits &amp; letters</h1>" in page, "<dt>sum</dt><dd>0.25</dd>" in page
    (True, True)
    """
    if image_format not in ("png", "jpeg"):
        raise ValueError(f"unknown image_format {image_format!r}; choose 'png' or 'jpeg'.")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["shown"] = _shown
    environment.tests["number"] = lambda value: isinstance(_item(value), int | float)
    return environment.from_string(_TEMPLATE).render(
        title=title, sections=sections, embed=lambda figure: _embed(figure, image_format, dpi)
    )


def _embed(figure: Figure, image_format: str, dpi: float) -> dict[str, Any]:
    """Returns the figure as a data address, with its size in CSS pixels."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if image_format == "png" else None  # the same bytes from every matplotlib
    figure.savefig(buffer, format=image_format, dpi=dpi, facecolor="white", metadata=metadata)
    width, height = figure.get_size_inches()
    return {
        "source": f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}",
        "width": round(width * _PIXELS_PER_INCH),
        "height": round(height * _PIXELS_PER_INCH),
        "wide": width > _WIDE,
    }


def _item(value: Any) -> Any:
    """Returns the Python number in an array of rank 0, and anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def _shown(value: Any) -> Any:
    value = _item(value)
    return f"{value:.4g}" if isinstance(value, float) else value
