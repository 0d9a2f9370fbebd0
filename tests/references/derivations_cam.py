"""Slow float64 derivations of the class activation maps, place by place from the papers' definitions.

Activations A and gradients G are numpy arrays (height, width, channels). Nothing here is shared with the library.
"""

from collections.abc import Callable

import numpy as np

Array = np.ndarray


def places(A: Array) -> list[tuple[int, int]]:
    return [(i, j) for i in range(A.shape[0]) for j in range(A.shape[1])]


def weighted(weights: Array, A: Array) -> Array:
    """sum_k w_k A_k."""
    drawn = np.zeros(A.shape[:2])
    for k in range(A.shape[2]):
        drawn += weights[k] * A[:, :, k]
    return drawn


def grad_cam(A: Array, G: Array) -> Array:
    """Selvaraju et al. 2017, eqs. 1 and 2, before the relu."""
    weights = np.zeros(A.shape[2])
    for k in range(A.shape[2]):
        weights[k] = sum(G[i, j, k] for i, j in places(A)) / len(places(A))
    return weighted(weights, A)


def cam(A: Array, head: Array) -> Array:
    """Zhou et al. 2016, eq. 2: `head` is the weight of each channel's mean in the output."""
    return weighted(head, A)


def grad_cam_pp(A: Array, G: Array, *, in_denominator: float = 0.0) -> Array:
    """Chattopadhay et al. 2018, eqs. 10 and 19, before the relu; a term that some add to alpha's denominator."""
    weights = np.zeros(A.shape[2])
    for k in range(A.shape[2]):
        total = sum(A[a, b, k] for a, b in places(A))
        for i, j in places(A):
            g = G[i, j, k]
            if g > 0:  # relu(g) is the factor of alpha
                weights[k] += g * g**2 / (2 * g**2 + total * g**3 + in_denominator)
    return weighted(weights, A)


def xgrad_cam(A: Array, G: Array, *, in_denominator: float = 0.0) -> Array:
    """Fu et al. 2020, eq. 7, before the relu; a term that some add to the denominator."""
    weights = np.zeros(A.shape[2])
    for k in range(A.shape[2]):
        total = sum(A[a, b, k] for a, b in places(A)) + in_denominator
        if total != 0:
            weights[k] = sum(G[i, j, k] * A[i, j, k] / total for i, j in places(A))
    return weighted(weights, A)


def hires_cam(A: Array, G: Array) -> Array:
    """Draelos and Carin 2020, eq. 2."""
    return pointwise(lambda a, g: g * a, A, G)


def layer_cam(A: Array, G: Array) -> Array:
    """Jiang et al. 2021, eqs. 3 and 4, before the relu."""
    return pointwise(lambda a, g: max(g, 0.0) * a, A, G)


def grad_cam_elementwise(A: Array, G: Array) -> Array:
    return pointwise(lambda a, g: max(g * a, 0.0), A, G)


def pointwise(term: Callable[[float, float], float], A: Array, G: Array) -> Array:
    drawn = np.zeros(A.shape[:2])
    for i, j in places(A):
        drawn[i, j] = sum(term(A[i, j, k], G[i, j, k]) for k in range(A.shape[2]))
    return drawn


def score_cam(score: Callable[[Array], float], x: Array, A: Array) -> Array:
    """Wang et al. 2020, eqs. 4 to 6, before the relu; masks interpolated with the corners on each other."""
    scores = np.zeros(A.shape[2])
    for k in range(A.shape[2]):
        mask = resized(A[:, :, k], x.shape[:2], corners_aligned=True)
        spread = mask.max() - mask.min()
        mask = (mask - mask.min()) / (spread if spread > 0 else 1.0)
        scores[k] = score(np.stack([x[:, :, c] * mask for c in range(x.shape[2])], axis=-1))
    shares = np.exp(scores - scores.max())
    return weighted(shares / shares.sum(), A)


def ablation_cam(head: Callable[[Array], float], A: Array, *, scores: type = np.float64) -> Array:
    """Desai and Ramaswamy 2020, eq. 2, before the relu; `head` maps the activation to the output.

    `scores` is the type in which the outputs are kept and compared.
    """
    weights, full = np.zeros(A.shape[2]), scores(head(A))
    for k in range(A.shape[2]):
        without = A.copy()
        without[:, :, k] = 0.0
        weights[k] = (full - scores(head(without))) / full
    return weighted(weights, A)


def first_component(values: Array) -> Array:
    """Muhammad and Yeasin 2020: projection on the leading eigenvector of the covariance; the sign is arbitrary."""
    centred = values.reshape(-1, values.shape[2]) - values.mean((0, 1))
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return (centred @ vectors[:, -1]).reshape(values.shape[:2])


def resized(image: Array, shape: tuple[int, int], *, corners_aligned: bool = False) -> Array:
    """Bilinear interpolation, cell centres at half-integers, or with the corner cells on each other."""
    out = np.zeros(shape)
    for i in range(shape[0]):
        for j in range(shape[1]):
            where = []
            for k, old, new in zip((i, j), image.shape, shape, strict=True):
                at = k * (old - 1) / (new - 1) if corners_aligned else (k + 0.5) * old / new - 0.5
                at = min(max(at, 0.0), old - 1.0)
                low = min(int(np.floor(at)), old - 2)
                where.append((low, at - low))
            (r, v), (c, h) = where
            top = (1 - h) * image[r, c] + h * image[r, c + 1]
            bottom = (1 - h) * image[r + 1, c] + h * image[r + 1, c + 1]
            out[i, j] = (1 - v) * top + v * bottom
    return out
