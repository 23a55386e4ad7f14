"""The settings of Sphinx for the site: `sphinx-build -W -n -c doc . site`, from the root.

The source directory is the root, and this folder holds the settings alone. So README.md,
the tutorials and the notebooks are where they are on disk, no link or copy of them is needed, and a
relative link that holds between two files of the repository holds between their pages.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the extensions beside this file

project = "npgpt"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "mathml",
    "docstrings",
    "run_notebooks",
    "explore_page",
]

root_doc = "doc/index"
include_patterns = ["*.md", "doc/**.md", "notebooks/*.ipynb", "notebooks/README.md"]
exclude_patterns = ["README.md", ".*", "build", "dist", "site"]  # doc/index.md has the README

# Markdown as GitHub reads it: $...$ is a formula, a heading can be linked to.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False  # it makes another character of the -- of an option

nb_execution_mode = "off"  # run_notebooks.py executes them
nb_merge_streams = True

autoclass_content = "both"  # a class's docstring and its __init__'s
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
python_display_short_literal_types = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
pygments_dark_style = "github-dark"  # Furo's underlines the names of modules
html_title = "npgpt"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_theme_options = {"top_of_page_buttons": []}  # the link to the source is below the page
copybutton_selector = "div.highlight pre:not(.cell_output pre)"
html_show_copyright = False
html_use_index = html_domain_indices = False  # the search finds names too
templates_path = ["templates"]
html_additional_pages = {"index": "front.html"}  # the folder's own page, which goes to doc/index
