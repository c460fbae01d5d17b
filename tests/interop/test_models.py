"""Networks of other codes, read into ours, must say what they say there."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine
from diffreward.interop import (
    load_model,
    load_scheduler,
    load_single_step,
    load_unet,
    load_unet1d,
    load_value,
    read_state_dict,
    save_unet1d,
)
from diffreward.networks import TemporalUnet
from tests.networks.reference import random_params

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity
from tests.interop import published  # noqa: E402


def inputs(horizon, dim, count=3):
    rng = np.random.default_rng(4)
    x = rng.standard_normal((count, horizon, dim)).astype(np.float32)
    return x, np.array([0, 7, 19][:count])


def theirs(module, x, t):
    with torch.no_grad():
        return module(torch.tensor(x), torch.tensor(t)).numpy()


def ours(loaded, x, t):
    apply = jax.jit(jax.vmap(loaded.network.apply, (None, 0, 0)))
    return apply(loaded.params, jnp.asarray(x), jnp.asarray(t, jnp.int32))


def shaken(module):
    """No tensor keeps the value it is initialised with: a lost one would not show."""
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data += 0.1 * noise
    return module


def state(module):
    return {k: v.numpy() for k, v in module.state_dict().items()}


@pytest.mark.parametrize(
    ("horizon", "mults", "attention"), [(8, (1, 2, 4), True), (4, (1, 3), False)]
)
def test_published_unets(horizon, mults, attention):
    module = shaken(published.TemporalUnet(6, 16, mults, attention))
    loaded = load_unet(state(module))
    x, t = inputs(horizon, 6)
    np.testing.assert_allclose(ours(loaded, x, t), theirs(module, x, t), atol=1e-5)
    assert loaded.dim == 6


@pytest.mark.parametrize("activation", ["mish", "leaky_relu"])
def test_published_value_functions(activation):
    act = {"mish": torch.nn.Mish(), "leaky_relu": torch.nn.LeakyReLU()}[activation]
    module = shaken(published.ValueFunction(5, 16, 16, (1, 2), act))
    loaded = load_value(state(module), activation=activation)
    x, t = inputs(16, 5)
    np.testing.assert_allclose(ours(loaded, x, t), theirs(module, x, t), atol=1e-5)


def test_published_single_step_rewards():
    module = shaken(published.SingleStep(4, 6, (32, 16, 8), torch.nn.LeakyReLU()))
    loaded = load_single_step(state(module), window=4, dim=6)
    x, t = inputs(4, 6)
    np.testing.assert_allclose(ours(loaded, x, t), theirs(module, x, t), atol=1e-5)
    with pytest.raises(ValueError, match="of 24 numbers, not of 5 steps of 6"):
        load_single_step(state(module), window=5, dim=6)


def test_the_trainers_file_has_an_average_and_a_schedule(tmp_path):
    module = shaken(published.TemporalUnet(6, 16, (1, 2), False))
    schedule = cosine(20)
    buffers = {
        "betas": torch.tensor(np.array(schedule.beta)),
        "loss_fn.weights": torch.ones(2),
    }
    wrapped = {f"model.{k}": v for k, v in module.state_dict().items()} | buffers
    doubled = {k: 2 * v if k.startswith("model.") else v for k, v in wrapped.items()}
    torch.save({"step": 3, "model": doubled, "ema": wrapped}, tmp_path / "state_3.pt")
    model = load_model(tmp_path / "state_3.pt")
    x, t = inputs(8, 6)
    got = jax.vmap(model.apply)(jnp.asarray(x), jnp.asarray(t, jnp.int32))
    np.testing.assert_allclose(got, theirs(module, x, t), atol=1e-5)
    np.testing.assert_allclose(model.schedule.beta, schedule.beta, rtol=1e-6)
    assert model.prediction is None
    other = read_state_dict(tmp_path / "state_3.pt", copy="model")
    weight = "mid_block1.time_mlp.1.weight"
    np.testing.assert_array_equal(
        other.tensors[weight], 2 * module.state_dict()[weight].numpy()
    )


def test_tensors_missing_and_left_over_are_named():
    tensors = state(published.TemporalUnet(6, 16, (1, 2), False))
    del tensors["ups.0.3.conv.bias"]
    with pytest.raises(ValueError, match=r"x\.pt lacks the tensor ups\.0\.3\.conv\.bias$"):
        load_unet(tensors, "x.pt")
    tensors = state(published.TemporalUnet(6, 16, (1, 2), False)) | {"odd": np.zeros(1)}
    with pytest.raises(ValueError, match=r"x\.pt has the unexpected tensor odd$"):
        load_unet(tensors, "x.pt")
    with pytest.raises(ValueError, match="lacks the tensor time_mlp.1.weight"):
        load_unet({"a": np.zeros(1)})


UNET = {
    "in_channels": 5,
    "out_channels": 5,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownResnetBlock1D",) * 2,
    "up_block_types": ("UpResnetBlock1D",),
    "mid_block_type": "MidResTemporalBlock1D",
    "out_block_type": "OutConv1DBlock",
}
VALUE = {
    "in_channels": 5,
    "out_channels": 5,
    "block_out_channels": (32, 64),
    "down_block_types": ("DownResnetBlock1D",) * 2,
    "up_block_types": (),
    "mid_block_type": "ValueFunctionMidBlock1D",
    "out_block_type": "ValueFunction",
    "downsample_each_block": True,
}
COMMON = {
    "layers_per_block": 1,
    "act_fn": "mish",
    "norm_num_groups": 8,
    "use_timestep_embedding": True,
    "time_embedding_type": "positional",
    "flip_sin_to_cos": False,
    "freq_shift": 1,
}


def diffusers_unet(config):
    diffusers = pytest.importorskip("diffusers")
    return shaken(diffusers.UNet1DModel(**config, **COMMON))


def channels_first(module):
    return lambda x, t: module(x.mT, t).sample


@pytest.mark.parametrize("safe", [True, False])
def test_hugging_face_unets(safe, tmp_path):
    module = diffusers_unet(UNET)
    module.save_pretrained(tmp_path / "m", safe_serialization=safe)
    loaded = load_unet1d(tmp_path / "m")
    x, t = inputs(8, 5)
    wanted = theirs(channels_first(module), x, t).swapaxes(1, 2)
    np.testing.assert_allclose(ours(loaded, x, t), wanted, atol=1e-5)


def test_hugging_face_value_functions(tmp_path):
    module = diffusers_unet(VALUE)
    module.save_pretrained(tmp_path / "m")
    loaded = load_unet1d(tmp_path / "m")
    x, t = inputs(16, 5)
    wanted = theirs(channels_first(module), x, t)[:, 0]
    np.testing.assert_allclose(ours(loaded, x, t), wanted, atol=1e-5)


def test_what_we_write_diffusers_loads(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    network = TemporalUnet(16, (1, 2))
    x, t = inputs(8, 5)
    params = random_params(network, jnp.asarray(x[0]), jnp.int32(0))
    save_unet1d(tmp_path / "m", network, params, 5)
    module = diffusers.UNet1DModel.from_pretrained(tmp_path / "m")
    got = theirs(channels_first(module), x, t).swapaxes(1, 2)
    wanted = jax.vmap(network.apply, (None, 0, 0))(params, x, jnp.asarray(t, jnp.int32))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    again = load_unet1d(tmp_path / "m")
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    with pytest.raises(FileExistsError, match="m exists; choose another folder"):
        save_unet1d(tmp_path / "m", network, params, 5)
    with pytest.raises(ValueError, match="no attention"):
        save_unet1d(tmp_path / "n", TemporalUnet(16, (1, 2), True), params, 5)


@pytest.mark.parametrize("name", ["squaredcos_cap_v2", "linear", "scaled_linear"])
def test_schedules_are_diffusers_schedules(name, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDPMScheduler(
        50, beta_schedule=name, prediction_type="v_prediction"
    )
    scheduler.save_pretrained(tmp_path)
    schedule, prediction = load_scheduler(tmp_path)
    np.testing.assert_allclose(schedule.alpha_bar, scheduler.alphas_cumprod, rtol=1e-4)
    assert prediction == "v"


def test_nothing_needs_pytorch(tmp_path):
    module = published.TemporalUnet(6, 16, (1, 2), False)
    betas = {"betas": torch.tensor(np.array(cosine(20).beta))}
    wrapped = {f"model.{k}": v for k, v in module.state_dict().items()} | betas
    torch.save({"step": 3, "ema": wrapped}, tmp_path / "state.pt")
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'diffusers']))\n"
        "import jax.numpy as jnp\n"
        "from diffreward.interop import load_model\n"
        f"model = load_model({str(tmp_path / 'state.pt')!r})\n"
        "print(model.apply(jnp.zeros((8, 6)), jnp.int32(0)).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "(8, 6)"
