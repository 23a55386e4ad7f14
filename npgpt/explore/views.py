"""What a view of the page shows, computed from the tensors of a text."""

import numpy as np

from npgpt.explore.wire import Causal, finite
from npgpt.inside.look import early_logits, token_labels
from npgpt.layers.crossentropy import IGNORED
from npgpt.tracing.names import stream

SHOWN = 24  # likeliest tokens with a name
MOVED = 6  # tokens whose probability a block has raised or lowered most


class Labels:
    """The text of tokens, where the tokenizer has them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __call__(self, token):
        if int(token) >= self.tokenizer.vocab_size:  # where wte is padded
            return f"#{token}"
        return token_labels([int(token)], self.tokenizer)[0]

    def named(self, tokens):
        """Tokens as dicts of id and label."""
        return [{"id": int(token), "label": self(token)} for token in tokens]


def places(L):
    """The tensors of the residual stream, from the embedding to the last block's end."""
    names = ["encoded"]
    for i in range(L):
        names += [f"residual2.{i}", f"residual3.{i}"]
    return names


def stack(tensors, name, L):
    """The tensor of this name of all blocks."""
    return np.stack([tensors[f"{name}.{i}"] for i in range(L)])


def norms(tensors, names):
    """The L2 norm of each of these tensors at each position: (len(names), T)."""
    return np.stack([np.linalg.norm(tensors[name], axis=-1) for name in names])


def softmax(logits):
    """The softmax over the last axis, in float64."""
    weights = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def top(values, count):
    """The indices of the largest values (n,), the largest first."""
    count = min(count, len(values))
    found = np.sort(np.argpartition(-values, count - 1)[:count])
    return found[np.argsort(-values[found], kind="stable")]


def picture(tokens, targets, tensors, L, labels):
    """The whole picture of a forward pass over tokens (T,)."""
    att = stack(tensors, "att", L)  # (L, NH, T, T)
    losses = tensors["losses"][targets != IGNORED]
    return {
        "tokens": labels.named(tokens),
        "norms": norms(tensors, places(L)),  # (2L + 1, T)
        "attention_norms": norms(tensors, [f"attproj.{i}" for i in range(L)]),  # (L, T)
        "mlp_norms": norms(tensors, [f"fcproj.{i}" for i in range(L)]),  # (L, T)
        "att": att.view(Causal),
        "patterns": patterns(att, tokens),
        "losses": tensors["losses"],
        "loss": finite(losses.mean()) if len(losses) else None,
    }


def patterns(att, tokens):
    """How much each head (L, NH) looks where a known kind of head looks, on average of the text.

    previous, first, self: at the token before, the first one, the token itself, from the second
    token on. induction: at the token after an earlier occurrence of this token (Olsson et al.
    2022), of the tokens that have one; None where no token has.
    """
    T = len(tokens)
    if T == 1:
        return {"previous": None, "first": None, "self": None, "induction": None}
    t = np.arange(1, T)
    after = np.zeros((T, T), bool)  # (query, key)
    after[:, 1:] = tokens[:, None] == tokens[None, :-1]
    after &= np.tril(np.ones((T, T), bool))
    repeated = after.any(-1)
    seen = (att * after).sum(-1)  # (L, NH, T)
    return {
        "previous": att[..., t, t - 1].mean(-1),
        "first": att[..., t, 0].mean(-1),
        "self": att[..., t, t].mean(-1),
        "induction": seen[..., repeated].mean(-1) if repeated.any() else None,
    }


def position(model, tensors, p, token, labels):
    """What the model says at position p: every logit, the logit lens, and what made a token likely.

    token is the one that is explained; None: the likeliest.
    """
    L, names = model.config.n_layer, places(model.config.n_layer)
    logits = tensors["logits"][p]  # (V,)
    likeliest = top(logits, SHOWN)
    token = int(likeliest[0]) if token is None else token
    early = early_logits(model, np.stack([tensors[name][p] for name in names]))  # (2L + 1, V)
    probs = softmax(early)  # (2L + 1, V)
    lens = [
        {
            "place": name,
            "top": [
                {**named, "prob": finite(prob[named["id"]])} for named in labels.named(top(row, 3))
            ],
            "prob": finite(prob[token]),
            "rank": int((row > row[token]).sum()) + 1,
        }
        for name, row, prob in zip(names, early, probs, strict=True)
    ]
    return {
        "position": p,
        "logits": logits,
        "top": labels.named(likeliest),
        "token": {"id": token, "label": labels(token)},
        "lens": lens,
        "parts": contributions(model, tensors, p, token, L),
    }


def contributions(model, tensors, p, token, L):
    """How much of a token's logit at position p came from each part of the model.

    The residual stream is the sum of the embedding and of what each attention and each MLP adds,
    and at the given rstd the final layernorm and the head are linear in it: the parts add up to the
    logit exactly. A block's attention is the sum of its heads and of its bias.
    """
    config, params = model.config, model.params
    direction = params.lnfw.astype(np.float64) * params.wte[token]  # (C,)
    direction = (direction - direction.mean()) * tensors["lnf_rstd"][p]  # lnf takes the mean off
    heads = np.zeros((L, config.n_head))
    parts = {"embedding": finite(tensors["encoded"][p] @ direction)}
    for i in range(L):
        atty = tensors[f"atty.{i}"][p].reshape(config.n_head, -1)  # (NH, hs)
        weights = params.blocks[i].attprojw.T @ direction  # (C,)
        heads[i] = (atty * weights.reshape(config.n_head, -1)).sum(-1)
        parts[f"attention {i}"] = finite(tensors[f"attproj.{i}"][p] @ direction)
        parts[f"mlp {i}"] = finite(tensors[f"fcproj.{i}"][p] @ direction)
    if unedited_stream(tensors, p, L):
        parts["bias"] = finite(params.lnfb.astype(np.float64) @ params.wte[token])
    else:  # a patched stream is not the sum of its parts
        rest = tensors["logits"][p, token] - sum(value or 0 for value in parts.values())
        parts["bias and edits"] = finite(rest)
    return {"by": parts, "heads": heads, "logit": finite(tensors["logits"][p, token])}


def unedited_stream(tensors, p, L):
    """Whether the residual stream at p is the sum of what was added to it."""
    for i in range(L):
        before = tensors[stream(i)][p] + tensors[f"attproj.{i}"][p]
        after = tensors[f"residual2.{i}"][p] + tensors[f"fcproj.{i}"][p]
        same = np.array_equal(before, tensors[f"residual2.{i}"][p], equal_nan=True)
        if not (same and np.array_equal(after, tensors[f"residual3.{i}"][p], equal_nan=True)):
            return False
    return True


def block(model, tensors, i, p, labels):
    """What block i adds at position p: norms, and the tokens that it makes likelier or less so."""
    before, middle, after = (tensors[n][p] for n in (stream(i), f"residual2.{i}", f"residual3.{i}"))
    first, last = softmax(early_logits(model, np.stack([before, after])))  # (V,), (V,)

    def moved(tokens):
        return [
            {**named, "before": finite(first[named["id"]]), "after": finite(last[named["id"]])}
            for named in labels.named(tokens)
        ]

    return {
        "block": i,
        "norms": {
            "before": finite(np.linalg.norm(before)),
            "attention": finite(np.linalg.norm(tensors[f"attproj.{i}"][p])),
            "between": finite(np.linalg.norm(middle)),
            "mlp": finite(np.linalg.norm(tensors[f"fcproj.{i}"][p])),
            "after": finite(np.linalg.norm(after)),
        },
        "raised": moved(top(last - first, MOVED)),
        "lowered": moved(top(first - last, MOVED)),
    }


def backward(model, tensors, targets, labels):
    """The picture of a backward pass.

    A token's share is that of the norm of the gradient at its embedding, a block's that of the
    norm of the gradient of its parameters; both add up to 1.
    """
    L = model.config.n_layer
    names = [f"d{name}" for name in places(L)]
    flow = norms(tensors, names)  # (2L + 1, T)
    of_blocks = [
        np.sqrt(sum(np.sum(np.square(v, dtype=np.float64)) for v in vars(block).values()))
        for block in model.grads.blocks
    ]
    counted = targets != IGNORED
    return {
        "loss": finite(tensors["loss"]),
        "norms": flow,
        "datt": stack(tensors, "datt", L).view(Causal),
        "tokens": shares(flow[0]),
        "blocks": shares(np.array(of_blocks)),
        "targets": [
            labels.named([target])[0] if there else None
            for target, there in zip(targets, counted, strict=True)
        ],
        "norm": finite(np.linalg.norm(model.grads.flat)),
    }


def shares(values):
    """Values at least 0 as fractions of their sum."""
    total = values.sum(dtype=np.float64)
    return values / (total or 1.0)
