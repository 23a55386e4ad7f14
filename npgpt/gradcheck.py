"""Check a backward pass by central differences: (f(x + eps) - f(x - eps)) / (2 eps), in float64.

For any pair `out, cache = forward(*arguments)` and `gradients = backward(dout, cache)`:

    print(gradcheck(layernorm_forward, layernorm_backward, x, w, b))
"""

import sys

import numpy as np

from npgpt.checks.gradcheck import (
    Report,
    Row,
    gradcheck,
    gradcheck_gpt2,
    layer_cases,
    tiny_gpt2,
)
from npgpt.cli import Parser, program
from npgpt.errors import ArgumentError
from npgpt.model.backend import BACKENDS

__all__ = ["Report", "Row", "gradcheck", "gradcheck_gpt2"]


@program
def main(argv=None, prog=None):
    """Check every layer and a whole small GPT-2; the exit status is 0 if all is OK, else 1."""
    parser = Parser(prog=prog, description=main.__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="numba", help="default: numba")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs; default: 0")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise ArgumentError(f"--seed must be at least 0, not {args.seed}")

    rng = np.random.default_rng(args.seed)
    model = tiny_gpt2(args.backend, rng)
    print("central differences in float64, eps 1e-6; OK: within 1e-5 relative or 1e-7 absolute")
    print(f"{'layer':<13} {'gradient':<10} {'shape':<14} {'abs.err':>9} {'rel.err':>9}")
    ok = True
    for name, forward, backward, arguments in layer_cases(model.layers, rng):
        ok &= show(name, gradcheck(forward, backward, *arguments))
    tokens, targets = rng.integers(0, model.config.vocab_size, (2, 2, 5))
    ok &= show("whole GPT-2", gradcheck_gpt2(model, tokens, targets))
    ok &= show("with dropout", gradcheck_gpt2(model, tokens, targets, dropout=0.3))
    print(f"overall okay: {ok}")
    return 0 if ok else 1


def show(name, report):
    for row in report.rows:
        print(f"{name:<13} {row}")
    return bool(report)


if __name__ == "__main__":
    sys.exit(main())
