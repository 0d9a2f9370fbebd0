"""The pretrained networks of the examples: accuracy, agreement of the frameworks, and errors."""

import re

import jax
import numpy as np
import pytest
import zoo
from jax.tree_util import keystr, tree_leaves, tree_leaves_with_path
from PIL import Image
from zoo import lite0_equinox, lite0_linen, lite0_nnx
from zoo.packages import package_folder

FRAMEWORKS = {"linen": lite0_linen, "nnx": lite0_nnx, "equinox": lite0_equinox}


@pytest.fixture(scope="module")
def networks():
    return {name: module.load() for name, module in FRAMEWORKS.items()}


@pytest.fixture(scope="module")
def photos():
    return zoo.imagenet_photos()


@pytest.fixture(scope="module")
def linen_logits(networks):
    """Logits by Linen, compiled once for batches of 20."""
    logits = jax.jit(jax.vmap(networks["linen"].logits))

    def batched(images, **options):
        x = np.stack([zoo.preprocess(image, **options) for image in images])
        padding = [(0, 20 - len(x)), (0, 0), (0, 0), (0, 0)]
        return np.asarray(logits(np.pad(x, padding)))[: len(x)]

    return batched


@pytest.mark.parametrize(("margin", "top1", "top5"), [(0, 17, 20), (32, 18, 19)])
def test_accuracy_on_the_labelled_photos(linen_logits, photos, margin, top1, top5):
    labels = np.array([photo.label for photo in photos])
    logits = linen_logits([photo.image for photo in photos], margin=margin)
    best = np.argsort(-logits, axis=-1)
    assert len(photos) == 20
    assert (best[:, 0] == labels).sum() == top1
    assert (best[:, :5] == labels[:, None]).any(axis=-1).sum() == top5


def test_known_photos(linen_logits):
    logits = linen_logits([zoo.bundled("coffee"), zoo.bundled("chelsea")])
    coffee, chelsea = jax.nn.softmax(logits)
    assert zoo.class_names()[coffee.argmax()] == "espresso"
    np.testing.assert_allclose(coffee.max(), 0.951, atol=0.01)
    assert np.argsort(-chelsea)[:3].tolist() == [282, 285, 281]


@pytest.fixture(scope="module")
def compiled(networks):
    return {name: jax.jit(network.logits) for name, network in networks.items()}


@pytest.mark.parametrize("name", ["nnx", "equinox"])
def test_frameworks_agree(compiled, photos, name):
    noise = np.random.default_rng(0).uniform(-1, 1, (224, 224, 3)).astype(np.float32)
    for x in [*(zoo.preprocess(photo.image) for photo in photos[:3]), noise]:
        expected, actual = compiled["linen"](x), compiled[name](x)
        assert actual.shape == (1000,)
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_logits_close_over_exactly_the_params(networks, name):
    network, x = networks[name], np.zeros((224, 224, 3), np.float32)
    constants = jax.make_jaxpr(network.logits)(x).consts
    assert {id(c) for c in constants} == {id(leaf) for leaf in tree_leaves(network.params)}
    assert jax.eval_shape(network.apply, network.params, x).shape == (1000,)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_paths_of_params_read_alike(networks, name):
    paths = _paths(networks[name].params)
    words = {re.sub("^(params|batch_stats|blocks)/", "", path).replace("weight", "kernel") for path in paths}
    assert words == _paths(zoo.load_weights())
    assert "block3/depthwise/conv/kernel" in words


def _paths(tree):
    return {keystr(path, simple=True, separator="/") for path, _ in tree_leaves_with_path(tree)}


def test_preprocess_is_undone_by_deprocess():
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    x = zoo.preprocess(pixels, margin=0)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(zoo.deprocess(x), pixels)
    np.testing.assert_array_equal(zoo.preprocess(Image.fromarray(pixels), margin=0), x)


def test_preprocess_crops_the_centre():
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[16:240, 144:368] = 255
    assert (zoo.deprocess(zoo.preprocess(pixels)) == 255).all()


@pytest.mark.parametrize("bad", [np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), np.uint8)])
def test_preprocess_refuses_other_arrays(bad):
    with pytest.raises(ValueError, match="expected uint8"):
        zoo.preprocess(bad)


# --- photos ---


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.jpg", None, "does not exist"),
        ("text.png", b"not an image", "not an image"),
        ("empty.jpg", b"", "not an image"),
        ("", None, "is a folder"),
    ],
)
def test_photo_errors(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(zoo.PhotoError, match=message) as caught:
        zoo.open_photo(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_truncated_photo_is_an_error(tmp_path, suffix):
    path = tmp_path / f"photo{suffix}"
    zoo.bundled("coffee").save(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(zoo.PhotoError, match="cannot be read"):
        zoo.open_photo(path)


def test_open_photo_turns_upright(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert zoo.open_photo(tmp_path / "turned.jpg").size == (4, 6)


@pytest.mark.parametrize(
    ("image", "pixel"),
    [
        (Image.new("RGBA", (2, 2), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("L", (2, 2), 7), (7, 7, 7)),
        (Image.fromarray(np.full((2, 2), 0x8000, np.uint16)), (128, 128, 128)),
    ],
)
def test_open_photo_converts_every_mode(tmp_path, image, pixel):
    image.save(tmp_path / "photo.png")
    photo = zoo.open_photo(tmp_path / "photo.png")
    assert photo.mode == "RGB"
    assert photo.getpixel((0, 0)) == pixel


def test_an_unknown_bundled_photo_lists_the_known():
    with pytest.raises(zoo.PhotoError, match="coffee"):
        zoo.bundled("tea")


def test_a_missing_package_says_what_to_install():
    with pytest.raises(zoo.MissingPackageError, match=r"pip install --no-deps 'no-such==1'"):
        package_folder("no_such_package", requirement="no-such==1")


# --- class names ---


@pytest.mark.parametrize(
    ("query", "index"),
    [(967, 967), ("967", 967), ("espresso", 967), (" Espresso ", 967), ("tabby", 281), ("tiger cat", 282)],
)
def test_find_class(query, index):
    assert zoo.find_class(query) == index


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("espreso", r"near names: espresso \(967\)"),
        ("missile", r"fits 2 classes: missile \(657\), missile \(744\)"),
        ("cat", r"fits \d+ classes: .*, \.\.\."),
        ("", "no ImageNet class"),
        (1000, "out of range"),
        ("-1", "out of range"),
    ],
)
def test_find_class_errors(query, message):
    with pytest.raises(zoo.ClassNameError, match=message) as caught:
        zoo.find_class(query)
    assert "\n" not in str(caught.value)


def test_class_names():
    assert len(zoo.class_names()) == 1000
