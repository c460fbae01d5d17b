"""Models given as Python: ``file.py:function``, run only where the command line says so.

Any network takes part that way, whatever its files: the function returns it as a
``diffreward.DiffusionModel`` or, where samples have contexts, as a function of a context
that returns one.
"""

import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from diffreward import files
from diffreward.data import Normaliser
from diffreward.diffusion import Context, ContextLayout, DiffusionModel, check_prediction

_REFERENCE = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_]\w*)", re.DOTALL)


class PythonModel(NamedTuple):
    """What a function in a file returned, and where it came from."""

    path: Path
    """The file."""
    function: str
    made: DiffusionModel | Callable[[Context], DiffusionModel]
    sha256: str
    """Of the file, as it was run."""

    def declared(self, context: ContextLayout | None) -> DiffusionModel:
        """The model, or what the function of a context returns for one.

        Raises:
            ValueError: if that is no diffusion model, or not what the data ask for.
        """
        made: Any = self.made
        where = f"{self.path}:{self.function}"
        if isinstance(made, DiffusionModel) != (context is None):
            raise ValueError(
                f"{where} returns a {type(made).__name__}; "
                + (
                    "without --context it must return a DiffusionModel"
                    if context is None
                    else "with --context it must return a function from a context to one"
                )
            )
        if context is not None:
            example = context.example()
            made = _asked(lambda: made(example), self.path, f"the answer of {where}")
            if not isinstance(made, DiffusionModel):
                raise ValueError(
                    f"{where}: its function of a context returns a {type(made).__name__}, "
                    "it must return a DiffusionModel"
                )
        check_prediction(made.prediction)
        return made

    def model(self, normaliser: Normaliser | None) -> Any:
        """The model in the given coordinates, unless it says its own."""
        made: Any = self.made

        def placed(one: DiffusionModel) -> DiffusionModel:
            return one if one.normaliser else one._replace(normaliser=normaliser)

        if isinstance(made, DiffusionModel):
            return placed(made)
        return lambda context: placed(made(context))

    def provenance(self) -> dict[str, Any]:
        """The file, its digest and the function."""
        return {"path": str(self.path), "sha256": self.sha256, "function": self.function}


def reference(path: Path) -> tuple[Path, str] | None:
    """File and function of ``file.py:function``; None for any other path."""
    found = _REFERENCE.fullmatch(str(path))
    return found and (Path(found["file"]), found["function"])


def open_python(path: Path, function: str) -> PythonModel:
    """Runs a file, and the function in it that makes a model.

    Args:
        path: of the file. It is run as a module, with its folder first on the path of
            imports while it runs.
        function: takes no arguments.

    Raises:
        ValueError: if the file or the function fails, with the line; or there is none.
        FileNotFoundError: if there is no file.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    with files.recorded() as ledger:
        text = files.read_text(path)
    module = types.ModuleType(f"model_of_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        run = lambda: exec(compile(text, str(path), "exec"), module.__dict__)  # noqa: S102
        _asked(run, path, str(path))
        make = getattr(module, function, None)
        if not callable(make):
            known = [
                k for k, v in vars(module).items() if isinstance(v, types.FunctionType)
            ]
            raise ValueError(
                f"{path} has no function {function!r}; it has "
                f"{', '.join(sorted(known)[:8]) or 'none'}"
            )
        made: Any = _asked(make, path, f"{path}:{function}")
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not callable(made) and not isinstance(made, DiffusionModel):
        raise ValueError(
            f"{path}:{function} returns a {type(made).__name__}; it must return a "
            "DiffusionModel, or a function from a context to one"
        )
    digest = files.digest(ledger, path)
    return PythonModel(path, function, made, digest)  # pyright: ignore


def _asked(run: Callable[[], Any], path: Path, name: str) -> Any:
    """What somebody's code returns.

    Raises:
        ValueError: with what it raised, and the line of the file.
    """
    try:
        return run()
    except Exception as error:
        lines, trace = [], error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == str(path):
                lines.append(trace.tb_lineno)
            trace = trace.tb_next
        if isinstance(error, SyntaxError) and error.lineno:
            lines.append(error.lineno)
        at = f" in line {lines[-1]}" if lines else ""
        raise ValueError(f"{name} fails{at}: {type(error).__name__}: {error}") from error
