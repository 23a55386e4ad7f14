"""How far npgpt is from PyTorch in each precision, on a model and its debug state.

python scripts/train_gpt2.py --size 124M -B 4 -T 64 --name seeded --out data
python -m bench.accuracy --model data/seeded.bin
"""

import sys
from pathlib import Path

import numpy as np

from bench import tables
from bench.machine import describe
from bench.options import make_parser
from bench.results import write_result
from npgpt import GPT2, ArgumentError, read_debug_state
from npgpt.cli import program
from npgpt.core.precision import PRECISIONS
from npgpt.formats.reference_losses import find_losses
from npgpt.model.backend import make_backend


def differences(actual, expected):
    """The largest absolute difference, and the norm of the difference over that of expected."""
    diff = np.asarray(actual, np.float64) - expected
    return {"largest": np.abs(diff).max(), "l2": np.linalg.norm(diff) / np.linalg.norm(expected)}


def compare(model, state, reference):
    """Name -> differences of logits, of each gradient, and the absolute ones of the losses."""
    logits = differences(model.forward(state.x), state.logits)
    losses = []
    for step, expected in enumerate(reference.losses):
        loss = model.forward_backward(state.x, state.y)
        losses.append(abs(float(loss) - expected))
        if step == 0:
            gradients = {
                name: differences(grad, getattr(state.grads, name))
                for name, grad in model.grads.items()
            }
        model.update(reference.lr, weight_decay=reference.weight_decay)
    return {"logits": logits, "gradients": gradients, "losses": losses}


def available():
    """The precisions that this machine has."""
    for name in PRECISIONS:
        try:
            make_backend("numba", name)
        except ArgumentError:
            continue
        yield name


@program
def main(argv=None, prog=None):
    """Compare in each precision, write the result and print its table."""
    parser = make_parser(prog, __doc__)
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="a checkpoint")
    parser.add_argument("--state", type=Path, metavar="FILE", help="default: MODEL_debug_state.bin")
    args = parser.parse_args(argv)
    state_path = args.state or args.model.with_name(f"{args.model.stem}_debug_state.bin")
    precisions = {}
    for precision in available():
        print(precision, file=sys.stderr, flush=True)
        model = GPT2.from_checkpoint(args.model, precision=precision)
        state = read_debug_state(state_path, model.params)
        reference = find_losses(state_path, state)
        if reference is None:
            raise ArgumentError(f"{state_path}: no losses are known for it")
        precisions[precision] = compare(model, state, reference)
    B, T = state.x.shape
    size = int(model.params.flat.size)
    content = {"B": B, "T": T, "parameters": size, "precisions": precisions}
    name = f"accuracy_{args.model.stem}"
    result, path = write_result("accuracy", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
