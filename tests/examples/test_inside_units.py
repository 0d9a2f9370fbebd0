"""What a unit means: receptive fields in EfficientNet-Lite0, neighbours and embeddings of real digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.manifold import trustworthiness
from zoo import digits_cnn, lite0_linen

import jaxplain as jxp
from jaxplain import interior, plot

OPTIMISED = {"xla_backend_optimization_level": 3}  # this network runs longer than it compiles


@pytest.mark.parametrize(("at", "place"), [("block3", (14, 12, 5)), ("block2", (0, 27, 3))])
def test_receptive_field_in_lite0_is_what_turns_the_unit_to_nan(at, place):
    net = lite0_linen.load()
    unit = interior.unit_activation(net.logits, at, place)
    field = np.asarray(jax.jit(interior.receptive_field(net.logits, at, place))(jnp.zeros((224, 224, 3))))
    box = interior.bounding_box(field)
    (top, left, _), (bottom, right, _) = np.array(box.start), np.array(box.stop)
    assert field[top:bottom, left:right].all()  # it is a box, of all colours
    grid = [(r, c) for r in range(8, 224, 56) for c in range(35, 224, 60)]
    middle = ((top + bottom) // 2, (left + right) // 2)
    rows = [max(top - 1, 0), top, bottom - 1, bottom]
    columns = [max(left - 1, 0), left, right - 1, right]
    grid += [(r, middle[1]) for r in rows] + [(middle[0], c) for c in columns]
    spoilt = lambda place: jnp.isnan(unit(jnp.zeros((224, 224, 3)).at[place[0], place[1], 1].set(jnp.nan)))
    program = jax.jit(lambda places: jax.lax.map(spoilt, places), compiler_options=OPTIMISED)
    np.testing.assert_array_equal(program(np.array(grid)), [field[r, c, 1] for r, c in grid])


@pytest.fixture(scope="module")
def digits():
    """(The first half of a trained network at its last hidden layer, the digits to test with)."""
    params = digits_cnn.train(0, epochs=12)
    _, test = digits_cnn.digits()
    assert digits_cnn.accuracy(params, test) > 0.95
    return params, test


def site(params, at):
    return jxp.slice_at(lambda x: digits_cnn.logits(params, x), at).h


def purity(h, examples):
    """The share of the 5 nearest others that have the example's own label."""
    find = jax.vmap(lambda query: interior.nearest_neighbours(h, examples.images, query, 6, chunk_size=100))
    indices = np.asarray(jax.jit(find, compiler_options=OPTIMISED)(examples.images).indices)
    others = [[j for j in row if j != i][:5] for i, row in enumerate(indices)]
    return (examples.labels[np.array(others)] == examples.labels[:, None]).mean()


def test_neighbours_in_feature_space_are_of_one_class_more_often_than_those_in_pixel_space(digits):
    params, test = digits
    pixels, features = purity(lambda x: x, test), purity(site(params, "dense"), test)
    print(f"purity@5: pixels {pixels:.4f}, features {features:.4f}")
    assert features > pixels + 0.005


def test_the_embedding_keeps_neighbours(digits):
    params, test = digits
    test = test.take(slice(300))
    features = np.asarray(jax.jit(jax.vmap(site(params, "dense")))(test.images))
    points = interior.embed(features)
    kept = trustworthiness(features, points, n_neighbors=5)
    print(f"trustworthiness of the embedding: {kept:.4f}")
    assert kept >= 0.95
    assert len(plot.thumbnails(points, test.images, test.labels).axes[0].images) == 300


def test_a_patch_alone_gives_the_unit_its_value(digits):
    """What is outside of the patch does not matter: the rest of the image put to noise, the value stays."""
    params, test = digits
    h = site(params, "conv1")
    top = interior.top_activations(h, test.images, 9, 6, chunk_size=200)
    noise = np.random.default_rng(0).uniform(size=(8, 8, 1)).astype(np.float32)
    found = interior.patches(h, test.images, top, 9)
    for patch, i, place, value in zip(found, top.examples, top.positions, top.values, strict=True):
        find = interior.receptive_field(lambda x: jxp.tag(h(x), "z"), "z", (*map(int, place), 9))
        field = np.asarray(find(noise))
        assert patch.size == field.sum() <= 25
        image = np.where(field, test.images[int(i)], noise)
        np.testing.assert_allclose(h(jnp.asarray(image))[(*place, 9)], value, rtol=1e-5)
    plot.patches([found], [top.values])
