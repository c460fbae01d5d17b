"""Nothing opens, writes, deletes or prints beside the doors, `files` and `text`."""

import ast
from pathlib import Path

import pytest

from diffreward import files

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])

METHODS = {
    "extract",
    "extractall",
    "hardlink_to",
    "open",
    "read_bytes",
    "read_text",
    "rename",
    "rmdir",
    "savefig",
    "symlink_to",
    "tofile",
    "touch",
    "unlink",
    "write_bytes",
    "write_text",
}
"""Of paths and figures, whatever the object is called."""
CALLS = {
    "h5py.File",
    "json.dump",
    "json.load",
    "np.fromfile",
    "np.genfromtxt",
    "np.load",
    "np.loadtxt",
    "np.memmap",
    "np.save",
    "np.savetxt",
    "np.savez",
    "np.savez_compressed",
    "open",
    "os.fdopen",
    "os.link",
    "os.open",
    "os.remove",
    "os.rename",
    "os.replace",
    "os.renames",
    "os.rmdir",
    "os.symlink",
    "os.truncate",
    "os.unlink",
    "pickle.load",
    "pickle.loads",
    "print",
    "sys.stderr.write",
    "sys.stdout.write",
    "zipfile.ZipFile",
    "zipfile.is_zipfile",
}
BARE = {"load_file", "safe_open", "save_file"}
"""Of safetensors, wherever they come from."""
MODULES = ("shutil", "tempfile")
"""Every function of these."""
OURS = {f"diffreward.files.{name}" for name in files.__all__}

DOORS = {
    *(f"src/diffreward/files/{name}.py" for name in ("read", "write", "grow", "folders")),
    "src/diffreward/text.py",
}
ALLOWED = {
    # Of bytes that a door has read, or is about to write.
    ("src/diffreward/data/arrays.py", "zipfile.ZipFile"),
    ("src/diffreward/data/arrays.py", "np.save"),
    ("src/diffreward/data/arrays.py", "np.savez"),
    ("src/diffreward/data/hdf5.py", "h5py.File"),
    ("src/diffreward/interop/torch_zip.py", "zipfile.ZipFile"),
    ("src/diffreward/steer/relabel.py", "h5py.File"),
    ("src/diffreward/report/figures.py", "savefig"),
    ("src/diffreward/findings.py", "savefig"),
    # A file that the simulator's own generator makes in the system's folder.
    ("src/diffreward/data/maze_physics.py", "os.unlink"),
    # Into the place that a door gives.
    ("experiments/ablations.py", "shutil.copytree"),
    # The folder of a training that nobody wants to keep.
    ("src/diffreward/extract/training.py", "tempfile.TemporaryDirectory"),
    # The sink of a program whose reader went away.
    ("src/diffreward/cli/guard.py", "os.open"),
}


def full_names(tree: ast.AST) -> dict[str, str]:
    """What the names that a file imports stand for: ``rmtree`` for ``shutil.rmtree``."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {n.asname or n.name: n.name for n in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {n.asname or n.name: f"{node.module}.{n.name}" for n in node.names}
    return {name: full.replace("numpy", "np", 1) for name, full in names.items()}


def called(path: Path) -> set[str]:
    """Names of the functions that a file calls beside the doors."""
    found, tree = set(), ast.parse(path.read_text())
    names = full_names(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        name = ".".join([names.get(first, first), *rest])
        method = name.rsplit(".", 1)[-1]
        # A text is replaced in two parts, a path by one.
        moved = method == "replace" and len(node.args) == 1 and not node.keywords
        if name in CALLS or method in BARE or name.split(".")[0] in MODULES:
            found.add(name)
        elif rest and (method in METHODS or moved) and name not in OURS:
            found.add(method)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_goes_around_the_doors(path):
    name = path.relative_to(ROOT).as_posix()
    if name in DOORS:
        return
    allowed = {call for file, call in ALLOWED if file == name}
    assert called(path) - allowed == set()


def test_every_exception_is_used():
    found = {(p.relative_to(ROOT).as_posix(), call) for p in SOURCES for call in called(p)}
    assert found >= ALLOWED


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("open('a')", "open"),
        ("print(1)", "print"),
        ("p.unlink()", "unlink"),
        ("p.open()", "open"),
        ("p.replace(q)", "replace"),
        ("import shutil as s\ns.copy(a, b)", "shutil.copy"),
        ("from shutil import rmtree\nrmtree(a)", "shutil.rmtree"),
        ("from os import replace as r\nr(a, b)", "os.replace"),
        ("import numpy\nnumpy.load(f)", "np.load"),
        ("np.load(f)", "np.load"),
        ("from safetensors.numpy import load_file\nload_file(f)", None),
        ("from diffreward import files\nfiles.read_text(a)", ""),
        ("from diffreward.files import folders\nfolders.p.unlink()", "unlink"),
        ("a.replace('x', 'y')", ""),
        ("record._replace(x=1)", ""),
    ],
)
def test_the_rule_can_fail(tmp_path, code, name):
    bad = tmp_path / "x.py"
    bad.write_text(code)
    found = called(bad)
    assert len(found) == 1 if name is None else found == {name} - {""}
