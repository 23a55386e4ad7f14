"""Hugging Face's files: the same logits as transformers', and one sentence for what is no GPT-2."""

import json
import re
import shutil
import sys
import tracemalloc

import numpy as np
import pytest

import npgpt
from npgpt import ArgumentError, FileError, GPT2Config, Parameters
from npgpt.data.descriptions import read_tokenizer
from npgpt.data.tokenizer import BytesTokenizer
from npgpt.formats import huggingface
from npgpt.formats.huggingface import read_huggingface, write_huggingface
from npgpt.wording import install_extra

safetensors = pytest.importorskip("safetensors")
safetensors_numpy = pytest.importorskip("safetensors.numpy")

CONFIG = GPT2Config(block_size=6, vocab_size=257, n_layer=2, n_head=2, n_embd=8)
BYTES = BytesTokenizer().description


def random_params(rng, config=CONFIG):
    """Weights of which no two are the same, so that nothing can be mixed up unseen."""
    params = Parameters(config)
    params.flat[:] = rng.standard_normal(params.flat.size)
    return params


@pytest.fixture
def folder(rng, tmp_path):
    """A folder that npgpt wrote."""
    write_huggingface(tmp_path / "model", random_params(rng), BYTES)
    return tmp_path / "model"


def load(folder):
    return safetensors_numpy.load_file(folder / "model.safetensors")


def store(folder, tensors):
    """Have other tensors in the folder, written by safetensors itself."""
    tensors = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    safetensors_numpy.save_file(tensors, folder / "model.safetensors")


def reconfigure(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in {**config, **changes}.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config))


def test_what_is_written_is_read_again(rng, tmp_path):
    params = random_params(rng)
    write_huggingface(tmp_path / "new" / "model", params)
    again = read_huggingface(tmp_path / "new" / "model")
    assert again.config == CONFIG and again.flat.dtype == np.float32
    np.testing.assert_array_equal(again.flat, params.flat)
    assert sorted(p.name for p in (tmp_path / "new" / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_a_safetensors_file_is_read_with_the_config_beside_it(rng, folder):
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    again = read_huggingface(folder / "weights.safetensors")
    np.testing.assert_array_equal(again.flat, random_params(np.random.default_rng(7)).flat)


def test_the_linear_weights_are_in_out_and_the_names_transformers(folder):
    tensors = load(folder)
    assert len(tensors) == 4 + 12 * CONFIG.n_layer
    assert tensors["transformer.h.1.attn.c_attn.weight"].shape == (8, 24)
    assert tensors["transformer.h.0.mlp.c_proj.weight"].shape == (32, 8)
    params = read_huggingface(folder)
    np.testing.assert_array_equal(tensors["transformer.h.1.mlp.c_fc.weight"], params.fcw[1].T)
    np.testing.assert_array_equal(
        tensors["transformer.h.1.attn.c_proj.weight"], params.attprojw[1].T
    )
    np.testing.assert_array_equal(tensors["transformer.wte.weight"], params.wte)
    with safetensors.safe_open(folder / "model.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}  # older transformers ask for it


def test_names_without_prefix_masks_and_a_tied_head_are_read(folder):
    expected = read_huggingface(folder)
    tensors = {name.removeprefix("transformer."): t for name, t in load(folder).items()}
    tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 6, 6), np.uint8))
    tensors["h.1.attn.masked_bias"] = np.float32(-1e4)
    tensors["lm_head.weight"] = tensors["wte.weight"]
    store(folder, tensors)
    np.testing.assert_array_equal(read_huggingface(folder).flat, expected.flat)
    tensors["lm_head.weight"] = tensors["wte.weight"] + np.float32(1)
    store(folder, tensors)
    with pytest.raises(FileError, match="lm_head.weight must be wte.weight"):
        read_huggingface(folder)


def test_float16_is_read(folder):
    expected = read_huggingface(folder).flat.astype(np.float16).astype(np.float32)
    store(folder, {name: tensor.astype(np.float16) for name, tensor in load(folder).items()})
    np.testing.assert_array_equal(read_huggingface(folder).flat, expected)


def bfloat16(path, tensors):
    """Write the upper halves of float32 numbers as BF16."""
    header, content = {}, b""
    for name, tensor in tensors.items():
        piece = (tensor.ravel().view("<u4") >> 16).astype("<u2").tobytes()
        offsets = [len(content), len(content) + len(piece)]
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": offsets}
        content += piece
    header = json.dumps(header).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content)


def test_bfloat16_is_read(folder):
    expected = (read_huggingface(folder).flat.view(np.uint32) & 0xFFFF0000).view(np.float32)
    bfloat16(folder / "model.safetensors", load(folder))
    np.testing.assert_array_equal(read_huggingface(folder).flat, expected)


def test_bfloat16s_header_is_parsed_once(folder, monkeypatch):
    bfloat16(folder / "model.safetensors", load(folder))
    paths, right = [], huggingface.bfloat16_header
    monkeypatch.setattr(
        huggingface, "bfloat16_header", lambda path: paths.append(path) or right(path)
    )
    read_huggingface(folder)
    assert paths == [folder / "model.safetensors"]


def shard(folder, parts=3):
    """Spread the tensors over files, as transformers does with large models."""
    tensors, weight_map = load(folder), {}
    for i in range(parts):
        name = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        part = dict(list(tensors.items())[i::parts])
        safetensors_numpy.save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return index


def test_shards_are_read(folder):
    expected = read_huggingface(folder)
    shard(folder)
    np.testing.assert_array_equal(read_huggingface(folder).flat, expected.flat)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"wte.weight": "../model.safetensors"}, "must name files of its folder, not '../model"),
        ({"wte.weight": 3}, "must name files of its folder, not 3"),
        ([], "must name files of its folder, not None"),
        ({}, "no tensor wte.weight"),
        ({"wte.weight": "gone.safetensors"}, "gone.safetensors: No such file"),
        ({"wte.weight": ".."}, "is a folder"),
    ],
)
def test_a_bad_index_is_one_sentence(weight_map, message, folder):
    shard(folder).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(FileError, match=message):
        read_huggingface(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    first = folder / "model-00001-of-00003.safetensors"
    index = shard(folder)
    shutil.copy(first, folder / "again.safetensors")
    content = json.loads(index.read_text())
    content["weight_map"]["x"] = "again.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(FileError, match="holds .* twice"):
        read_huggingface(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type must be gpt2, not 'llama'"),
        ({"model_type": "a\nb"}, r"model_type must be gpt2, not 'a\\nb'$"),
        ({"model_type": "absent"}, "model_type must be gpt2, not None"),
        ({"activation_function": "relu"}, "activation_function must be 'gelu_new', not 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon must be 1e-05, not 1e-06"),
        ({"scale_attn_weights": False}, "scale_attn_weights must be True, not False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "inverse_layer_idx must be False, not True"),
        ({"add_cross_attention": True}, "add_cross_attention must be False, not True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings must be True, not False"),
        ({"n_inner": 31}, "n_inner must be 32, not 31"),
        ({"n_layer": "absent"}, "config.json: no n_layer"),
        ({"n_layer": "2"}, "config.json: n_layer must be an integer of at least 1, not '2'"),
        ({"n_head": 3}, "config.json: n_embd must be divisible by n_head"),
        ({"n_layer": 3}, "model: no tensor h.2.ln_1.weight"),
        ({"n_layer": 10**12}, "model: no tensor h.2.ln_1.weight"),
        ({"n_layer": 1}, "model: holds 'h.1.attn.c_attn.bias', which is not a tensor of this"),
        ({"n_positions": 7}, r"wpe.weight must be \(7, 8\) by its config, not \(6, 8\)"),
        ({"n_embd": 16}, r"h.0.attn.c_attn.bias must be \(48,\) by its config, not \(24,\)"),
        ({"vocab_size": 10**15}, "wte.weight must be"),
    ],
)
def test_a_config_of_something_else_is_one_sentence(changes, message, folder):
    reconfigure(folder, **changes)
    with pytest.raises(FileError, match=message):
        read_huggingface(folder)


def test_what_a_config_may_leave_out_or_say_besides(folder):
    expected = read_huggingface(folder)
    reconfigure(folder, layer_norm_epsilon="absent", tie_word_embeddings="absent", n_inner=32)
    reconfigure(folder, attn_pdrop=0.1, n_ctx=6, task_specific_params={"a": 1})
    np.testing.assert_array_equal(read_huggingface(folder).flat, expected.flat)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b"1" * 5000])
def test_a_config_that_is_no_json_object_is_one_sentence(content, folder):
    (folder / "config.json").write_bytes(content)
    with pytest.raises(FileError, match="config.json: (not JSON|must hold a JSON object)"):
        read_huggingface(folder)


def test_a_huge_config_is_not_read(folder):
    with open(folder / "config.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileError, match="config.json: 1,099,511,627,776 bytes, but"):
        read_huggingface(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_one_sentence(missing, folder):
    (folder / missing).unlink()
    with pytest.raises(FileError, match=f"{missing}: No such file or directory"):
        read_huggingface(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "not a safetensors file"),
        (lambda content: b"\xff" * 64, "not a safetensors file"),
        (lambda content: content[:-1], "not a safetensors file"),
        (lambda content: content + b"x", "not a safetensors file"),
        (lambda content: content[:8] + b"[" + content[9:], "not a safetensors file"),
        (lambda content: content.replace(b"ln_f.bias", b"ln_g.bias"), "no tensor ln_f.bias"),
        (lambda content: content.replace(b"[257, 8]", b"[8, 257]"), "wte.weight must be"),
        (lambda content: content.replace(b'"F32"', b'"I32"'), "must be F32, F16 or BF16, not I32"),
        (lambda content: content[:-4] + b"\0\0\x80\x7f", r"lnfb\[7\] is inf"),
    ],
)
def test_damaged_weights_are_one_sentence(damage, message, folder):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError, match=message) as raised:
        read_huggingface(folder)
    assert "\n" not in str(raised.value)


def test_a_tensor_with_and_without_prefix_is_refused(folder):
    tensors = load(folder)
    store(folder, {**tensors, "wte.weight": tensors["transformer.wte.weight"]})
    with pytest.raises(FileError, match="holds 'wte.weight' twice"):
        read_huggingface(folder)


def test_an_unknown_tensor_is_refused(folder):
    store(folder, {**load(folder), "score.weight": np.zeros(2, np.float32)})
    with pytest.raises(FileError, match="holds 'score.weight', which is not a tensor"):
        read_huggingface(folder)


def test_memory_stays_near_one_model(tmp_path):
    config = GPT2Config(block_size=64, vocab_size=512, n_layer=12, n_head=2, n_embd=64)
    params = Parameters.init(config)
    size = params.flat.nbytes
    tracemalloc.start()
    write_huggingface(tmp_path, params)
    written = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    read_huggingface(tmp_path)
    read = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written < 0.3 * size
    assert size < read < 1.3 * size


def test_the_tokenizer_goes_beside_and_a_former_one_away(rng, folder):
    assert read_tokenizer(folder / "model") == BYTES
    assert (folder / "model.tokenizer.json").exists()
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] == 256
    write_huggingface(folder, random_params(rng))
    assert not (folder / "model.tokenizer.json").exists()
    assert json.loads((folder / "config.json").read_text())["eos_token_id"] is None


def test_what_cannot_be_written_leaves_the_old_folder(rng, folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    params = random_params(rng)
    params.fcw[1, 2, 3] = np.nan
    with pytest.raises(FileError, match=r"fcw\[1, 2, 3\] is nan"):
        write_huggingface(folder, params)
    with pytest.raises(ArgumentError, match="description"):
        write_huggingface(folder, random_params(rng), {"name": "nonsense"})
    with pytest.raises(FileError, match="config.json: cannot be created"):
        write_huggingface(folder / "config.json", random_params(rng))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_missing_library_is_one_sentence(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ArgumentError, match=re.escape(f"needs safetensors: {install_extra('hf')}")):
        read_huggingface(folder)


def transformers_logits(model, tokens):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(tokens)).logits.numpy()


@pytest.mark.reference
def test_logits_are_transformers_both_ways(tmp_path, rng):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    sizes = {"n_positions": 6, "vocab_size": 257, "n_layer": 2, "n_head": 2, "n_embd": 8}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes)).eval()
    for tensor in theirs.parameters():  # no zeros and ones that could be mixed up
        tensor.data.normal_(0, 0.5)
    theirs.save_pretrained(tmp_path / "theirs")
    tokens = rng.integers(0, 257, (2, 6))
    expected = transformers_logits(theirs, tokens)

    params = read_huggingface(tmp_path / "theirs")
    logits = npgpt.GPT2(params.config, params=params, backend="numpy").forward(tokens)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)

    write_huggingface(tmp_path / "ours", params, BYTES)
    ours, info = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    np.testing.assert_array_equal(transformers_logits(ours.eval(), tokens), expected)

    params.qkvw[0, 0, 0] += 1  # a negative control: one weight shows
    logits = npgpt.GPT2(params.config, params=params, backend="numpy").forward(tokens)
    assert np.abs(logits - expected).max() > 1e-4


@pytest.mark.reference
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_transformers_is_read(dtype, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    sizes = {"n_positions": 6, "vocab_size": 257, "n_layer": 2, "n_head": 2, "n_embd": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path, max_shard_size="4KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    weight = model.transformer.h[1].mlp.c_fc.weight.detach().float().numpy()
    np.testing.assert_array_equal(read_huggingface(tmp_path).fcw[1], weight.T)
