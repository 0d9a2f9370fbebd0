"""The engine: a function's program, its units, and the sites in it."""

from importlib import import_module

from jaxplain._errors import SiteError, UnsupportedOperation
from jaxplain.engine.control import register_unit, unit
from jaxplain.engine.interventions import Slice, capture, list_sites, plant, slice_at, tag
from jaxplain.engine.sites import last_conv, nth

__all__ = [
    "SiteError",
    "Slice",
    "UnsupportedOperation",
    "capture",
    "last_conv",
    "list_sites",
    "nth",
    "plant",
    "register_unit",
    "slice_at",
    "tag",
    "unit",
]


def __getattr__(name: str) -> object:
    """`coverage` is listed here, but runs `lrp`, which stands above the engine: it is looked up when asked for."""
    if name == "coverage":
        return import_module("jaxplain.attribution.coverage").coverage
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
