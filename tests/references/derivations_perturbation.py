"""Slow float64 derivations of the perturbation methods and of LIME's fit, loop by loop from the definitions.

Nothing here is shared with the library; the function to explain takes one numpy example.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray
Function = Callable[[Array], float]


def ablation(f: Function, x: Array, baseline: Array, groups: Array) -> Array:
    """What is lost without each group, shared among its elements."""
    result = np.zeros(x.shape)
    for group in range(int(groups.max()) + 1):
        members = [i for i in np.ndindex(x.shape) if groups[i] == group]
        without = x.copy()
        for i in members:
            without[i] = baseline[i]
        for i in members:
            result[i] = (f(x) - f(without)) / len(members)
    return result


def occlusion(f: Function, x: Array, baseline: Array, window: tuple, stride: tuple) -> Array:
    """The mean loss over the windows that cover an element; they start at 0, stride, ... and reach the end."""
    starts = []
    for size, side, step in zip(x.shape, window, stride, strict=False):
        places, at = [0], 0
        while at + side < size:
            at += step
            places.append(at)
        starts.append(places)
    total, count = np.zeros(x.shape), np.zeros(x.shape)
    for corner in itertools.product(*starts):
        hidden = x.copy()
        covered = [
            i
            for i in np.ndindex(x.shape)
            if all(c <= k < c + side for c, k, side in zip(corner, i, window, strict=False))
        ]
        for i in covered:
            hidden[i] = baseline[i]
        for i in covered:
            total[i] += f(x) - f(hidden)
            count[i] += 1
    return total / count


def rise_expectation(f: Function, x: Array, baseline: float, cells: int, keep: float) -> Array:
    """E[f(masked x) m_i] / p of a vector, over all grids and shifts with their chances."""
    size = len(x)
    side = math.ceil(size / cells)
    length = (cells + 1) * side
    total = np.zeros(size)
    for grid in itertools.product([0.0, 1.0], repeat=cells):
        chance = math.prod(keep if cell else 1 - keep for cell in grid)
        smooth = []
        for i in range(length):
            at = (i + 0.5) * cells / length - 0.5  # in cells, their middles being whole numbers
            below = math.floor(at)
            part = at - below
            left, right = (grid[min(max(k, 0), cells - 1)] for k in (below, below + 1))
            smooth.append((1 - part) * left + part * right)
        for shift in range(side):
            mask = np.array(smooth[shift : shift + size])
            total += chance / side * f(baseline + mask * (x - baseline)) * mask / keep
    return total


def ridge(rows: Array, outputs: Array, weights: Array, penalty: float) -> tuple[Array, float, float]:
    """(weights, intercept, R^2) from the normal equations with a column of ones that is not penalised."""
    n, count = rows.shape
    design = np.hstack([rows, np.ones((n, 1))])
    system, right = np.zeros((count + 1, count + 1)), np.zeros(count + 1)
    for z, y, w in zip(design, outputs, weights, strict=True):
        system += w * np.outer(z, z)
        right += w * z * y
    for j in range(count):
        system[j, j] += penalty
    solution = np.linalg.solve(system, right)
    mean = (weights * outputs).sum() / weights.sum()
    left = (weights * (outputs - design @ solution) ** 2).sum()
    return solution[:-1], solution[-1], 1 - left / (weights * (outputs - mean) ** 2).sum()


def forward_selection(rows: Array, outputs: Array, weights: Array, num: int) -> list[int]:
    """Greedy by R^2 of an unpenalised fit."""
    chosen: list[int] = []
    while len(chosen) < num:
        left = [j for j in range(rows.shape[1]) if j not in chosen]
        scores = [ridge(rows[:, [*chosen, j]], outputs, weights, 0.0)[2] for j in left]
        chosen.append(left[int(np.argmax(scores))])
    return chosen


def best_coverage(importances: Array, budget: int) -> float:
    """The largest coverage that any choice of rows has."""
    return max(coverage(importances, rows) for rows in itertools.combinations(range(len(importances)), budget))


def coverage(importances: Array, rows: tuple) -> float:
    """The importance of the features that some of the rows use."""
    worth = np.sqrt(np.abs(importances).sum(0))
    return float(sum(worth[j] for j in range(len(worth)) if any(importances[i, j] != 0 for i in rows)))


def lime_limit(f: Function, x: Array, baseline: float, weight: Callable[[int], float]) -> tuple[Array, float]:
    """(weights, intercept) of the regression over all masks, each with the kernel's weight of its size."""
    masks = np.array(list(itertools.product([0.0, 1.0], repeat=len(x))))
    outputs = np.array([f(np.where(mask > 0, x, baseline)) for mask in masks])
    weights = np.array([weight(int(mask.sum())) for mask in masks])
    return ridge(masks, outputs, weights, 0.0)[:2]
