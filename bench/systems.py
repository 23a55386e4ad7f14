"""One system's training steps of GPT-2 124M, in a process of its own: what bench.step runs.

    python -m bench.systems npgpt -B 4 -T 64 --steps 5

prints a line of JSON: seconds (of the first step, and of each after the warm-up) and the peak
memory in bytes.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from npgpt.cli import Parser, add_batch_size, add_seq_len

VOCAB_SIZE = 50257
WARM_UP = 2  # steps that do not count: PyTorch's compiler, and npgpt's kernels on a new machine


def npgpt_step(tokens, targets, **options):
    """A training step of npgpt's, as a function without arguments."""
    import npgpt

    model = npgpt.GPT2(npgpt.GPT2Config(), **options)

    def step():
        model.forward_backward(tokens, targets)
        model.update(1e-4)

    return step


def pytorch_step(tokens, targets, compiled, bf16=False):
    """A training step at PyTorch's best: its fused attention, its fused AdamW, and its compiler.

    With bf16, its autocast decides what is computed in that.
    """
    import torch
    import torch.nn.functional as F

    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    import train_gpt2

    def attend(block, qkv):
        B, T, C3 = qkv.shape
        q, k, v = (
            part.view(B, T, block.NH, -1).transpose(1, 2) for part in qkv.split(C3 // 3, dim=-1)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(B, T, C3 // 3)

    class Config:
        block_size, vocab_size, n_layer, n_head, n_embd = 1024, VOCAB_SIZE, 12, 12, 768

    train_gpt2.Block.attend = attend
    model = train_gpt2.GPT(Config)
    model.draw_weights(None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens, targets = torch.from_numpy(tokens), torch.from_numpy(targets)

    def loss_of(tokens, targets):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    if compiled:
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss_of(tokens, targets).backward()
        optimizer.step()

    return step


SYSTEMS = {
    "npgpt": npgpt_step,
    "npgpt, recompute": lambda *batch: npgpt_step(*batch, recompute=True),
    "npgpt, bf16x3": lambda *batch: npgpt_step(*batch, precision="bf16x3"),
    "npgpt, bf16": lambda *batch: npgpt_step(*batch, precision="bf16"),
    "npgpt, NumPy layers": lambda *batch: npgpt_step(*batch, backend="numpy"),
    "PyTorch, eager": lambda *batch: pytorch_step(*batch, compiled=False),
    "PyTorch, compiled": lambda *batch: pytorch_step(*batch, compiled=True),
    "PyTorch, bf16": lambda *batch: pytorch_step(*batch, compiled=False, bf16=True),
    "PyTorch, bf16, compiled": lambda *batch: pytorch_step(*batch, compiled=True, bf16=True),
}


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=SYSTEMS)
    add_batch_size(parser, "sequences in a batch", default=4)
    add_seq_len(parser, "tokens in a sequence", default=64)
    parser.add_argument("--steps", type=int, default=5, metavar="N")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, VOCAB_SIZE, (2, args.B, args.T))
    step = SYSTEMS[args.system](tokens, targets)
    seconds = []
    for _ in range(args.steps + WARM_UP):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    unit = 1 if sys.platform == "darwin" else 1024
    peak = unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"first": seconds[0], "seconds": seconds[WARM_UP:], "peak": peak}))


if __name__ == "__main__":
    main()
