"""How sphinx builds this documentation: ``make docs``."""

from armillary import __version__

project = "armillary"
author = "the armillary developers"
project_copyright = "2026, the armillary developers"
version = ".".join(__version__.split(".")[:2])
release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"armillary {release}"
html_show_sphinx = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # so that pages can link to each other's sections

default_role = "literal"  # docstrings put names between single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Resource handling", "notes_style"), ("Error handling", "notes_style")]
