"""Checkpoints of the diffusion policies' authors: what they hold, and what is refused."""

import json
import re
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.cli import main
from diffreward.interop import load_model
from diffreward.interop.film_unet import ORIGINAL, dialect
from diffreward.interop.layout import from_params, unet_table
from diffreward.networks import FilmUnet
from tests.fuzz.damage import damaged, outcome
from tests.interop.torch_file import save_torch
from tests.networks.reference import random_params

STEPS, HORIZON, ACTIONS, OBS = 2, 8, 2, 3
WIDTHS, TOLD = (8, 16), STEPS * OBS
SCHEDULER = {
    "_target_": "diffusers.schedulers.scheduling_ddpm.DDPMScheduler",
    "num_train_timesteps": 20,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "squaredcos_cap_v2",
    "variance_type": "fixed_small",
    "clip_sample": True,
    "prediction_type": "epsilon",
}
MODEL = {
    "_target_": "diffusion_policy.model.diffusion.conditional_unet1d.ConditionalUnet1D",
    "input_dim": ACTIONS,
    "local_cond_dim": None,
    "global_cond_dim": TOLD,
    "diffusion_step_embed_dim": 8,
    "down_dims": list(WIDTHS),
    "kernel_size": 5,
    "n_groups": 4,
    "cond_predict_scale": True,
}
POLICY = {
    "_target_": "diffusion_policy.policy.diffusion_unet_lowdim_policy."
    "DiffusionUnetLowdimPolicy",
    "model": MODEL,
    "noise_scheduler": SCHEDULER,
    "horizon": HORIZON,
    "obs_dim": OBS,
    "action_dim": ACTIONS,
    "n_action_steps": 4,
    "n_obs_steps": STEPS,
    "num_inference_steps": 20,
    "obs_as_local_cond": False,
    "obs_as_global_cond": True,
    "pred_action_steps_only": False,
    "oa_step_convention": True,
}
CAMERAS = {
    "_target_": "diffusion_policy.policy.x.DiffusionUnetHybridImagePolicy",
    "shape_meta": {"action": {"shape": [ACTIONS]}, "obs": {"image": {"shape": [3, 8, 8]}}},
    "crop_shape": [6, 6],
    **{k: MODEL[k] for k in ("diffusion_step_embed_dim", "down_dims", "kernel_size")},
    **{k: MODEL[k] for k in ("n_groups", "cond_predict_scale")},
    **{k: POLICY[k] for k in ("noise_scheduler", "horizon", "n_action_steps")},
    "n_obs_steps": STEPS,
    "obs_as_global_cond": True,
}
SCALES = {"obs": [2.0, 0.5, 1.0], "action": [0.25, 4.0]}
OFFSETS = {"obs": [0.5, -1.0, 0.0], "action": [1.0, -2.0]}
GONE = object()


class Node:
    """What OmegaConf makes of settings, by name and state."""


def omegaconf_of(monkeypatch):
    """OmegaConf's objects as it pickles them, whether or not it is installed."""
    kinds = {}
    for module, names in {
        "omegaconf.dictconfig": ["DictConfig"],
        "omegaconf.listconfig": ["ListConfig"],
        "omegaconf.nodes": ["AnyNode"],
        "omegaconf.base": ["ContainerMetadata", "Metadata"],
    }.items():
        fake = types.ModuleType(module)
        for name in names:
            made = type(name, (Node,), {"__module__": module})
            kinds[name] = made
            setattr(fake, name, made)
        monkeypatch.setitem(sys.modules, module, fake)
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))

    def made(kind, state):
        node = kinds[kind]()
        node.__dict__.update(state)
        return node

    def wrap(value, parent=None):
        if isinstance(value, dict):
            told = made("ContainerMetadata", {"object_type": dict, "flags": {}})
            node = made("DictConfig", {"_metadata": told, "_parent": parent})
            node.__dict__["_content"] = {k: wrap(v, node) for k, v in value.items()}
            return node
        if isinstance(value, list):
            node = made("ListConfig", {"_parent": parent})
            node.__dict__["_content"] = [wrap(v, node) for v in value]
            return node
        told = made("Metadata", {"optional": True, "key": None})
        return made("AnyNode", {"_metadata": told, "_parent": parent, "_val": value})

    return wrap


@pytest.fixture
def wrap(monkeypatch):
    return omegaconf_of(monkeypatch)


def network(scale=True):
    return FilmUnet(WIDTHS, 8, 5, 4, scale)


def tensors_of(seed=0, scale=True, told=TOLD):
    x, t = jnp.zeros((HORIZON, ACTIONS)), jnp.int32(0)
    params = random_params(network(scale), x, t, jnp.zeros(told), seed=seed)
    table = unet_table(dialect(ORIGINAL, len(WIDTHS)), list(WIDTHS), ACTIONS, False)
    tensors = {f"model.{k}": v for k, v in from_params(table, params).items()}
    return tensors | statistics(), params


def statistics():
    found = {"mask_generator._dummy_variable": np.zeros(0, np.float32)}
    for name in SCALES:
        prefix = f"normalizer.params_dict.{name}"
        found[f"{prefix}.scale"] = np.asarray(SCALES[name], np.float32)
        found[f"{prefix}.offset"] = np.asarray(OFFSETS[name], np.float32)
        found[f"{prefix}.input_stats.min"] = np.zeros(len(SCALES[name]), np.float32)
    return found


def write(path, wrap, policy=POLICY, averaged=0, **tensors):
    """A checkpoint whose last weights are others than its averaged ones."""
    copies = {"model": tensors_of(9)[0], "ema_model": tensors_of(averaged)[0]}
    copies = {name: whole | tensors for name, whole in copies.items()}
    policy = {k: v for k, v in policy.items() if v is not GONE}
    saved = {
        "cfg": wrap({"horizon": HORIZON, "policy": policy, "training": {"lr": 1e-4}}),
        "state_dicts": {**copies, "optimizer": {"step": 3}},
        "pickles": {"epoch": b"\x80\x04K\x01."},
    }
    return save_torch(saved, path)


def changed(part, **changes):
    """The settings with some of a part changed."""
    if part == "policy":
        return POLICY | changes
    return POLICY | {part: POLICY[part] | changes}


def test_the_averaged_policy_is_read_in_the_units_of_its_data(wrap, tmp_path):
    path = write(tmp_path / "latest.ckpt", wrap)
    model = load_model(path)
    assert [(part.name, part.shape) for part in model.told] == [("obs", (STEPS, OBS))]
    assert (model.shape, model.prediction) == ((HORIZON, ACTIONS), "eps")
    assert model.schedule.num_steps == 20
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(HORIZON, ACTIONS)), jnp.float32)
    obs = rng.normal(size=(STEPS, OBS)).astype(np.float32)
    told = (obs * np.float32(SCALES["obs"]) + np.float32(OFFSETS["obs"])).reshape(-1)
    for copy, seed in ((None, 0), ("ema_model", 0), ("model", 9)):
        _, params = tensors_of(seed)
        wanted = network().apply(params, x, jnp.int32(7), jnp.asarray(told))
        found = load_model(path, copy).apply(x, jnp.int32(7), jnp.asarray(obs))
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    actions = np.array([[3.0, 0.5]])
    own = model.normaliser
    shown = (actions - own.shift) / own.scale
    np.testing.assert_allclose(
        shown, actions * SCALES["action"] + OFFSETS["action"], rtol=1e-5
    )


def test_a_policy_of_steps_alone_plans_as_many(wrap, tmp_path):
    path = write(tmp_path / "a.ckpt", wrap, changed("policy", pred_action_steps_only=True))
    assert load_model(path).shape == (4, ACTIONS)


def test_a_policy_with_cameras_is_told_what_its_encoder_gives(wrap, tmp_path):
    encoder = {"obs_encoder.nets.weight": np.ones((2, 2), np.float32)}
    path = write(tmp_path / "a.ckpt", wrap, CAMERAS, **encoder)
    model = load_model(path)
    assert [(p.name, p.shape) for p in model.told] == [("condition", (STEPS, OBS))]
    x, told = jnp.ones((HORIZON, ACTIONS)), jnp.linspace(-1, 1, TOLD)
    wanted = network().apply(tensors_of()[1], x, jnp.int32(3), told)
    found = model.apply(x, jnp.int32(3), told.reshape(STEPS, OBS))
    np.testing.assert_allclose(found, wanted, atol=1e-6)


REFUSED = {
    "another policy": (
        changed("policy", _target_="p.DiffusionTransformerLowdimPolicy"),
        "is a 'DiffusionTransformerLowdimPolicy', which is not supported",
    ),
    "no scheduler": (changed("policy", noise_scheduler=GONE), "lacks noise_scheduler"),
    "no class": (changed("policy", noise_scheduler={}), "noise_scheduler names no class"),
    "a part of the chunk": (
        changed("policy", obs_as_global_cond=GONE),
        "observations are a part of the chunk",
    ),
    "told at every step": (
        changed("policy", obs_as_local_cond=True),
        "obs_as_local_cond = True is not supported",
    ),
    "unknown": (changed("policy", gate=3), "unknown option gate = 3"),
    "unknown of the model": (changed("model", gate=3), r"model: unknown option gate = 3"),
    "modulation": (changed("model", cond_predict_scale=2), "neither true nor false"),
    "no modulation": (changed("model", cond_predict_scale=False), "has shape"),
    "widths": (changed("model", down_dims=[8, 32]), "does not fit"),
    "more observations": (changed("policy", obs_dim=4), "are not 2 times"),
    "more steps": (changed("policy", n_obs_steps=4), "6 numbers of 4 observations"),
    "a schedule": (
        changed("noise_scheduler", beta_schedule="sigmoid"),
        "beta_schedule = 'sigmoid' is not supported",
    ),
    "a scheduler": (
        changed("noise_scheduler", _target_="diffusers.EDMEulerScheduler"),
        "a 'EDMEulerScheduler' is not supported",
    ),
    "unresolved": (
        changed("policy", horizon="${horizon}"),
        r"'\$\{horizon\}' was not resolved",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name, wrap, tmp_path):
    policy, message = REFUSED[name]
    path = write(tmp_path / "a.ckpt", wrap, policy)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


TENSORS = {
    "normalizer.params_dict.obs.scale": (np.ones(4, np.float32), "obs.scale of 3 numbers"),
    "normalizer.params_dict.action.scale": (
        np.array([1, -1], np.float32),
        "action.scale is not positive",
    ),
    "normalizer.params_dict.action.offset": (
        np.array([1, np.nan], np.float32),
        "action.offset",
    ),
    "other.weight": (np.ones(2, np.float32), r"unexpected tensor other\.weight"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_are_not_understood_are_refused(name, wrap, tmp_path):
    value, message = TENSORS[name]
    path = write(tmp_path / "a.ckpt", wrap, **{name: value})
    with pytest.raises(ValueError, match=message):
        load_model(path)


def test_settings_run_nothing(wrap, tmp_path):
    class Caller:
        def __reduce__(self):
            return print, ("run",)

    path = save_torch({"cfg": Caller(), "state_dicts": {}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=r"wants to run (builtins|__builtin__)\.print"):
        load_model(path)
    inside = wrap({"policy": {"a": np.float32}})
    path = save_torch({"cfg": inside, "state_dicts": {}}, tmp_path / "b.ckpt")
    with pytest.raises(ValueError, match=r"wants to run numpy\.float32"):
        load_model(path)


def test_settings_that_hold_themselves_end(wrap, tmp_path):
    node = wrap({})
    node.__dict__["_content"] = {"policy": node}
    path = save_torch({"cfg": node, "state_dicts": {}}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="nested deeper than 32"):
        load_model(path)


def test_damaged_files_never_end_in_a_traceback(wrap, tmp_path):
    path, refused = write(tmp_path / "a.ckpt", wrap), 0
    whole = path.read_bytes()
    for _, data in damaged(whole, np.random.default_rng(3), 40):
        path.write_bytes(data)
        refused += outcome(lambda: load_model(path), path) is not None
    assert refused > 10


def test_two_policies_become_a_card(wrap, tmp_path, capsys):
    base = write(tmp_path / "base.ckpt", wrap)
    expert = write(tmp_path / "expert.ckpt", wrap, averaged=1)
    rng = np.random.default_rng(1)
    data = tmp_path / "x.npz"
    draw = lambda *shape: rng.normal(size=(100, *shape)).astype(np.float32)
    np.savez(data, x=draw(HORIZON, ACTIONS), obs=draw(STEPS, OBS))
    out = tmp_path / "card"
    argv = ["extract", "--base", base, "--expert", expert, "--data", data, "--out", out]
    argv += ["--context", "obs", "--steps", "4", "--batch-size", "4", "--width", "8"]
    assert main([str(part) for part in argv]) == 0
    told = json.loads((out / "card.json").read_text())
    assert told["provenance"]["normaliser"] == "declared by the base"


def original(name):
    """The authors' name of a tensor of our PyTorch twin, which has LeRobot's."""
    for i in (0, 1):
        name = name.replace(f".conv{i + 1}.", f".blocks.{i}.")
    return re.sub(r"^((?:down|up)_modules\.\d+\.2)\.", r"\1.conv.", name)


@pytest.mark.parity
def test_what_the_libraries_save_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    dill, omega = pytest.importorskip("dill"), pytest.importorskip("omegaconf")
    published = pytest.importorskip("tests.interop.published")
    torch.manual_seed(0)
    module = published.FilmUnet(ACTIONS, TOLD, WIDTHS, 8, 5, 4, True).eval()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn_like(p))
    weights = {f"model.{original(k)}": v for k, v in module.state_dict().items()}
    weights |= {k: torch.tensor(v) for k, v in statistics().items()}
    settings = omega.OmegaConf.create({"horizon": HORIZON, "policy": POLICY})
    settings.policy.horizon = "${horizon}"
    omega.OmegaConf.resolve(settings)
    saved = {
        "cfg": settings,
        "state_dicts": {"model": weights, "ema_model": dict(weights)},
        "pickles": {"_output_dir": dill.dumps("here")},
    }
    path = tmp_path / "latest.ckpt"
    with path.open("wb") as file:
        torch.save(saved, file, pickle_module=dill)
    model = load_model(path, "ema_model")
    rng = np.random.default_rng(2)
    draw = lambda *shape: rng.normal(size=(4, *shape)).astype(np.float32)
    x, obs, t = draw(HORIZON, ACTIONS), draw(STEPS, OBS), np.array([0, 3, 11, 19])
    told = obs * np.float32(SCALES["obs"]) + np.float32(OFFSETS["obs"])
    with torch.no_grad():
        wanted = module(*map(torch.tensor, (x, t, told.reshape(4, -1)))).numpy()
    found = jax.vmap(model.apply)(*map(jnp.asarray, (x, t, obs)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
