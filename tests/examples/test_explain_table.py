"""A real table: the values are those of the definition, for both models, and the pictures show them."""

import explain_table
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def found():
    return explain_table.compute(num_test=6, num_background=5, steps=60, trees=10)


def test_values_add_up_and_estimates_come_near(found):
    assert found.x.shape == (6, len(explain_table.COLUMNS))
    assert list(found.models) == [explain_table.NETWORK, explain_table.FOREST]
    for model in found.models.values():
        np.testing.assert_allclose(model.values.sum(1) + model.base, model.predicted, rtol=1e-5)
        np.testing.assert_allclose(model.estimate.sum(1) + model.base, model.predicted, rtol=1e-5)
        assert model.r2 > 0
        ratio = np.square(model.estimate - model.values).mean() / np.square(model.error).mean()
        assert 0.2 < ratio < 5


def test_the_forest_is_explained_as_scikit_learn_has_it():
    """One Shapley value by its definition: a mean over all subsets of what adding the column does."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = x[:, 0] * x[:, 1] + x[:, 2]
    f = explain_table.train_forest(x, y, trees=10)
    row, background = x[0], x[1:4]
    model = explain_table.explain(f, np.repeat(row[None], 2, 0), y[:2], background)

    def worth(*known):
        filled = background.copy()
        filled[:, list(known)] = row[list(known)]
        return np.mean([float(f(jnp.asarray(one))) for one in filled])

    gains = worth(0) - worth(), worth(0, 1) - worth(1), worth(0, 2) - worth(2), worth(0, 1, 2) - worth(1, 2)
    np.testing.assert_allclose(model.values[0, 0], np.dot(gains, [1 / 3, 1 / 6, 1 / 6, 1 / 3]), atol=1e-5)


def test_it_writes_its_pictures(found, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(explain_table, "compute", lambda: found)
    monkeypatch.setenv("COLUMNS", "120")
    paths = explain_table.main(["--out", str(tmp_path / "new")])
    assert [path.stem for path in paths] == ["table_importance", "table_patient", "table_patients"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 1000
            assert np.asarray(picture.convert("L")).std() > 5
    printed = capsys.readouterr().out
    assert printed.splitlines()[-3:] == [str(path) for path in paths]
    for name, model in found.models.items():
        assert name in printed
        assert f"{model.r2:.2f}" in printed
    importance, patient, patients = (figures[1].axes[0] for figures in explain_table.draw(found).values())
    forest = found.models[explain_table.FOREST]
    first = explain_table.COLUMNS[abs(forest.values).mean(0).argmax()]
    assert importance.get_yticklabels()[0].get_text() == patients.get_yticklabels()[0].get_text() == first
    assert " = " in patient.get_yticklabels()[0].get_text()
