"""One way to every model: a published name, a file, a folder, or a run of the trainer."""

import os
from pathlib import Path

from npgpt.checkpoint import read_checkpoint
from npgpt.download import MODELS, fetch
from npgpt.errors import FileError
from npgpt.huggingface import library, read_huggingface
from npgpt.tokenizer import GPT2Tokenizer, read_tokenizer

ACCEPTED = (
    "a model is an llm.c .bin file, a Hugging Face folder or its .safetensors file,"
    f" a run's folder, or one of {', '.join(MODELS)}"
)


def load_model(where):
    """Read a model -> Parameters (float32), the description of its tokenizer or None.

    where is a published name (MODELS: downloaded once), an llm.c model file, a Hugging Face folder
    or its .safetensors file, or a run's folder: of that, the checkpoint with the lowest validation
    loss or, where none has one, the last. A name means the published model even where a folder is
    called so: that is ./gpt2. A model of GPT-2's vocabulary without a description beside it goes
    with GPT-2's tokenizer. Raises FileError where there is no model or it is damaged.
    """
    if where in MODELS:
        library()  # that it is missing is told before the download
    path = Path(fetch(where) if where in MODELS else where)
    if not os.path.exists(path):
        raise FileError(f"{where}: not found; {ACCEPTED}")
    if os.path.isdir(path / "checkpoints"):
        path = best_checkpoint(path)
    elif os.path.isdir(path) and not os.path.exists(path / "config.json"):
        raise FileError(f"{where}: no model in this folder; {ACCEPTED}")
    if os.path.isdir(path):
        params, beside = read_huggingface(path), path / "model"
    elif path.suffix == ".safetensors":
        params, beside = read_huggingface(path), path.with_suffix("")
    else:
        params, beside = read_checkpoint(path), path
    description = read_tokenizer(beside)
    if description is None and params.config.vocab_size == GPT2Tokenizer.vocab_size:
        description = GPT2Tokenizer().description
    return params, description


def best_checkpoint(run):
    """The model file of a run's best checkpoint."""
    from npgpt.run import best_step

    step = best_step(run)
    if step is None:
        raise FileError(f"{run}: the run has no checkpoint yet")
    return run / "checkpoints" / f"step_{step:08d}" / "model.bin"
