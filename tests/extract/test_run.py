"""Records of training runs: what they hold, and runs of earlier records."""

import json
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from diffreward.diffusion import cosine
from diffreward.extract import OtherRun, Source, Training, run_record
from diffreward.extract.run import open_run
from diffreward.networks import TrajectoryMLP

SOURCE = Source(base=np.zeros((3, 2)), expert=np.ones((3, 2)), schedule=cosine(4))
UNREAD = {"weighting": "elbo", "beta": 2.0, "noises": 4, "probes": 2}
"""What a leaderboard's settings were, of which no discriminator read any."""


def record(source=SOURCE, **settings):
    return run_record("discriminator", source, Training(**settings), seed=0)


def former(made, schedule):
    """A record as it was made when all extractors shared their settings."""
    data = {k: v for k, v in made["data"].items() if k != "schedule"}
    shared = made["settings"] | UNREAD | {"schedule": schedule}
    return made | {"data": data, "settings": shared}


def begun(folder, found):
    """A folder that holds steps of the run of a record."""
    (folder / "checkpoint" / "3").mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(found))
    return folder


def test_a_record_holds_the_settings_of_its_extractor_alone():
    made = record(steps=3, progress=True)
    assert made["settings"].keys() == {*Training._fields} - {"progress"}
    assert made == record(steps=3)
    assert made != record(steps=4)
    assert made["data"].keys() == {"base", "expert", "schedule"}


def test_networks_and_arrays_of_settings_are_known_by_what_they_are():
    assert record(network=TrajectoryMLP(4, 1)) == record(network=TrajectoryMLP(4, 1))
    assert record(network=TrajectoryMLP(4, 1)) != record(network=TrajectoryMLP(5, 1))

    class Own(NamedTuple):
        weights: Any

    # Too many to be told apart as they are printed.
    zeros = jnp.zeros(5000)
    made = [
        run_record("own", SOURCE, Own(weights), seed=0)
        for weights in (zeros, np.zeros(5000, np.float32), zeros.at[2500].set(1.0))
    ]
    assert made[0] == made[1] != made[2]


def test_runs_of_shared_settings_are_found_again(tmp_path):
    made = record(steps=3)
    folder = begun(tmp_path / "given", former(made, made["data"]["schedule"]))
    open_run(folder, made)
    for other, named in (
        (record(steps=4), "settings steps was 3, now 4"),
        (record(SOURCE._replace(schedule=cosine(5)), steps=3), "data schedule was"),
        (record(SOURCE._replace(schedule=None), steps=3), "data schedule was .* not given"),
    ):
        with pytest.raises(OtherRun, match=named):
            open_run(folder, other)
    without = record(SOURCE._replace(schedule=None), steps=3)
    folder = begun(tmp_path / "of the pair", former(without, None))
    open_run(folder, without)
    with pytest.raises(OtherRun, match="data schedule was not given"):
        open_run(folder, made)


def test_settings_that_an_extractor_never_shared_are_not_forgotten(tmp_path):
    made = record(steps=3)
    more = made | {"settings": made["settings"] | {"noises": 4}}
    with pytest.raises(OtherRun, match="settings noises was 4, now not given"):
        open_run(begun(tmp_path, more), made)


@pytest.mark.parametrize("found", [[], {"settings": []}, {"settings": {"schedule": None}}])
def test_a_damaged_record_is_another_run(tmp_path, found):
    with pytest.raises(OtherRun, match="use another workdir"):
        open_run(begun(tmp_path, found), record())
