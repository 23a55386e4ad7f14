"""A plugin of pytest: append the tests that are skipped to the file that SKIPPED_TESTS names.

The checks run them again where all extras are installed. A file that is skipped whole is named as
a file.
"""

import os


def pytest_runtest_logreport(report):
    note(report)


def pytest_collectreport(report):
    note(report)


def note(report):
    if report.skipped and "PYTEST_XDIST_WORKER" not in os.environ:  # the workers' come here too
        with open(os.environ["SKIPPED_TESTS"], "a", encoding="utf-8") as file:
            print(report.nodeid, file=file)
