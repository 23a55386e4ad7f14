"""One system's training steps, in a process of its own: what bench.step runs.

    python -m bench.systems npgpt --size nanogpt_cpu --steps 100

prints a line of JSON: seconds (of the first step, and of each after the warm-up), the loss of every
step and the peak memory in bytes. All systems begin with the same weights and compute the same, but
for the precision: bench.step compares their losses.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

from bench.machine import peak_memory
from bench.sizes import add_size, choose_size
from npgpt import Parameters
from npgpt.cli import Parser, add_batch_size, add_seq_len

LR = 1e-4
WARM_UP = 2  # steps that do not count: PyTorch's compiler, and npgpt's kernels on a new machine


def npgpt_step(config, tokens, targets, **options):
    """A training step of npgpt's, as a function that returns the loss."""
    import npgpt

    model = npgpt.GPT2(config, **options)

    def step():
        loss = model.forward_backward(tokens, targets)
        model.update(LR)
        return loss

    return step


def pytorch_model(config):
    """scripts/train_gpt2.py's GPT-2, with PyTorch's fused attention and npgpt's first weights."""
    import torch
    import torch.nn.functional as F

    from npgpt.formats.huggingface import tensors

    sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
    import train_gpt2

    def attend(block, qkv):
        B, T, C3 = qkv.shape
        q, k, v = (
            part.view(B, T, block.NH, -1).transpose(1, 2) for part in qkv.split(C3 // 3, dim=-1)
        )
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return out.transpose(1, 2).reshape(B, T, C3 // 3)

    train_gpt2.Block.attend = attend
    model, params = train_gpt2.GPT(config), Parameters.init(config)
    with torch.no_grad():
        for name, ours, layer, _ in tensors(config):
            model.get_parameter(name).copy_(torch.from_numpy(getattr(params, ours)[layer]))
    return model


def pytorch_step(config, tokens, targets, compiled, bf16=False, medium=False):
    """A training step at PyTorch's best: its fused attention, its fused AdamW, and its compiler.

    With bf16, its autocast decides what is computed in that; with medium, matrix products are,
    where the CPU has instructions for it, and nothing else.
    """
    import torch
    import torch.nn.functional as F

    if medium:
        torch.set_float32_matmul_precision("medium")
    model = pytorch_model(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0, fused=True)
    tokens, targets = torch.from_numpy(tokens), torch.from_numpy(targets)

    def loss_of(tokens, targets):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return F.cross_entropy(model(tokens).flatten(0, 1), targets.flatten())

    if compiled:
        loss_of = torch.compile(loss_of)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(tokens, targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


SYSTEMS = {
    "npgpt": npgpt_step,
    "npgpt, recompute": lambda *of: npgpt_step(*of, recompute=True),
    "npgpt, recompute blocks": lambda *of: npgpt_step(*of, recompute="blocks"),
    "npgpt, bf16, recompute blocks": lambda *of: npgpt_step(
        *of, precision="bf16", recompute="blocks"
    ),
    "npgpt, bf16x3": lambda *of: npgpt_step(*of, precision="bf16x3"),
    "npgpt, bf16": lambda *of: npgpt_step(*of, precision="bf16"),
    "npgpt, NumPy layers": lambda *of: npgpt_step(*of, backend="numpy"),
    "PyTorch, eager": lambda *of: pytorch_step(*of, compiled=False),
    "PyTorch, compiled": lambda *of: pytorch_step(*of, compiled=True),
    "PyTorch, bf16": lambda *of: pytorch_step(*of, compiled=False, bf16=True),
    "PyTorch, bf16, compiled": lambda *of: pytorch_step(*of, compiled=True, bf16=True),
    "PyTorch, medium": lambda *of: pytorch_step(*of, compiled=False, medium=True),
    "PyTorch, medium, compiled": lambda *of: pytorch_step(*of, compiled=True, medium=True),
}


def main():
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("system", choices=SYSTEMS)
    add_size(parser)
    add_batch_size(parser, "sequences in a batch; default: the size's")
    add_seq_len(parser, "tokens in a sequence; default: the size's")
    parser.add_argument("--steps", type=int, metavar="N", help="default: the size's")
    args = parser.parse_args()
    config = choose_size(parser, args)
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, config.vocab_size, (2, args.B, args.T))
    step = SYSTEMS[args.system](config, tokens, targets)
    seconds, losses = [], []
    for _ in range(args.steps + WARM_UP):
        start = time.perf_counter()
        loss = step()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss))
    result = {
        "first": seconds[0], "seconds": seconds[WARM_UP:], "losses": losses, "peak": peak_memory(),
    }  # fmt: skip
    print(json.dumps(result))


if __name__ == "__main__":
    main()
