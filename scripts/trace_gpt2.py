"""Write PyTorch's trace of a GPT-2: every activation and gradient by autograd, as an .npz file.

    python scripts/trace_gpt2.py --model tiny.bin --state tiny_debug_state.bin --out torch.npz

for `npgpt diff`. The model is an llm.c file of float32 (version 1 or 3), the batch that of a debug
state. It imports nothing of npgpt, so that the comparison is independent.
"""

import argparse
import math
import os
import sys


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


try:
    import numpy as np
    import torch
    from torch.nn import functional as F
except ImportError as error:
    fail(f'{error.name} is missing: pip install "npgpt[reference]"')

HEADER = 1024  # bytes


def read_model(path):
    """The five sizes and the sixteen tensors of a model file, by name."""
    raw = read_header(path)
    if raw[0] != 20240326 or raw[1] not in (1, 3):
        fail(f"{path}: not a GPT-2 of float32 (magic {raw[0]}, version {raw[1]})")
    block_size, V, L, NH, C = map(int, raw[2:7])
    rows = V if raw[1] == 1 else int(raw[7])
    if min(block_size, V, L, NH, C) < 1 or C % NH or rows < V:
        fail(f"{path}: the sizes in its header are damaged: {raw[2:8].tolist()}")
    shapes = {
        "wte": (rows, C), "wpe": (block_size, C), "ln1w": (L, C), "ln1b": (L, C),
        "qkvw": (L, 3 * C, C), "qkvb": (L, 3 * C), "attprojw": (L, C, C), "attprojb": (L, C),
        "ln2w": (L, C), "ln2b": (L, C), "fcw": (L, 4 * C, C), "fcb": (L, 4 * C),
        "fcprojw": (L, C, 4 * C), "fcprojb": (L, C), "lnfw": (C,), "lnfb": (C,),
    }  # fmt: skip
    size, right = os.path.getsize(path), HEADER + 4 * sum(map(math.prod, shapes.values()))
    if size != right:
        fail(f"{path}: {size} bytes, but by its header it must have {right}")
    flat, tensors, start = np.fromfile(path, "<f4", offset=HEADER), {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        tensors[name] = flat[start:stop].reshape(shape)
        start = stop
    tensors["wte"] = tensors["wte"][:V]
    return (block_size, V, L, NH, C), tensors


def read_header(path):
    """The first 256 words of a file."""
    words = np.fromfile(path, "<i4", HEADER // 4)
    if len(words) < HEADER // 4:
        fail(f"{path}: truncated: {os.path.getsize(path)} bytes, and a header has {HEADER}")
    return words


def read_batch(path, block_size, V):
    """x and y of a debug state, each (B, T)."""
    words = read_header(path)
    if words[0] != 20240327:
        fail(f"{path}: not a debug state (magic {words[0]})")
    B, T = map(int, words[2:4])
    if B < 1 or not 1 <= T <= block_size:
        fail(f"{path}: B is {B} and T is {T}, with a block_size of {block_size}")
    size, least = os.path.getsize(path), HEADER + 8 * B * T
    if size < least:
        fail(f"{path}: truncated: {size} bytes, and with its batch it has more than {least}")
    ids = np.fromfile(path, "<i4", 2 * B * T, offset=HEADER).astype(np.int64)
    if ids.min() < -1 or ids[: B * T].min() < 0 or ids.max() >= V:
        fail(f"{path}: tokens must be from 0 to {V - 1}, and are from {ids.min()} to {ids.max()}")
    return torch.from_numpy(ids).view(2, B, T)


class Pass:
    """A forward pass that keeps every tensor by its name, with its gradient."""

    def __init__(self):
        self.kept = {}

    def keep(self, name, tensor):
        if tensor.requires_grad:
            tensor.retain_grad()
        self.kept[name] = tensor
        return tensor

    def layernorm(self, name, block, x, w, b):
        out, mean, rstd = torch.native_layer_norm(x, x.shape[-1:], w, b, 1e-5)
        self.kept[f"{name}_mean{block}"] = mean[..., 0].detach()
        self.kept[f"{name}_rstd{block}"] = rstd[..., 0].detach()
        return self.keep(f"{name}{block}", out)

    def run(self, p, x, y, L, NH):
        B, T = x.shape
        C = p["wpe"].shape[1]
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        stream = self.keep("encoded", F.embedding(x, p["wte"]) + p["wpe"][:T])
        for i in range(L):
            at = f".{i}"
            w = {name: p[f"{name}.{i}"] for name in BLOCK}
            ln1 = self.layernorm("ln1", at, stream, w["ln1w"], w["ln1b"])
            qkv = self.keep(f"qkv{at}", F.linear(ln1, w["qkvw"], w["qkvb"]))
            q, k, v = (part.view(B, T, NH, -1).transpose(1, 2) for part in qkv.split(C, -1))
            preatt = self.keep(f"preatt{at}", q @ k.transpose(-2, -1) / math.sqrt(C // NH))
            att = self.keep(f"att{at}", preatt.masked_fill(future, -math.inf).softmax(-1))
            atty = self.keep(f"atty{at}", (att @ v).transpose(1, 2).reshape(B, T, C))
            attproj = F.linear(atty, w["attprojw"], w["attprojb"])
            stream = self.keep(f"residual2{at}", stream + self.keep(f"attproj{at}", attproj))
            ln2 = self.layernorm("ln2", at, stream, w["ln2w"], w["ln2b"])
            fch = self.keep(f"fch{at}", F.linear(ln2, w["fcw"], w["fcb"]))
            act = self.keep(f"fch_gelu{at}", F.gelu(fch, approximate="tanh"))
            fcproj = self.keep(f"fcproj{at}", F.linear(act, w["fcprojw"], w["fcprojb"]))
            stream = self.keep(f"residual3{at}", stream + fcproj)
        lnf = self.layernorm("lnf", "", stream, p["lnfw"], p["lnfb"])
        logits = self.keep("logits", lnf @ p["wte"].T)
        self.keep("probs", logits.detach().softmax(-1))
        losses = F.cross_entropy(
            logits.flatten(0, 1), y.flatten(), ignore_index=-1, reduction="none"
        ).view(B, T)
        return self.keep("loss", self.keep("losses", losses).sum() / (y != -1).sum())


BLOCK = ("ln1w", "ln1b", "qkvw", "qkvb", "attprojw", "attprojb", "ln2w", "ln2b", "fcw", "fcb",
         "fcprojw", "fcprojb")  # fmt: skip


def norms(tensors, names, L):
    """The L2 norms of the sixteen tensors, each over all layers."""
    parts = [[f"{n}.{i}" for i in range(L)] if n in BLOCK else [n] for n in names]
    squares = [sum(tensors[name].double().square().sum() for name in part) for part in parts]
    return torch.stack(squares).sqrt().numpy()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="FILE.bin")
    parser.add_argument("--state", required=True, metavar="FILE.bin", help="a debug state")
    parser.add_argument("--out", required=True, metavar="FILE.npz")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--steps", type=int, default=0, help="updates by AdamW; default: 0")
    parser.add_argument("--lr", type=float, default=1e-4, help="default: 1e-4")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="default: 0")
    args = parser.parse_args()
    try:
        (block_size, V, L, NH, _), weights = read_model(args.model)
        x, y = read_batch(args.state, block_size, V)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}")
    dtype = getattr(torch, args.dtype)
    p = {}
    for name, weight in weights.items():
        parts = {f"{name}.{i}": part for i, part in enumerate(weight)}
        for each, part in (parts if name in BLOCK else {name: weight}).items():
            p[each] = torch.tensor(part, dtype=dtype).requires_grad_()
    trace = {name: weight.detach().clone() for name, weight in p.items()}

    forward = Pass()
    forward.run(p, x, y, L, NH).backward()
    for name, tensor in forward.kept.items():
        trace[name] = tensor.detach()
        if tensor.grad is not None and name != "loss":
            trace[f"d{name}"] = tensor.grad
    trace |= {f"d{name}": weight.grad.clone() for name, weight in p.items()}
    optimizer = torch.optim.AdamW(p.values(), lr=args.lr, weight_decay=args.weight_decay)
    for step in range(1, args.steps + 1):
        optimizer.step()
        state = {name: optimizer.state[weight] for name, weight in p.items()}
        for what, key in (("step_m", "exp_avg"), ("step_v", "exp_avg_sq")):
            moments = {name: state[name][key] for name in p}
            trace[f"{what}.{step}"] = torch.from_numpy(norms(moments, weights, L))
        parameters = {name: weight.detach() for name, weight in p.items()}
        trace[f"step_params.{step}"] = torch.from_numpy(norms(parameters, weights, L))
        optimizer.zero_grad()
        loss = Pass().run(p, x, y, L, NH)
        loss.backward()
        trace[f"step_loss.{step}"] = loss.detach()
    arrays = {name: tensor.numpy() for name, tensor in trace.items()}
    try:
        with open(args.out, "wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        fail(f"{args.out}: {error.strerror}")
    print(f"wrote {args.out}: {len(arrays)} tensors, loss {float(trace['loss']):.6f}")


if __name__ == "__main__":
    main()
