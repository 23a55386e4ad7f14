"""Docstrings are plain text here: they are shown as they are, not read as reStructuredText."""

import re


def plain(lines):
    """Lines of plain text -> reStructuredText: paragraphs, `code`, indented code, Args:."""
    blocks = re.split(r"\n\n+", "\n".join(lines).strip("\n"))
    return [*"\n\n".join(map(shown, blocks)).split("\n"), ""]


def shown(block):
    """A block of plain text -> reStructuredText."""
    if block.startswith(" "):
        return f"::\n\n{block}"
    title, *body = block.split("\n    ")
    if not (title.endswith(":") and body and "\n" not in title):
        return escaped(block)
    items = re.split(r"\n(?! )", "\n".join(body))  # what goes on with an item is further indented
    listed = (re.sub(r"^([\w*]+): ", r"`\1`: ", re.sub(r"\n +", " ", item)) for item in items)
    return f"{escaped(title)}\n\n" + "\n".join(f"* {escaped(item)}" for item in listed)


def escaped(text):
    """Text without what has a meaning in reStructuredText, but for its `code`."""
    return re.sub(r"`([^`]+)`|([\\*_|`])", lambda m: f"``{m[1]}``" if m[1] else f"\\{m[2]}", text)


def process(app, what, name, thing, options, lines):
    lines[:] = plain([line for line in lines if not line.startswith("Create new instance of")])


def skip(app, what, name, thing, skip, options):
    """Leave out the fields of a NamedTuple: as of one itself, Python's docstring says nothing."""
    return True if (thing.__doc__ or "").startswith("Alias for field number") else None


def without_backlinks(app, page, template, context, doctree):
    """Show code without viewcode's links back to the docstrings.

    They lead nowhere if a class is documented as npgpt.X and its module's others as npgpt.module.Y.
    """
    if page.startswith("_modules/"):
        context["body"] = re.sub(r'<a class="viewcode-back".*?</a>', "", context["body"])


def setup(app):
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", skip)
    app.connect("html-page-context", without_backlinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
