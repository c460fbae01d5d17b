import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.data import laws
from diffreward.diffusion import detect_prediction, discrete, linear
from tests.diffusion.test_model import CONVENTIONS, LAW, network, outputs


def samples(count=200):
    keys = jax.random.split(jax.random.key(3), count)
    return jax.vmap(laws.sample, (None, 0))(LAW, keys)


@pytest.mark.parametrize("name", CONVENTIONS)
def test_the_kind_of_an_exact_network_is_found(name, key):
    process, kind, levels = CONVENTIONS[name]
    sign = -1.0 if name == "flow-reversed" else 1.0
    apply = network(kind, levels, sign)
    found = detect_prediction(apply, process, samples(), key)
    assert found.prediction == kind
    assert found.confidence > 0.99
    assert max(found.explained, key=found.explained.get) == kind


@pytest.mark.parametrize("kind", ["eps", "x_0", "v", "score"])
def test_discrete_chains_are_told_apart(kind, key):
    schedule = linear(100)

    def apply(x, t):
        a, s = schedule.sqrt_alpha_bar[t], schedule.sigma[t]
        return outputs(kind, x, a, s, None)

    found = detect_prediction(apply, discrete(schedule), samples(), key)
    assert (found.prediction, found.confidence > 0.99) == (kind, True)


def test_a_network_that_knows_nothing_gets_no_confidence(key):
    # Of unit variance, as normalised data are: silence, read as v, is then a good guess.
    x_0 = np.asarray(samples())
    x_0 = (x_0 - x_0.mean(0)) / x_0.std(0)
    process = CONVENTIONS["vp-eps"][0]
    for apply in (lambda x, u: 3.0 * jnp.sin(7.0 * x), lambda x, u: 0.0 * x):
        found = detect_prediction(apply, process, x_0, key)
        assert found.confidence < 0.6
        assert max(found.explained.values()) < 0.01


def test_few_samples_are_refused(key):
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        detect_prediction(
            lambda x, u: x, CONVENTIONS["edm"][0], np.ones((1, 2), np.float32), key
        )
