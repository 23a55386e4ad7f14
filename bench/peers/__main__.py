"""Write the weights with which a new npgpt.GPT2 begins for other libraries, where installed.

python -m bench.peers FOLDER
"""

from argparse import ArgumentParser
from pathlib import Path

from bench.peers import ctranslate2, llamacpp
from npgpt import GPT2Config, Parameters

if __name__ == "__main__":
    parser = ArgumentParser("python -m bench.peers")
    parser.add_argument("folder", type=Path)
    folder, params = parser.parse_args().folder, Parameters.init(GPT2Config())
    for peer in (ctranslate2, llamacpp):
        if peer.systems():
            peer.write(folder, params)
    print("{}")  # for bench.turns.child
