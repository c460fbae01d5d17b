"""The examples, on the files of other people that they are about.

Their folder is named by ``DIFFREWARD_EXAMPLES``; without it they are only imported.
"""

import ast
import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest

import diffreward as dr
from diffreward import measures
from diffreward.cli import main
from diffreward.reward import log_ratio
from tests.docs.pages import ROOT

EXAMPLES = ROOT / "docs/examples"
MODEL_LINES = 20
"""Of code that declare a model, at most."""


@pytest.fixture
def folder():
    told = os.environ.get("DIFFREWARD_EXAMPLES", "")
    if not (Path(told) / "alloys.csv").exists():
        pytest.skip("DIFFREWARD_EXAMPLES names no folder with alloys.csv")
    return Path(told)


def code_lines(tree):
    """Lines of a function without those of its docstring."""
    words = tree.body[0].end_lineno - tree.body[0].lineno + 1
    return tree.end_lineno - tree.lineno + 1 - words


@pytest.mark.parametrize("name", ["alloys", "galaxies"])
def test_a_model_is_declared_in_few_lines(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text())
    functions = {f.name: f for f in tree.body if isinstance(f, ast.FunctionDef)}
    assert code_lines(functions["model"]) <= MODEL_LINES


def test_real_galaxies_are_told_from_simulated_ones(tmp_path, capsys):
    if not find_spec("galaxygrad"):
        pytest.skip("galaxygrad is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import galaxies  # noqa: PLC0415
    pair = dr.make_pair(galaxies.simulated(), galaxies.real())
    found = {}
    for name, eps in {"simulated": pair.base, "real": pair.expert}.items():
        x = dr.draw_samples(eps, pair.schedule, (16, 32, 32))
        # One bright spot in the middle of a dark sky, on the scale log(1 + x) / 0.1.
        assert 4 < x.max((1, 2)).mean() < 10
        assert np.abs(x[:, :4]).mean() < 0.3
        np.save(tmp_path / f"{name}.npy", x)
        model = ["--model", f"{EXAMPLES / 'galaxies.py'}:{name}"]
        assert main(["detect", *model, "--data", str(tmp_path / f"{name}.npy")]) == 0
        said = capsys.readouterr().out
        assert "score, confidence 1.00" in said
        keys = jax.random.split(jax.random.key(0), len(x))
        ratio = lambda args: log_ratio(pair, *args).sum()
        found[name] = np.asarray(jax.lax.map(ratio, (keys, x), batch_size=8))
    assert measures.auroc(found["real"], found["simulated"]).value > 0.99


def test_two_labels_of_one_network_are_a_pair(folder, tmp_path, capsys):
    for name in ("alloys_tabddpm_ema.pt", "alloys.csv"):
        shutil.copy(folder / name, tmp_path)
    model = shutil.copy(EXAMPLES / "alloys.py", tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        import alloys  # noqa: PLC0415
    x, phases = alloys.alloys(tmp_path)
    for name in ("im", "fcc"):
        rows = x[phases == {"im": "Im", "fcc": "FCC_SS"}[name]]
        np.save(tmp_path / f"{name}.npy", rows)
        data = str(tmp_path / f"{name}.npy")
        assert main(["detect", "--model", f"{model}:{name}", "--data", data]) == 0
        said = capsys.readouterr().out
        assert "eps, confidence 1.00" in said
        assert "asked as declared the model explains" in said
    # Under the label of another phase it explains the alloys of this one less well.
    data, explained = str(tmp_path / "fcc.npy"), {}
    for name in ("im", "fcc"):
        assert main(["detect", "--model", f"{model}:{name}", "--data", data]) == 0
        said = capsys.readouterr().out
        explained[name] = float(re.search(r"\| as declared \| (\S+) \|", said)[1])
    assert explained["fcc"] > explained["im"] + 0.1
