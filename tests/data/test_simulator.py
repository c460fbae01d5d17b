"""A simulator that cannot be imported is one line, and nothing else needs it."""

import os
import subprocess
import sys

import pytest

from diffreward.data import make_locomotion, make_maze, make_physics
from diffreward.data.simulator import load_mujoco


@pytest.fixture(
    params=[
        "raise ImportError('no module of that name')",
        "raise RuntimeError('invalid value for environment variable MUJOCO_GL: x')",
        "None.eglQueryString",
        "raise OSError('libOSMesa.so: cannot open')",
    ]
)
def broken(request, tmp_path, monkeypatch):
    (tmp_path / "mujoco").mkdir()
    (tmp_path / "mujoco" / "__init__.py").write_text(request.param + "\n")
    for name in [n for n in sys.modules if n.split(".")[0] == "mujoco"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    "use", [lambda: make_locomotion("hopper"), lambda: make_physics(make_maze("umaze"))]
)
def test_a_broken_simulator_is_told_in_one_line(use):
    with pytest.raises(ValueError, match="MuJoCo cannot be imported .* MUJOCO_GL") as e:
        use()
    assert "\n" not in str(e.value)


def test_a_working_one_is_the_module_itself():
    import mujoco

    assert load_mujoco() is mujoco


def test_data_are_read_without_it():
    code = "import sys; sys.modules['mujoco'] = None; import diffreward.data"
    env = {**os.environ, "MUJOCO_GL": "nonsense"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
