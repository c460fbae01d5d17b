"""Files from the web: resumed, checked, and never half there under their name."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from diffreward import files

_BLOCK = 1 << 20
_TIMEOUT_SECONDS = 30


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    check: Callable[[Path], object],
    attempts: int = 3,
    progress: bool = True,
) -> Path:
    """Fetches ``url`` to ``path``; what an earlier try left is continued.

    Args:
        url: address; the server may or may not know ranges.
        path: where the file goes; its folder is created.
        check: raises ValueError if the content is not what it should be.
        attempts: how often a broken connection is taken up again.
        progress: whether to show a bar.

    Raises:
        ConnectionError: if the server cannot be reached or breaks off every time; what
            has arrived stays and the next call goes on from there.
        ValueError: if the whole file has arrived and is not what it should be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    for attempt in range(attempts):
        try:
            _fetch(url, partial, progress)
            break
        except urllib.error.HTTPError as error:
            raise ConnectionError(
                f"{url}: the server says {error.code} {error.reason}; "
                f"put the file at {path} yourself"
            ) from error
        except (OSError, HTTPException) as error:
            if attempt == attempts - 1:
                raise ConnectionError(
                    f"{url}: {_reason(error)}; put the file at {path} yourself, or run "
                    "again to continue"
                ) from error
    try:
        check(partial)
    except ValueError as error:
        files.remove(partial)
        raise ValueError(f"{url}: {error}; the copy was deleted, run again") from error
    files.move(partial, path)
    files.write_text(_digest_file(path), f"{files.sha256(path)}  {path.name}\n")
    return path


def check_digest(path: Path, sha256: str) -> None:
    """Compares what was read with the digest that was written at the download.

    A file that somebody put there without one is taken as it is.

    Args:
        path: of the file.
        sha256: digest of the bytes that were read from it.

    Raises:
        ValueError: if it is another file by now.
    """
    beside = _digest_file(path)
    if beside.exists() and files.read_text(beside).split()[:1] != [sha256]:
        raise ValueError(
            f"{path} is not the file that was downloaded ({beside.name} says another "
            "digest); delete both to fetch it again"
        )


def _digest_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", "") or error or type(error).__name__)


def _fetch(url: str, partial: Path, progress: bool) -> None:
    """Appends to ``partial`` until it has the length the server announced."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # nothing is missing
        raise
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        have = have if resumed else 0
        total = None if length is None else have + int(length)
        with (
            files.opened(partial, "ab" if resumed else "wb") as file,
            tqdm(
                total=total,
                initial=have,
                unit="B",
                unit_scale=True,
                desc=url.rsplit("/", 1)[-1],
                disable=not progress,
            ) as bar,
        ):
            while block := response.read(_BLOCK):
                file.write(block)
                bar.update(len(block))
    size = partial.stat().st_size
    if total is not None and size < total:
        raise ConnectionError(f"broke off after {size:,} of {total:,} bytes")
