"""What a unit means: receptive fields in EfficientNet-Lite0, neighbours and embeddings of real digits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from zoo import lite0_linen

from jaxplain import interior

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
