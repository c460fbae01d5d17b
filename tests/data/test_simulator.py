"""A simulator that cannot be imported is one line, and nothing else needs it."""

import os
import subprocess
import sys

import pytest

from diffreward.data import make_locomotion, make_maze, make_physics
from diffreward.data.simulator import load_mujoco, quiet_models


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


def test_loading_a_model_says_nothing_and_leaves_no_file(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    make_locomotion("halfcheetah").close()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_other_warnings_of_models_are_passed_on():
    import mujoco

    @quiet_models()
    def load():
        for text in ("this attribute is deprecated", "mass is negative"):
            mujoco.get_mju_user_warning()(text)

    before = mujoco.get_mju_user_warning()
    with pytest.warns(RuntimeWarning, match="mass is negative") as found:
        load()
    assert len(found) == 1
    assert mujoco.get_mju_user_warning() is before
