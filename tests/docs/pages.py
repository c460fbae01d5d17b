"""What the pages claim: blocks of code, commands, and the names they speak of."""

import argparse
import configparser
import importlib
import importlib.util
import re
import shlex
from pathlib import Path
from typing import NamedTuple

from diffreward.cli.main import parser

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
HISTORY = ("decisions.md", "CHANGELOG.md")
"""Pages that speak of what was."""
FENCE = re.compile(
    r"(?:<!-- (?P<mark>(?:(?!-->)[\s\S])*?)\s*-->\n)?"
    r"^```(?P<kind>[^\n]*)\n(?P<code>[\s\S]*?)^```$",
    re.MULTILINE,
)
SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
CONFIGS = [f"configs.{p.stem}" for p in (ROOT / "configs").glob("[!_]*.py")]


class Block(NamedTuple):
    """A fenced block, and the comment right before it that says how it is meant.

    ``continues``: in the namespace of the one before. ``slow``: takes minutes.
    ``printed``: what the one before prints. ``given: ...``: Python that comes first.
    """

    page: Path
    line: int
    kind: str
    code: str
    mark: str

    @property
    def given(self) -> str:
        return self.mark.removeprefix("given:") if self.mark.startswith("given:") else ""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, m.start("code")) + 1,
            m["kind"],
            m["code"],
            m["mark"] or "",
        )
        for m in FENCE.finditer(text)
    ]


def spans(page: Path) -> list[str]:
    """Code within sentences."""
    text = FENCE.sub("", page.read_text())
    return [" ".join(code.split()) for code in SPAN.findall(text)]


def commands(page: Path) -> list[str]:
    """Of blocks without a language, and of sentences."""
    found = [b.code.replace("\\\n", " ") for b in blocks(page) if b.kind in ("", "sh")]
    lines = [line.partition(" #")[0].strip() for code in found for line in code.split("\n")]
    programs = ("diffreward ", "make ", "pip ", "python ")
    lines += [code for code in spans(page) if code.startswith(programs)]
    return [line for line in lines if line]


def check(command: str) -> None:
    """Complains of a command that names what does not exist.

    Raises:
        ValueError: saying what.
    """
    match shlex.split(command):
        case ["make", *words]:
            made = (ROOT / "Makefile").read_text()
            for word in words:
                name, sets, _ = word.partition("=")
                pattern = rf"^{name} \??=|\$\({name}\)" if sets else rf"^{name}:"
                require(re.search(pattern, made, re.MULTILINE), f"Makefile has no {name}")
        case ["pip", "install", "-e", what]:
            setup = configparser.ConfigParser()
            setup.read(ROOT / "setup.cfg")
            for extra in re.findall(r"\w+", what):
                require(extra in setup["options.extras_require"], f"no extra {extra}")
        case ["pip", "install", *words]:
            # What an example or an experiment needs beside the project; it says so itself.
            own = [*(ROOT / "docs/examples").glob("*.py"), *ROOT.glob("experiments/*/*.py")]
            needs = "".join(p.read_text() for p in own)
            for package in (w for w in words if not w.startswith("-")):
                require(package in needs, f"no example needs {package}")
        case [".", path]:
            require(path == ".venv/bin/activate", f"no {path}")
        case ["python", "-m", module, *words]:
            check_module(module, words)
        case ["srun", *_]:  # Slurm's own options, then the command of every process
            check(command[command.index("python ") :])
        case ["python", path, *_]:
            require((ROOT / path).is_file(), f"no file {path}")
        case ["diffreward", word] if not word.startswith("-"):
            require(word in kinds(), f"diffreward has no command {word}")
        case ["diffreward", *words]:
            parser().parse_args(words)
        case _:
            raise ValueError(f"nobody knows this command: {command}")


def require(good: object, message: str) -> None:
    if not good:
        raise ValueError(message)


def check_module(module: str, words: list[str]) -> None:
    spec = importlib.util.find_spec(module)
    require(spec, f"no module {module}")
    if spec.submodule_search_locations:
        require(importlib.util.find_spec(f"{module}.__main__"), f"{module} cannot be run")
    config = None
    source = "".join(
        Path(path).read_text()
        for path in (
            spec.origin,
            ROOT / "experiments/launch.py",
            ROOT / "benchmarks/common.py",
        )
    )
    for word in words:
        option, _, value = word.partition("=")
        if option == "--config":
            path, _, argument = value.partition(":")
            require((ROOT / path).is_file(), f"no file {path}")
            config = importlib.import_module(path.removesuffix(".py").replace("/", "."))
            config = config.get_config(argument)
        elif option.startswith("--config."):
            require(has_key(config, option), f"{path} has no key {option}")
        elif option.startswith("--"):
            require(f'"{option[2:]}"' in source or f'"{option}"' in source, f"no {option}")
        elif "/" not in word:
            require(re.search(rf"\b{word}\b", source), f"{module} knows no {word}")


def has_key(config: object, option: str) -> bool:
    """Whether ``--config.a.b`` is a key of a config."""
    for name in option.split(".")[1:]:
        if name not in (config or {}):
            return False
        config = config[name]
    return True


def has_any(option: str) -> bool:
    """Whether an option in a sentence is one of some program's."""
    if option.startswith("--config."):
        every = (importlib.import_module(name) for name in CONFIGS)
        return any(
            has_key(m.get_config(), option) for m in every if hasattr(m, "get_config")
        )
    known = {o for sub in kinds().values() for o in sub._option_string_actions}
    own = {"--config", "--workdir", "--cache", "--distributed", "--dry_run", "--wandb"}
    return option in known | own


def kinds() -> dict[str, argparse.ArgumentParser]:
    """Commands of ``diffreward``."""
    actions = parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))
