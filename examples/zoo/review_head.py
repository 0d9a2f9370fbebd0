"""Does a film critic praise or blame? A linear head on the frozen MiniLM encoder, trained here in seconds.

The data are snippets of film reviews that twenty readers each rated from -4 to 4 (Hutto and Gilbert 2014).
Kept are those with a clear verdict, a mean rating beyond 1 either way, of at most 24 tokens. The head is a
logistic regression with a ridge penalty on the sentence vectors, solved by Newton's method.

References:
    Hutto and Gilbert, "VADER: A parsimonious rule-based model for sentiment analysis of social media text",
    ICWSM 2014.
"""

import functools
import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import minilm
from .packages import MissingPackageError
from .torch_weights import WeightsError

LENGTH = 24
NUM_TRAIN, NUM_HELD_OUT = 1200, 300
RIDGE = 100.0

_REQUIREMENT = "vaderSentiment==0.5"
_ARCHIVE = Path(sys.prefix) / "share" / "vaderSentiment-0.5.zip"  # beside the environment's packages
_SHA256 = "5d97c37f3ef6e24e"
_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "minilm"
_BATCH = 50


class Snippet(NamedTuple):
    """A sentence or two of a review, and its mean rating from -4 (blame) to 4 (praise)."""

    text: str
    rating: float


class Reviewer(NamedTuple):
    """The classifier as pure functions of one sentence.

    Attributes:
        logit: `logit(embeddings, mask=None)`, from (T, 384) as `embed` makes them to a number, above 0 for
            praise.
        embed: `embed(ids)`, from (T,) ids to (T, 384); see `minilm.Encoder`.
        blank: `blank(ids)`, (T, 384) of the text with all its pieces masked: a baseline.
        tokenize: `tokenize(text, length=None)`, a text's `minilm.Tokens`.
        params: the pytree of arrays that `logit` closes over: `encoder`, and `head` with `weight` (384,) and
            `bias` ().
        apply: `apply(params, embeddings, mask=None)`, the same with the parameters as an argument.
        accuracy: share of the 300 snippets kept out of the training that it gets right.
    """

    logit: Callable[..., jax.Array]
    embed: Callable[[Any], jax.Array]
    blank: Callable[[Any], jax.Array]
    tokenize: Callable[..., minilm.Tokens]
    params: Any
    apply: Callable[..., jax.Array]
    accuracy: float


def load() -> Reviewer:
    """The pretrained encoder with a head trained on 1200 snippets; their vectors are kept under `.cache`."""
    encoder = minilm.load()
    train, held_out = split()
    vectors = encode_all(encoder, [snippet.text for snippet in train + held_out])
    praise = np.array([snippet.rating > 0 for snippet in train + held_out])
    weight, bias = fit(vectors[:NUM_TRAIN], praise[:NUM_TRAIN])
    right = (vectors[NUM_TRAIN:] @ weight + bias > 0) == praise[NUM_TRAIN:]
    head = {"weight": jnp.asarray(weight, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    params = {"encoder": encoder.params, "head": head}

    def apply(params: Any, embeddings: jax.Array, mask: Any = None) -> jax.Array:
        vector = encoder.apply(params["encoder"], embeddings, mask)
        return vector @ params["head"]["weight"] + params["head"]["bias"]

    def logit(embeddings: jax.Array, mask: Any = None) -> jax.Array:
        return apply(params, embeddings, mask)

    return Reviewer(
        logit=logit,
        embed=encoder.embed,
        blank=encoder.blank,
        tokenize=encoder.tokenize,
        params=params,
        apply=apply,
        accuracy=float(right.mean()),
    )


def split() -> tuple[list[Snippet], list[Snippet]]:
    """The 1200 snippets to train on and 300 others, both drawn at random, always the same."""
    every = snippets()
    chosen = np.random.default_rng(0).permutation(len(every))[: NUM_TRAIN + NUM_HELD_OUT]
    drawn = [every[i] for i in chosen]
    return drawn[:NUM_TRAIN], drawn[NUM_TRAIN:]


@functools.cache
def snippets() -> tuple[Snippet, ...]:
    """Every clear snippet of at most 24 tokens, without repetitions, in the order of the data set."""
    texts = {}
    for line in _lines():
        _, rating, text = line.split("\t")
        if abs(float(rating)) > 1:
            texts.setdefault(text.strip(), float(rating))
    return tuple(
        Snippet(text, rating) for text, rating in texts.items() if len(minilm.tokenize(text).ids) <= LENGTH
    )


def _lines() -> list[str]:
    if not _ARCHIVE.is_file():
        command = f"pip download --no-deps --no-binary vadersentiment -d '{_ARCHIVE.parent}' '{_REQUIREMENT}'"
        raise MissingPackageError(f"the film reviews are not there; they come with: {command}")
    content = _ARCHIVE.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if not digest.startswith(_SHA256):
        raise WeightsError(f"{_ARCHIVE.name} is damaged: its sha256 begins {digest[:16]}, expected {_SHA256}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        inner = archive.read("vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as folder:
        file = folder.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        assert file is not None
        return file.read().decode("latin-1").splitlines()


def encode_all(encoder: minilm.Encoder, texts: Sequence[str]) -> np.ndarray:
    """The vectors (N, 384) of many texts, each cut at 24 tokens; read from `.cache` if made before."""
    key = hashlib.sha256("\n".join([minilm.REQUIREMENT, str(LENGTH), *texts]).encode()).hexdigest()[:16]
    path = _CACHE / f"{key}.npy"
    if path.is_file():
        return np.load(path)

    # This runs far longer than it compiles: optimise fully, whatever the flags of the process say.
    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 3})
    def encode(params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return jax.vmap(lambda i, m: encoder.apply(params, encoder.embed(i), m))(ids, mask)

    tokens = [encoder.tokenize(text, LENGTH) for text in texts]
    tokens += [tokens[0]] * (-len(tokens) % _BATCH)
    batches = [tokens[i : i + _BATCH] for i in range(0, len(tokens), _BATCH)]
    stacked = [(np.stack([t.ids for t in batch]), np.stack([t.mask for t in batch])) for batch in batches]
    vectors = np.concatenate([encode(encoder.params, ids, mask) for ids, mask in stacked])[: len(texts)]
    _CACHE.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.npy")
    np.save(partial, vectors)
    partial.replace(path)  # whole or not at all, also when two processes do this at once
    return vectors


def fit(
    vectors: np.ndarray, labels: np.ndarray, *, ridge: float = RIDGE, steps: int = 8
) -> tuple[np.ndarray, float]:
    """Logistic regression by Newton's method in float64: weight (width,) and bias.

    Minimises the sum of the logistic losses plus `ridge / 2` times the squared norm of the weight, in units in
    which the entries of the vectors have root mean square 1. The bias is not penalised.
    """
    unit = np.sqrt(np.mean(np.square(vectors, dtype=np.float64)))
    x = np.concatenate([vectors / unit, np.ones((len(vectors), 1))], axis=1)
    penalty = np.append(np.full(vectors.shape[1], ridge), 0.0)
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ w))
        curvature = (x.T * (p * (1 - p))) @ x + np.diag(penalty)
        w -= np.linalg.solve(curvature, x.T @ (p - labels) + penalty * w)
    return w[:-1] / unit, float(w[-1])
