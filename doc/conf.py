"""The settings of Sphinx for the site: `sphinx-build -W -n -c doc . site`, from the root.

The source directory is the root, and this folder holds the settings alone. So README.md,
the tutorials and the notebooks are where they are on disk, no link or copy of them is needed, and a
relative link that holds between two files of the repository holds between their pages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # mathml.py and docstrings.py

project = "npgpt"
extensions = ["myst_nb", "sphinx.ext.autodoc", "mathml", "docstrings"]

root_doc = "doc/index"
include_patterns = ["doc/**.md", "notebooks/*.ipynb", "notebooks/README.md"]
exclude_patterns = [".*", "build", "dist", "site"]

# Markdown as GitHub reads it: $...$ is a formula, a heading can be linked to.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # it makes another character of the -- of an option

# Notebooks are committed without outputs: the build runs each of them, and fails where a cell does.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120  # seconds a cell
nb_execution_in_temp = True  # what a notebook writes is not left behind
nb_merge_streams = True

autoclass_content = "both"  # a class's docstring and its __init__'s
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
python_display_short_literal_types = True
add_module_names = False

html_theme = "furo"
html_title = "npgpt"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
templates_path = ["templates"]
html_additional_pages = {"index": "front.html"}  # the folder's own page, which goes to doc/index
