"""A step's matrix products, by npgpt in each precision, by NumPy and by PyTorch: in turn.

    python -m bench.products [--size 124M] [-B 4] [-T 64] [--rounds 3]
    python -m bench.products --choose       which is faster here, npgpt's kernel or NumPy's BLAS

Each system has a process of its own in every round. In bf16, npgpt takes and gives float32, and
rounds as it goes; PyTorch's operands and result are bf16 already or, "and casts", float32 too, as
they are in a training step. Without bf16 hardware only the systems in float32 are timed.
"""

import json
import sys
from functools import partial

from bench import tables
from bench.choose import choose
from bench.machine import describe, median_time, operands, products, supported
from bench.options import make_parser, require
from bench.results import write_result
from bench.sizes import add_size, choose_size, model_name, result_name
from bench.turns import child, take_turns
from npgpt import get_threads
from npgpt.cli import program
from npgpt.core.precision import PRECISIONS, use_bf16_terms
from npgpt.model.backend import make_backend


def numpy_product(x, y, out):
    """A function that computes out = x @ y."""
    import numpy as np

    return lambda: np.matmul(x, y, out=out)


def npgpt_product(x, y, out, precision="fp32"):
    from npgpt.core.threads import threads
    from npgpt.kernels.products.product import product

    make_backend("numba", precision)

    def run():
        with threads(), use_bf16_terms(PRECISIONS[precision].n_terms):
            product(x, y, out)

    return run


def pytorch_product(x, y, out, bf16=False, casts=False):
    import torch

    torch.set_num_threads(get_threads())
    x, y, out = (torch.from_numpy(array) for array in (x, y, out))
    if casts:
        return lambda: out.copy_(x.bfloat16() @ y.bfloat16())
    if bf16:
        x, y, out = x.bfloat16(), y.bfloat16(), out.bfloat16()
    return lambda: torch.matmul(x, y, out=out)


SYSTEMS = {
    "NumPy": numpy_product,
    "PyTorch": pytorch_product,
    "npgpt": npgpt_product,
    **{
        f"npgpt, {name}": partial(npgpt_product, precision=name)
        for name in PRECISIONS
        if name != "fp32"
    },
    "PyTorch, bf16": partial(pytorch_product, bf16=True),
    "PyTorch, bf16 and casts": partial(pytorch_product, casts=True),
}


def run_one(system, shapes):
    """Seconds of each of a step's products, in the order of `products`."""
    return [
        median_time(SYSTEMS[system](*operands(kind, M, K, N)), times=5)
        for kind, M, K, N, _ in shapes
    ]


@program
def main(argv=None, prog=None):
    """Measure the systems, write the result and print its tables; or with --only one system."""
    parser = make_parser(prog, __doc__, B=None, T=None, rounds=3)
    add_size(parser)
    parser.add_argument("--only", choices=SYSTEMS, help="run it in this process")
    parser.add_argument(
        "--choose", action="store_true",
        help="time npgpt's kernel and NumPy's BLAS alone, and say which variables to set",
    )  # fmt: skip
    args = parser.parse_args(argv)
    config = choose_size(parser, args)
    shapes = list(products(args.B, args.T, config))
    if args.only:
        print(json.dumps(run_one(args.only, shapes)))
        return 0
    if args.choose:
        choose(args.size, args.B, args.T, args.rounds)
        return 0
    require(parser, "torch")
    sizes = ("--size", args.size, "-B", args.B, "-T", args.T)
    systems = take_turns(
        supported(SYSTEMS), args.rounds,
        lambda name: child("bench.products", "--only", name, *sizes),
    )  # fmt: skip
    content = {
        "model": model_name(args.size), "B": args.B, "T": args.T, "products": shapes,
        "systems": systems,
    }  # fmt: skip
    name = result_name("products", args.size, args.B, args.T)
    result, path = write_result("products", name, describe(), content, args.out)
    print(tables.text(result), f"wrote {path}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
