"""Hugging Face's GPT-2: config.json and model.safetensors, read and written.

Four of its weights are (in, out), transposed to ours. The masks and the tied head that some files
hold are not parameters. A config that asks for what npgpt does not compute is refused.
"""

import functools
import json
import os
import re
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import BLOCK_NAMES, Parameters, parameter_shapes
from npgpt.data.descriptions import (
    description_file,
    read_tokenizer,
    tokenizer_from_description,
)
from npgpt.errors import ArgumentError, FileError
from npgpt.files import atomic_write, open_for_reading, read_json
from npgpt.formats.huggingface_tokenizer import (
    TOKENIZER,
    read_folder_tokenizer,
    tokenizer_files,
)
from npgpt.formats.llmc import check_finite, check_tensor, read_bfloat16
from npgpt.wording import install_extra

CONFIG, MODEL, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SIZES = {
    "n_positions": "block_size",
    "vocab_size": "vocab_size",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
}
FIXED = {  # what npgpt computes, and the defaults of a config that omits them
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
    "tie_word_embeddings": True,
}
NAMES = {
    "wte": "wte.weight",
    "wpe": "wpe.weight",
    "ln1w": "ln_1.weight",
    "ln1b": "ln_1.bias",
    "qkvw": "attn.c_attn.weight",
    "qkvb": "attn.c_attn.bias",
    "attprojw": "attn.c_proj.weight",
    "attprojb": "attn.c_proj.bias",
    "ln2w": "ln_2.weight",
    "ln2b": "ln_2.bias",
    "fcw": "mlp.c_fc.weight",
    "fcb": "mlp.c_fc.bias",
    "fcprojw": "mlp.c_proj.weight",
    "fcprojb": "mlp.c_proj.bias",
    "lnfw": "ln_f.weight",
    "lnfb": "ln_f.bias",
}
TRANSPOSED = ("qkvw", "attprojw", "fcw", "fcprojw")
PREFIX = "transformer."
HEAD = "lm_head.weight"
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)")
KINDS = ("F32", "F16", "BF16")


def read_huggingface(path, make_params=Parameters):
    """Read a folder, or a .safetensors file beside its config.json -> Parameters (float32).

    Or what make_params(config) returns: its `slots`, as those of Parameters, are filled. The
    weights may be float32, float16 or bfloat16, in one file or in the shards of an index. Raises
    FileError where the config is not a GPT-2's, a tensor is missing, unknown or of another shape,
    or a weight is not finite. No memory is taken before the shapes have been checked.
    """
    path = Path(path)
    folder = path if os.path.isdir(path) else path.parent
    config = read_config(folder / CONFIG)
    with ExitStack() as stack:
        stored = {}
        for file in model_files(path):
            for tensor in read_names(file, stack):
                if tensor.name in stored:
                    raise FileError(f"{path}: holds {tensor.name!r} twice")
                stored[tensor.name] = tensor
        check_tensors(path, config, stored)
        params = make_params(config)
        for ours, layer, slot in params.slots():
            view = slot.T if ours in TRANSPOSED else slot
            view[...] = stored[huggingface_name(ours, layer)].read()
            check_tensor(path, ours, slot, layer)
            if ours == "wte" and HEAD in stored and not np.array_equal(stored[HEAD].read(), slot):
                raise FileError(f"{path}: {HEAD} must be wte.weight, to which npgpt ties it")
    return params


def read_config(path):
    """Read a config.json -> GPT2Config, or FileError where npgpt computes something else."""
    config = read_json(path)
    if config.get("model_type") != "gpt2":
        raise FileError(f"{path}: model_type must be gpt2, not {config.get('model_type')!r}")
    for key in SIZES:
        if key not in config:
            raise FileError(f"{path}: no {key}")
    try:
        sizes = GPT2Config(**{name: config[key] for key, name in SIZES.items()})
    except ArgumentError as error:
        raise FileError(f"{path}: {error}") from error
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise FileError(f"{path}: {key} must be {value!r}, not {config[key]!r}")
    if config.get("n_inner") not in (None, 4 * sizes.n_embd):
        raise FileError(f"{path}: n_inner must be {4 * sizes.n_embd}, not {config['n_inner']!r}")
    return sizes


def model_files(path):
    """The safetensors files of a model: the path itself, or what is in that folder."""
    if not os.path.isdir(path):
        return [path]
    if os.path.exists(path / MODEL) or not os.path.exists(path / INDEX):
        return [path / MODEL]
    names = read_json(path / INDEX).get("weight_map")
    names = list(names.values()) if isinstance(names, dict) else [None]
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise FileError(
                f"{path / INDEX}: weight_map must name files of its folder, not {name!r}"
            )
    return [path / name for name in sorted(set(names))]


class Stored:
    """A tensor in an open safetensors file, not read yet; `name` is without the prefix.

    header() is what bfloat16_header returns of the file, read once for all of its tensors.
    """

    def __init__(self, path, file, name, header):
        piece = file.get_slice(name)
        self.name = name.removeprefix(PREFIX)
        self.shape, self.kind = tuple(piece.get_shape()), piece.get_dtype()
        self._place = path, file, name, header

    def read(self):
        """Read it: float32 or float16."""
        path, file, name, header = self._place
        if self.kind != "BF16":
            return file.get_tensor(name)
        entries, start = header()
        with open_for_reading(path) as (raw, _):  # NumPy has no bfloat16, so safetensors gives none
            raw.seek(start + entries[name]["data_offsets"][0])
            out = np.empty(self.shape, "<f4")
            read_bfloat16(raw, out, path)
        return out


def bfloat16_header(path):
    """A safetensors file's entries, name -> its "data_offsets", and where its data begins."""
    with open_for_reading(path) as (raw, _):
        size = int.from_bytes(raw.read(8), "little")
        return json.loads(raw.read(size)), 8 + size


def library():
    """The package safetensors, which is an extra."""
    try:
        import safetensors
    except ImportError as error:
        raise ArgumentError(
            f"reading Hugging Face's files needs safetensors: {install_extra('hf')}"
        ) from error
    return safetensors


def read_names(path, stack):
    """Open a safetensors file, until the stack closes it -> a list of Stored."""
    safetensors = library()
    with open_for_reading(path):
        try:
            file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
            header = functools.cache(lambda: bfloat16_header(path))
            return [Stored(path, file, name, header) for name in file.keys()]
        except safetensors.SafetensorError as error:
            raise FileError(f"{path}: not a safetensors file: {error}") from error


def check_tensors(path, config, stored):
    """Raise FileError for tensors whose name, shape or dtype is not the config's."""
    shapes = {}
    for name, _, _, shape in tensors(config):
        if name not in stored:
            raise FileError(f"{path}: no tensor {name}")
        shapes[name] = shape
    shapes[HEAD] = shapes["wte.weight"]
    for name, tensor in stored.items():
        if MASK.fullmatch(name):
            continue
        if name not in shapes:
            raise FileError(f"{path}: holds {name!r}, which is not a tensor of this config's GPT-2")
        if tensor.shape != shapes[name]:
            raise FileError(
                f"{path}: {name} must be {shapes[name]} by its config, not {tensor.shape}"
            )
        if tensor.kind not in KINDS:
            raise FileError(f"{path}: {name} must be F32, F16 or BF16, not {tensor.kind}")


def tensors(config):
    """Each tensor: its name (without the prefix) and shape there, our name and layer in between.

    The layer is ... for the tensors that are not stacked.
    """
    for ours, shape in parameter_shapes(config).items():
        stacked = ours in BLOCK_NAMES
        shape = shape[1:] if stacked else shape
        shape = shape[::-1] if ours in TRANSPOSED else shape
        for layer in range(config.n_layer) if stacked else [...]:
            yield huggingface_name(ours, layer), ours, layer, shape


def huggingface_name(ours, layer):
    """The name, without the prefix, of our tensor; `layer` is ... of those that have none."""
    return NAMES[ours] if layer is ... else f"h.{layer}.{NAMES[ours]}"


def views(params):
    """Each tensor's name (without the prefix) and a view on it as it is there."""
    for name, ours, layer, _ in tensors(params.config):
        view = getattr(params, ours)[layer]
        yield name, view.T if ours in TRANSPOSED else view


def write_huggingface(folder, params, tokenizer=None):
    """Write Parameters as a folder that transformers loads, in float32.

    tokenizer is a description or None; it goes beside as model.tokenizer.json, and as the files
    that transformers' AutoTokenizer reads, unless they are GPT-2's and can neither be found nor
    downloaded: a note says so. Raises FileError where a weight is not finite or the folder cannot
    be written.
    """
    folder = Path(folder)
    eot = None if tokenizer is None else tokenizer_from_description(tokenizer).eot
    if eot is not None and eot >= params.config.vocab_size:
        eot = None  # the model was trained without an end-of-text
    check_finite(params, folder)
    companions = {
        folder / CONFIG: config_json(params.config, eot),
        folder / INDEX: None,
        **description_file(folder / "model", tokenizer),
    }
    try:
        companions |= tokenizer_files(folder, tokenizer, params.config)
    except FileError as error:
        companions |= tokenizer_files(folder, None, params.config)
        print(f"note: {folder}: written without {TOKENIZER}: {error}", file=sys.stderr)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{folder}: cannot be created: {error.strerror or error}") from error
    write_safetensors(folder / MODEL, params, companions)


def config_json(config, eot):
    """The content of a config.json of a GPT2Config; eot is the end-of-text token or None."""
    content = {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **{key: getattr(config, name) for key, name in SIZES.items()},
        "n_inner": None,
        **FIXED,
        "bos_token_id": eot,
        "eos_token_id": eot,
    }
    return json.dumps(content, indent=2).encode() + b"\n"


def read_huggingface_tokenizer(path):
    """The description of the tokenizer of the model at path, a folder or a file, or None.

    It is the one that npgpt wrote beside it, or that of the folder's own files.
    """
    folder = path if os.path.isdir(path) else path.parent
    beside = folder / "model" if os.path.isdir(path) else path.with_suffix("")
    eot = read_json(folder / CONFIG).get("eos_token_id")
    return read_tokenizer(beside) or read_folder_tokenizer(folder, eot)


def write_safetensors(path, params, companions):
    """Write the tensors one at a time; the library would need all of them transposed at once."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, view in views(params):
        start, end = end, end + 4 * view.size
        header[PREFIX + name] = {"dtype": "F32", "shape": view.shape, "data_offsets": [start, end]}
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    with atomic_write(path, companions) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for _, view in views(params):
            file.write(np.ascontiguousarray(view, "<f4"))
