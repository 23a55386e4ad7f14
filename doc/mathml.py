"""Formulas as MathML, converted in the build: browsers show it by themselves, also offline."""

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

log = logging.getLogger(__name__)

# What latex2mathml lets through: a command or an environment that it does not know, and a line
# break outside of a table, which browsers do not make.
LEFT = re.compile(r'\\[A-Za-z]+|<mi>&</mi>|linebreak="newline"')
# The name of a function that no bracket follows, as in log x, and that has no exponent or index.
NAME = re.compile(r"(?<!<msu[bp]>)(<mi>[a-z]{2,}</mi>)(?=<m[infsu]|<mover|<mo>&#x02211;)")


def mathml(node, display):
    """The formula of a math node as MathML; a warning where LaTeX is left in it."""
    latex = node.astext().replace("{aligned}", "{split}")  # the same, by a name that is known
    try:
        math = convert(latex, display=display)
    except Exception as error:  # latex2mathml has a dozen of them
        log.warning("no LaTeX: %s (%s)", latex, type(error).__name__, location=node)
        return ""
    if LEFT.search(math):
        log.warning("latex2mathml leaves %s", LEFT.search(math)[0], location=node)
    return NAME.sub(r'\1<mspace width="0.167em"/>', math)


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
