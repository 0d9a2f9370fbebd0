"""Numerics of the test run.

Everything runs in float64 with strict dtype promotion and without implicit rank promotion, so that a stray
float32 constant or a silent broadcast inside the library is an error. `tests/examples`, `tests/plot` and
modules that set `NUMERICS = "plain"` (because the libraries they use broadcast) run as a user's program does.
Arrays at module level of a test are therefore numpy's.
"""

import os
from importlib.metadata import version
from pathlib import Path

# Before JAX starts: four devices on one host, for the laws about sharding; and little optimisation, since
# these programs are compiled far longer than they run.
FLAGS = ["--xla_force_host_platform_device_count=4", "--xla_backend_optimization_level=0"]
if version("jaxlib").startswith("0.10."):  # an XLA that does not know a flag aborts
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")  # a third less to compile
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])

import jax  # noqa: E402
import pytest  # noqa: E402

PLAIN = {"examples", "plot"}


@pytest.fixture(autouse=True, scope="module")
def numerics(request):
    plain = getattr(request.module, "NUMERICS", "strict") == "plain"
    if plain or PLAIN & set(Path(str(request.fspath)).parts):
        yield
        return
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
