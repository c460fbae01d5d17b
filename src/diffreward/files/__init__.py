"""The doors to the disk: what is read is read once, what is written is written whole.

Files come from strangers and disks fill up, so nothing in the project opens, writes,
renames or deletes beside these functions, except the libraries that keep checkpoints and
event files inside a run's own folder. A test parses the sources for it.
"""

from diffreward.files.content import (
    LARGE,
    MIB,
    SETTING,
    SHARE,
    SMALL,
    File,
    FileValueError,
    limit,
)
from diffreward.files.folders import MARK, claim, clear, discard, is_marked, mark
from diffreward.files.grow import move, opened, remove
from diffreward.files.ledger import Ledger, digest, recorded
from diffreward.files.owner import follow, follows, own_part
from diffreward.files.paths import contained, inside, user_path
from diffreward.files.read import (
    Stream,
    beginning,
    read_json,
    read_text,
    reading,
    sha256,
    streaming,
)
from diffreward.files.write import write_bytes, write_text, writing

__all__ = [
    "LARGE",
    "MARK",
    "MIB",
    "SETTING",
    "SHARE",
    "SMALL",
    "File",
    "FileValueError",
    "Ledger",
    "Stream",
    "beginning",
    "claim",
    "clear",
    "contained",
    "digest",
    "discard",
    "follow",
    "follows",
    "inside",
    "is_marked",
    "limit",
    "mark",
    "move",
    "opened",
    "own_part",
    "read_json",
    "read_text",
    "reading",
    "recorded",
    "remove",
    "sha256",
    "streaming",
    "user_path",
    "write_bytes",
    "write_text",
    "writing",
]
