"""Links of Markdown pages: which lead nowhere."""

import re
from pathlib import Path

FENCE = re.compile(r"^(```+|~~~+).*?^\1`*\s*$", re.M | re.S)
CODE = re.compile(r"(`+).*?\1", re.S)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"")
REFERENCE = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?(?:\s.*)?$", re.M)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.M)
ELSEWHERE = re.compile(r"[a-z][a-z+.-]*:|//", re.I)


def broken(page: Path) -> list[str]:
    """The links of a page to files or headings that do not exist, as they are written."""
    plain = CODE.sub("", FENCE.sub("", text(page)))
    targets = [a or b for a, b in LINK.findall(plain)] + REFERENCE.findall(plain)
    return [t for t in targets if not ELSEWHERE.match(t) and not leads(page, t)]


def leads(page: Path, target: str) -> bool:
    """Whether a relative link arrives."""
    name, _, heading = target.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not heading or heading in anchors(path))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    found: dict[str, int] = {}
    result = set()
    for heading in HEADING.findall(FENCE.sub("", text(page))):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        result.add(f"{slug}-{count}" if count else slug)
    return result


def text(page: Path) -> str:
    """The Markdown of a page; of a script in cells, that of its cells."""
    lines = page.read_text().splitlines()
    if page.suffix == ".py":
        lines = [line[2:] for line in lines if line.startswith("# ")]
    return "\n".join(lines)
