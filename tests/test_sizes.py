"""A file holds one idea: none of the sources is longer than a person reads in one go."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
LONGEST = 350
"""Lines."""


def long_files(root: Path) -> set[str]:
    paths = [p for name in ("src", "experiments") for p in (root / name).rglob("*.py")]
    assert paths, f"no sources in {root}; were they moved?"
    return {
        p.relative_to(root).as_posix()
        for p in paths
        if len(p.read_text().splitlines()) > LONGEST
    }


def test_no_source_is_too_long():
    assert not long_files(ROOT)


def test_the_rule_can_fail(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("\n" * LONGEST)
    assert long_files(tmp_path) == set()
    (tmp_path / "src" / "b.py").write_text("\n" * (LONGEST + 1))
    assert long_files(tmp_path) == {"src/b.py"}
