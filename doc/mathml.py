"""Formulas as MathML, converted in the build: browsers show it by themselves, also offline."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

log = logging.getLogger(__name__)


def mathml(node, display):
    """The formula of a math node as MathML; a warning where LaTeX is left in it."""
    latex = node.astext()
    try:
        math = convert(latex, display=display)
    except Exception as error:  # latex2mathml has a dozen of them
        log.warning("no LaTeX: %s (%s)", latex, type(error).__name__, location=node)
        return ""
    unknown = re.findall(r"\\[A-Za-z]+", math)
    if unknown:
        log.warning("latex2mathml does not know %s", ", ".join(unknown), location=node)
    return math


def visit_inline(self, node):
    self.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    self.body.append(mathml(node, "block") + "</div>\n")
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
