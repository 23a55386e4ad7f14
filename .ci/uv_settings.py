"""Print pip's settings as variables of uv, which reads none of pip's: one NAME=VALUE a line.

pip config list | python3 .ci/uv_settings.py
"""

import ast
import sys

NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
}

settings = {}
for line in sys.stdin:
    key, _, value = line.strip().partition("=")
    name = NAMES.get(key.rpartition(".")[2])
    if name and (key.startswith(":env:") or name not in settings):  # as pip prefers them
        settings[name] = " ".join(ast.literal_eval(value).split())
settings["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: the newest of all indexes
for name, value in settings.items():
    print(f"{name}={value}")
