"""Slow float64 derivations of the gradient and path methods, loop by loop from the papers' definitions.

Nothing here is shared with the library. What is explained comes as a callable, mostly its gradient (`jax.grad`
of the bare network, which the central differences check in turn).
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

Array = np.ndarray
Function = Callable[[Array], Array]
Gradient = Callable[[Array], Array]


def central_differences(f: Function, x: Array, where: Array, step: float = 1e-6) -> Array:
    """df/dx_i as (f(x + h e_i) - f(x - h e_i)) / 2h: off by about 1e-16 |f| / h, and by a kink if one is within h.

    For the flat indices i in `where`. `f` takes all the points at once, on a leading axis.
    """
    moves = step * np.eye(x.size)[where].reshape(-1, *x.shape)
    there, back = (np.asarray(f(x[None] + sign * moves)) for sign in (1, -1))
    return (there - back) / (2 * step)


def path_integral(
    gradient: Gradient, x: Array, baseline: Array, alphas: Sequence[float], weights: Sequence[float]
) -> Array:
    """Integrated gradients (Sundararajan et al. 2017, eq. 3) for given nodes on the straight path."""
    difference = np.asarray(x, np.float64) - baseline
    total = np.zeros_like(difference)
    for alpha, weight in zip(alphas, weights, strict=True):
        total += weight * np.asarray(gradient(baseline + alpha * difference))
    return difference * total


def nodes(rule: str, n: int) -> tuple[list[float], list[float]]:
    """Nodes on [0, 1] and weights of a quadrature with n evaluations."""
    if rule == "left":
        return [k / n for k in range(n)], [1 / n] * n
    if rule == "right":
        return [(k + 1) / n for k in range(n)], [1 / n] * n
    if rule == "midpoint":
        return [(2 * k + 1) / (2 * n) for k in range(n)], [1 / n] * n
    if rule == "trapezoid":
        ends = [1 / (2 * (n - 1))]
        return [k / (n - 1) for k in range(n)], ends + [1 / (n - 1)] * (n - 2) + ends
    return golub_welsch(n)


def golub_welsch(n: int) -> tuple[list[float], list[float]]:
    """Gauss-Legendre from the eigenvalues of the Legendre polynomials' recurrence (Golub and Welsch 1969)."""
    k = np.arange(1, n)
    below = k / np.sqrt(4.0 * k**2 - 1)
    roots, vectors = np.linalg.eigh(np.diag(below, 1) + np.diag(below, -1))
    return list((roots + 1) / 2), list(vectors[0] ** 2)


def expected_gradients(gradient: Gradient, x: Array, background: Array, steps: int = 400) -> Array:
    """The mean over all references of the path integral (Erion et al. 2021, eq. 4), by a fine midpoint rule."""
    total = np.zeros(x.shape)
    for reference in background:
        total += path_integral(gradient, x, np.asarray(reference, np.float64), *nodes("midpoint", steps))
    return total / len(background)


def heat(length: int, sigma: float) -> Array:
    """Gaussian blur of a line of cells: the heat equation with no flow through the ends, after time sigma^2 / 2.

    du_i/dt = u_{i-1} - 2 u_i + u_{i+1}, where a neighbour outside is u_i itself.
    """
    generator = np.zeros((length, length))
    for i in range(length):
        for j in (i - 1, i + 1):
            if 0 <= j < length:
                generator[i, j] += 1
                generator[i, i] -= 1
    return scipy.linalg.expm(sigma**2 / 2 * generator)


def blurred(image: Array, sigma: float) -> Array:
    """Each channel of an image (height, width, channels) blurred, rows and columns."""
    rows, columns = heat(image.shape[0], sigma), heat(image.shape[1], sigma)
    channels = [rows @ image[:, :, c] @ columns.T for c in range(image.shape[2])]
    return np.stack(channels, axis=-1)


def blur_integrated_gradients(gradient: Gradient, image: Array, max_sigma: float, steps: int) -> Array:
    """Xu et al. 2020, eq. 6, with sigma = max_sigma u^2 at Gauss-Legendre nodes u.

    The blur's derivative by sigma comes from fourth-order central differences, exact to about 1e-12.
    """
    total = np.zeros(image.shape)
    for u, weight in zip(*golub_welsch(steps), strict=True):
        sigma = max_sigma * u**2
        h = 1e-3 * max(1.0, sigma)
        far = blurred(image, sigma - 2 * h) - blurred(image, sigma + 2 * h)
        near = blurred(image, sigma + h) - blurred(image, sigma - h)
        velocity = (far + 8 * near) / (12 * h)
        total -= weight * np.asarray(gradient(blurred(image, sigma))) * velocity * (2 * max_sigma * u)
    return total


def guided_integrated_gradients(
    gradient: Gradient, x: Array, baseline: Array, steps: int, fraction: float
) -> Array:
    """Kapishnikov et al. 2021, algorithm 1, with the corridor as wide as the whole box.

    The distance to x is to fall linearly. Within a step the features at or below the `fraction` quantile of
    |gradient| (the order statistic below it; features that have arrived count as infinite) move all the way,
    group by group, until a group need move only part of it to reach the step's distance.
    """
    point, credit = np.array(baseline, np.float64), np.zeros(x.shape)
    whole = np.abs(x - point).sum()
    for step in range(1, steps + 1):
        target = whole * (1 - step / steps)
        slope = np.asarray(gradient(point))
        while (distance := np.abs(x - point).sum()) > target + 1e-13 * whole:
            size = np.where(point == x, np.inf, np.abs(slope))
            threshold = np.quantile(size, fraction, method="lower")
            chosen = (size <= threshold) & np.isfinite(size)
            reach = np.abs(x - point)[chosen].sum()
            share = min(1.0, (distance - target) / reach)
            moved = np.where(chosen, x if share == 1.0 else point + share * (x - point), point)
            credit += (moved - point) * slope
            point = moved
    return credit
