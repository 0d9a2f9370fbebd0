"""Influence on real data: what the scripts claim holds at small sizes, and each writes its picture."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "training"))  # as for a script that is run

import domain_mismatch
import explain_training
import harmful_images
import kit
import mislabelled
import near_and_far
import poisoned_image
import smooth_hinge


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    """Runs a script with results computed before; returns what it printed."""

    def run(module, result, *_, **__):
        monkeypatch.setattr(module, "compute", lambda *_, **__: result)
        monkeypatch.setenv("COLUMNS", "120")
        (path,) = module.main(["--out", str(tmp_path / "new")])
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert np.asarray(picture.convert("L")).std() > 5
        printed = capsys.readouterr().out
        assert printed.splitlines()[-1] == str(path)
        return printed

    return run


def test_newton_and_adam_find_the_minimum():
    target = np.array([1.0, -2.0, 3.0])
    f = lambda p: ((p["a"] - target) ** 2).sum() + 0.1 * (p["a"] ** 4).sum()
    with jax.enable_x64(True):
        start = {"a": jax.numpy.zeros(3)}
        newton, adam = jax.jit(lambda: (kit.newton(f, start), kit.adam(f, start, steps=1000, rate=0.1)))()
        a = np.asarray(newton.params["a"])
        np.testing.assert_allclose(2 * (a - target) + 0.4 * a**3, 0, atol=1e-9)
        np.testing.assert_allclose(adam.params["a"], a, atol=1e-3)
        assert newton.gradient < 1e-9


def test_agreement_is_blind_to_size_in_r_and_not_in_the_slope():
    actual = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(kit.agreement(3 * actual + 1, actual), (1, 3))
    np.testing.assert_allclose(kit.agreement(-actual, actual), (-1, -1))


def test_digits_are_those_asked_for():
    some = kit.digits(3, 8)
    assert some.x.shape == (183 + 174, 8, 8)
    assert (some.x.min(), some.x.max(), set(some.y.tolist())) == (0, 1, {0, 1})
    first, second = kit.split(some, 100, 50, seed=1)
    assert (len(first.y), len(second.y)) == (100, 50)
    rows = np.concatenate([first.x, second.x]).reshape(150, -1)
    assert len(np.unique(rows, axis=0)) == 150


def test_harmful_images_harm_the_misread_digit(written):
    result = explain_training.compute(num_train=60, num_digits=1, steps=150, more=30)
    assert result.info.converged.all()
    assert (result.read != result.digits.y).all()
    harmful, helpful, random = result.actual.T
    assert (harmful < 0).all()  # the loss falls without them
    assert (helpful > 0).all()
    assert (harmful < random).all()
    assert kit.agreement(result.predicted, result.actual)[0] > 0.8
    assert "residual at most" in written(explain_training, result)


def test_flipped_labels_are_found(written):
    result = mislabelled.compute(num_train=150, seeds=2, classes=(1, 4, 8))
    assert result.gradient < 1e-9
    assert result.residual < 1e-9
    assert result.early("self-influence").mean() > 5 * 0.1
    assert all(met.shape == (2, 150) and np.all(met[:, -1] == 1) for met in result.found.values())
    assert "against plain loss better in" in written(mislabelled, result)


def test_smoothing_the_hinge_helps(written):
    result = smooth_hinge.compute(num_train=80, seeds=1)
    assert result.gap < 1e-5
    (none, _), (narrow, slope), (wide, _) = (np.median(result.agreement(t), 0) for t in smooth_hinge.WIDTHS)
    assert narrow > none
    assert wide > none
    assert narrow > 0.8
    assert 0.5 < slope < 1.5
    assert np.median(result.agreement(0.0), 0)[1] > 3  # the wrong size
    assert "duality gap" in written(smooth_hinge, result)


def test_one_image_can_flip_a_digit(written):
    result = poisoned_image.compute(num_train=30, num_digits=2, sizes=(0.5,), steps=2, classes=(3, 8))
    assert (result.attacked > result.loss).all()
    assert (result.attacked > result.random).all()
    assert result.flipped.all()
    assert (result.predicted > 0).all()
    assert (result.actual > 0).all()
    assert 0.1 < np.abs(result.images - result.original).max() <= 0.5 + 1e-9
    assert "residual" in written(poisoned_image, result)


def test_a_kernel_machine_listens_to_what_is_near(written):
    result = near_and_far.compute(num_train=50, num_tests=10, models=("kernel", "linear"))
    assert np.median(result.near("kernel")) > np.median(result.near("linear"))
    assert min(result.accuracy.values()) > 0.9
    assert "kernel" in written(near_and_far, result)


def test_influence_points_at_the_few_young(written):
    result = domain_mismatch.compute()
    seen, unseen = result.wrong
    assert unseen > seen
    few = result.rare.sum()
    assert (result.ranks() <= few).sum(1).mean() > few / 2
    assert np.median(result.ratio()) > 10
    assert "young" in written(domain_mismatch, result)


def test_the_bad_batch_is_found_and_its_removal_helps_others(written):
    result = harmful_images.compute(num_train=120, num_valid=120, classes=(3, 8), num_random=2)
    assert result.met() > 3 * result.bad.mean()
    everything, harmful, random, _ = result.losses
    assert harmful < everything
    assert harmful < random
    assert result.errors[1] < result.errors[0]
    assert kit.agreement(result.predicted, result.actual)[0] > 0.9
    assert "bad batch" in written(harmful_images, result)
