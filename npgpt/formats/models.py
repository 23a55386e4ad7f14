"""One way to every model: a published name, a file, a folder, or a run of the trainer."""

import os
from pathlib import Path

from npgpt.data.tokenizer import GPT2Tokenizer, read_tokenizer
from npgpt.errors import FileError
from npgpt.formats.hub import MODELS, fetch
from npgpt.formats.huggingface import library
from npgpt.formats.registry import MODEL_FORMATS, MODEL_FORMATS_HELP, detect_format
from npgpt.formats.run_checkpoint import CHECKPOINTS, best_step, checkpoint_folder

ACCEPTED = f"a model is {MODEL_FORMATS_HELP}, a run's folder, or one of {', '.join(MODELS)}"


def load_model(where):
    """Read a model -> Parameters (float32), the description of its tokenizer or None.

    where is a published name (MODELS: downloaded once), an llm.c model file, a Hugging Face folder
    or its .safetensors file, or a run's folder: of that, the checkpoint with the lowest validation
    loss or, where none has one, the last. A name means the published model even where a folder is
    called so: that is ./gpt2. A model of GPT-2's vocabulary without a description beside it goes
    with GPT-2's tokenizer. Raises FileError where there is no model or it is damaged.
    """
    if where in MODELS:
        library()  # raises, before the download, if it is missing
    path = Path(fetch(where) if where in MODELS else where)
    if not os.path.exists(path):
        raise FileError(f"{where}: not found; {ACCEPTED}")
    if os.path.isdir(path / CHECKPOINTS):
        path = best_checkpoint(path)
    name = detect_format(path)
    if name is None:
        what = "no model in this folder" if os.path.isdir(path) else "not a regular file"
        raise FileError(f"{where}: {what}; {ACCEPTED}")
    params = MODEL_FORMATS[name].read(path)
    description = read_tokenizer(MODEL_FORMATS[name].tokenizer_path(path))
    if description is None and params.config.vocab_size == GPT2Tokenizer.vocab_size:
        description = GPT2Tokenizer().description
    return params, description


def best_checkpoint(run):
    """The model file of a run's best checkpoint."""
    step = best_step(run)
    if step is None:
        raise FileError(f"{run}: the run has no checkpoint yet")
    return checkpoint_folder(run, step) / "model.bin"
