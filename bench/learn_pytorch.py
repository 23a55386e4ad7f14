"""Training on tinyshakespeare's characters in PyTorch, by the settings that npgpt has, too.

GPT-2 as in scripts/train_gpt2.py, with PyTorch's fused attention and optimizers, and dropout in
nanoGPT's places. A run ends with its steps, or with the first validation that reaches its goal;
the time of the validations before it is not to count.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from bench.recipes import VOCAB_SIZE
from npgpt.data.token_files import open_tokens
from npgpt.training.settings import make_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import train_gpt2  # noqa: E402


def block_forward(block, x):
    """A block with dropout, for train_gpt2.Block.forward."""
    rate = block.dropout if block.training else 0.0
    B, T, C = x.shape
    qkv = block.attn["c_attn"](block.ln_1(x))
    q, k, v = (part.view(B, T, block.NH, -1).transpose(1, 2) for part in qkv.split(C, dim=-1))
    att = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
    att = block.attn["c_proj"](att.transpose(1, 2).reshape(B, T, C))
    x = x + F.dropout(att, rate, block.training)
    hidden = F.gelu(block.mlp["c_fc"](block.ln_2(x)), approximate="tanh")
    return x + F.dropout(block.mlp["c_proj"](hidden), rate, block.training)


def make_model(s):
    """The reference's GPT-2 of these Settings, with its initial weights."""

    class Model(train_gpt2.GPT):
        def forward(self, tokens):
            x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
            x = F.dropout(x, s.dropout, self.training)
            for block in self.h:
                x = block(x)
            return self.ln_f(x) @ self.wte.weight.T

    train_gpt2.Block.forward, train_gpt2.Block.dropout = block_forward, s.dropout
    sizes = {"n_layer": s.n_layer, "n_head": s.n_head, "n_embd": s.n_embd}
    model = Model(SimpleNamespace(block_size=s.T, vocab_size=VOCAB_SIZE, **sizes))
    model.draw_weights(None)
    return model


def make_optimizers(model, s):
    """AdamW, or Muon for the blocks' matrices beside it -> pairs of an optimizer and its rate."""
    hidden = [w for name, w in model.named_parameters() if name.startswith("h.") and w.ndim == 2]
    hidden = hidden if s.optimizer == "muon" else []
    taken = {id(weight) for weight in hidden}
    rest = [weight for weight in model.parameters() if id(weight) not in taken]
    groups = [
        {"params": [w for w in rest if w.ndim > 1], "weight_decay": s.weight_decay},
        {"params": [w for w in rest if w.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, s.lr, (s.beta1, s.beta2), s.eps, fused=True)
    if not hidden:
        return [(adamw, s.lr)]
    muon = torch.optim.Muon(hidden, s.muon_lr, s.weight_decay, s.muon_momentum)
    return [(adamw, s.lr), (muon, s.muon_lr)]


def make_step(model, s, tokens, compiled, bf16):
    """A function of a step's number that does it, on random windows of tokens (N,)."""
    optimizers = make_optimizers(model, s)
    forward = torch.compile(model) if compiled else model
    starts = torch.arange(s.T + 1)

    def step(i):
        for optimizer, rate in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * s.learning_rate(i) / s.lr
        rows = tokens[torch.randint(len(tokens) - s.T, (s.B, 1)) + starts]  # (B, T + 1)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = forward(rows[:, :-1])
            loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        if s.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return step


@torch.no_grad()
def validate(model, tokens, T):
    """The mean loss on all tokens (N,) but the first, in windows of T."""
    model.eval()
    total, count = 0.0, len(tokens) - 1
    whole = count // T * T
    rows, targets = tokens[:whole].view(-1, T), tokens[1 : whole + 1].view(-1, T)
    pieces = list(zip(rows.split(4096 // T), targets.split(4096 // T), strict=True))
    if whole < count:
        pieces.append((tokens[None, whole:-1], tokens[None, whole + 1 :]))
    for x, y in pieces:
        total += F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="sum").item()
    model.train()
    return total / count


def run_pytorch(recipe, options, target, data, seed, since):
    """Train by the recipe -> the validation loss, the steps done, and seconds not to count."""
    torch.manual_seed(seed)  # its threads are those of OMP_NUM_THREADS
    s = make_settings(recipe.settings)
    train, val = (
        torch.from_numpy(open_tokens(data / f"{name}.bin")[:].astype(np.int64))
        for name in ("train", "val")
    )
    if recipe.minutes:
        step, seconds = make_step(make_model(s), s, train, **options), []
        for i in range(recipe.timed_steps):
            start = time.perf_counter()
            step(i)
            seconds.append(time.perf_counter() - start)
        steps = recipe.steps_in_time(seconds, time.perf_counter() - since)
        s = make_settings({**recipe.settings, "steps": steps})
    model, uncounted = make_model(s), 0.0
    step = make_step(model, s, train, **options)
    for i in range(s.steps):
        step(i)
        if i + 1 in recipe.validate_after and i + 1 < s.steps:
            start = time.perf_counter()
            loss = validate(model, val, s.T)
            if target is not None and loss <= target:
                return {"loss": loss, "steps": i + 1, "uncounted": uncounted}
            uncounted += time.perf_counter() - start
    return {"loss": validate(model, val, s.T), "steps": s.steps, "uncounted": uncounted}
