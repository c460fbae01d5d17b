"""Checks a built site: ``python -m docs.reference.offline build/docs``.

No page may load anything from elsewhere (links that a reader may follow are no matter).
"""

import re
import sys
from pathlib import Path

LOADS = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|(?:url\(|@import\s)\s*[\"']?((?:https?:)?//[^\"')\s;]+)",
    re.I,
)


def loaded(site: Path) -> list[str]:
    """What the pages and styles of a site fetch from elsewhere: ``file: address``."""
    files = sorted(p for p in site.rglob("*") if p.suffix in (".html", ".css"))
    return [
        f"{path}: {page or style}"
        for path in files
        for page, style in LOADS.findall(path.read_text())
    ]


if __name__ == "__main__":
    found = loaded(Path(sys.argv[1]))
    sys.exit("\n".join(f"error: loads {line}" for line in found) or 0)
