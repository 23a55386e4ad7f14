"""Write every tensor of a model's forward and backward pass on one batch, by name, to a file.

With --backend oracle, the default, they are what the NumPy textbook computes in float64, in
arithmetic that gives the same bits on every machine. npgpt diff compares others with them.
"""

import math
import sys
import time
from pathlib import Path

from npgpt.cli import Parser, add_batch_size, add_seq_len, program
from npgpt.core.parameters import TENSOR_NAMES
from npgpt.core.precision import PRECISION_HELP, PRECISIONS
from npgpt.data.token_files import open_tokens
from npgpt.errors import ArgumentError
from npgpt.formats.debug_state import read_debug_state
from npgpt.formats.models import load_model
from npgpt.tracing.files import dtype_of, open_trace_writer
from npgpt.tracing.names import select, shape_of
from npgpt.tracing.record import BACKENDS, Recorder, Updates
from npgpt.tracing.seeded import random_batch


@program
def main(argv=None, prog=None):
    """Record the trace and print what was written."""
    args = parse(argv, prog)
    start = time.perf_counter()
    params, _ = load_model(args.model)
    tokens, targets = batch(args, params)
    recorder = Recorder(
        params, tokens, targets, args.backend, args.precision,
        updates=Updates(args.steps, args.lr, args.weight_decay),
    )  # fmt: skip
    names = select(recorder.names, args.only, args.blocks)
    B, T = tokens.shape
    tensors = {
        name: (
            dtype_of(name, "<f4" if name.split(".")[0] in TENSOR_NAMES else args.dtype),
            shape_of(name, params.config, B, T),
        )
        for name in names
    }
    with open_trace_writer(args.out, tensors) as write:
        loss = recorder.run(lambda name, array: write(name, array) if name in tensors else None)
    numbers = sum(math.prod(shape) for _, shape in tensors.values())
    seconds = time.perf_counter() - start
    print(
        f"{args.out}: {len(tensors)} tensors, {numbers:,} numbers, B {B}, T {T}, by"
        f" {args.backend}, loss {loss:.6f} ({seconds:.1f} s)"
    )
    return 0


def batch(args, params):
    """The tokens and targets that the arguments ask for, (B, T) each."""
    config = params.config
    if args.state is not None:
        state = read_debug_state(args.state, params)
        return state.x, state.y
    B, T = args.B or 4, args.T or min(64, config.block_size)
    if T > config.block_size:
        raise ArgumentError(f"-T must be at most the block_size, {config.block_size}, not {T}")
    if args.tokens is None:
        return random_batch(args.seed, B, T, config.vocab_size)
    ids = open_tokens(str(args.tokens)).read(0, B * T + 1)
    return ids[:-1].reshape(B, T), ids[1:].reshape(B, T)


def parse(argv, prog):
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument(
        "--model", required=True, metavar="WHERE",
        help="a run's folder, a model file or folder, or a published name, such as gpt2",
    )  # fmt: skip
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--tokens", type=Path, metavar="FILE", help="a token file: its beginning")
    source.add_argument("--state", type=Path, metavar="FILE", help="a debug state: its batch")
    source.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of random tokens; default: 0"
    )
    add_batch_size(parser, "rows of the batch; default: 4")
    add_seq_len(parser, "tokens in a row; default: 64, or the model's block_size")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE",
        help="ends in .safetensors or .npz, or is a new folder for raw files and a manifest",
    )  # fmt: skip
    backends = "; ".join(f"{name}: {what}" for name, what in BACKENDS.items())
    parser.add_argument(
        "--backend", choices=BACKENDS, default="oracle", help=f"{backends}; default: oracle"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=PRECISION_HELP)
    parser.add_argument(
        "--dtype", choices=("float32", "float64"),
        help="of the file; default: float64 from the oracle, else float32",
    )  # fmt: skip
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="only these tensors, such as qkv ln1.3 'd*w'"
    )
    parser.add_argument("--blocks", nargs="+", type=int, metavar="N", help="only these blocks")
    parser.add_argument(
        "--steps", type=int, default=0, metavar="N", help="also N updates by AdamW; default: 0"
    )
    parser.add_argument("--lr", type=float, default=1e-4, help="of the updates; default: 1e-4")
    parser.add_argument("--weight-decay", type=float, default=0.0, metavar="W", help="default: 0")
    args = parser.parse_args(argv)
    for name in ("B", "T"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ArgumentError(f"-{name} must be at least 1, not {value}")
        if value is not None and args.state is not None:
            raise ArgumentError(f"-{name} does not go with --state, which has a batch")
    if args.steps < 0:
        raise ArgumentError(f"--steps must be at least 0, not {args.steps}")
    for option in ("lr", "weight_decay"):
        value = getattr(args, option)
        if not 0 <= value < math.inf:
            name = option.replace("_", "-")
            raise ArgumentError(f"--{name} must be a finite number of at least 0, not {value}")
    if args.precision != "fp32" and args.backend != "numba":
        raise ArgumentError(f"--precision {args.precision} needs --backend numba")
    args.dtype = args.dtype or ("float64" if args.backend == "oracle" else "float32")
    return args


if __name__ == "__main__":
    sys.exit(main())
