"""Every public name has words, every link arrives; `make docs` then builds the pages."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from docs.reference import offline, public
from tests.docs import links

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
PAGES.append(ROOT / "docs" / "tutorial.py")
CODE = re.compile(r"`(?:diffreward\.)?([a-z]\w*)\.(\w+)(?:\([^`]*\))?`")

PLACE = re.compile(r"`((?:benchmarks|configs|docs|experiments|src|tests)/[\w./*]+)")


@pytest.mark.parametrize("module", public.modules())
def test_public_names_have_docstrings(module):
    assert public.names(module) or module == "diffreward"
    assert [n for n in public.names(module) if not public.docstring(module, n)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    assert links.broken(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page):
    if page.name in ("CHANGELOG.md", "decisions.md"):
        return  # they tell of the past
    missing = [
        f"{package}.{name}"
        for package, name in CODE.findall(links.FENCE.sub("", links.text(page)))
        if f"diffreward.{package}" in public.modules() and not known(package, name)
    ]
    paths = PLACE.findall(links.FENCE.sub("", links.text(page)))
    missing += [path for path in paths if not any(ROOT.glob(path))]
    assert missing == []


def known(package: str, name: str) -> bool:
    folder = ROOT / "src" / "diffreward" / package
    if name in ("json", "md"):
        return True  # a file, ``report.json``
    return name in public.names(f"diffreward.{package}") or any(
        (folder / part).exists() for part in (f"{name}.py", name)
    )


def test_every_page_has_its_place():
    listed = re.findall(
        r"^(?:.*<)?(\w+)>?$", (ROOT / "docs" / "index.md").read_text(), re.M
    )
    pages = {page.stem for page in PAGES} - {"README", "index"}
    assert pages <= set(listed)


def test_a_nameless_value_a_bare_record_and_an_inherited_docstring_are_found(
    tmp_path, monkeypatch
):
    path = tmp_path / "toy.py"
    path.write_text(
        "from typing import NamedTuple\n"
        "class Parent:\n    '''Words.'''\n"
        "class Child(Parent):\n    pass\n"
        "class Bare(NamedTuple):\n    a: int\n"
        "def said():\n    '''Words.'''\n"
        "def silent():\n    pass\n"
        "BARE = 1.5\n"
        "TOLD: float = 2.5\n'''Words.'''\n"
        "_HIDDEN = 1\n"
    )
    module = ModuleType("diffreward.toy")
    module.__file__ = str(path)
    exec(compile(path.read_text(), str(path), "exec"), vars(module))
    monkeypatch.setitem(sys.modules, "diffreward.toy", module)
    names = public.names("diffreward.toy")
    assert "_HIDDEN" not in names
    found = {n for n in names if not public.docstring("diffreward.toy", n)}
    assert found == {"Child", "Bare", "silent", "BARE"}


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A title, `x`: [it](x.md)\n\n# Twice\n\n# Twice\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[a](other.md) [b](other.md#a-title-x-it)\n"
        "[c](other.md#twice-1) [d](#here)\n"
        "[e](https://example.org/none) ![f](none.png) [g](other.md#twice-2)\n"
        '[h](#there) <img src="none.svg">\n[i]: none.md\n'
        "`[code](none.md)`\n\n```\n# Not a title\n[code](none.md)\n```\n[j](#not-a-title)\n"
    )
    wrong = [
        "none.png",
        "other.md#twice-2",
        "#there",
        "none.svg",
        "#not-a-title",
        "none.md",
    ]
    assert links.broken(page) == wrong


class Load(NamedTuple):
    text: str
    address: str | None


@pytest.mark.parametrize(
    "load",
    [
        Load('<script async src="https://cdn.org/a.js">', "https://cdn.org/a.js"),
        Load('<link rel="stylesheet" href="//cdn.org/a.css">', "//cdn.org/a.css"),
        Load('<style>@import "https://fonts.org/a"</style>', "https://fonts.org/a"),
        Load(
            "<style>a{background:url(https://x.org/a.png)}</style>", "https://x.org/a.png"
        ),
        Load('<script src="_static/a.js"></script><a href="https://x.org">x</a>', None),
    ],
)
def test_pages_that_load_from_elsewhere_are_found(load, tmp_path):
    page = tmp_path / "a" / "page.html"
    page.parent.mkdir()
    page.write_text(load.text)
    wanted = [f"{page}: {load.address}"] if load.address else []
    assert offline.loaded(tmp_path) == wanted
