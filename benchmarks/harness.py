"""Timing as ratios: everything that is compared runs interleaved, in one process, on the same arrays.

A machine's speed drifts by tens of percent within minutes, so no time is compared with one taken at another
moment: round after round each candidate runs once, and of the rounds the median counts. The spread that is
printed is the interquartile range of the per-round ratios.
"""

import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.table import Table


class Row(NamedTuple):
    """One measured claim: `ratio` is the time of `what` over that of `baseline`."""

    what: str
    baseline: str
    ratio: float
    spread: tuple[float, float]
    milliseconds: float
    claim: str = ""


def time_once(function: Callable[[], Any]) -> float:
    """Seconds for one run, until its result is there."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def interleaved(candidates: Mapping[Any, Callable[[], Any]], rounds: int = 15) -> dict[Any, np.ndarray]:
    """Seconds of every candidate in every round; compiled and warmed up before."""
    for function in candidates.values():
        jax.block_until_ready(function())
        jax.block_until_ready(function())
    names = list(candidates)
    seconds = {name: [] for name in names}
    for k in range(rounds):
        for name in names if k % 2 == 0 else reversed(names):  # so that order favours none
            seconds[name].append(time_once(candidates[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def compare(
    what: str,
    function: Callable[[], Any],
    baseline: str,
    reference: Callable[[], Any],
    *,
    claim: str = "",
    rounds: int = 15,
) -> Row:
    """Measure one function against its baseline."""
    seconds = interleaved({"what": function, "baseline": reference}, rounds)
    return ratio_row(what, seconds["what"], baseline, seconds["baseline"], claim=claim)


def ratio_row(what: str, seconds: np.ndarray, baseline: str, base_seconds: np.ndarray, *, claim: str = "") -> Row:
    """A row from the seconds of two candidates, round by round."""
    ratios = seconds / base_seconds
    low, high = np.quantile(ratios, [0.25, 0.75])
    return Row(
        what,
        baseline,
        float(np.median(seconds) / np.median(base_seconds)),
        (float(low), float(high)),
        float(np.median(seconds) * 1e3),
        claim,
    )


def temporary_bytes(function: Callable[..., Any], *args: Any) -> int:
    """Bytes of temporary memory that the compiled function asks for."""
    analysis: Any = jax.jit(function).lower(*args).compile().memory_analysis()
    return analysis.temp_size_in_bytes


def environment() -> dict[str, str]:
    """What a figure depends on, beside the code."""
    device = jax.devices()[0]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": f"{device.platform} {device.device_kind}",
        "machine": f"{platform.machine()}, {platform.system()}",
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def show(name: str, rows: list[Row]) -> None:
    """Print a table of ratios."""
    table = Table(title=f"{name} ({', '.join(environment().values())})", title_justify="left")
    for column in ("what", "measured against", "ratio", "quartiles", "ms", "claim"):
        table.add_column(column, overflow="fold")
    for row in rows:
        quartiles = f"{row.spread[0]:.2f}-{row.spread[1]:.2f}"
        table.add_row(row.what, row.baseline, f"{row.ratio:.3f}", quartiles, f"{row.milliseconds:.2f}", row.claim)
    Console(width=130).print(table)
