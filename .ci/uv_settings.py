"""Print pip's settings as variables of uv, which reads none of pip's: one NAME=VALUE a line.

pip config list | python3 .ci/uv_settings.py
"""

import ast
import sys

NAMES = {  # of pip and of uv, and what is between several values
    "index-url": ("UV_DEFAULT_INDEX", " "),
    "extra-index-url": ("UV_INDEX", " "),
    "find-links": ("UV_FIND_LINKS", ","),
    "constraint": ("UV_CONSTRAINT", " "),
    "cert": ("SSL_CERT_FILE", " "),
}

found = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    section, _, option = key.rpartition(".")
    found[section, option] = value
settings = {"UV_INDEX_STRATEGY": "unsafe-best-match"}  # as pip does: the newest of all indexes
for section in ("global", "install", ":env:"):  # the later counts for pip install
    for option, (name, separator) in NAMES.items():
        if (section, option) in found:
            settings[name] = separator.join(ast.literal_eval(found[section, option]).split())
for name, value in settings.items():
    print(f"{name}={value}")
