import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec as P

from diffreward.train import (
    Numerics,
    Placement,
    cut_shardings,
    make_mesh,
    optimise,
    state_shardings,
)
from tests.train import toy

RULES = ((r"dense/kernel$", P(None, "model")), (r"dense/bias$", P("model")))


@pytest.mark.parametrize(
    ("data", "model", "rules"), [(8, 1, ()), (4, 2, RULES)], ids=["data", "both"]
)
def test_eight_devices_equal_one(tmp_path, data, model, rules):
    one = toy.run(workdir=tmp_path / "one", steps=20)
    mesh = make_mesh(data, model)
    many = toy.run(workdir=tmp_path / "many", steps=20, placement=Placement(mesh, rules))
    toy.assert_close(one, many)
    assert len(many.params["out"].sharding.device_set) == 8
    kernel = many.params["dense"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (4, toy.WIDTH // model)


def test_a_rule_also_places_the_average_and_the_moments():
    params = {"dense": {"kernel": jnp.zeros((4, 8))}}
    state = {"params": params, "opt_state": optax.adam(1.0).init(params)}
    placed = state_shardings(state, make_mesh(1, 2), RULES[:1])
    cut = [x for x in jax.tree.leaves(placed) if x.spec == P(None, "model")]
    assert len(cut) == 3  # the kernel and its two moments


def test_a_resumed_run_may_change_its_mesh(tmp_path):
    toy.run(workdir=tmp_path / "a", steps=20)
    moved = toy.run(workdir=tmp_path / "a", placement=Placement(make_mesh(4, 2), RULES))
    toy.assert_close(moved, toy.run(workdir=tmp_path / "b"))


def test_batch_must_split(tmp_path):
    with pytest.raises(ValueError, match="batch of 16 .* 3 devices; .* multiple of 3"):
        toy.run(workdir=tmp_path / "run", placement=Placement(make_mesh(3)))
    with pytest.raises(ValueError, match="batch of 16 does not split into 5 slices"):
        toy.run(workdir=tmp_path / "run", numerics=Numerics(accumulate=5))
    assert not (tmp_path / "run").exists()


def test_batch_arrays_must_agree(tmp_path):
    task = toy.TASK._replace(draw=lambda data, key: {"a": data[:2], "b": data[:3]})
    with pytest.raises(ValueError, match="common first axis, got {'a': 2, 'b': 3}"):
        optimise(
            task,
            optax.sgd(1.0),
            data=toy.DATA,
            steps=1,
            seed=0,
            workdir=tmp_path / "run",
            name="toy",
        )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("dens/kernel", P("model")), "matches no array; the nearest .*dense/kernel"),
        (("dense/kernel", P("modle")), "names .'modle'.; the mesh has"),
        (("dense/kernel", P("model")), "axis of 3 of dense/kernel .* over 2 devices"),
        (("dense/kernel", P(None, None, None)), "more axes than dense/kernel"),
    ],
)
def test_rules_must_fit(rule, message):
    abstract = {"dense": {"kernel": jnp.zeros((3, 4))}}
    with pytest.raises(ValueError, match=message):
        state_shardings(abstract, make_mesh(1, 2), [rule])


def test_mesh_must_fit_the_machine():
    with pytest.raises(ValueError, match="data=3 x model=4 needs 12 devices, 8 avail"):
        make_mesh(3, 4)
    assert dict(make_mesh(model=2).shape) == {"data": 4, "model": 2}


def test_cut_arrays_lie_in_equal_parts_on_every_device():
    mesh = make_mesh(8)
    arrays = {"a": jnp.ones((3, 16, 64)), "b": jnp.ones((24, 5)), "c": jnp.ones(3)}
    placed = jax.device_put(arrays, cut_shardings(arrays, mesh))
    parts = {k: {s.data.shape for s in x.addressable_shards} for k, x in placed.items()}
    assert parts == {"a": {(3, 16, 8)}, "b": {(3, 5)}, "c": {(3,)}}
