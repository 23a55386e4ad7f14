"""Write the weights with which a new npgpt.GPT2 begins for other libraries, where installed.

python -m bench.peers FOLDER
"""

import sys
from pathlib import Path

from bench.peers import ctranslate2, llamacpp
from npgpt import GPT2Config, Parameters

if __name__ == "__main__":
    params = Parameters.init(GPT2Config())
    for peer in (ctranslate2, llamacpp):
        if peer.systems():
            peer.write(Path(sys.argv[1]), params)
    print("{}")  # for bench.turns.child
