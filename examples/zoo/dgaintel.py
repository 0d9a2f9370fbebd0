"""A recurrent network that tells domain names made by a program from others, in plain `jax.numpy`.

Malware finds its servers under names such as "xjwqzkbvtplmr.com" that a domain generation algorithm makes up.
The network reads a name letter by letter: embedding, convolution with a ReLU, max pool, a recurrent layer
(LSTM) as `jax.lax.scan`, one dense unit. Explain a function of the embedded letters: letters themselves are
whole numbers, which nothing can be differentiated by.

References:
    Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 1997.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .packages import package_folder

LENGTH, WIDTH, UNITS = 82, 128, 64
ALPHABET = "-.0123456789_abcdefghijklmnopqrstuvwxyz"
"""The letters by index. "-" also fills a name up to its 82 places: the network cannot tell the two apart."""

_REQUIREMENT = "dgaintel==2.3"


class DomainClassifier(NamedTuple):
    """The classifier as pure functions of one name.

    Attributes:
        embed: `embed(name)`, from a domain name to (82, 128), one vector for each letter and then padding.
        logit: `logit(embedded)`, from these to a number, above 0 for a name that looks machine-made; its
            sigmoid is the probability.
        params: the pytree of arrays that `logit` closes over: `conv`, `lstm` and `dense`.
        apply: `apply(params, embedded)`, the same with the parameters as an argument.
    """

    embed: Callable[[str], jax.Array]
    logit: Callable[[jax.Array], jax.Array]
    params: Any
    apply: Callable[[Any, jax.Array], jax.Array]


def load() -> DomainClassifier:
    """The pretrained network."""
    weights = load_weights()
    table = jnp.asarray(weights.pop("embedding"))
    params = jax.tree.map(jnp.asarray, weights)

    def embed(name: str) -> jax.Array:
        return table[encode(name)]

    def logit(embedded: jax.Array) -> jax.Array:
        return apply(params, embedded)

    return DomainClassifier(embed=embed, logit=logit, params=params, apply=apply)


def apply(params: Any, embedded: jax.Array) -> jax.Array:
    """The logit of a name embedded as (82, 128)."""
    conv, lstm, dense = params["conv"], params["lstm"], params["dense"]
    x = jax.lax.conv_general_dilated(
        embedded[None], conv["kernel"], (1,), "SAME", dimension_numbers=("NHC", "HIO", "NHC")
    )
    x = jax.nn.relu(x + conv["bias"])
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 1), (1, 2, 1), "SAME")[0]

    def step(state: tuple[jax.Array, jax.Array], letters: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        output, cell = state
        gates = letters @ lstm["kernel"] + output @ lstm["recurrent_kernel"] + lstm["bias"]
        enter, keep, candidate, leave = jnp.split(gates, 4)
        cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(enter) * jnp.tanh(candidate)
        return (jax.nn.sigmoid(leave) * jnp.tanh(cell), cell), None

    start = jnp.zeros(UNITS, x.dtype)
    (output, _), _ = jax.lax.scan(step, (start, start), x)
    return jnp.squeeze(output @ dense["kernel"] + dense["bias"], axis=-1)


def encode(name: str) -> np.ndarray:
    """A name's letters as indices (82,) int32; a letter outside `ALPHABET` is taken as ".", as its authors do."""
    letters = name.lower()
    if not 0 < len(letters) <= LENGTH:
        raise ValueError(f"a domain name must have from 1 to {LENGTH} letters, got {len(letters)}")
    known = [ALPHABET.index(letter if letter in ALPHABET else ".") for letter in letters]
    return np.array(known + [0] * (LENGTH - len(known)), np.int32)


def load_weights() -> dict[str, Any]:
    """Pretrained weights as numpy arrays: `embedding` (39, 128) and, in Keras' layout, the layers' parameters.

    `conv` holds `kernel` (3, 128, 128) and `bias`; `lstm` holds `kernel`, `recurrent_kernel` and `bias`, whose
    last axis is the gates input, forget, candidate, output; `dense` holds `kernel` (64, 1) and `bias`.
    """
    import h5py

    names = {"conv": "conv1d_4", "lstm": "lstm_4", "dense": "dense_4"}
    path = package_folder("dgaintel", requirement=_REQUIREMENT) / "domain_classifier_model.h5"
    with h5py.File(path) as file:

        def read(layer: str) -> dict[str, np.ndarray]:
            group = file[f"model_weights/{layer}/{layer}"]
            assert isinstance(group, h5py.Group)
            return {name.removesuffix(":0"): np.asarray(value) for name, value in group.items()}

        weights: dict[str, Any] = {ours: read(theirs) for ours, theirs in names.items()}
        weights["embedding"] = read("embedding_4")["embeddings"]
    return weights
