"""Every reader of files that may come from strangers, with small whole files to begin from."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.data.descriptions import (
    read_tokenizer,
    tokenizer_from_description,
    write_tokenizer,
)
from npgpt.data.documents import DOCUMENTS, read_pieces
from npgpt.data.json_tokenizer import LETTERS
from npgpt.data.nanogpt import META, read_meta
from npgpt.data.tinystories import read_shards, read_stories
from npgpt.data.token_files import open_tokens, write_tokens
from npgpt.evaluation.hellaswag import read_hellaswag
from npgpt.files import pack_header
from npgpt.formats.debug_state import DebugState, read_debug_state, write_debug_state
from npgpt.formats.huggingface import write_huggingface
from npgpt.formats.huggingface_tokenizer import (
    bpe_content,
    read_folder_tokenizer,
    tokenizer_files,
)
from npgpt.formats.llmc import VERSIONS, read_checkpoint, write_checkpoint
from npgpt.formats.models import load_model
from npgpt.formats.reference_losses import read_losses
from npgpt.formats.run_checkpoint import load_checkpoint, save_checkpoint
from npgpt.porting.sources import Expected, read_map
from npgpt.tracing.files import open_trace_writer
from npgpt.training.curves import read_log
from npgpt.training.logs import RunLogs
from npgpt.training.settings import Settings, as_toml, make_settings, read_toml

# nanoGPT's meta.pkl for the characters abc, as Python's fourth protocol writes it
PICKLED = (
    b"\x80\x04\x95N\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\nvocab_size\x94K\x03\x8c\x04itos\x94}\x94(K"
    b"\x00\x8c\x01a\x94K\x01\x8c\x01b\x94K\x02\x8c\x01c\x94u\x8c\x04stoi\x94}\x94(\x8c\x01a\x94K\x00"
    b"\x8c\x01b\x94K\x01\x8c\x01c\x94K\x02uu."
)
CONFIG = GPT2Config(block_size=4, vocab_size=5, n_layer=2, n_head=1, n_embd=2)
MOMENTS = ("m", "v")
SETTINGS = as_toml(Settings(train="a.bin", lr=0.1, n_layer=2), changed=True)
OWN = bpe_content({LETTERS[i]: i for i in range(256)}, [], {"<|endoftext|>": 256})


class Reader(NamedTuple):
    """file: its name in a folder; makes: each writes a whole folder; read(path of the file)."""

    file: str
    makes: list[Callable[[Path], Any]]
    read: Callable[[Path], Any]


def params(value=0.5, config=CONFIG):
    """Parameters that all have one value."""
    made = Parameters(config)
    made.flat[:] = value
    return made


def state(version, folder):
    x = np.zeros((1, 3), "<i4")
    logits = np.zeros((1, 3, CONFIG.vocab_size), "<f4")
    made = DebugState(x, x, logits, np.float32(1), params())
    write_debug_state(folder / "state.bin", made, version)


def text(name, content, folder):
    (folder / name).write_bytes(content)


def checkpoint(folder):
    moments = {name: params(0.25) for name in MOMENTS}
    rest = {"step": 3, "val_loss": 2.5, "losses": [1.0], "updates": 3}
    save_checkpoint(folder / "step_00000003", params(), {"name": "bytes"}, rest | moments)


def run_log(name, folder):
    lines = '{"step": 1, "loss": 2.5, "seconds": 0.5, "tokens_per_second": 100.0}\n'
    text("log.jsonl", (lines + '{"step": 1, "val_loss": 2.25}\n').encode(), folder)
    text("main.log", b"s:0 trl:2.5000 lr:0.001000 norm:1.00\ns:1 tel:2.2500\n", folder)


def read_run_log(path):
    RunLogs(path.parent, 1).close()
    return read_log(path.parent)


def read_tokens(path):
    tokens = open_tokens(path)
    return tokens[0 : len(tokens)], tokens.fingerprint


def hellaswag(folder):
    examples = []
    for index in range(2):
        words = [index, 1, 4, 2, 1, 2, *[1, 3] * 4]
        examples += [65535, 2 * (len(words) + 2), *words]
    header = pack_header(20240522, 1, 2, len(examples))
    text("eval.bin", header + np.array(examples, "<u2").tobytes(), folder)


def archive(folder):
    content = json.dumps([{"story": "Once upon a time."}, {"story": "The end."}]).encode()
    with tarfile.open(folder / "stories.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("data00.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))


def read_archive(path):
    return [list(read_stories(content, path)) for _, content, _ in read_shards(path)]


def read_documents(field, path):
    return [
        list(read_pieces([path], by, field)) for by in ([*DOCUMENTS] if field is None else ["file"])
    ]


def compressed(folder):
    import zstandard

    text("t.txt.zst", zstandard.compress(b"some text\n\nand more\n" * 20), folder)


def hugging_face(folder):
    write_huggingface(folder, params(), {"name": "chars", "characters": "abcd"})


def own_tokenizer(folder):
    text("tokenizer.json", json.dumps(OWN).encode(), folder)


def older_tokenizer(folder):
    text("vocab.json", json.dumps(OWN["model"]["vocab"] | {"<|endoftext|>": 256}).encode(), folder)
    text("merges.txt", b"#version: 0.2\na b\n", folder)
    options = {"added_tokens_decoder": {"257": {"content": "<x>"}}, "add_prefix_space": True}
    text("tokenizer_config.json", json.dumps(options).encode(), folder)


def added_tokens(folder):
    older_tokenizer(folder)
    text("tokenizer_config.json", b"{}", folder)
    text("added_tokens.json", b'{"<x>": 257, "<y>": 258}', folder)


def use_tokenizer(path):
    """Read a folder's tokenizer, encode and decode with it, and write it for transformers."""
    description = read_folder_tokenizer(path.parent, 256)
    tokenizer = tokenizer_from_description(description)
    tokens = tokenizer.encode("some t\u00e9xt <|endoftext|>\n")
    return tokenizer.decode(tokens), tokenizer_files(path.parent, description, CONFIG)


def two_shards(folder):
    """A Hugging Face folder whose weights are in two files that an index names."""
    from safetensors.numpy import load_file, save_file

    hugging_face(folder)
    whole = folder / "model.safetensors"
    tensors = load_file(whole)
    weight_map = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for shard in sorted(set(weight_map.values())):
        save_file(
            {name: tensors[name] for name in tensors if weight_map[name] == shard}, folder / shard
        )
    whole.unlink()
    text("model.safetensors.index.json", json.dumps({"weight_map": weight_map}).encode(), folder)


def half_as_wide(folder):
    """A Hugging Face folder with weights in bfloat16, of which NumPy has none: made by hand."""
    hugging_face(folder)
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    for name, entry in header.items():
        if name != "__metadata__":
            entry["dtype"] = "BF16"
            entry["data_offsets"] = [offset // 2 for offset in entry["data_offsets"]]
    halves = np.frombuffer(data, "<u2")[1::2]  # the upper halves of its float32
    packed = json.dumps(header).encode()
    path.write_bytes(len(packed).to_bytes(8, "little") + packed + halves.tobytes())


def described(description, folder):
    write_tokenizer(folder / "t.bin", description)


def traced(name, folder):
    shapes = {"config": ("<i4", (5,)), "tokens": ("<i4", (1, 2)), "targets": ("<i4", (1, 2))}
    shapes |= {"qkv.0": ("<f4", (1, 2, 6)), "loss": ("<f8", ())}
    values = {"config": np.array([4, 5, 2, 1, 2])}
    with open_trace_writer(folder / name, shapes) as write:
        for each, (_, shape) in shapes.items():
            write(each, np.broadcast_to(values.get(each, np.ones(())), shape))


def read_trace(path):
    trace = Expected(path)
    return [trace.read(name) for name in trace.file.shapes]


DESCRIPTIONS = (
    {"name": "gpt2"},
    {"name": "chars", "characters": "abc"},
    {"name": "json", "eot": 256, "content": OWN},
)
READERS = {
    "model (llm.c)": Reader(
        "m.bin",
        [
            lambda folder, v=version: write_checkpoint(folder / "m.bin", params(), v)
            for version in VERSIONS
        ],
        read_checkpoint,
    ),
    "debug state": Reader(
        "state.bin",
        [partial(state, version) for version in (1, 2)],
        lambda path: read_debug_state(path, params()),
    ),
    "losses of a debug state": Reader(
        "losses.json",
        [partial(text, "losses.json", b'{"losses": [2.5, 1.5], "lr": 1e-4, "weight_decay": 0}')],
        read_losses,
    ),
    "tokens": Reader(
        "t.bin",
        [
            *(
                lambda folder, f=format: write_tokens(folder / "t.bin", range(40), f)
                for format in ("llmc", "int32")
            ),
            partial(text, "t.bin", np.arange(40, dtype="<u2").tobytes()),
        ],
        read_tokens,
    ),
    "tokenizer's description": Reader(
        "t.tokenizer.json",
        [partial(described, description) for description in DESCRIPTIONS],
        lambda path: read_tokenizer(path.with_name("t.bin")),
    ),
    "nanoGPT's meta.pkl": Reader(
        META, [partial(text, META, PICKLED)], lambda path: read_meta(path.with_name("train.bin"))
    ),
    "run's state.json": Reader(
        "step_00000003/state.json", [checkpoint], lambda path: load_checkpoint(path.parent, MOMENTS)
    ),
    "run's state.bin": Reader(
        "step_00000003/state.bin", [checkpoint], lambda path: load_checkpoint(path.parent, MOMENTS)
    ),
    "run's settings": Reader(
        "settings.toml",
        [partial(text, "settings.toml", SETTINGS.encode())],
        lambda path: make_settings(read_toml(path)),
    ),
    "run's log.jsonl": Reader("log.jsonl", [partial(run_log, "log.jsonl")], read_run_log),
    "run's main.log": Reader("main.log", [partial(run_log, "main.log")], read_run_log),
    "HellaSwag": Reader(
        "eval.bin", [hellaswag], lambda path: read_hellaswag(path, CONFIG.vocab_size)
    ),
    "text": Reader(
        "t.txt",
        [partial(text, "t.txt", "some t\u00e9xt\n\n<|endoftext|>and more\n".encode() * 3)],
        partial(read_documents, None),
    ),
    "text (gzip)": Reader(
        "t.txt.gz",
        [partial(text, "t.txt.gz", gzip.compress(b"some text\n\nand more\n" * 20))],
        partial(read_documents, None),
    ),
    "JSON lines": Reader(
        "t.jsonl",
        [partial(text, "t.jsonl", b'{"text": "some text"}\n{"n": 1, "text": "and\\u00e9"}\n')],
        partial(read_documents, "text"),
    ),
    "TinyStories' archive": Reader("stories.tar.gz", [archive], read_archive),
    "tokenizer.json": Reader(
        "tokenizer.json", [own_tokenizer], lambda path: read_folder_tokenizer(path.parent, 256)
    ),
    "vocab.json": Reader(
        "vocab.json", [older_tokenizer], lambda path: read_folder_tokenizer(path.parent, 256)
    ),
    "merges.txt": Reader(
        "merges.txt", [older_tokenizer], lambda path: read_folder_tokenizer(path.parent, 256)
    ),
    "tokenizer_config.json": Reader(
        "tokenizer_config.json",
        [older_tokenizer],
        lambda path: read_folder_tokenizer(path.parent, 256),
    ),
    "added_tokens.json": Reader(
        "added_tokens.json", [added_tokens], lambda path: read_folder_tokenizer(path.parent, 256)
    ),
}
READERS |= {
    "trace (safetensors)": Reader("t.safetensors", [partial(traced, "t.safetensors")], read_trace),
    "trace (npz)": Reader("t.npz", [partial(traced, "t.npz")], read_trace),
    "trace (manifest)": Reader(
        "t/manifest.txt", [partial(traced, "t")], lambda path: read_trace(path.parent)
    ),
    "names of a trace": Reader(
        "n.toml", [partial(text, "n.toml", b'qkv = "h.{block}.c_attn"\nwte = "embed"\n')], read_map
    ),
}
if find_spec("tokenizers"):
    READERS["tokenizer.json in use"] = Reader("tokenizer.json", [own_tokenizer], use_tokenizer)
if find_spec("safetensors"):
    READERS |= {
        "config.json": Reader("config.json", [hugging_face], lambda path: load_model(path.parent)),
        "safetensors": Reader(
            "model.safetensors",
            [hugging_face, half_as_wide],
            lambda path: load_model(path.parent),
        ),
        "index of safetensors": Reader(
            "model.safetensors.index.json", [two_shards], lambda path: load_model(path.parent)
        ),
    }
if find_spec("zstandard"):
    READERS["text (zstd)"] = Reader("t.txt.zst", [compressed], partial(read_documents, None))
