"""The site's settings, for Sphinx; `make docs` builds it, into build/docs.

It is read without a network: furo's fonts are the system's, scripts and styles are its own, and
links to other projects' pages are none.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

from probate.version import __version__  # noqa: E402  after the path, as Sphinx's own settings are

project = "Probate"
author = "Probate maintainers"
project_copyright = "Probate maintainers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "public_names", "generated_pages"]
exclude_patterns = ["extensions", "programs"]
nitpicky = True
# A glob that finds no page is no fault. Sphinx has no setting for that, for want of a type.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(
    lambda record: getattr(record, "subtype", "") != "empty_glob"
)

# -- pages in Markdown -------------------------------------------------------------------------

myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# Quotes alone: of an option, `--all`, no dash is made.
smartquotes_action = "q"

# -- docstrings --------------------------------------------------------------------------------

default_role = "named"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
python_display_short_literal_types = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

# -- what it looks like ------------------------------------------------------------------------

html_theme = "furo"
html_title = f"Probate {__version__}"
html_static_path = ["static"]
html_css_files = ["probate.css"]
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7cc0ea", "color-brand-content": "#7cc0ea"},
}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
