"""Pictures of attributions: each function returns a matplotlib figure or an HTML string and shows nothing.

Figures are built without pyplot, so nothing is registered globally: save one with ``figure.savefig(path)``,
or leave it as the last line of a notebook cell. Needs the extra ``plot`` (matplotlib and jinja2).
"""

try:
    from jaxplain.plot.charts import bars, curve
    from jaxplain.plot.html import Card, Section, Table, report
    from jaxplain.plot.influence import influence_table
    from jaxplain.plot.maps import gallery, heatmap, overlay
    from jaxplain.plot.network import network
    from jaxplain.plot.tables import beeswarm, waterfall
    from jaxplain.plot.text import text
    from jaxplain.plot.units import activation_grid, patches, thumbnails
except ModuleNotFoundError as error:
    missing = (error.name or "").partition(".")[0]
    if missing not in ("matplotlib", "jinja2"):
        raise
    raise ImportError(
        f"jaxplain.plot needs {missing}; install it with: pip install jaxplain[plot]", name=missing
    ) from error

__all__ = [
    "Card",
    "Section",
    "Table",
    "activation_grid",
    "bars",
    "beeswarm",
    "curve",
    "gallery",
    "heatmap",
    "influence_table",
    "network",
    "overlay",
    "patches",
    "report",
    "text",
    "thumbnails",
    "waterfall",
]
