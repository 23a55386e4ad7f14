"""Makes a page of `npgpt explore` for the site: a model learns to add, and is saved with a sum.

The page doc/explore.md links to it; where a site is built without that, nothing is made.
"""

from pathlib import Path

PAGE = "doc/explore"
TEXT = "12+34=04"
STEPS, LR = 700, 3e-3


def write(app, error):
    if error is not None or app.builder.name != "html" or PAGE not in app.env.found_docs:
        return
    from npgpt.explore.export import write_page
    from npgpt.explore.session import Session

    session = Session.named("addition")
    for _ in session.learning.steps(app.config.explore_steps, LR):
        pass
    write_page(session, TEXT, Path(app.outdir) / PAGE)


def setup(app):
    app.add_config_value("explore_steps", STEPS, "", int)  # fewer, for a page that has learnt less
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
