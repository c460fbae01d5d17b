"""The API reference: a page per public module, made from the docstrings.

A Sphinx extension. What is public and what is written about it says `public`; it needs no
Sphinx. `pages` writes the pages, `signatures` makes annotations readable.
"""

from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Connects the extension; called by Sphinx."""
    # Sphinx is not needed to read the other modules.
    from docs.reference import pages, signatures

    app.connect("builder-inited", pages.write)
    app.connect("autodoc-process-docstring", pages.describe)
    app.connect("doctree-read", pages.link_code)
    app.connect("autodoc-process-signature", signatures.rewrite)
    app.connect("missing-reference", signatures.resolve)
    return {"parallel_read_safe": True}
