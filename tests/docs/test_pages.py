"""Every block of code on every page runs; every command, option and file exists."""

import re

import jax
import numpy as np
import pytest

from tests.docs.pages import (
    HISTORY,
    PAGES,
    ROOT,
    Block,
    blocks,
    check,
    commands,
    has_any,
    spans,
)

PYTHON = [
    pytest.param(b, id=str(b), marks=[pytest.mark.slow] if "slow" in b.mark else [])
    for page in PAGES
    for b in blocks(page)
    if b.kind == "python"
]
COMMANDS = [(page.name, line) for page in PAGES for line in commands(page)]
LIVING = [page for page in PAGES if page.name not in HISTORY]
NUMBER = re.compile(r"-?\d+\.\d+")


def run(block: Block) -> None:
    """Executes a block in a namespace of its own, after those it continues."""
    before = [b for b in blocks(block.page) if b.kind == "python" and b.line <= block.line]
    start = max(i for i, b in enumerate(before) if b.mark != "continues")
    names = {"__name__": "__main__"}
    for part in before[start:]:
        exec(part.given, names)
        exec(compile("\n" * part.line + part.code, str(part.page), "exec"), names)


@pytest.mark.parametrize("block", PYTHON)
def test_python_runs_as_pasted(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # A program of its own process: none of the strictness of the tests.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run(block)
    said = capsys.readouterr().out
    after = [b for b in blocks(block.page) if b.line > block.line][:1]
    if after and after[0].mark == "printed":
        wanted = after[0].code
        assert NUMBER.sub("#", said).split() == NUMBER.sub("#", wanted).split()
        numbers = [[float(n) for n in NUMBER.findall(text)] for text in (said, wanted)]
        np.testing.assert_allclose(*numbers, atol=0.1)


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_name_what_exists(page, command):
    check(command)


@pytest.mark.parametrize("page", LIVING, ids=lambda p: p.name)
def test_what_a_page_speaks_of_exists(page):
    assert [code for code in spans(page) if not known(code)] == []


def known(code):
    """Whether code that is an option or a file is there; `test_site` knows names."""
    if match := re.match(r"--[\w.-]+", code):
        return has_any(match[0])
    if re.fullmatch(r"(?!runs/)[\w./]*\w/[\w./]+\.(py|md|txt|cfg)", code):
        return any((root / code).exists() for root in (ROOT, ROOT / "src/diffreward"))
    return True


@pytest.mark.parametrize(
    "command",
    [
        "make supper",
        "make test RAN=1",
        "pip install -e '.[images,none]'",
        "python -m experiments.maze3d",
        "python -m experiments.maze2d --config=configs/maze2d.py:umze",
        "python -m experiments.maze2d --config=configs/maze3d.py",
        "python -m experiments.maze2d --config=configs/maze2d.py --config.base.stepz=1",
        "python -m experiments.maze2d --work=runs/x",
        "python -m benchmarks.train_step hoper",
        "diffreward extrac",
        "diffreward score card x.npy --az nats",
        "rm -rf runs",
    ],
)
def test_wrong_commands_are_seen(command):
    with pytest.raises(ValueError, match=r"."):
        check(command)


@pytest.mark.parametrize(
    "code", ["--config.base.stepz=1", "--base-copi", "tests/test_x.py"]
)
def test_wrong_names_are_seen(code):
    assert not known(code)


def test_blocks_are_found(tmp_path):
    page = tmp_path / "x.md"
    page.write_text(
        "a `--b` c\n\n```python\nx = 1\n```\n<!-- continues -->\n```python\nassert x\n```\n"
        "<!-- given:\ny = 2\n-->\n```python\nassert y == 2\n```\n"
        "```python\nx\n```\n```\nmake a \\\n  b  # c\n```\n"
    )
    *good, bad, _ = blocks(page)
    first, second, _ = good
    assert (first.line, first.code, second.mark) == (4, "x = 1\n", "continues")
    for block in good:
        run(block)
    with pytest.raises(NameError):
        run(bad)
    assert (commands(page), spans(page)) == (["make a    b"], ["--b"])
