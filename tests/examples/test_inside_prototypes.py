"""Prototypes of digits: what the expert finds in one network, another one recognises; the picture is drawn."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import inside_prototypes
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def climbed(tmp_path_factory):
    """With fewer starts and steps than the script's, in a process of its own.

    The tests' XLA optimises little: there the same climb takes minutes.
    """
    root = Path(__file__).parents[2]
    path = tmp_path_factory.mktemp("prototypes") / "found.pickle"
    code = (
        "import pickle, sys, inside_prototypes as m; m.STARTS, m.STEPS = 4, 160; "
        "pickle.dump(m.compute(0, ('plain', 'expert')), open(sys.argv[1], 'wb'))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["PYTHONPATH"] = os.pathsep.join([str(root / "examples"), str(root)])
    subprocess.run([sys.executable, "-c", code, str(path)], env=environment, check=True)
    return pickle.loads(path.read_bytes())


def test_a_second_network_recognises_the_experts_prototypes(climbed):
    found, components = climbed
    expert = found["expert"]
    assert components in inside_prototypes.COMPONENTS
    assert expert.recognised >= 9
    assert np.diag(expert.a).min() >= inside_prototypes.SURE
    assert expert.strength > min(inside_prototypes.STRENGTHS)  # the choice is one, and not the end of the list
    assert expert.info.finite.all()
    np.testing.assert_allclose(np.exp(expert.info.value), np.diag(expert.a), rtol=1e-3)


def test_they_lie_among_the_digits_and_plain_ones_do_not(climbed):
    """Which recognition by a second network does not show: networks share what they are fooled by."""
    found, _ = climbed
    labels, apart = inside_prototypes.nearest(found["expert"].images)
    assert (labels == np.arange(10)).sum() >= 9
    assert apart.max() < inside_prototypes.nearest(found["plain"].images)[1].min()


def test_the_script_draws_them(climbed, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inside_prototypes, "compute", lambda seed: climbed)
    monkeypatch.setenv("COLUMNS", "120")
    (path,) = inside_prototypes.main(["--out", str(tmp_path / "new")])
    with Image.open(path) as picture:
        assert min(picture.size) > 200
        assert np.asarray(picture.convert("L")).std() > 10
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(path)
    assert f"{climbed[0]['expert'].recognised} of 10" in printed


def test_each_network_has_a_half_of_its_own(monkeypatch):
    given = []
    monkeypatch.setattr(
        inside_prototypes.digits_cnn, "train", lambda seed, examples: given.append((seed, examples))
    )
    mine = inside_prototypes.networks(3).images
    (first, a), (second, b) = given
    assert first != second
    assert a.images.shape == b.images.shape == (600, 8, 8, 1)
    np.testing.assert_array_equal(mine, a.images)
    whole = inside_prototypes.digits_cnn.digits()[0]
    together = np.sort(np.concatenate([a.images, b.images]).reshape(1200, -1), 0)
    np.testing.assert_array_equal(together, np.sort(whole.images.reshape(1200, -1), 0))


def test_nearest_is_the_nearest():
    test = inside_prototypes.digits_cnn.digits()[1]
    labels, apart = inside_prototypes.nearest(test.images[:5])
    np.testing.assert_array_equal(labels, test.labels[:5])
    np.testing.assert_allclose(apart, 0, atol=1e-6)
