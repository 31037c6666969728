"""What Sphinx must know to make these pages a book. `make docs` builds it; nothing is fetched from the network."""

from __future__ import annotations

import sys
from pathlib import Path

from trio_session import __version__

sys.path.insert(0, str(Path(__file__).parent))  # for _extension, our own

project = "trio_session"
author = "The trio_session authors"
copyright = "The trio_session authors, MIT licence"  # noqa: A001  # Sphinx calls it so
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib_trio", "_extension"]
nitpicky = True
# What Sphinx cannot find, and `_extension` has no address for.
nitpick_ignore_regex = [
    (r"py:.*", r"trio_session\.(\w+\.)*_\w+\.\w+"),  # private types in signatures: unions of plain types, and the like
    (r"py:.*", r"Value"),  # one of these, as an alias that autodoc cannot evaluate
]

# Docstrings are written for people with an editor: single backticks are code, as in Markdown.
default_role = "literal"
autodoc_use_legacy_class_based = True  # Sphinx 9 has another autodoc, which sphinxcontrib-trio does not know yet
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
maximum_signature_line_length = 100
autodoc_inherit_docstrings = False

myst_heading_anchors = 3  # links to headings work as on a forge

html_theme = "furo"
html_title = "trio_session"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_show_sphinx = False
html_copy_source = False
