"""The build backend: setuptools', with an editable install that is found from any folder.

setuptools' own puts a finder behind Python's: started in the folder above a clone called npgpt,
Python takes the clone itself for a package of that name, and never asks it. A .pth file with the
clone's path comes before that. The finder stays: it maps npgpt.kernels to kernels/ where there are
no links.
"""

import base64
import hashlib
import zipfile
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 (what else a backend has)

ROOT = Path(__file__).resolve().parents[1]
PATH_FILE = "__npgpt_clone__.pth"


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the wheel of an editable install -> its name."""
    name = build_meta.build_editable(wheel_directory, config_settings, metadata_directory)
    add_file(Path(wheel_directory) / name, PATH_FILE, f"{ROOT}\n".encode())
    return name


def add_file(wheel, name, content):
    """Add a file to a wheel, and to its RECORD."""
    with zipfile.ZipFile(wheel) as before:
        members = [(info, before.read(info)) for info in before.infolist()]
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    line = f"{name},sha256={digest},{len(content)}\n".encode()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as after:
        for info, data in members:
            is_record = info.filename.endswith(".dist-info/RECORD")
            after.writestr(info, line + data if is_record else data)
        after.writestr(name, content)
