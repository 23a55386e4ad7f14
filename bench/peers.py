"""CTranslate2 beside npgpt in bench.sample: npgpt's weights in its format, and its generation.

    python -m bench.peers FOLDER

writes the weights with which a new npgpt.GPT2 begins as a Hugging Face folder, as `npgpt convert`
does, and by CTranslate2's own converter as a model of CTranslate2 in FOLDER/ctranslate2.
"""

import json
import sys
from pathlib import Path

import numpy as np

from npgpt import GPT2Config, Parameters, get_threads

END = "<|endoftext|>"


def write_ctranslate2(folder, params):
    """Write params for ctranslate2_generate, in float32; the names of the tokens are numbers."""
    from ctranslate2.converters import TransformersConverter

    from npgpt.formats.huggingface import write_huggingface

    write_huggingface(folder, params)
    names = [*map(str, range(params.config.vocab_size - 1)), END]
    vocabulary = json.dumps({name: i for i, name in enumerate(names)})
    for file, content in (("vocab.json", vocabulary), ("merges.txt", "#version: 0.2\n")):
        (folder / file).write_text(content, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    TransformersConverter(str(folder)).convert(str(folder / "ctranslate2"))


def ctranslate2_generate(prompt, folder, compute_type="float32"):
    """A function that generates a number of tokens after each prompt of (B, T), greedily."""
    import ctranslate2

    generator = ctranslate2.Generator(
        str(folder / "ctranslate2"), compute_type=compute_type, inter_threads=1,
        intra_threads=get_threads(),
    )  # fmt: skip
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    names = {i: name for name, i in vocabulary.items()}
    prompts = [[names[i] for i in row] for row in prompt.tolist()]

    def generate(count):
        results = generator.generate_batch(
            prompts, min_length=count, max_length=count, sampling_topk=1,
            include_prompt_in_result=False,
        )  # fmt: skip
        return np.concatenate([prompt, [each.sequences_ids[0] for each in results]], axis=1)

    return generate


if __name__ == "__main__":
    write_ctranslate2(Path(sys.argv[1]), Parameters.init(GPT2Config()))
    print("{}")  # for bench.turns.child
