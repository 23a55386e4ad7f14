"""Check npgpt against PyTorch: logits, loss, sixteen gradients and the losses of ten AdamW steps.

Without --model it takes gpt2_124M.bin and gpt2_124M_debug_state.bin from the current folder, or
else the tiny pair that ships with npgpt.
"""

import math
import sys
import time
from importlib.resources import files
from pathlib import Path

import numpy as np

from npgpt.checks.compare import check_gradients, check_logits, print_comparison
from npgpt.cli import Parser, program
from npgpt.core.precision import FP32_TOLERANCES, PRECISION_HELP, PRECISIONS
from npgpt.errors import ArgumentError
from npgpt.formats.debug_state import read_debug_state
from npgpt.formats.reference_losses import ReferenceLosses, find_losses
from npgpt.model.backend import BACKENDS
from npgpt.model.gpt2 import GPT2
from npgpt.wording import counted

REAL_MODEL, REAL_STATE = Path("gpt2_124M.bin"), Path("gpt2_124M_debug_state.bin")
HOW_TO_GET_IT = f"""\
for OpenAI's 124M model put {REAL_MODEL} and {REAL_STATE} into this folder;
they are in the Hugging Face dataset karpathy/llmc-starter-pack (1.05 GB)"""


@program
@np.errstate(over="ignore", invalid="ignore")  # what is not finite shows in its row
def main(argv=None, prog=None):
    """Check the pair that the arguments name -> 0, or 1 where something differs."""
    args = parse(argv, prog)
    model_path, state_path = choose_pair(args.model, args.state)
    model = GPT2.from_checkpoint(model_path, backend=args.backend, precision=args.precision)
    state = read_debug_state(state_path, model.params)
    expected = find_losses(state_path, state, args.losses)
    c, (B, T) = model.config, state.x.shape
    print(
        f"block_size {c.block_size}, vocab_size {c.vocab_size}, n_layer {c.n_layer},"
        f" n_head {c.n_head}, n_embd {c.n_embd}: {counted(model.params.flat.size, 'parameter')}"
    )
    precision = "" if args.precision == "fp32" else f", precision {args.precision}"
    print(f"B {B}, T {T}, backend {args.backend}{precision}")

    model.backend.prepare_training(model.params.flat.dtype, args.precision)
    logits_ok = check_logits(model.forward(state.x), state.logits, args.tolerances["logits"])
    start = time.perf_counter()
    loss = model.forward_backward(state.x, state.y)
    seconds = time.perf_counter() - start
    loss_ok = print_comparison(
        "loss", np.float64(loss), np.float64(state.loss), args.tolerances["loss"]
    )
    grads_ok = check_gradients(model.grads, state.grads, args.tolerances["grads"])

    x, y = state.x, state.y
    expected = expected or ReferenceLosses(
        [float(state.loss)], 1e-4, 0.0, "the state's own, no others known"
    )
    del state  # frees its logits and gradients for the moments
    ok = logits_ok & loss_ok & grads_ok
    ok &= check_losses(model, x, y, loss, seconds, expected, args)
    print(f"overall okay: {ok}")
    return 0 if ok else 1


def parse(argv, prog):
    parser = Parser(prog=prog, description=__doc__)
    parser.add_argument("--model", type=Path, metavar="FILE", help="an llm.c GPT-2 checkpoint")
    parser.add_argument(
        "--state", type=Path, metavar="FILE", help="its debug state; default: MODEL_debug_state.bin"
    )
    parser.add_argument(
        "--losses", type=Path, metavar="FILE.json",
        help="the expected losses; default: STATE.losses.json or losses.json beside the state",
    )  # fmt: skip
    parser.add_argument("--backend", choices=BACKENDS, default="numba", help="default: numba")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help=PRECISION_HELP)
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument(
        "--weight-decay",
        type=float,
        metavar="W",
        help="override the weight decay recorded with the losses",
    )
    defaults = " ".join(f"{name}={value:g}" for name, value in FP32_TOLERANCES.items())
    parser.add_argument(
        "--tolerance", nargs="+", default=[], metavar="NAME=X",
        help=f"default: {defaults} (larger for bf16); a bare number sets all four",
    )  # fmt: skip
    args = parser.parse_args(argv)
    args.tolerances = parse_tolerances(args.tolerance, PRECISIONS[args.precision].tolerances)
    if args.steps < 1:
        raise ArgumentError(f"--steps must be at least 1, not {args.steps}")
    if args.weight_decay is not None and not 0 <= args.weight_decay < math.inf:
        raise ArgumentError(
            f"--weight-decay must be finite and at least 0, not {args.weight_decay}"
        )
    return args


def parse_tolerances(words, defaults):
    tolerances = dict(defaults)
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not value >= 0 or name not in ("", *defaults):
            raise ArgumentError(
                f"--tolerance must be X or NAME=X, X at least 0, NAME one of"
                f" {', '.join(defaults)}, not {word}"
            )
        tolerances.update({name: value} if name else dict.fromkeys(defaults, value))
    return tolerances


def choose_pair(model, state):
    """The model and state paths to check; prints which pair it is and how to get the real one."""
    if model is None and state is not None:
        raise ArgumentError("--state needs --model, the checkpoint that it goes with")
    if model is not None:
        state = state or model.parent / f"{model.stem}_debug_state{model.suffix}"
        print(f"checking {model} against {state}")
    elif REAL_MODEL.exists() and REAL_STATE.exists():
        model, state = REAL_MODEL, REAL_STATE
        print(f"checking {model} against {state}, from the current folder")
    else:
        model = files("npgpt") / "assets" / "tiny.bin"
        state = files("npgpt") / "assets" / "tiny_debug_state.bin"
        print("checking the tiny pair that comes with npgpt against PyTorch's results;")
        print(HOW_TO_GET_IT)
    return model, state


def check_losses(model, x, y, loss, seconds, expected, args):
    """Take AdamW steps, printing each loss and the expected one -> whether all agree."""
    decay = expected.weight_decay if args.weight_decay is None else args.weight_decay
    print(
        f"\nAdamW, lr {expected.lr:g}, weight decay {decay:g}; expected losses: {expected.source}"
    )
    ok = True
    for step in range(args.steps):
        start = time.perf_counter()
        if step > 0:
            seconds = 0
            loss = model.forward_backward(x, y)
        model.update(expected.lr, weight_decay=decay)
        seconds += time.perf_counter() - start
        verdict = "not checked"
        if step < len(expected.losses):
            diff = abs(loss - expected.losses[step])
            step_ok = diff <= args.tolerances["losses" if step else "loss"]
            ok &= step_ok
            verdict = f"expected {expected.losses[step]:.6f}  diff {diff:.1e}"
            verdict += "  OK" if step_ok else "  NOT OK"
        print(f"step {step}  loss {loss:.6f}  {verdict}  ({1000 * seconds:.0f} ms)")
    unchecked = args.steps - len(expected.losses)
    if unchecked > 0:
        print(f"NOT checked: the last {counted(unchecked, 'step')}, for which no losses are known")
    return ok


if __name__ == "__main__":
    sys.exit(main())
