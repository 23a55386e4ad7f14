"""What .ci/run takes from pip for uv."""

import subprocess
import sys

from helpers import ROOT

OF_PIP = """\
:env:.cert='/env.crt'
global.cert='/global.crt'
global.find-links='/a /b'
global.index-url='https://global/simple'
install.index-url='https://install/simple'
wheel.index-url='https://wheel/simple'
"""


def test_pips_settings_become_uvs_with_the_section_first_that_pip_install_prefers():
    command = [sys.executable, ROOT / ".ci" / "uv_settings.py"]
    done = subprocess.run(command, input=OF_PIP, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.splitlines()) == [
        "SSL_CERT_FILE=/env.crt",
        "UV_DEFAULT_INDEX=https://install/simple",
        "UV_FIND_LINKS=/a,/b",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]
