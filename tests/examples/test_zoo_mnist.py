"""The digit classifier: accuracy, agreement with a slow reading of its layers, and errors."""

import jax
import numpy as np
import pytest
from jax.tree_util import keystr, tree_leaves, tree_leaves_with_path
from zoo import WeightsError, load_state_dict, mnist_cnn
from zoo.packages import package_folder


@pytest.fixture(scope="module")
def network():
    return mnist_cnn.load()


@pytest.fixture(scope="module")
def digits():
    return mnist_cnn.digits()


@pytest.fixture(scope="module")
def logits(network, digits):
    return np.asarray(
        jax.jit(jax.vmap(network.logits))(np.stack([mnist_cnn.preprocess(d.pixels) for d in digits]))
    )


def test_every_digit_is_read(logits, digits):
    labels = [digit.label for digit in digits]
    assert labels[:10] == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # MNIST's test set begins so
    assert len(labels) == 20
    assert logits.argmax(axis=-1).tolist() == labels
    assert jax.nn.softmax(logits)[np.arange(20), labels].min() > 0.95


def _slowly(state, x):
    """The network in PyTorch's layout and order, (channels, height, width), straight from its definition."""
    for i in (0, 3, 6):
        weight, bias = (state[f"conv_layers.{i}.{name}"].astype(float) for name in ("weight", "bias"))
        patches = np.lib.stride_tricks.sliding_window_view(np.pad(x, [(0, 0), (1, 1), (1, 1)]), (3, 3), (1, 2))
        x = np.maximum(np.einsum("chwij,ocij->ohw", patches, weight) + bias[:, None, None], 0)
        rows, columns = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * rows, : 2 * columns].reshape(len(x), rows, 2, columns, 2).max(axis=(2, 4))
    x = np.maximum(state["fc_layers.0.weight"] @ x.reshape(-1) + state["fc_layers.0.bias"], 0)
    return state["fc_layers.2.weight"] @ x + state["fc_layers.2.bias"]


def test_logits_agree_with_the_definition(logits, digits):
    folder = package_folder("digit_recognizer")
    state = load_state_dict(folder / "models" / "handwriting_model.pth")
    for digit, actual in list(zip(digits, logits, strict=True))[:5]:
        expected = _slowly(state, (digit.pixels[None] / 255.0 - 0.1307) / 0.3081)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_logits_close_over_exactly_the_params(network):
    x = np.zeros((28, 28, 1), np.float32)
    constants = jax.make_jaxpr(network.logits)(x).consts
    assert {id(c) for c in constants} == {id(leaf) for leaf in tree_leaves(network.params)}
    assert jax.eval_shape(network.apply, network.params, x).shape == (10,)
    paths = {keystr(path, simple=True, separator="/") for path, _ in tree_leaves_with_path(network.params)}
    assert {"conv0/kernel", "conv2/bias", "dense0/kernel", "dense1/bias"} <= paths


def test_preprocess():
    x = mnist_cnn.preprocess(np.full((28, 28), 255, np.uint8))
    assert (x.shape, x.dtype) == ((28, 28, 1), np.float32)
    np.testing.assert_allclose(x, (1 - 0.1307) / 0.3081, rtol=1e-6)


@pytest.mark.parametrize(
    "bad", [np.zeros((28, 28)), np.zeros((28, 28, 1), np.uint8), np.zeros((27, 28), np.uint8)]
)
def test_preprocess_refuses_other_arrays(bad):
    with pytest.raises(ValueError, match="expected uint8"):
        mnist_cnn.preprocess(bad)


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "handwriting_model.pth").write_bytes(b"something else")
    monkeypatch.setattr(mnist_cnn, "package_folder", lambda *_, **__: tmp_path)
    with pytest.raises(WeightsError, match="is damaged"):
        mnist_cnn.load_weights()
