"""The reference: GPT-2 in plain PyTorch, which writes what npgpt and others are checked against.

    python scripts/train_gpt2.py --size 124M -B 4 -T 64

writes NAME.bin, the checkpoint, NAME_debug_state.bin, a batch with its logits, loss and gradients
by autograd, and NAME_debug_state.losses.json, the losses of ten AdamW steps on that batch; then it
samples 16 tokens. Weights come from a seed or, with --model gpt2, from the Hugging Face Hub. It
imports nothing of npgpt, so that the check is independent.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path


def fail(message):
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


try:
    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    fail(f"{error.name} is missing: {sys.executable} -m pip install {error.name}")

SIZES = {  # n_layer, n_head, n_embd
    "124M": (12, 12, 768),
    "355M": (24, 16, 1024),
    "774M": (36, 20, 1280),
    "1558M": (48, 25, 1600),
}
EOT = 50256


class Block(nn.Module):
    def __init__(self, C, NH):
        super().__init__()
        self.NH = NH
        self.ln_1 = nn.LayerNorm(C)
        self.attn = nn.ModuleDict({"c_attn": nn.Linear(C, 3 * C), "c_proj": nn.Linear(C, C)})
        self.ln_2 = nn.LayerNorm(C)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(C, 4 * C), "c_proj": nn.Linear(4 * C, C)})

    def forward(self, x):
        x = x + self.attn["c_proj"](self.attend(self.attn["c_attn"](self.ln_1(x))))
        hidden = F.gelu(self.mlp["c_fc"](self.ln_2(x)), approximate="tanh")
        return x + self.mlp["c_proj"](hidden)

    def attend(self, qkv):
        B, T, C3 = qkv.shape
        q, k, v = (
            part.view(B, T, self.NH, -1).transpose(1, 2) for part in qkv.split(C3 // 3, dim=-1)
        )
        att = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        att = att.masked_fill(future, -math.inf).softmax(-1)
        return (att @ v).transpose(1, 2).reshape(B, T, C3 // 3)


class GPT(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.block_size, self.vocab_size = args.block_size, args.vocab_size
        self.n_layer, self.n_head, self.n_embd = args.n_layer, args.n_head, args.n_embd
        self.wte = nn.Embedding(self.vocab_size, self.n_embd)
        self.wpe = nn.Embedding(self.block_size, self.n_embd)
        self.h = nn.ModuleList(Block(self.n_embd, self.n_head) for _ in range(self.n_layer))
        self.ln_f = nn.LayerNorm(self.n_embd)

    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T  # the head is tied to wte

    @torch.no_grad()
    def draw_weights(self, spread):
        """GPT-2's initialisation or, with a spread, that much noise on all, biases too."""
        for name, weight in self.named_parameters():
            mean = 1.0 if "ln_" in name and name.endswith("weight") else 0.0
            std = 0.0 if "ln_" in name or name.endswith("bias") else 0.02
            if name.endswith("c_proj.weight"):
                std /= math.sqrt(2 * self.n_layer)
            weight.normal_(mean, std if spread is None else spread)

    @torch.no_grad()
    def copy_weights(self, pretrained):
        """Take the weights of a transformers GPT2LMHeadModel, whose Conv1D are (in, out)."""
        theirs = dict(pretrained.transformer.named_parameters())
        for name, weight in self.named_parameters():
            conv1d = name.endswith("weight") and (".attn." in name or ".mlp." in name)
            weight.copy_(theirs[name].T if conv1d else theirs[name])

    def tensors(self, of=lambda weight: weight.detach()):
        """The sixteen tensors in the files' order, each layer's stacked."""
        ours = dict(self.named_parameters())
        blocks = [
            f"{layer}.{kind}"
            for layer in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
            for kind in ("weight", "bias")
        ]
        yield of(ours["wte.weight"])
        yield of(ours["wpe.weight"])
        for name in blocks:
            yield torch.stack([of(ours[f"h.{i}.{name}"]) for i in range(self.n_layer)])
        yield of(ours["ln_f.weight"])
        yield of(ours["ln_f.bias"])


def write_header(file, *words):
    file.write(np.array([*words, *[0] * (256 - len(words))], dtype="<i4").tobytes())


def write_tensors(file, tensors, padded_rows, bfloat16=False):
    """Write the sixteen, wte with as many rows of zeros after it as are given."""
    for i, tensor in enumerate(tensors):
        if i == 0 and padded_rows:
            tensor = F.pad(tensor, (0, 0, 0, padded_rows))
        if bfloat16:
            file.write(tensor.to(torch.bfloat16).view(torch.int16).numpy().astype("<i2").tobytes())
        else:
            file.write(tensor.numpy().astype("<f4", copy=False).tobytes())


def write_checkpoint(path, model, version):
    padded_rows = 0 if version == 1 else -model.vocab_size % 128
    words = [model.block_size, model.vocab_size, model.n_layer, model.n_head, model.n_embd]
    if version != 1:
        words.append(model.vocab_size + padded_rows)
    with open(path, "wb") as file:
        write_header(file, 20240326, version, *words)
        write_tensors(file, model.tensors(), padded_rows, bfloat16=version == 5)


def write_debug_state(path, model, version, x, y, logits, loss):
    padded_rows = 0 if version == 1 else -model.vocab_size % 128
    with open(path, "wb") as file:
        write_header(file, 20240327, 1 if version == 1 else 2, *x.shape)
        for ids in (x, y):
            file.write(ids.numpy().astype("<i4").tobytes())
        file.write(logits.detach().numpy().astype("<f4").tobytes())
        file.write(np.array(loss.item(), "<f4").tobytes())
        write_tensors(file, model.tensors(of=lambda weight: weight.grad), padded_rows)


def read_tokens(path, count, vocab_size):
    """The first tokens of a file of llm.c's, today's (uint16 after a header) or raw int32."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    has_header = len(raw) >= 1024 and int.from_bytes(raw[:4], "little") == 20240520
    size = 2 if has_header else 4
    if len(raw) % size:
        fail(f"{path}: not a token file ({len(raw)} bytes are no multiple of {size})")
    tokens = np.frombuffer(raw[1024:], "<u2") if has_header else np.frombuffer(raw, "<i4")
    if len(tokens) < count:
        fail(f"{path}: {len(tokens)} tokens, but B * T + 1 = {count} are needed")
    tokens = torch.from_numpy(tokens[:count].astype(np.int64))
    if tokens.min() < 0 or tokens.max() >= vocab_size:
        fail(
            f"{path}: tokens must be from 0 to {vocab_size - 1}, but run from {tokens.min()} to"
            f" {tokens.max()}"
        )
    return tokens


def load_pretrained(name):
    """A transformers GPT2LMHeadModel, from the Hub by name or from a folder."""
    try:
        from transformers import GPT2LMHeadModel
    except ImportError:
        fail(f"transformers is missing: {sys.executable} -m pip install transformers")
    try:
        return GPT2LMHeadModel.from_pretrained(name)
    except (OSError, ValueError) as error:
        fail(f"{name}: cannot be had: {str(error).splitlines()[0]}")


@torch.no_grad()
def sample(model, start, count, seed, top_k=40):
    """Draw count tokens after start, among the top_k likeliest."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor([[start]])
    for _ in range(count):
        logits = model(tokens[:, -model.block_size :])[0, -1]
        values, ids = logits.topk(min(top_k, model.vocab_size))
        drawn = torch.multinomial(values.softmax(-1), 1, generator=generator)
        tokens = torch.cat([tokens, ids[drawn][None]], dim=1)
    return tokens[0, 1:].tolist()


class Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        """As argparse's, with --some_option taken for --some-option."""
        args = [
            "=".join([option.replace("_", "-"), *value]) if arg.startswith("--") else arg
            for arg in (sys.argv[1:] if args is None else args)
            for option, *value in [arg.split("=", 1)]
        ]
        return super().parse_known_args(args, namespace)

    def error(self, message):
        fail(f"{message} (see --help)")


def parse():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="NAME", help="of the Hub, or a folder; default: seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spread", type=float, help="noise on every weight and bias, not GPT-2's")
    parser.add_argument("--size", choices=SIZES, default="124M")
    for name, default in (("block-size", 1024), ("vocab-size", 50257)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default: {default}")
    for name in ("n-layer", "n-head", "n-embd"):
        parser.add_argument(f"--{name}", type=int, help="default: the size's")
    for names, default, help in (
        (("-B", "--B", "--batch-size"), 4, "batch"),
        (("-T", "--T", "--seq-len"), 64, "sequence length"),
    ):
        parser.add_argument(
            *names, dest=names[0][1:], type=int, default=default, help=f"{help}; default: {default}"
        )
    parser.add_argument("--tokens", metavar="FILE", help="a token file; default: random, by seed")
    parser.add_argument("--version", type=int, choices=(1, 3, 5), default=3, help="default: 3")
    parser.add_argument("--steps", type=int, default=10, help="default: 10")
    parser.add_argument("--lr", type=float, default=1e-4, help="default: 1e-4")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="default: 0")
    parser.add_argument("--name", default="gpt2_seeded", help="of the files; default: gpt2_seeded")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder; default: this one")
    args = parser.parse_args()

    for name, value in zip(("n_layer", "n_head", "n_embd"), SIZES[args.size], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    for name in ("block_size", "vocab_size", "n_layer", "n_head", "n_embd", "B", "T", "steps"):
        if getattr(args, name) < 1:
            parser.error(f"{name} must be at least 1, not {getattr(args, name)}")
    for name in ("lr", "weight_decay", "spread"):
        if getattr(args, name) is not None and not 0 <= getattr(args, name) < math.inf:
            parser.error(f"{name} must be a finite number from 0, not {getattr(args, name)}")
    if not 0 <= args.seed < 2**63:
        parser.error(f"seed must be from 0 to 2^63 - 1, not {args.seed}")
    if args.n_embd % args.n_head:
        parser.error(f"n_embd {args.n_embd} must be divisible by n_head {args.n_head}")
    return args


def build(args):
    """The model that the arguments describe; a pretrained one brings its own sizes."""
    if args.model:
        pretrained = load_pretrained(args.model)
        config = pretrained.config
        args.block_size, args.vocab_size = config.n_positions, config.vocab_size
        args.n_layer, args.n_head, args.n_embd = config.n_layer, config.n_head, config.n_embd
        if config.n_inner not in (None, 4 * config.n_embd):
            fail(f"{args.model}: n_inner must be 4 * n_embd, not {config.n_inner}")
    if args.T > args.block_size:
        fail(f"T {args.T} must be at most the block_size, {args.block_size}")
    if args.model:
        model = GPT(args)
        model.copy_weights(pretrained)
    else:
        torch.manual_seed(args.seed)
        model = GPT(args)
        model.draw_weights(args.spread)
    if args.version == 5:  # the state belongs to the weights as the file has them
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(weight.to(torch.bfloat16))
    return model


def main():
    args = parse()
    model = build(args)
    if args.tokens:
        tokens = read_tokens(args.tokens, args.B * args.T + 1, model.vocab_size)
    else:
        generator = torch.Generator().manual_seed(args.seed)
        tokens = torch.randint(model.vocab_size, (args.B * args.T + 1,), generator=generator)
    x, y = tokens[:-1].view(args.B, args.T), tokens[1:].view(args.B, args.T)

    try:
        os.makedirs(args.out, exist_ok=True)
        checkpoint, state = args.out / f"{args.name}.bin", args.out / f"{args.name}_debug_state.bin"
        write_checkpoint(checkpoint, model, args.version)
        print(f"wrote {checkpoint}: {sum(w.numel() for w in model.parameters()):,} parameters")
        losses = []
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=args.lr, betas=(0.9, 0.999), eps=1e-8,
            weight_decay=args.weight_decay,
        )  # fmt: skip
        for step in range(args.steps):
            start = time.perf_counter()
            optimizer.zero_grad()
            logits = model(x)
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
            loss.backward()
            if step == 0:
                writing = time.perf_counter()
                write_debug_state(state, model, args.version, x, y, logits, loss)
                print(f"wrote {state}: B {args.B}, T {args.T}")
                start += time.perf_counter() - writing
            optimizer.step()
            losses.append(loss.item())
            print(f"step {step}  loss {losses[-1]:.6f}  ({time.perf_counter() - start:.2f} s)")
        content = {"losses": losses, "lr": args.lr, "weight_decay": args.weight_decay}
        state.with_suffix(".losses.json").write_text(json.dumps(content, indent=1) + "\n")
    except OSError as error:
        fail(f"{error.filename or args.out}: {error.strerror}")

    drawn = sample(model, min(EOT, model.vocab_size - 1), 16, args.seed)
    print(f"16 tokens: {drawn}")
    if model.vocab_size == EOT + 1:
        try:
            import tiktoken

            print(f"as text: {tiktoken.get_encoding('gpt2').decode(drawn)!r}")
        except (ImportError, OSError, ValueError) as error:
            print(f"(no text: tiktoken or its files cannot be had: {type(error).__name__})")


if __name__ == "__main__":
    main()
