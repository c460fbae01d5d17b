"""The command line of every experiment: flags, the lock of its folder, its errors."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from configs.common import ConfigDict
from diffreward import processes
from diffreward.cli.guard import guarded, start_jax
from diffreward.files import claim, user_path
from diffreward.text import complain
from experiments import stages


def run(
    main: Callable[[ConfigDict, Path], Any],
    config: str,
    workdir: str,
    doc: str | None,
    plan: Callable[[ConfigDict, Path], Any] | None = None,
    *,
    many: bool = False,
) -> None:
    """Parses ``--config`` and ``--workdir`` and runs an experiment.

    Errors a user can act on end with one line on stderr and exit status 1.

    Args:
        main: of the config and the folder.
        config: default of ``--config``.
        workdir: default of ``--workdir``.
        doc: shown by ``--help``.
        plan: what ``--dry_run`` does instead: checks, says what would be done, and writes
            nothing.
        many: whether several processes can run it together.
    """
    flag = config_flags.DEFINE_config_file("config", config, "What to run.")
    folder = flags.DEFINE_string("workdir", workdir, "Where every stage is written.")
    cache = flags.DEFINE_string(
        "cache", "", "Folder of compiled programs, or off; by default the user's cache."
    )
    together = flags.DEFINE_string(
        "distributed", "auto", "Several processes: auto, off, or ADDRESS:PORT,N,I."
    )
    dry = flags.DEFINE_bool(
        "dry_run", False, "Check what can be checked, say what would be done, and stop."
    )
    wandb = flags.DEFINE_string("wandb", None, "Mirror metrics to this wandb project.")
    sys.modules["__main__"].__doc__ = doc

    def begin() -> None:
        told = together.value or "off"
        if (
            not many
            and told != "off"
            and (told != "auto" or processes.launched(os.environ))
        ):
            raise ValueError("this experiment runs in one process; use --distributed=off")
        processes.join(told)
        start_jax(cache.value or "")
        if not folder.value:
            raise ValueError("--workdir is empty; name a folder")
        workdir = user_path(folder.value)
        if dry.value:
            if plan is None:
                raise ValueError("this experiment has no --dry_run; leave it out")
            plan(flag.value, workdir)
            return
        with claim(workdir):
            try:
                main(flag.value, workdir)
            except KeyboardInterrupt:
                again = "the same command goes on where it stopped"
                raise KeyboardInterrupt(again) from None

    def guard(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # orbax tells every step it takes
        stages.mirror_to(wandb.value)
        sys.exit(guarded(begin))

    for name in (
        "config",
        "workdir",
        "cache",
        "distributed",
        "dry_run",
        "wandb",
    ):  # what --help lists
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])
    app.run(guard, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
    """Parses flags; what is wrong with them is said in one line."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, ValueError, OSError) as error:
        # get_config's own errors arrive as the text of a traceback.
        lines = [line.strip() for line in str(error).splitlines()]
        causes = [line for line in lines if "Error:" in line.split(" ")[0]]
        message = causes[-1].split(": ", 1)[-1] if causes else _words(error)
        known = "unknown config key " if isinstance(error, AttributeError) else ""
        complain(f"{known}{message}")
        sys.exit(1)


def _words(error: Exception) -> str:
    return str(error).replace("\\n", " ").replace("\\'", "'")
