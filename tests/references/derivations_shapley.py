"""Slow float64 derivations of Shapley values and interactions, from the definitions, in numpy alone.

A game is the array of its 2^M values: bit i of the index is player i.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np

Array = np.ndarray


def players_of(values: Array) -> int:
    return int(np.log2(len(values)))


def members(index: int, players: int) -> list[int]:
    return [i for i in range(players) if index >> i & 1]


def by_orders(values: Array) -> Array:
    """Shapley values: the mean gain over all orders of arrival."""
    players = players_of(values)
    gains = np.zeros(players)
    for order in itertools.permutations(range(players)):
        there = 0
        for i in order:
            gains[i] += values[there | 1 << i] - values[there]
            there |= 1 << i
    return gains / math.factorial(players)


def by_subsets(values: Array) -> Array:
    """Shapley values by their weights |S|! (M - |S| - 1)! / M!."""
    players = players_of(values)
    result = np.zeros(players)
    for index in range(len(values)):
        size = len(members(index, players))
        for i in set(range(players)) - set(members(index, players)):
            weight = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
            result[i] += weight * (values[index | 1 << i] - values[index])
    return result


def derivative(values: Array, team: tuple[int, ...], index: int) -> float:
    """Delta_T v(S), S without the team."""
    total = 0.0
    for size in range(len(team) + 1):
        for part in itertools.combinations(team, size):
            total += (-1) ** (len(team) - size) * values[index | sum(1 << i for i in part)]
    return total


def interaction(values: Array, team: tuple[int, ...], index: str, order: int) -> float:
    """One interaction index of one set of players."""
    players, size = players_of(values), len(team)
    if index == "stii" and size < order:
        return derivative(values, team, 0)
    total = 0.0
    for s in range(len(values)):
        inside = members(s, players)
        if set(inside) & set(team):
            continue
        k = len(inside)
        weight = {
            "sii": math.factorial(k) * math.factorial(players - k - size) / math.factorial(players - size + 1),
            "stii": order / players / math.comb(players - 1, k),
            "banzhaf": 1 / 2 ** (players - size),
        }[index]
        total += weight * derivative(values, team, s)
    return total


def weighted_regression(values: Array, indices: Array, weights: Array) -> Array:
    """Least squares with the sum as a hard constraint, by its Lagrangian."""
    players = players_of(values)
    z = (np.asarray(indices)[:, None] >> np.arange(players) & 1).astype(float)
    target = values[indices] - values[0]
    gram = z.T @ (weights[:, None] * z)
    system = np.block([[gram, np.ones((players, 1))], [np.ones((1, players)), np.zeros((1, 1))]])
    right = np.append(z.T @ (weights * target), values[-1] - values[0])
    return np.linalg.lstsq(system, right, rcond=None)[0][:-1]


def marginal_game(f: Callable[[Array], float], x: Array, background: Array, labels: Array) -> Array:
    """All values: the mean of f over rows, elements of absent players from the row."""
    players = int(labels.max()) + 1
    values = np.zeros(2**players)
    for index in range(2**players):
        on = np.isin(labels, members(index, players))
        values[index] = np.mean([f(np.where(on, x, row)) for row in background])
    return values


def gaussian_game(weights: Array, mean: Array, covariance: Array, x: Array) -> Array:
    """All values of w E[X | X_S = x_S] for a Gaussian X."""
    players = len(weights)
    values = np.zeros(2**players)
    for index in range(2**players):
        s = members(index, players)
        rest = [i for i in range(players) if i not in s]
        likely = mean.copy()
        likely[s] = x[s]
        if s:
            inverse = np.linalg.inv(covariance[np.ix_(s, s)])
            likely[rest] += covariance[np.ix_(rest, s)] @ inverse @ (x[s] - mean[s])
        values[index] = weights @ likely
    return values


def odd_process(values: Array, indices: Array, rho: Array) -> tuple[Array, Array]:
    """(mean, standard deviation) of Shapley values under the prior of `gaussian_process`, by its coefficients.

    One coefficient for every odd set A, of prior variance prod rho; the evaluations are those of the pairs of
    `indices` and of everybody. Coefficients are scaled so that the prior variance of g is the fitted one.
    """
    players = players_of(values)
    odd = [a for k in range(1, players + 1, 2) for a in itertools.combinations(range(players), k)]
    rows = np.append(indices, len(values) - 1)
    signs = 2.0 * (rows[:, None] >> np.arange(players) & 1) - 1
    features = np.array([[np.prod(s[list(a)]) for a in odd] for s in signs])
    prior = np.array([np.prod(rho[list(a)]) for a in odd])
    prior = prior / prior.sum()
    g = (values[rows] - values[len(values) - 1 - rows]) / 2
    covariance = features * prior @ features.T
    gain = prior[:, None] * np.linalg.solve(covariance, features).T
    left = np.diag(prior) - gain @ features * prior
    shares = np.array([[2 / len(a) if i in a else 0.0 for a in odd] for i in range(players)])
    scale = g @ np.linalg.solve(covariance, g) / len(g)
    variance = scale * np.einsum("ia,ab,ib->i", shares, left, shares)
    return shares @ gain @ g, np.sqrt(np.maximum(variance, 0))
