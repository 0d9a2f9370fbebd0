"""Slow float64 derivations of the densities and coordinates of prototypes, from their definitions, in numpy."""

import numpy as np


def covariance(rows, shrinkage):
    """Entry by entry, of the sum of squares over n; drawn to its mean diagonal entry."""
    n, d = rows.shape
    mean = [sum(rows[:, i]) / n for i in range(d)]
    plain = np.array(
        [[sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows) / n for j in range(d)] for i in range(d)]
    )
    level = sum(plain[i, i] for i in range(d)) / d
    return (1 - shrinkage) * plain + shrinkage * level * np.eye(d)


def gaussian_log_density(x, mean, cov):
    """By the chain rule: each number given those before it is a Gaussian in one dimension."""
    result = 0.0
    for i in range(len(x)):
        weights = np.linalg.solve(cov[:i, :i], cov[:i, i]) if i else np.zeros(0)
        centre = mean[i] + weights @ (x[:i] - mean[:i])
        variance = cov[i, i] - weights @ cov[:i, i]
        result += -0.5 * (x[i] - centre) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    return result


def expectation_maximisation(rows, means, shrinkage, steps):
    """(log-likelihoods before each step, shares, means, shared covariance), example by example."""
    n, d = rows.shape
    count = len(means)
    cov, shares, means = covariance(rows, shrinkage), np.full(count, 1 / count), np.array(means)
    trace = []
    for _ in range(steps):
        joint = np.array(
            [[shares[k] * np.exp(gaussian_log_density(r, means[k], cov)) for k in range(count)] for r in rows]
        )
        trace.append(np.mean(np.log(joint.sum(1))))
        parts = joint / joint.sum(1)[:, None]
        shares = parts.sum(0) / n
        means = np.array([sum(parts[i, k] * rows[i] for i in range(n)) / parts[:, k].sum() for k in range(count)])
        within = np.zeros((d, d))
        for i in range(n):
            for k in range(count):
                within += parts[i, k] * np.outer(rows[i] - means[k], rows[i] - means[k]) / n
        cov = (1 - shrinkage) * within + shrinkage * np.trace(within) / d * np.eye(d)
    return np.array(trace), shares, means, cov


def hartley_matrix(height, width):
    """cos + sin of every frequency at every pixel, orthonormal; rows are frequencies."""
    matrix = np.zeros((height * width, height * width))
    for a in range(height):
        for b in range(width):
            for i in range(height):
                for j in range(width):
                    angle = 2 * np.pi * (a * i / height + b * j / width)
                    matrix[a * width + b, i * width + j] = np.cos(angle) + np.sin(angle)
    return matrix / np.sqrt(height * width)


def frequency_scales(height, width, decay):
    """1 over the length of each frequency, of mean square 1."""
    lengths = np.zeros((height, width))
    for a in range(height):
        for b in range(width):
            u, v = min(a, height - a) / height, min(b, width - b) / width
            lengths[a, b] = max(np.hypot(u, v), 1 / max(height, width))
    scales = lengths**-decay
    return scales / np.sqrt(np.mean(scales**2))
