"""What the studies of units, classes and segments claim, on one network; and the pictures of the example."""

import json
import os
import subprocess
import sys
from pathlib import Path

import inside_network
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
# In a process of its own: the tests' XLA is told to optimise little, and runs convolutions a hundred times slower.
STUDY = """
import json
from benchmarks.published import inside
print(json.dumps({
    "knock_out": inside.knock_out(0, "dense"),
    "experts": inside.experts(0, 0.1, mean=True),
    "deviations": inside.deviations(0, "conv2"),
    "segmentation": inside.segmentation(0, pairs=8),
}))
"""


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def study():
    return json.loads(run("-c", STUDY).splitlines()[-1])


def test_without_its_most_influential_units_little_is_left_of_a_class(study):
    assert study["knock_out"]["random"] > 0.8
    assert study["knock_out"]["influence"] <= 0.3
    assert study["knock_out"]["influence"] < study["knock_out"]["activation"]


def test_experts_know_their_class_and_not_by_always_saying_yes(study):
    assert study["experts"]["AUC"] > 0.95
    assert study["experts"]["balanced accuracy"] > 0.75
    assert study["experts"]["false positives"] < 0.3


def test_deviation_from_the_profile_tells_misclassified_digits(study):
    assert study["deviations"]["errors"] > 0.03
    assert study["deviations"]["profile"] >= 0.8


def test_grab_cut_is_better_than_any_threshold(study):
    assert study["segmentation"]["GrabCut"] >= study["segmentation"]["best threshold"] + 0.05


def test_the_example_writes_its_pictures(tmp_path):
    printed = run(str(ROOT / "examples" / "inside_network.py"), "--out", str(tmp_path))
    assert "tiger cat rather than Egyptian cat" in printed
    for name in ("inside_channels.png", "inside_essence.png", "inside_features.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 600
            assert np.asarray(picture.convert("L")).std() > 20


def test_numbers_that_the_comments_of_the_example_give():
    """A unit in the middle sees a square of 83 pixels: kernels less 1, times the strides so far, are 82."""
    import jax.numpy as jnp
    import zoo.lite0_linen

    from jaxplain import interior

    find = interior.receptive_field(zoo.lite0_linen.load().logits, inside_network.SITE, (7, 7, 0))
    box = interior.bounding_box(find(jnp.zeros((224, 224, 3))))
    np.testing.assert_array_equal(box.stop - box.start, [83, 83, 3])
