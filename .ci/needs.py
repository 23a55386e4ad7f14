"""Print for pip what pyproject.toml needs, with some extras, or with --lowest as old as it may be.

python3 .ci/needs.py [--lowest] EXTRA ...
"""

import re
import sys
import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = [word for word in sys.argv[1:] if word != "--lowest"]
needed = project["dependencies"] + sum(map(project["optional-dependencies"].get, extras), [])
if "--lowest" in sys.argv:
    needed = [re.fullmatch(r"([\w-]+)>=([\d.]+).*", each).expand(r"\1==\2") for each in needed]
print(*needed)
