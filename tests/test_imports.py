"""The one-way rule: a package imports only packages to its left, and types."""

import ast
from pathlib import Path

import pytest

from diffreward import files

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "diffreward"
ORDER = ["data", "networks", "diffusion", "reward", "card", "learn", "extract", "steer"]
ALLOWED = {name: set(ORDER[: i + 1]) for i, name in enumerate(ORDER)}
# The command line sees everything but experiments.
EVERYTHING = {*ORDER, "train", "report", "measures", "interop", "cli"}
# These know no method.
ALLOWED |= {name: {name} for name in ("train", "report", "measures")}
ALLOWED["interop"] = {"data", "networks", "diffusion", "interop"}
ALLOWED["learn"] |= {"train"}
ALLOWED["learn"] -= {"card"}
ALLOWED["extract"] |= {"train"}
ALLOWED["extract"] -= {"card"}
ALLOWED["steer"] -= {"card"}
# The front door, which no package goes through but the command line.
FRONT = {"api", "arguments", "findings", "toy"}
ALLOWED["cli"] = EVERYTHING | FRONT
# Modules below all packages; they import none of them.
BOTTOM = {"types", "files", "names", "processes", "text", "weights", "__version__"}
FOREIGN = {"torch", "gym", "mujoco_py", "d4rl", "configs", "experiments", "tests"}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_to_their_left(package):
    files = sorted((SOURCE / package).glob("**/*.py"))
    assert files, f"no files in {package}; was it renamed?"
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] not in FOREIGN, f"{path} imports {name}"
            if parts[0] == "diffreward" and len(parts) > 1:
                known = ALLOWED[package] | BOTTOM
                assert parts[1] in known, f"{path} imports {name}"


@pytest.mark.parametrize("module", sorted(BOTTOM - {"__version__"}))
def test_what_lies_below_imports_no_package(module):
    paths = [*SOURCE.glob(f"{module}.py"), *SOURCE.glob(f"{module}/*.py")]
    assert paths, f"no module {module}; was it renamed?"
    for name in set().union(*map(imports, paths)):
        parts = name.split(".")
        assert parts[0] != "diffreward" or {*parts[1:2]} <= BOTTOM, f"{module}: {name}"


@pytest.mark.parametrize("module", sorted(FRONT))
def test_the_front_door_sees_all_but_the_command_line(module):
    for name in imports(SOURCE / f"{module}.py"):
        parts = name.split(".")
        assert parts[0] not in FOREIGN, f"{module}: {name}"
        if parts[0] == "diffreward" and len(parts) > 1:
            assert parts[1] in FRONT | BOTTOM | EVERYTHING - {"cli"}, f"{module}: {name}"


def test_the_parts_of_a_door_are_its_own():
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "files":
            within = {n for n in imports(path) if n.startswith("diffreward.files.")}
            assert {n.split(".")[2] for n in within} <= {*files.__all__}, path


def test_every_package_has_its_place():
    packages = {p.parent.name for p in SOURCE.glob("*/__init__.py")}
    assert packages - BOTTOM == set(ALLOWED)


def test_the_rule_can_fail(tmp_path):
    bad = tmp_path / "x.py"
    bad.write_text("from diffreward.steer import guide\nimport torch.nn\n")
    assert {"diffreward.steer", "torch.nn"} <= imports(bad)
