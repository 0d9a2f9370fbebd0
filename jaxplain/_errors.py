"""Errors that say what is wrong, where, and what to type instead."""

from collections.abc import Iterable
from difflib import get_close_matches


class UnsupportedOperation(NotImplementedError):  # noqa: N818  (the name of the public contract)
    """An operation that the method at hand has no rule for; the message names it and its place."""


class SiteError(ValueError):
    """A site that is missing, ambiguous, or of the wrong kind; the message lists the near ones."""


def near(name: str, names: Iterable[str], most: int = 6) -> str:
    """The names nearest to `name`, as one readable phrase.

    >>> near("conv_1", ["conv1", "dense"])
    "did you mean 'conv1'? There are 2 names: 'conv1', 'dense'"
    """
    known = sorted(set(names))
    if not known:
        return "there are no names at all"
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    # A word of the path that was typed may be right although the whole is not close.
    close += [k for k in known if k not in close and name and name.lower() in k.lower()][:3]
    hint = f"did you mean {' or '.join(map(repr, close[:3]))}? " if close else ""
    shown = ", ".join(map(repr, known[:most])) + (", ..." if len(known) > most else "")
    return f"{hint}There are {len(known)} names: {shown}"
