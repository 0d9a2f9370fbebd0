"""Which coalitions a regression looks at: a number of each size, drawn without replacement.

All coalitions of one size are alike, so the budget is divided among sizes beforehand, in proportion to the
sampling weight of a size, and no size gets more than it has: the sizes at the ends are enumerated first. The unit
that is drawn is a coalition, or, paired, a coalition and its complement. Every draw has the shape the plan says.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxplain._chunk import check_count

Sampling = Literal["kernel", "leverage"]


class Stratum(NamedTuple):
    """`drawn` of the `total` units of one size; of half size and paired, those with player 0."""

    size: int
    drawn: int
    total: int
    halved: bool


class Plan(NamedTuple):
    """Strata, and for each unit in their order its weight in the regression and its stratum's number."""

    players: int
    paired: bool
    strata: tuple[Stratum, ...]

    @property
    def covers(self) -> bool:
        """Whether every size is looked at."""
        sizes = self.players // 2 if self.paired else self.players - 1
        return len(self.strata) == sizes

    @property
    def units(self) -> int:
        """How many units are drawn."""
        return sum(s.drawn for s in self.strata)

    @property
    def stratum(self) -> np.ndarray:
        """(units,): the number of each unit's stratum."""
        return np.repeat(np.arange(len(self.strata)), [s.drawn for s in self.strata])

    @property
    def weights(self) -> np.ndarray:
        """(units,): the Shapley kernel of a unit's size over the share of that size that is drawn."""
        each = [
            size_weight(self.players, s.size) / s.drawn * (2 if self.paired and not s.halved else 1)
            for s in self.strata
        ]
        return np.array(each)[self.stratum]


def size_weight(players: int, size: int) -> float:
    """The Shapley kernel (M - 1) / (C(M, s) s (M - s)) of all coalitions of a size, out of 1 for all sizes."""
    whole = sum(1 / (k * (players - k)) for k in range(1, players))
    return 1 / (size * (players - size) * whole)


def plan(players: int, budget: int, *, paired: bool, sampling: Sampling) -> Plan:
    """How many units of each size to draw with `budget` evaluations, two of which go to nobody and everybody.

    All single players (and, unpaired, all but one) come first: they make the regression solvable.

    Raises:
        ValueError: the budget does not suffice for them, or an option is unknown.
    """
    if sampling not in ("kernel", "leverage"):
        raise ValueError(f"sampling must be 'kernel' or 'leverage', not {sampling!r}")
    budget = check_count("budget", budget)
    least = min(2**players, 2 * players + 2)
    if budget < least:
        raise ValueError(
            f"a budget of {budget} is too small for {players} players: every player is tried alone and left out "
            f"alone, so budget must be at least {least}"
        )
    sizes = range(1, players // 2 + 1 if paired else players)
    halved = [paired and 2 * size == players for size in sizes]
    totals = [math.comb(players, size) // (2 if half else 1) for size, half in zip(sizes, halved, strict=True)]
    shares = [
        (1.0 if sampling == "leverage" else 1 / (size * (players - size))) / (2 if half else 1)
        for size, half in zip(sizes, halved, strict=True)
    ]
    ends = [size in (1, players - 1) for size in sizes]
    units = min((budget - 2) // 2 if paired else budget - 2, sum(totals))
    first = [total if end else 0 for total, end in zip(totals, ends, strict=True)]
    rest = divide(units - sum(first), [0 if end else t for t, end in zip(totals, ends, strict=True)], shares)
    drawn = [a + b for a, b in zip(first, rest, strict=True)]
    strata = [Stratum(*parts) for parts in zip(sizes, drawn, totals, halved, strict=True) if parts[1]]
    return Plan(players, paired, tuple(strata))


def divide(units: int, room: Sequence[int], shares: Sequence[float]) -> list[int]:
    """Whole numbers that sum to `units`, near proportional to the shares, none above its room, at least 2."""
    least = min(2, units // max(1, sum(r > 0 for r in room)))
    got = [min(r, least) for r in room]
    want: list[float] = [0.0] * len(room)
    low, high = 0.0, (units + 1) / min(shares, default=1.0)
    for _ in range(100):  # bisection for the level at which min(room, level * share) sums to what is there
        level = (low + high) / 2
        want = [min(r, max(level * s, g)) for r, s, g in zip(room, shares, got, strict=True)]
        low, high = (level, high) if sum(want) < units else (low, level)
    got = [max(g, min(r, math.floor(w + 1e-9))) for g, r, w in zip(got, room, want, strict=True)]
    by_rest = sorted(range(len(room)), key=lambda k: got[k] - want[k])
    for k in itertools.cycle(by_rest):
        if sum(got) >= units:
            return got
        got[k] += got[k] < room[k]
    return got


def draw(key: jax.Array, made: Plan) -> jax.Array:
    """Coalitions (units, M), bool, in the order of the strata; within one all different and equally likely."""
    few = [s for s in made.strata if s.total > 2 * s.drawn]
    table_key, few_key = jax.random.split(key)
    ends = np.cumsum([s.drawn for s in few])[:-1]
    apart = iter(jnp.split(draw_different(few_key, made.players, few), ends) if few else [])
    parts = [
        next(apart)
        if stratum.total > 2 * stratum.drawn
        else draw_from_table(jax.random.fold_in(table_key, number), made.players, stratum)
        for number, stratum in enumerate(made.strata)
    ]
    return jnp.concatenate(parts)


def draw_from_table(key: jax.Array, players: int, stratum: Stratum) -> jax.Array:
    """Half or more of the units of one size, or all."""
    size, others = (stratum.size - 1, players - 1) if stratum.halved else (stratum.size, players)
    table = jnp.asarray(subsets(others, size))
    if stratum.drawn < stratum.total:
        table = table[jax.random.choice(key, stratum.total, (stratum.drawn,), replace=False)]
    if not stratum.halved:
        return table
    return jnp.concatenate([jnp.ones((len(table), 1), bool), table], axis=1)


def subsets(players: int, size: int) -> np.ndarray:
    """All coalitions of one size, bool (C(players, size), players)."""
    chosen = np.array(list(itertools.combinations(range(players), size)), int)
    masks = np.zeros((len(chosen), players), bool)
    np.put_along_axis(masks, chosen, True, axis=1)
    return masks


def draw_different(key: jax.Array, players: int, strata: Sequence[Stratum]) -> jax.Array:
    """Different coalitions of several sizes: repeated ones are drawn anew until there are none."""
    drawn = [s.drawn for s in strata]
    size = np.repeat(np.array([s.size for s in strata], np.int32), drawn)
    first = np.repeat(np.array([s.halved for s in strata], bool), drawn)  # player 0 is in all of these

    def fresh(key):
        """The players with the smallest numbers; a row has too many where two numbers are equal."""
        bits = jax.random.bits(key, (len(size), players))
        bits = bits.at[:, 0].set(jnp.where(first, 0, bits[:, 0]))
        last = jnp.take_along_axis(jnp.sort(bits, axis=1), size[:, None] - 1, axis=1)  # sorting twice takes longer
        return bits <= last

    def wrong(masks):
        return repeated(masks) | (masks.sum(1, dtype=jnp.int32) != size)

    def again(state):
        return wrong(state[1]).any()

    def redraw(state):
        key, masks = state
        key, now = jax.random.split(key)
        return key, jnp.where(wrong(masks)[:, None], fresh(now), masks)

    key, now = jax.random.split(key)
    return jax.lax.while_loop(again, redraw, (key, fresh(now)))[1]


def repeated(masks: jax.Array) -> jax.Array:
    """(k,): whether a row is equal to an earlier one."""
    padded = jnp.pad(masks, ((0, 0), (0, -masks.shape[1] % 32)))
    bits = jnp.uint32(1) << jnp.arange(32, dtype=jnp.uint32)
    words = (padded.reshape(len(masks), -1, 32).astype(jnp.uint32) * bits[None, None]).sum(-1, dtype=jnp.uint32)
    order = jnp.lexsort(tuple(words.T))  # stable: of equal rows the first stays first
    ordered = words[order]
    same = jnp.concatenate([jnp.zeros(1, bool), (ordered[1:] == ordered[:-1]).all(1)])
    return jnp.zeros(len(masks), bool).at[order].set(same)
