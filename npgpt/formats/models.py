"""One way to every model: a published name, a file, a folder, or a run of the trainer."""

import os
from pathlib import Path

from npgpt.core.parameters import Parameters
from npgpt.data.sniff import HEAD, ZIP, is_pickle, what_it_is
from npgpt.data.token_files import MAGIC as TOKENS_MAGIC
from npgpt.data.token_files import OTHER_MAGICS
from npgpt.data.tokenizer import GPT2Tokenizer
from npgpt.errors import FileError
from npgpt.files import check_path, open_for_reading
from npgpt.formats.hub import MODELS, fetch
from npgpt.formats.huggingface import library
from npgpt.formats.llmc import MAGIC as MODEL_MAGIC
from npgpt.formats.registry import MODEL_FORMATS, MODEL_FORMATS_HELP, detect_format
from npgpt.formats.run_checkpoint import (
    CHECKPOINTS,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
)

ACCEPTED = f"a model is {MODEL_FORMATS_HELP}, a run's folder, or one of {', '.join(MODELS)}"


def load_model(where, make_params=Parameters):
    """Read a model -> Parameters (float32), the description of its tokenizer or None.

    where is a published name (MODELS: downloaded once), an llm.c model file, a Hugging Face folder
    or its .safetensors file, or a run's folder: of that, the checkpoint with the lowest validation
    loss or, where none has one, the last. A name means the published model even where a folder is
    called so: that is ./gpt2. A model of GPT-2's vocabulary without a description beside it goes
    with GPT-2's tokenizer. make_params is as in read_checkpoint. Raises FileError where there is no
    model or it is damaged.
    """
    if where in MODELS:
        library()  # raises, before the download, if it is missing
    check_path(where)
    path = Path(fetch(where) if where in MODELS else where)
    if not os.path.exists(path):
        raise FileError(f"{where}: not found; {ACCEPTED}")
    if os.path.isdir(path / CHECKPOINTS):
        return load_run(path, make_params)
    name = detect_format(path)
    if name is None:
        what = "no model in this folder" if os.path.isdir(path) else "not a regular file"
        if os.path.exists(path / "model.bin"):
            what = "a checkpoint's folder: name the model.bin in it, or the run"
        raise FileError(f"{where}: {what}; {ACCEPTED}")
    kind = what_else(path)
    if kind is not None:
        raise FileError(f"{where}: not a model but {kind}")
    format, description = MODEL_FORMATS[name], MODEL_FORMATS[name].read_tokenizer(path)
    params = format.read(path, make_params)
    while (now := format.read_tokenizer(path)) != description:  # both were replaced meanwhile
        description, params = now, format.read(path, make_params)
    if description is None and params.config.vocab_size == GPT2Tokenizer.vocab_size:
        description = GPT2Tokenizer().description
    return params, description


def what_else(path):
    """What the file at path is, if that can be told and it is no model; None for a folder."""
    if not os.path.isfile(path) or path.suffix == ".safetensors":
        return None
    with open_for_reading(path) as (file, size):
        head = file.read(HEAD)
    if head.startswith(ZIP) or is_pickle(head):
        return (
            "a PyTorch file, which npgpt does not read; scripts/convert_nanogpt.py in the"
            " repository converts nanoGPT's ckpt.pt, with PyTorch"
        )
    magic = int.from_bytes(head[:4], "little")
    if magic == TOKENS_MAGIC:
        return "a token file"
    if magic in OTHER_MAGICS:
        return None if magic == MODEL_MAGIC else OTHER_MAGICS[magic]
    return what_it_is(head, size)


def load_run(run, make_params=Parameters):
    """As load_model, of a run's best checkpoint.

    The run may be in training: where the checkpoint is removed for a newer one while it is read, it
    starts again with that one.
    """
    while True:
        steps = checkpoint_steps(run)
        try:
            step = best_step(run)
            if step is None:
                raise FileError(f"{run}: the run has no checkpoint yet")
            return load_model(checkpoint_folder(run, step) / "model.bin", make_params)
        except FileError:
            if checkpoint_steps(run) == steps:
                raise
