"""GPT-2 with a bug: copies of the textbook's sources with one text changed, and what is found.

A row of CATALOGUE is a bug: its name, the source and the text that is replaced, the text in its
place, the tensor that is the first wrong one, and the cause that has to be named, None where it is
enough that the place is right.
"""

import sys
from types import ModuleType
from typing import NamedTuple

from npgpt import layers
from npgpt.model import passes
from npgpt.tracing import record, taps

SOURCES = {
    "encoder": "npgpt.layers.encoder", "layernorm": "npgpt.layers.layernorm",
    "matmul": "npgpt.layers.matmul", "gelu": "npgpt.layers.gelu",
    "residual": "npgpt.layers.residual", "adamw": "npgpt.layers.adamw",
    "steps": "npgpt.tracing.taps", "passes": "npgpt.model.passes",
}  # fmt: skip


class Bug(NamedTuple):
    name: str
    source: str
    right: str
    wrong: str
    first: str
    cause: str | None


class Buggy(record.Recorder):
    """A Recorder whose layers, steps and passes have a bug."""

    def __init__(self, bug, *arguments, **options):
        super().__init__(*arguments, **options)
        module = mutated(SOURCES[bug.source], bug.right, bug.wrong)
        self.body = passes
        if bug.source == "passes":
            self.body = module
        elif bug.source == "steps":
            self.tap = module.TextbookTap
        else:
            self.backend.layers = with_functions_of(module)

    def passes(self, params, grads, see, edits=None):
        before = record.body_forward, record.body_backward
        record.body_forward, record.body_backward = self.body.body_forward, self.body.body_backward
        try:
            return super().passes(params, grads, see, edits)
        finally:
            record.body_forward, record.body_backward = before


def mutated(name, right, wrong):
    """A copy of a module in whose source one text stands in the place of another."""
    with open(sys.modules[name].__file__, encoding="utf-8") as file:
        source = file.read()
    assert source.count(right) == 1, f"{name}: {right!r} stands there {source.count(right)} times"
    copy = ModuleType(name)
    copy.__file__ = sys.modules[name].__file__
    exec(compile(source.replace(right, wrong), f"{name} with a bug", "exec"), copy.__dict__)
    return copy


def with_functions_of(module):
    """The textbook with what a changed module has in the place of its own."""
    copy = ModuleType("layers")
    copy.__dict__.update(
        {name: getattr(module, name, getattr(layers, name)) for name in layers.__all__}
    )
    return copy


assert taps  # imported, so that its source can be found

CATALOGUE = [
    # The embedding
    Bug("positions left out", "encoder", "wte[tokens] + wpe[:T]", "wte[tokens] + 0 * wpe[:T]",
        "encoded", "left out"),
    Bug("positions off by one", "encoder", "wte[tokens] + wpe[:T]", "wte[tokens] + wpe[1 : T + 1]",
        "encoded", "positions"),
    Bug("position 0 everywhere", "encoder", "wte[tokens] + wpe[:T]", "wte[tokens] + wpe[0]",
        "encoded", "positions"),
    Bug("tokens off by one", "encoder", "wte[tokens] + wpe[:T]", "wte[tokens - 1] + wpe[:T]",
        "encoded", "embedding rows"),
    Bug("wte read as (C, V)", "encoder", "wte[tokens] + wpe[:T]",
        "wte.reshape(wte.shape[::-1]).T[tokens] + wpe[:T]", "encoded", "embedding rows"),
    Bug("embeddings scaled by sqrt(C)", "encoder", "wte[tokens] + wpe[:T]",
        "(wte[tokens] + wpe[:T]) * wte.shape[1] ** 0.5", "encoded", "scaled"),
    # Layernorm
    Bug("epsilon 1e-6", "layernorm", "EPS = 1e-5", "EPS = 1e-6", "ln1_rstd.0", "epsilon"),
    Bug("epsilon 1e-12", "layernorm", "EPS = 1e-5", "EPS = 1e-12", "ln1_rstd.0", "epsilon"),
    Bug("epsilon outside the root", "layernorm",
        "((xshift**2).mean(-1, keepdims=True) + EPS) ** -0.5",
        "1 / ((xshift**2).mean(-1, keepdims=True) ** 0.5 + EPS)", "ln1_rstd.0", "epsilon"),
    Bug("variance divided by C - 1", "layernorm", "(xshift**2).mean(-1, keepdims=True)",
        "(xshift**2).sum(-1, keepdims=True) / (x.shape[-1] - 1)", "ln1_rstd.0", "variance"),
    Bug("RMSNorm's variance", "layernorm", "(xshift**2).mean", "(x**2).mean", "ln1_rstd.0",
        "variance"),
    Bug("std in the place of rstd", "layernorm", "+ EPS) ** -0.5", "+ EPS) ** 0.5", "ln1_rstd.0",
        "rstd"),
    Bug("mean not subtracted", "layernorm", "return xshift * rstd * w + b",
        "return x * rstd * w + b", "ln1.0", "layernorm"),
    Bug("layernorm's bias missing", "layernorm", "return xshift * rstd * w + b",
        "return xshift * rstd * w + 0 * b", "ln1.0", "left out"),
    Bug("layernorm's weight missing", "layernorm", "return xshift * rstd * w + b",
        "return xshift * rstd + b", "ln1.0", "left out"),
    Bug("layernorm's weight is 1 + w", "layernorm", "return xshift * rstd * w + b",
        "return xshift * rstd * (1 + w) + b", "ln1.0", "layernorm"),
    Bug("ln2 with ln1's weight", "passes",
        "layers.layernorm_forward(x, p.ln2w, p.ln2b)  # (B, T, C)\n    fch,",
        "layers.layernorm_forward(x, p.ln1w, p.ln2b)  # (B, T, C)\n    fch,", "ln2.0",
        "wrong input"),
    # Linear layers
    Bug("bias missing", "matmul", "out += b", "pass", "qkv.0", "bias missing"),
    Bug("bias twice", "matmul", "out += b", "out += 2 * b", "qkv.0", "bias twice"),
    Bug("fc without its bias", "passes", "layers.matmul_forward(ln2, p.fcw, p.fcb)",
        "layers.matmul_forward(ln2, p.fcw, 0 * p.fcb)", "fch.0", "bias missing"),
    Bug("attproj transposed", "passes", "layers.matmul_forward(atty, p.attprojw, p.attprojb)",
        "layers.matmul_forward(atty, p.attprojw.T, p.attprojb)", "attproj.0",
        "weight transposed"),
    Bug("qkvw read as (in, out)", "passes", "layers.matmul_forward(ln1, p.qkvw, p.qkvb)",
        "layers.matmul_forward(ln1, p.qkvw.reshape(p.qkvw.shape[::-1]).T, p.qkvb)", "qkv.0",
        "weight transposed"),
    Bug("fcproj's input is fch", "passes", "layers.matmul_forward(act, p.fcprojw",
        "layers.matmul_forward(fch, p.fcprojw", "fcproj.0", "wrong input"),
    # Attention
    Bug("scores without a scale", "steps", "* (1 / math.sqrt(q.shape[-1])))", ")", "preatt.0",
        "attention scale"),
    Bug("scores divided by hs", "steps", "* (1 / math.sqrt(q.shape[-1])))", "/ q.shape[-1])",
        "preatt.0", "attention scale"),
    Bug("scores divided by sqrt(C)", "steps", "* (1 / math.sqrt(q.shape[-1])))",
        "/ math.sqrt(q.shape[-1] * q.shape[1]))", "preatt.0", "attention scale"),
    Bug("q and k exchanged", "steps", 'scores(q, k))  # (B', 'scores(k, q))  # (B', "preatt.0",
        "heads or q, k, v"),
    Bug("heads interleaved otherwise", "steps",
        "        q, k, v = split_heads(qkv, NH)  # (B, NH, T, hs)\n        preatt",
        "        q, k, v = qkv.reshape(B, T, 3, -1, NH).transpose(2, 0, 4, 1, 3)\n        preatt",
        "preatt.0", "heads or q, k, v"),
    Bug("q, k, v of each head together", "steps",
        "        q, k, v = split_heads(qkv, NH)  # (B, NH, T, hs)\n        preatt",
        "        q, k, v = qkv.reshape(B, T, NH, 3, -1).transpose(3, 0, 2, 1, 4)\n        preatt",
        "preatt.0", "heads or q, k, v"),
    Bug("mask lets t see t + 1", "steps",
        "preatt = self.forth(f\"preatt{dot}{block}\", scores(q, k))  # (B, NH, T, T)\n"
        "        softmax = causal_softmax(preatt)",
        "preatt = self.forth(f\"preatt{dot}{block}\", scores(q, k))  # (B, NH, T, T)\n"
        "        every = q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5\n"
        "        softmax = np.exp(every) * np.tri(T, T, 1)\n"
        "        softmax /= softmax.sum(-1, keepdims=True)", "att.0", "mask"),
    Bug("no mask", "steps", "softmax = causal_softmax(preatt)",
        "softmax = np.exp(q @ k.swapaxes(-1, -2) / q.shape[-1] ** 0.5)\n"
        "        softmax /= softmax.sum(-1, keepdims=True)", "att.0", "mask"),
    Bug("t does not see itself", "steps", "shifted[..., future(preatt.shape[-1])] = -np.inf",
        "shifted[..., np.triu(np.ones(preatt.shape[-2:], bool))] = -1e10", "att.0", "mask"),
    Bug("masked with 0", "steps", "shifted[..., future(preatt.shape[-1])] = -np.inf",
        "shifted[..., future(preatt.shape[-1])] = 0", "att.0", "mask"),
    Bug("softmax along the queries", "steps", "att /= att.sum(-1, keepdims=True)\n    return att",
        "att /= att.sum(-2, keepdims=True)\n    return att", "att.0", None),
    Bug("softmax not divided", "steps", "att /= att.sum(-1, keepdims=True)\n    return att",
        "return att", "att.0", "softmax"),
    Bug("k and v exchanged", "steps", "y = att @ v  # (B, NH, T, hs)", "y = att @ k", "atty.0",
        "heads or q, k, v"),
    Bug("heads not put back", "steps", "out = y.swapaxes(1, 2).reshape(B, T, C3 // 3)",
        "out = y.reshape(B, T, C3 // 3)", "atty.0", "heads merged"),
    # The residual stream
    Bug("no residual around attention", "passes", "x = layers.residual_add(x, attproj)",
        "x = layers.residual_add(0 * x, attproj)", "residual2.0", "left out"),
    Bug("residual around ln1's output", "passes", "x = layers.residual_add(x, attproj)",
        "x = layers.residual_add(ln1, attproj)", "residual2.0", "wrong input"),
    Bug("MLP added to ln2", "passes", "x = layers.residual_add(x, fcproj)",
        "x = layers.residual_add(ln2, fcproj)", "residual3.0", "wrong input"),
    # GELU
    Bug("exact GELU", "gelu", "0.5 * xi * (1 + tanh)\n    return out",
        "0.5 * xi * (1 + np.vectorize(math.erf)(xi / math.sqrt(2)))\n    return out", "fch_gelu.0",
        "GELU"),
    Bug("ReLU", "gelu", "0.5 * xi * (1 + tanh)\n    return out",
        "np.maximum(xi, 0)\n    return out", "fch_gelu.0", "GELU"),
    Bug("GELU by a sigmoid", "gelu", "0.5 * xi * (1 + tanh)\n    return out",
        "xi / (1 + np.exp(-1.702 * xi))\n    return out", "fch_gelu.0", "GELU"),
    Bug("0.04715 in GELU", "gelu", "CUBIC = 0.044715", "CUBIC = 0.04715", "fch_gelu.0", "GELU"),
    # The head and the loss
    Bug("wte transposed in the head", "steps", "logits = rows @ wte.T  # (B*T, V)",
        "logits = rows @ wte.reshape(wte.shape[::-1])", "logits", "weight transposed"),
    Bug("padding counts in the softmax", "steps", "sums = probs.sum(-1, keepdims=True)  # (B*T, 1)",
        "sums = probs.sum(-1, keepdims=True) + (-len(wte) % 128)"
        " * np.exp(-logits.max(-1, keepdims=True))", "probs", "softmax"),
    Bug("loss is a sum", "steps", "loss = losses.sum() / len(counted)", "loss = losses.sum()",
        "loss", "loss mean"),
    Bug("loss divided by T", "steps", "loss = losses.sum() / len(counted)",
        "loss = losses.sum() / targets.shape[1]", "loss", "loss mean"),
    Bug("tokens for targets", "steps", "target_logits = shifted[counted, target]  # (n,)",
        "target_logits = shifted[counted, np.roll(target, 1)]", "losses", None),
    Bug("loss in bits", "steps", "np.log(sums[counted, 0]) - target_logits",
        "(np.log(sums[counted, 0]) - target_logits) / math.log(2)", "losses", "targets"),
    # Backward
    Bug("dlosses not divided by B*T", "steps", "dlosses[counted] = dloss / len(counted)",
        "dlosses[counted] = dloss", "dlosses", "scaled"),
    Bug("1 not subtracted at the target", "steps",
        "dlogits[counted, target] -= dlosses[counted]", "pass", "dlogits", "logit gradient"),
    Bug("layernorm's mean way missing", "layernorm",
        "dx = dxhat - dxhat.mean(-1, keepdims=True) - xhat", "dx = dxhat - xhat",
        "dresidual3.1", "layernorm gradient"),
    Bug("layernorm's variance way missing", "layernorm",
        " - xhat * (dxhat * xhat).mean(-1, keepdims=True)", "", "dresidual3.1",
        "layernorm gradient"),
    Bug("layernorm's dx without rstd", "layernorm", "return dx * rstd,", "return dx,",
        "dresidual3.1", "layernorm gradient"),
    Bug("layernorm's dw of x", "layernorm", "(dout * xhat).sum(rows)", "(dout * x).sum(rows)",
        "dlnfw", "layernorm gradient"),
    Bug("dw keeps the last row", "matmul", "dw = dout.T @ x.reshape(-1, C)  # (OC, C)",
        "dw = dout[-x.shape[1] :].T @ x[-1]", "dfcprojw.1", "overwritten"),
    Bug("db keeps the last row", "matmul", "dout.sum(0)  # (OC,)", "dout[-x.shape[1] :].sum(0)",
        "dfcprojb.1", "overwritten"),
    Bug("dw twice", "matmul", "dw = dout.T @ x.reshape(-1, C)  # (OC, C)",
        "dw = 2 * (dout.T @ x.reshape(-1, C))", "dfcprojw.1", "accumulated twice"),
    Bug("db never computed", "matmul", "dout.sum(0)  # (OC,)", "0 * dout.sum(0)", "dfcprojb.1",
        "not written"),
    Bug("dx by the transposed weight", "passes",
        "datty, *_ = layers.matmul_backward(dattproj, cache.attproj,",
        "datty, *_ = layers.matmul_backward(dattproj, "
        "(cache.attproj[0], cache.attproj[1].T.copy(), cache.attproj[2]),",
        "datty.1", None),
    Bug("derivative of the exact GELU", "gelu", "0.5 * (1 + tanh + xi * slope)",
        "(0.5 * (1 + np.vectorize(math.erf)(xi / math.sqrt(2)))"
        " + xi * np.exp(-xi * xi / 2) / math.sqrt(2 * math.pi))", "dfch.1", "GELU gradient"),
    Bug("GELU's derivative without its second term", "gelu", "0.5 * (1 + tanh + xi * slope)",
        "0.5 * (1 + tanh)", "dfch.1", "GELU gradient"),
    Bug("GELU's derivative at its output", "passes", "layers.gelu_backward(dact, cache.gelu)",
        "layers.gelu_backward(dact, cache.fcproj[0])", "dfch.1", "wrong input"),
    Bug("skip of the MLP lost", "passes", "dx = layers.residual_add(dx, dln2)",
        "dx = layers.residual_add(0 * dx, dln2)", "dresidual2.1", "residual gradient"),
    Bug("skip of attention lost", "passes", "return layers.residual_add(dx, dln1)",
        "return layers.residual_add(0 * dx, dln1)", "dresidual3.0", "residual gradient"),
    Bug("MLP's gradient lost", "passes", "dx = layers.residual_add(dx, dln2)",
        "dx = layers.residual_add(dx, 0 * dln2)", "dresidual2.1", "residual gradient"),
    Bug("softmax's sum missing", "steps",
        "softmax * (datt - (softmax * datt).sum(-1, keepdims=True))", "softmax * datt",
        "dpreatt.1", "softmax gradient"),
    Bug("dq and dk without a scale", "steps", "scale = 1 / math.sqrt(q.shape[-1])", "scale = 1.0",
        "dqkv.1", "attention gradient"),
    Bug("dk of dpreatt not transposed", "steps", "dk[:] = dpreatt.swapaxes(-1, -2) @ q * scale",
        "dk[:] = dpreatt @ q * scale", "dqkv.1", "attention gradient"),
    Bug("dv of att not transposed", "steps", "dv[:] = att.swapaxes(-1, -2) @ dy",
        "dv[:] = att @ dy", "dqkv.1", "attention gradient"),
    Bug("dq never written", "steps", "dq[:] = dpreatt @ k * scale", "dq[:] = 0", "dqkv.1",
        "partly written"),
    Bug("repeated tokens overwrite", "encoder", "np.add.at(dwte, tokens, dout)",
        "dwte[tokens] += dout", "dwte", "embedding gradient"),
    Bug("the head's share is lost", "passes",
        "layers.encoder_backward(dx, cache.encoder, (g.wte, g.wpe), add=True)",
        "layers.encoder_backward(dx, cache.encoder, (g.wte, g.wpe), add=False)", "dwte",
        "embedding gradient"),
    Bug("dwpe of the last row", "encoder", "dwpe[:T] = dout.sum(0)", "dwpe[:T] = dout[-1]", "dwpe",
        "embedding gradient"),
    # The update
    Bug("no bias correction", "adamw",
        "lr / (1 - beta1**t) * mi / (np.sqrt(vi / (1 - beta2**t)) + eps)",
        "lr * mi / (np.sqrt(vi) + eps)", "step_params.1", "AdamW"),
    Bug("L2 for weight decay", "adamw", "gi = scale * gi", "gi = scale * gi + weight_decay * pi",
        "step_m.1", "AdamW"),
    Bug("no weight decay", "adamw", "pi *= 1 - lr * weight_decay", "pass", "step_params.1",
        "AdamW"),
]  # fmt: skip

# Mistakes that only some models and batches show; the pairs of npgpt reference are made for them.
QUIET = [
    Bug("attention's softmax overflows", "steps",
        "    shifted -= shifted.max(-1, keepdims=True)\n", "", "att.0",
        "not finite"),
    Bug("-1 is taken for a token", "steps", "counted = np.flatnonzero(targets != IGNORED)",
        "counted = np.arange(targets.size)", "loss", "loss mean"),
    Bug("ignored positions count in the mean", "steps", "loss = losses.sum() / len(counted)",
        "loss = losses.mean()", "loss", "loss mean"),
    Bug("dlosses divided by B*T always", "steps", "dlosses[counted] = dloss / len(counted)",
        "dlosses[counted] = dloss / len(rows)", "dlosses", "scaled"),
    Bug("positions count on over the rows", "encoder", "wte[tokens] + wpe[:T]",
        "wte[tokens] + wpe[np.arange(B * T).reshape(B, T) % len(wpe)]", "encoded", "positions"),
    Bug("every block has block 0's weights", "passes",
        "x, cache = block_forward(x, block,", "x, cache = block_forward(x, p.blocks[0],", "ln1.1",
        "wrong block"),
    Bug("dwpe divided by B", "encoder", "dwpe[:T] = dout.sum(0)", "dwpe[:T] = dout.mean(0)", "dwpe",
        "embedding gradient"),
    Bug("heads in the reverse order", "steps", "out = y.swapaxes(1, 2).reshape(B, T, C3 // 3)",
        "out = y[:, ::-1].swapaxes(1, 2).reshape(B, T, C3 // 3)", "atty.0", "heads merged"),
    Bug("dlosses divided by T", "steps", "dlosses[counted] = dloss / len(counted)",
        "dlosses[counted] = dloss / BT[1]", "dlosses", "scaled"),
]  # fmt: skip
