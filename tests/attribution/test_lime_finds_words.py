"""LIME finds the words that a model is known to use: the published claim, on fewer texts."""

import numpy as np
import pytest

from benchmarks.published import lime

NUMERICS = "plain"


@pytest.mark.parametrize("make", [lime.sparse_logistic, lime.small_tree], ids=lambda make: make.__name__)
def test_recall_of_used_words(make):
    """Of the ten largest weights at 1000 samples; among 25 words, ten by chance would hold two fifths."""
    assert np.mean(list(lime.recalls(make, seed=0, texts=15))) >= 0.95


def test_the_models_use_what_they_are_said_to():
    """A word that is said to be used changes the model's output, alone or with others; the others never do."""
    bags, labels = lime.corpus(np.random.default_rng(0), 400)
    model, used = lime.sparse_logistic(bags, labels)
    bag = next(bag for bag in bags if used(bag))
    for word in np.flatnonzero(bag):
        without = bag.copy()
        without[word] = 0
        assert (abs(float(model(bag) - model(without))) > 1e-6) == (word in used(bag))
    tree, path = lime.small_tree(bags, labels)
    bag = next(bag for bag in bags if path(bag))
    kept = np.zeros_like(bag)
    kept[list(path(bag))] = 1
    assert float(tree(kept)) == float(tree(bag))
