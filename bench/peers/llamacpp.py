"""llama.cpp: npgpt's weights in its format, GGUF, and greedy generation by its C functions."""

import ctypes
from importlib.util import find_spec

import numpy as np
from llvmlite.binding import get_host_cpu_features

from npgpt import get_threads

FILE_TYPES = {  # system -> the name of llama.cpp's enum of file types that its file is quantized to
    "llama.cpp": "ALL_F32",
    "llama.cpp, bf16": "MOSTLY_BF16",
    "llama.cpp, int8": "MOSTLY_Q8_0",
    "llama.cpp, int4": "MOSTLY_Q4_K_M",
}
WHOLE = {  # names in GGUF
    "wte": "token_embd.weight", "wpe": "position_embd.weight", "lnfw": "output_norm.weight",
    "lnfb": "output_norm.bias",
}  # fmt: skip
STACKED = {
    "ln1": "attn_norm", "qkv": "attn_qkv", "attproj": "attn_output", "ln2": "ffn_norm",
    "fc": "ffn_up", "fcproj": "ffn_down",
}  # fmt: skip
SUFFIXES = {"w": "weight", "b": "bias"}
SILENCE: list = []  # what llama.cpp calls with each line, which Python must not free


def systems():
    """Those that can be timed here: all of FILE_TYPES, or none where it is not installed."""
    return list(FILE_TYPES) if find_spec("llama_cpp") and find_spec("gguf") else []


def path_of(folder, system):
    """Where `write` puts the weights that a system reads."""
    return folder / f"{FILE_TYPES[system]}.gguf"


def library():
    """llama.cpp's functions, without the hundreds of lines that they log."""
    import llama_cpp

    if not SILENCE:
        SILENCE.append(llama_cpp.llama_log_callback(lambda level, text, data: None))
        llama_cpp.llama_log_set(*SILENCE, None)
    return llama_cpp


def write(folder, params):
    """Write params in each of FILE_TYPES, the smaller ones by llama.cpp's own quantization."""
    llama_cpp = library()
    source = path_of(folder, "llama.cpp")
    write_float32(source, params)
    for system, name in FILE_TYPES.items():
        options = llama_cpp.llama_model_quantize_default_params()
        options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{name}")
        target = path_of(folder, system)
        if target != source:
            paths = str(source).encode(), str(target).encode()
            failed = llama_cpp.llama_model_quantize(*paths, ctypes.byref(options))
            assert not failed, f"{name}: llama.cpp's quantization returned {failed}"


def write_float32(path, params):
    """Write params as GGUF, without a vocabulary."""
    from gguf import GGUFWriter

    config = params.config
    writer = GGUFWriter(str(path), "gpt2")
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("none")
    writer.add_vocab_size(config.vocab_size)
    for name, theirs in WHOLE.items():
        writer.add_tensor(theirs, getattr(params, name))
    for name, theirs in STACKED.items():
        for ours, suffix in SUFFIXES.items():
            for i, tensor in enumerate(getattr(params, name + ours)):
                writer.add_tensor(f"blk.{i}.{theirs}.{suffix}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def generate(prompt, folder, system="llama.cpp"):
    """A function that generates a number of tokens after each prompt of (B, T), greedily."""
    llama_cpp, (B, T) = library(), prompt.shape
    options = llama_cpp.llama_model_default_params()
    if system.endswith("int8") and get_host_cpu_features().get("amx-int8"):
        options.use_extra_bufts = False  # with repacked weights its prompts crash there
    model = llama_cpp.llama_model_load_from_file(str(path_of(folder, system)).encode(), options)
    V = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    settings = llama_cpp.llama_context_default_params()
    settings.n_seq_max = B
    settings.n_ctx = B * llama_cpp.llama_model_n_ctx_train(model)
    settings.n_batch = settings.n_ubatch = B * T
    settings.n_threads = settings.n_threads_batch = get_threads()
    context = llama_cpp.llama_init_from_model(model, settings)
    batch = llama_cpp.llama_batch_init(B * T, 0, 1)

    def step(tokens, pos):
        """tokens (B, N) at pos, pos + 1, ... -> the likeliest next ones (B, 1)."""
        N = tokens.shape[1]
        batch.n_tokens = tokens.size
        for i, token in enumerate(tokens.flat):
            batch.token[i], batch.pos[i] = int(token), pos + i % N
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, i // N, i % N == N - 1
        assert llama_cpp.llama_decode(context, batch) == 0
        last = (llama_cpp.llama_get_logits_ith(context, (b + 1) * N - 1) for b in range(B))
        return np.array([[np.ctypeslib.as_array(logits, (V,)).argmax()] for logits in last])

    def run(count):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        parts = [prompt]
        for pos in [0, *range(T, T + count - 1)]:
            parts.append(step(parts[-1], pos))
        return np.concatenate(parts, axis=1)

    return run
