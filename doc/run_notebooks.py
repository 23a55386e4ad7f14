"""Executes the notebooks before their pages are read, two at a time, and offers each as a download.

They are committed without outputs. Each is executed in an empty folder; a cell that fails ends the
build, and what a cell writes to stderr is a warning.
"""

import logging
import os
import re
import shutil
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from sphinx.errors import SphinxError
from sphinx.util.logging import getLogger

log = getLogger(__name__)

AT_ONCE = 2  # notebooks
SECONDS = 240  # of one cell
COMPILING = re.compile(r"compiling kernels.*\s*")  # what npgpt says in the first step of a process
executed = {}  # name of a page -> its notebook with outputs, as text


def is_notebook(app, name):
    return app.env.doc2path(name).suffix == ".ipynb"


def execute(app, name):
    """The notebook of a page, with its outputs."""
    notebook = nbformat.read(app.env.doc2path(name), as_version=4)
    path = os.pathsep.join(filter(None, (str(app.srcdir), os.environ.get("PYTHONPATH"))))
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],  # the kernel's own words on the terminal
        )
        try:
            client.execute(env={**os.environ, "PYTHONPATH": path})
        except CellExecutionError as error:
            raise SphinxError(f"{name}: {error}") from error
    return notebook


def without_stderr(notebook, name):
    """The notebook without what its cells wrote to stderr; a warning for all but the usual."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr" and COMPILING.sub("", output.text):
                log.warning("a cell writes to stderr: %s", output.text, location=name)
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def execute_all(app, env, names):
    """Execute the notebooks among the pages that are about to be read."""
    waiting = sorted(name for name in names if is_notebook(app, name))
    running = {}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while app.config.run_notebooks and (waiting or running):
            while waiting and len(running) < AT_ONCE:
                name = waiting.pop()  # from the end: the last ones take longest
                running[pool.submit(execute, app, name)] = name
            log.info("executing %s; %d to come", ", ".join(running.values()), len(waiting))
            for task in wait(running, return_when=FIRST_COMPLETED).done:
                name = running.pop(task)
                executed[name] = nbformat.writes(without_stderr(task.result(), name))


def replace_source(app, name, source):
    source[0] = executed.pop(name, source[0])


def add_downloads(app, error):
    """Put a copy of each notebook, as it is committed, beside its page."""
    if error is None and app.builder.name == "html":
        for name in filter(lambda name: is_notebook(app, name), app.env.found_docs):
            shutil.copy(app.env.doc2path(name), app.outdir / f"{name}.ipynb")


def setup(app):
    logging.getLogger("traitlets").setLevel(logging.WARNING)  # no line for each kernel
    app.add_config_value("run_notebooks", True, "env")
    app.connect("env-before-read-docs", execute_all)
    app.connect("source-read", replace_source)
    app.connect("build-finished", add_downloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
