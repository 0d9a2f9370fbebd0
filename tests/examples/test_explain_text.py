"""A sentence explained: words are taken away whole, values keep their promises, and the page shows them."""

import html

import explain_text
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import minilm, review_head

WORDS = ["[CLS]", "not", "dread", "##ful", ",", "[SEP]", "[PAD]", "[PAD]"]
TOKENS = minilm.Tokens(WORDS, np.arange(8, dtype=np.int32), np.array([1.0] * 6 + [0.0] * 2, np.float32))
WEIGHTS = jnp.array([0.5, -1.0, -2.0, -1.0, 0.0, 0.3, 9.0, 9.0])[:, None] * jnp.array([1.0, 0.5])


def logit(x, mask):
    """Additive, but for two words that together turn the verdict."""
    each = (x * WEIGHTS).sum(1) * mask
    return each.sum() + 2 * x[1, 0] * x[2, 0]


def embed(ids):
    return jnp.ones((len(ids), 2))


def blank(ids):
    return jnp.asarray(np.isin(ids, (0, 5, 6, 7)), jnp.float32)[:, None] * embed(ids)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(explain_text, "COPIES", 32)


def test_pieces_belong_to_their_word_and_marks_to_none():
    np.testing.assert_array_equal(explain_text.words_of(TOKENS), [-1, 0, 1, 1, 2, -1, -1, -1])


def test_words_get_what_they_add():
    found = explain_text.explainer(logit)(TOKENS, embed(TOKENS.ids), blank(TOKENS.ids))
    assert list(found) == list(explain_text.NOTES)
    difference = 1.5 * (-1 - 2 - 1) + 2
    for name in ("DeepLIFT", "integrated gradients", "Kernel SHAP"):
        assert found[name].explained == pytest.approx(difference)
        assert found[name].values.sum() == pytest.approx(difference, abs=1e-4)
    # By hand: each of the two words gets half of what they do together; the second has two pieces.
    want = [0, -1.5 + 1, (-4.5 + 1) / 2, (-4.5 + 1) / 2, 0, 0, 0, 0]
    np.testing.assert_allclose(found["Kernel SHAP"].values, want, atol=1e-4)
    lime = found["LIME"]
    # Near the whole sentence the second word is mostly there, and with it the first raises the score.
    np.testing.assert_allclose(np.sign(lime.values[:4]), [0, 1, -1, -1])
    assert lime.values[2] == lime.values[3]
    assert "R²" in lime.trust
    assert "standard error 0.00" in found["Kernel SHAP"].trust


def test_the_page_has_every_sentence_by_every_method(tmp_path, monkeypatch, capsys):
    def load():
        return review_head.Reviewer(logit, embed, blank, lambda *_: TOKENS, {}, lambda *_: logit, 0.8)

    monkeypatch.setattr(review_head, "load", load)
    monkeypatch.setenv("COLUMNS", "120")
    (path,) = explain_text.main(["--out", str(tmp_path / "new")])
    page, printed = path.read_text(encoding="utf-8"), capsys.readouterr().out
    assert printed.splitlines()[-1] == str(path)
    for name, note in explain_text.NOTES.items():
        assert f"<b>{name}</b>" in page
        assert html.escape(note) in page
        assert page.count(f"blame (-2.80): {name}, sum") == len(explain_text.SENTENCES)
        assert name in printed
    assert "[PAD]" not in page
