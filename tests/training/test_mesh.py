"""Influence over four devices: the data spread by `jit`, or the queries by `shard_map`, give the plain answer."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from references.compare import assert_close
from training.problems import L2, output_loss, quick, regularizer, softmax_regression

from jaxplain import training

SOLVERS = {
    "cg": training.cg(tol=1e-12),
    "dense": training.dense(),
    "preconditioned cg": training.cg(tol=1e-12, preconditioner=training.nystrom_preconditioner(8)),
    "neumann": training.neumann(num_steps=200),
    "lissa": training.lissa(num_steps=30, batch_size=5),
}
PROBLEM = softmax_regression()
TEST = {"x": np.random.default_rng(9).normal(size=(4, 4)), "y": np.array([0, 1, 2, 0])}


def explained(kind, name, chunk_size=None):
    if kind == "hessian":
        curvature = training.hessian(PROBLEM.loss, regularizer=regularizer, chunk_size=chunk_size)
    else:
        curvature = training.gauss_newton(PROBLEM.predict, output_loss, damping=L2, chunk_size=chunk_size)
    solve = SOLVERS[name]
    explain = training.influence(PROBLEM.loss, curvature=curvature, solve=solve, chunk_size=chunk_size)
    return partial(explain, jax.random.key(0)) if solve.needs_key else explain


def mesh(kind=AxisType.Auto):
    return Mesh(np.array(jax.devices()[:4]), ("data",), axis_types=(kind,))


@pytest.mark.parametrize(
    ("kind", "name", "chunk_size"),
    [
        ("hessian", "cg", 5),
        ("gauss_newton", "cg", None),
        ("hessian", "dense", None),
        ("gauss_newton", "preconditioned cg", 5),
        ("hessian", "neumann", None),
        ("hessian", "lissa", 5),
    ],
)
def test_training_data_spread_over_four_devices(kind, name, chunk_size):
    explain = quick(explained(kind, name, chunk_size))
    want, _ = explain(PROBLEM.params, PROBLEM.train, TEST)
    place = lambda *spec: NamedSharding(mesh(), PartitionSpec(*spec))
    train = jax.device_put(PROBLEM.train, place("data"))
    assert len(train["x"].sharding.device_set) == 4
    params, test = jax.device_put((PROBLEM.params, TEST), place())
    got, info = explain(params, train, test)
    assert_close(got, want, 1e-10)
    if name != "lissa":  # 30 steps are too few for it, and the same here and there
        assert info.converged.all()


@pytest.mark.parametrize(("kind", "name"), [("gauss_newton", "cg"), *(("hessian", name) for name in SOLVERS)])
def test_queries_spread_by_shard_map(kind, name):
    explain = explained(kind, name)
    want, _ = quick(explain)(PROBLEM.params, PROBLEM.train, TEST)
    everywhere, apart = PartitionSpec(), PartitionSpec("data")
    spread = jax.shard_map(
        explain, mesh=mesh(), in_specs=(everywhere, everywhere, apart), out_specs=(apart, apart)
    )
    got, info = quick(spread)(jax.tree.map(jnp.asarray, PROBLEM.params), PROBLEM.train, TEST)
    assert_close(got, want, 1e-10)
    assert info.residual.shape == (4,)
