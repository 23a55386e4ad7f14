"""Convert nanoGPT's ckpt.pt to a model that npgpt reads; needs PyTorch, which unpickles it safely.

    python scripts/convert_nanogpt.py out-shakespeare-char/ckpt.pt shakespeare.bin \
        --meta data/shakespeare_char/meta.pkl

A TARGET that ends in .bin becomes an llm.c file, any other one a Hugging Face folder. Where the
model has no biases (bias=False), they are zeros. nanoGPT computes the exact GELU and GPT-2, as
npgpt, the approximation by tanh: the losses of the two differ by some 1e-4.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from npgpt.cli import program
from npgpt.core.config import GPT2Config
from npgpt.core.parameters import Parameters
from npgpt.data.nanogpt import META, read_meta
from npgpt.data.tokenizer import GPT2Tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import check_regular
from npgpt.formats.huggingface import NAMES, PREFIX
from npgpt.formats.registry import target_format, write_model
from npgpt.wording import install_extra

COMPILED = "_orig_mod."  # torch.compile puts it in front of each name
HEAD = "lm_head.weight"  # the same tensor as wte
PADDED_VOCAB = 50304  # nanoGPT rounds GPT-2's vocabulary up to a multiple of 64


def load(path):
    """Read ckpt.pt -> its model_args and its tensors, {name: float32 array}."""
    try:
        import torch
    except ImportError as error:
        raise ArgumentError(f"torch is missing: {install_extra('reference')}") from error
    try:
        check_regular(path.stat().st_mode, path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        args, tensors = checkpoint["model_args"], checkpoint["model"]
        tensors = {
            name.removeprefix(COMPILED): tensor.float().numpy() for name, tensor in tensors.items()
        }
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # torch.load has no error of its own
        raise FileError(f"{path}: not nanoGPT's ckpt.pt: {error}") from error
    return args, tensors


def convert(path):
    """Read nanoGPT's ckpt.pt -> Parameters."""
    args, tensors = load(path)
    try:
        config = GPT2Config(
            args["block_size"], args["vocab_size"], args["n_layer"], args["n_head"], args["n_embd"]
        )
    except (KeyError, TypeError, ArgumentError) as error:
        raise FileError(f"{path}: its model_args are damaged: {error}") from error
    params = Parameters(config)
    for ours, theirs in NAMES.items():
        whole = getattr(params, ours)
        if theirs.startswith(("wte", "wpe", "ln_f")):
            fill(whole, tensors, PREFIX + theirs, path, args)
        else:
            for layer in range(config.n_layer):
                fill(whole[layer], tensors, f"{PREFIX}h.{layer}.{theirs}", path, args)
    left = [name for name in tensors if name != HEAD and not name.endswith(".attn.bias")]
    if left:
        raise FileError(f"{path}: holds {left[0]}, which is not a tensor of nanoGPT's GPT")
    return params


def fill(out, tensors, name, path, args):
    """Copy a tensor, which is used up, to out; with bias=False there are no biases."""
    if name not in tensors and name.endswith(".bias") and args.get("bias") is False:
        out[...] = 0
        return
    if name not in tensors:
        raise FileError(f"{path}: no tensor {name}")
    tensor = tensors.pop(name)
    if tensor.shape != out.shape or not np.isfinite(tensor).all():
        raise FileError(
            f"{path}: {name} must be finite numbers of shape {out.shape}, not {tensor.shape}"
        )
    out[...] = tensor


@program
def main(argv=None, prog=None):
    """Convert CKPT to TARGET."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path, metavar="CKPT")
    parser.add_argument("target", type=Path, metavar="TARGET")
    parser.add_argument("--meta", type=Path, help=f"{META} of the data, for its characters")
    args = parser.parse_args(argv)
    target_format(args.target)  # raises, before the work, for a path that cannot be written to
    description = None
    if args.meta is not None:
        if args.meta.name != META:
            raise ArgumentError(f"--meta must name a file {META}, not {args.meta}")
        description = read_meta(args.meta)
        if description is None:
            raise FileError(f"{args.meta}: not found")
    params = convert(args.checkpoint)
    if description is not None and len(description["characters"]) != params.config.vocab_size:
        raise ArgumentError(
            f"{args.meta}: has {len(description['characters'])} characters, but the model's"
            f" vocabulary is {params.config.vocab_size}"
        )
    if description is None and params.config.vocab_size in (GPT2Tokenizer.vocab_size, PADDED_VOCAB):
        description = GPT2Tokenizer().description
    write_model(args.target, params, description)
    print(f"{args.target}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
