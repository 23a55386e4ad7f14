"""CTranslate2: npgpt's weights in its format, and its generation."""

import json
from importlib.util import find_spec

import numpy as np

from npgpt import get_threads

COMPUTE_TYPES = {  # system -> compute_type; its bfloat16 needs a CPU that it has that for
    "CTranslate2": "float32",
    "CTranslate2, bf16": "bfloat16",
    "CTranslate2, int8": "int8",
}
END = "<|endoftext|>"


def systems():
    """Those of COMPUTE_TYPES that it supports here; none where it is not installed."""
    if find_spec("ctranslate2") is None:
        return []
    import ctranslate2

    supported = ctranslate2.get_supported_compute_types("cpu")
    return [name for name, compute_type in COMPUTE_TYPES.items() if compute_type in supported]


def write(folder, params):
    """Write params for `generate`, in float32; the names of the tokens are numbers.

    They become a Hugging Face folder, as `npgpt convert` writes it, and by CTranslate2's own
    converter folder/ctranslate2.
    """
    from ctranslate2.converters import TransformersConverter

    from npgpt.formats.huggingface import write_huggingface

    write_huggingface(folder, params)
    names = [*map(str, range(params.config.vocab_size - 1)), END]
    vocabulary = json.dumps({name: i for i, name in enumerate(names)})
    for file, content in (("vocab.json", vocabulary), ("merges.txt", "#version: 0.2\n")):
        (folder / file).write_text(content, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    TransformersConverter(str(folder)).convert(str(folder / "ctranslate2"))


def generate(prompt, folder, system="CTranslate2"):
    """A function that generates a number of tokens after each prompt of (B, T), greedily."""
    import ctranslate2

    generator = ctranslate2.Generator(
        str(folder / "ctranslate2"), compute_type=COMPUTE_TYPES[system], inter_threads=1,
        intra_threads=get_threads(),
    )  # fmt: skip
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    names = {i: name for name, i in vocabulary.items()}
    prompts = [[names[i] for i in row] for row in prompt.tolist()]

    def run(count):
        results = generator.generate_batch(
            prompts, min_length=count, max_length=count, sampling_topk=1,
            include_prompt_in_result=False,
        )  # fmt: skip
        return np.concatenate([prompt, [each.sequences_ids[0] for each in results]], axis=1)

    return run
