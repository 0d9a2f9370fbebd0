"""The engine: a function's program, its units, and the sites in it."""

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
