"""Settings of the site; `make docs` builds it into ``build/docs``.

Nothing is fetched, neither when it is built nor when it is looked at.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import diffreward

project = "diffreward"
release = diffreward.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "docs.reference",
]
exclude_patterns = ["conf.py", "reference", "examples"]

# Pages: Markdown, and scripts in cells, which are run.
nb_custom_formats = {".py": ["jupytext.reads", {"fmt": "py:percent"}]}
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 1200
nb_output_stderr = "remove"
nb_merge_streams = True
myst_heading_anchors = 3

# The reference: signatures as written, Google's docstrings, `name` a link.
default_role = "py:obj"
autosummary_generate = False
autodoc_member_order = "bysource"
maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

# Every name must lead somewhere but those of other libraries and of types.
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!diffreward\.).*")]
# The front page of the package lists names of its packages by their full names.
suppress_warnings = ["autosummary.import_cycle"]

html_theme = "sphinx_book_theme"
html_title = "diffreward"
html_show_sourcelink = False
html_theme_options = {"use_download_button": False, "footer_content_items": []}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_domain_indices = False
