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


# What a formula is parted at, unless it stands within a group or an environment.
OPENING, CLOSING = ("{", r"\begin", r"\left"), ("}", r"\end", r"\right")
PARTS = re.compile(r"(\\[{}]|[{}]|\\(?:begin|end|left|right|qquad)(?![A-Za-z]))")


def mathml(node, latex, display):
    """A formula of a math node as MathML; a warning where LaTeX is left in it."""
    latex = latex.replace("{aligned}", "{split}")  # the same, by a name that is known
    try:
        math = convert(latex, display=display)
    except Exception as error:  # latex2mathml has a dozen of them
        log.warning("no LaTeX: %s (%s)", latex, type(error).__name__, location=node)
        return ""
    if LEFT.search(math):
        log.warning("latex2mathml leaves %s", LEFT.search(math)[0], location=node)
    return NAME.sub(r'\1<mspace width="0.167em"/>', math)


def equations(latex):
    """The equations of a formula that has several of them side by side, parted by \\qquad."""
    found, depth = [""], 0
    for token in PARTS.split(latex):
        depth += (token in OPENING) - (token in CLOSING)
        if token == r"\qquad" and depth == 0:
            found.append("")
        else:
            found[-1] += token
    return found


def visit_inline(self, node):
    self.body.append(mathml(node, node.astext(), "inline"))
    raise nodes.SkipNode


def visit_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    for latex in equations(node.astext()):
        self.body.append(f'<div class="equation">{mathml(node, latex, "block")}</div>')
    self.body.append("</div>\n")
    raise nodes.SkipNode


def keep_together(app, doctree, name):
    """Let no line begin with the comma, or the like, that follows a formula."""
    for formula in list(doctree.findall(nodes.math)):
        text = formula.next_node(descend=False, siblings=True)
        mark = re.match(r"[^\s\w]*", text) if isinstance(text, nodes.Text) else None
        if mark and mark[0]:
            together = nodes.inline("", "", formula.deepcopy(), nodes.Text(mark[0]))
            together["classes"].append("formula-and-mark")
            formula.parent.replace(text, nodes.Text(text[mark.end() :]))
            formula.parent.replace(formula, together)


def setup(app):
    app.connect("doctree-resolved", keep_together)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
