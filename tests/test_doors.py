"""Nothing opens, writes, deletes or prints beside the doors, `files` and `text`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])

METHODS = {
    "read_bytes",
    "read_text",
    "rename",
    "rmdir",
    "savefig",
    "symlink_to",
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
    "load_file",
    "np.load",
    "np.save",
    "np.savez",
    "np.savez_compressed",
    "open",
    "os.open",
    "os.remove",
    "os.rename",
    "os.replace",
    "os.rmdir",
    "os.unlink",
    "pickle.load",
    "pickle.loads",
    "print",
    "safe_open",
    "save_file",
    "sys.stderr.write",
    "sys.stdout.write",
    "zipfile.ZipFile",
    "zipfile.is_zipfile",
}
MODULES = ("shutil", "tempfile")
"""Every function of these."""
OURS = {"files.write_bytes", "files.write_text", "files.read_text"}

DOORS = {"src/diffreward/files.py", "src/diffreward/text.py"}
ALLOWED = {
    # Of bytes that a door has read, or is about to write.
    ("src/diffreward/data/arrays.py", "zipfile.ZipFile"),
    ("src/diffreward/data/arrays.py", "np.save"),
    ("src/diffreward/data/arrays.py", "np.savez"),
    ("src/diffreward/data/hdf5.py", "h5py.File"),
    ("src/diffreward/interop/torch_zip.py", "zipfile.ZipFile"),
    ("src/diffreward/steer/relabel.py", "h5py.File"),
    ("src/diffreward/report/figures.py", "savefig"),
    ("src/diffreward/cli/measure.py", "savefig"),
    # A file that the simulator's own generator makes in the system's folder.
    ("src/diffreward/data/maze_physics.py", "os.unlink"),
    # The folder of a training that nobody wants to keep.
    ("src/diffreward/extract/training.py", "tempfile.TemporaryDirectory"),
    # The sink of a program whose reader went away.
    ("src/diffreward/cli/guard.py", "os.open"),
}


def called(path: Path) -> set[str]:
    """Names of the functions that a file calls beside the doors."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        method = name.rsplit(".", 1)[-1]
        if name in CALLS or name.split(".")[0] in MODULES:
            found.add(name)
        elif name != method and method in METHODS and name not in OURS:
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


def test_the_rule_can_fail(tmp_path):
    bad = tmp_path / "x.py"
    bad.write_text("open('a')\nprint(1)\np.unlink()\nshutil.copy(a, b)\nnp.load(f)\n")
    assert called(bad) == {"open", "print", "unlink", "shutil.copy", "np.load"}
