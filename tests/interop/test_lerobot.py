"""LeRobot's diffusion policies: against a network of PyTorch, and what is refused."""

import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import diffreward as dr
from diffreward.cli import main
from diffreward.interop import load_model
from diffreward.interop.film_unet import LEROBOT, dialect
from diffreward.interop.layout import from_params, unet_table
from diffreward.interop.lerobot import UNET
from diffreward.networks import FilmUnet
from tests.fuzz.damage import damaged, outcome
from tests.networks.reference import random_params

STEPS, HORIZON, ACTIONS, STATES, PLACES = 2, 8, 2, 3, 2
WIDTHS, TOLD = (8, 16), STEPS * (STATES + PLACES)
CONFIG = {
    "type": "diffusion",
    "n_obs_steps": STEPS,
    "horizon": HORIZON,
    "n_action_steps": 4,
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [STATES]},
        "observation.environment_state": {"type": "ENV", "shape": [PLACES]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [ACTIONS]}},
    "normalization_mapping": {"STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"},
    "down_dims": list(WIDTHS),
    "kernel_size": 5,
    "n_groups": 4,
    "diffusion_step_embed_dim": 8,
    "use_film_scale_modulation": True,
    "num_train_timesteps": 20,
    "beta_schedule": "squaredcos_cap_v2",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "epsilon",
    "clip_sample": True,
    "vision_backbone": "resnet18",
    "optimizer_lr": 1e-4,
}
PAIRS = {
    "observation.state": ("min", [-2.0, -1, 0.5], "max", [1.0, 3, 0.5]),
    "observation.environment_state": ("mean", [0.5, 1], "std", [2.0, 0.3]),
    "action": ("min", [-1.0, -3], "max", [2.0, 5]),
}
GONE = object()


def statistics():
    """By feature and name; the last number of the state never varies."""
    return {
        f"{name}.{part}": np.asarray(value, np.float32)
        for name, (a, x, b, y) in PAIRS.items()
        for part, value in ((a, x), (b, y))
    }


def among_weights():
    return {
        f"{group}.buffer_{name.rpartition('.')[0].replace('.', '_')}."
        f"{name.rpartition('.')[2]}": value
        for name, value in statistics().items()
        for group in (
            ["normalize_targets", "unnormalize_outputs"]
            if name.startswith("action")
            else ["normalize_inputs"]
        )
    }


def network(scale=True):
    return FilmUnet(WIDTHS, 8, 5, 4, scale)


def unet_tensors(seed=0, scale=True, told=TOLD):
    x, t = jnp.zeros((HORIZON, ACTIONS)), jnp.int32(0)
    params = random_params(network(scale), x, t, jnp.zeros(told), seed=seed)
    table = unet_table(
        dialect(LEROBOT, len(WIDTHS)), list(WIDTHS), ACTIONS, attention=False
    )
    return {f"{UNET}{k}": v for k, v in from_params(table, params).items()}, params


def write_policy(folder, tensors, **changes):
    folder.mkdir(parents=True)
    config = {k: v for k, v in (CONFIG | changes).items() if v is not GONE}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_processor(folder, **changes):
    """Statistics as they are kept since version 0.4."""
    norm = {"eps": 1e-8, "norm_map": CONFIG["normalization_mapping"], "features": {}}
    own = {
        "registry_name": "normalizer_processor",
        "config": norm,
        "state_file": "policy_preprocessor_step_3_normalizer_processor.safetensors",
    } | changes
    first = {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}}
    told = json.dumps({"name": "policy_preprocessor", "steps": [first, own]})
    (folder / "policy_preprocessor.json").write_text(told)
    file = folder / "policy_preprocessor_step_3_normalizer_processor.safetensors"
    save_file(statistics(), file)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_policy(
        tmp_path_factory.mktemp("policies") / "old", unet_tensors()[0] | among_weights()
    )


def inputs(count=4):
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=(count, *shape)), jnp.float32)
    return draw(HORIZON, ACTIONS), draw(STEPS, STATES), draw(STEPS, PLACES)


def condition(state, place):
    """What the network is told, written out for one sample."""
    rows = []
    for k in range(STEPS):
        low, high = np.array([-2.0, -1]), np.array([1.0, 3])
        rows += [*((state[k, :2] - low) / (high - low) * 2 - 1)]
        rows += [state[k, 2] - 0.5 - 1]  # never varies: -1 where it is as it was
        rows += [*((place[k] - np.array([0.5, 1])) / np.array([2.0, 0.3]))]
    return jnp.asarray(rows, jnp.float32)


def test_a_policy_is_told_observations_as_they_were_recorded(folder):
    model = load_model(folder)
    assert [(part.name, part.shape) for part in model.told] == [
        ("state", (STEPS, STATES)),
        ("environment_state", (STEPS, PLACES)),
    ]
    assert (model.shape, model.prediction) == ((HORIZON, ACTIONS), "eps")
    np.testing.assert_allclose(model.normaliser.shift, [0.5, 1])
    np.testing.assert_allclose(model.normaliser.scale, [1.5, 4])
    _, params = unet_tensors()
    for x, state, place in zip(*inputs(), strict=True):
        wanted = network().apply(params, x, jnp.int32(7), condition(state, place))
        found = model.apply(x, jnp.int32(7), state, place)
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_statistics_lie_in_the_file_of_the_preprocessor(folder, tmp_path):
    new = write_processor(write_policy(tmp_path / "new", unet_tensors()[0]))
    found, wanted = load_model(new), load_model(folder)
    jax.tree.map(np.testing.assert_array_equal, found.normaliser, wanted.normaliser)
    x, state, place = (value[0] for value in inputs())
    np.testing.assert_array_equal(
        found.apply(x, jnp.int32(3), state, place),
        wanted.apply(x, jnp.int32(3), state, place),
    )


def test_a_policy_with_cameras_is_told_what_its_encoder_gives(tmp_path):
    tensors, params = unet_tensors()
    tensors |= {"diffusion.rgb_encoder.out.weight": np.ones((2, 2), np.float32)}
    features = {
        "observation.state": {"type": "STATE", "shape": [STATES]},
        "observation.image": {"type": "VISUAL", "shape": [3, 8, 8]},
    }
    path = tmp_path / "m"
    write_policy(path, tensors | among_weights(), input_features=features)
    model = load_model(path)
    assert [(p.name, p.shape) for p in model.told] == [
        ("condition", (STEPS, TOLD // STEPS))
    ]
    x, told = inputs()[0][0], jnp.linspace(-1, 1, TOLD)
    np.testing.assert_allclose(
        model.apply(x, jnp.int32(7), told.reshape(STEPS, -1)),
        network().apply(params, x, jnp.int32(7), told),
        atol=1e-6,
    )


REFUSED = {
    "another policy": ({"type": "act"}, "a policy of type 'act' is not supported"),
    "no horizon": ({"horizon": GONE}, "lacks horizon"),
    "unknown": ({"gate": 3}, "unknown option gate = 3"),
    "a mode": (
        {"normalization_mapping": {"STATE": "QUANTILES"}},
        "normalization_mapping has STATE = 'QUANTILES', which is not supported",
    ),
    "no mapping": ({"normalization_mapping": "MIN_MAX"}, "is no mapping"),
    "other statistics": (
        {"normalization_mapping": {"STATE": "MEAN_STD"}},
        r"has no mean of observation.state \(3 finite numbers\)",
    ),
    "modulation": ({"use_film_scale_modulation": 1.5}, "neither true nor false"),
    "no modulation": ({"use_film_scale_modulation": False}, "has shape"),
    "widths": ({"down_dims": [8, 32]}, "does not fit"),
    "more steps": ({"n_obs_steps": 3}, "is told 10 numbers, input_features are 3 times 5"),
    "no action": (
        {"output_features": {"a": {"type": "ACTION", "shape": [2]}}},
        "no action",
    ),
    "no shape": ({"output_features": {"action": {"type": "ACTION"}}}, "without type or"),
    "another sense": (
        {"input_features": {"observation.touch": {"type": "STATE", "shape": [5]}}},
        "input_features has observation.touch, which is not supported",
    ),
    "a schedule": ({"beta_schedule": "sigmoid"}, "beta_schedule = 'sigmoid' is not"),
    "groups": ({"n_groups": 3}, "cannot form 3 groups"),
    "taps": ({"kernel_size": 4}, "taps"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name, folder, tmp_path):
    changes, message = REFUSED[name]
    copied = shutil.copytree(folder, tmp_path / "m")
    config = CONFIG | changes
    (copied / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if v is not GONE})
    )
    with pytest.raises(ValueError, match=message) as caught:
        load_model(copied)
    assert str(copied) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_statistics_that_contradict_each_other_are_refused(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "m")
    tensors = load_file(copied / "model.safetensors")
    name = "unnormalize_outputs.buffer_action.max"
    save_file(tensors | {name: tensors[name] + 1}, copied / "model.safetensors")
    with pytest.raises(ValueError, match=r"statistics of action\.max that differ"):
        load_model(copied)


PROCESSORS = {
    "elsewhere": ({"state_file": "../x.safetensors"}, "whose state_file lies beside it"),
    "another map": ({"config": {"norm_map": {"STATE": "IDENTITY"}}}, "norm_map differs"),
    "no map": ({"config": {}}, "has no norm_map"),
    "another step": ({"registry_name": "delta_action_processor"}, "a step 'delta_action"),
    "no file": ({"state_file": "x.safetensors"}, r"x\.safetensors"),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_preprocessors_that_are_not_known_are_refused(name, tmp_path):
    changes, message = PROCESSORS[name]
    new = write_processor(write_policy(tmp_path / "new", unet_tensors()[0]), **changes)
    with pytest.raises((ValueError, OSError), match=message):
        load_model(new)


def test_damaged_files_never_end_in_a_traceback(tmp_path):
    new = write_processor(write_policy(tmp_path / "new", unet_tensors()[0]))
    for name in ("config.json", "policy_preprocessor.json"):
        path, refused = new / name, 0
        whole = path.read_bytes()
        for _, data in damaged(whole, np.random.default_rng(3), 40):
            path.write_bytes(data)
            refused += outcome(lambda: load_model(new), path) is not None
        path.write_bytes(whole)
        assert refused > 15


def test_two_policies_become_a_card_in_the_units_of_their_data(folder, tmp_path, capsys):
    expert = write_policy(tmp_path / "expert", unet_tensors(1)[0] | among_weights())
    x, state, place = inputs(100)
    data = tmp_path / "x.npz"
    np.savez(data, x=3 * x, state=state, environment_state=place)
    out = tmp_path / "card"
    argv = ["extract", "--base", folder, "--expert", expert, "--data", data, "--out", out]
    argv += ["--steps", "4", "--batch-size", "4", "--width", "8"]
    named = [*argv, "--context", "environment_state,state"]
    assert main([str(part) for part in named]) == 0
    told = json.loads((out / "card.json").read_text())
    assert told["provenance"]["normaliser"] == "declared by the base"
    np.testing.assert_allclose(dr.load(out).normaliser.scale[:2], [1.5, 4])
    assert np.ptp(dr.score(dr.load(out), (x, {"state": state, "environment_state": place})))
    shutil.rmtree(out)
    for wrong, message in (
        (argv, "must name: state (samples, 2, 3) and environment_state (samples, 2, 2)"),
        ([*argv, "--context", "state"], "given: state (2, 3)"),
        ([*named, "--normaliser", "limits"], "says its own normaliser"),
    ):
        capsys.readouterr()
        assert main([str(part) for part in wrong]) == 1
        said = capsys.readouterr().err
        assert message in said
        assert re.fullmatch(r"error: [^\n]+\n", said)


@pytest.mark.parity
@pytest.mark.parametrize("scale", [True, False])
def test_networks_equal_their_original(scale, tmp_path):
    torch = pytest.importorskip("torch")
    published = pytest.importorskip("tests.interop.published")
    torch.manual_seed(0)
    module = published.FilmUnet(ACTIONS, TOLD, WIDTHS, 8, 5, 4, scale).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    tensors = {f"{UNET}{k}": v.numpy() for k, v in module.state_dict().items()}
    path = tmp_path / "m"
    write_policy(path, tensors | among_weights(), use_film_scale_modulation=scale)
    model = load_model(path)
    x, state, place = inputs()
    t = np.array([0, 3, 11, 19])
    told = np.stack([condition(*row) for row in zip(state, place, strict=True)])
    with torch.no_grad():
        wanted = module(*map(torch.tensor, (np.asarray(x), t, told))).numpy()
    found = jax.vmap(model.apply)(x, jnp.asarray(t), state, place)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
