"""What a page shows of a card that somebody else made."""

import json
import re

import jax.numpy as jnp
import pytest

from diffreward.card import save
from diffreward.cli.page import page
from diffreward.diffusion import cosine
from diffreward.networks import InnerProductReward, TrajectoryMLP
from diffreward.report import markdown
from diffreward.report.tables import Markup
from diffreward.reward import network_reward
from tests.networks.reference import random_params

NETWORK = InnerProductReward(TrajectoryMLP(8, 1))
BAD = "x\n\n# Verified <img src=x> [a](javascript:b) ` | \x1b[2J \u202e"


@pytest.fixture
def folder(tmp_path):
    params = random_params(NETWORK, jnp.zeros((4, 3)), jnp.int32(0))
    reward = network_reward(NETWORK, params, cosine(3), "x")
    (tmp_path / "f").write_bytes(b"png")
    save(reward, tmp_path / "c", (4, 3), figures={"a](b) c.png": tmp_path / "f"})
    return tmp_path / "c"


def test_text_of_a_card_is_words(folder):
    path = folder / "card.json"
    card = json.loads(path.read_text())
    card |= {"extractor": BAD, "limits": [BAD], "provenance": {BAD: {"path": BAD}}}
    card["measures"] = {"auroc": [0.5, None, 1.0]}
    path.write_text(json.dumps(card))
    said = page(folder)
    headings = [line for line in said.splitlines() if line.startswith("#")]
    assert headings == ["# Reward card: c", "## Limits", "## Provenance"]
    outside = re.sub(r"(`+).+?\1", "", said.replace("\\`", ""))
    assert "<img" not in outside
    assert "](javascript" not in outside
    assert "(figures/a%5D%28b%29%20c.png)" in said
    assert "0.50 [\u2013, 1.00]" in said
    assert not {"\x1b", "\u202e"} & set(said)


def test_cells_of_a_table_stay_cells():
    table = markdown(["a | b"], [["c | d\n| e"], [Markup("*f*")]]).splitlines()
    assert table == ["| a \\| b |", "|---|", "| c \\| d \\| e |", "| *f* |"]
