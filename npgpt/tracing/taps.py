"""Layers that show what they compute: a set of layer functions with names for what comes out.

npgpt.model.passes calls the functions of a Tap as it calls those of any set of layers. A Tap knows
from the order of the calls which tensor each result is, hands it to `see(name, array)`, and lets
edits replace it on its way.
"""

import math

import numpy as np

from npgpt.errors import ArgumentError
from npgpt.layers.attention import split_heads
from npgpt.layers.crossentropy import IGNORED
from npgpt.layers.grads import write_grads
from npgpt.tracing.names import BLOCK_SHAPES, split_name, stream

EDITABLE = ("encoded", *(n for n in BLOCK_SHAPES if n[-5:] not in ("_mean", "_rstd")), "lnf")


def calls(L):
    """The calls of a forward and backward pass of L blocks, in order.

    Each is the function, what its result is, what its argument dout is where it has a name of its
    own, and its parameters.
    """
    yield "encoder_forward", "encoded", None, ()
    for i in range(L):
        for function, name in (
            ("layernorm_forward", "ln1"), ("matmul_forward", "qkv"),
            ("attention_forward", "atty"), ("matmul_forward", "attproj"),
            ("residual_add", "residual2"), ("layernorm_forward", "ln2"),
            ("matmul_forward", "fch"), ("gelu_forward", "fch_gelu"),
            ("matmul_forward", "fcproj"), ("residual_add", "residual3"),
        ):  # fmt: skip
            yield function, f"{name}.{i}", None, ()
    yield "layernorm_forward", "lnf", None, ()
    yield "layernorm_backward", stream(L), None, ("lnfw", "lnfb")
    for i in reversed(range(L)):
        for function, name, dout, layer in (
            ("matmul_backward", "fch_gelu", "fcproj", "fcproj"),
            ("gelu_backward", "fch", None, None),
            ("matmul_backward", "ln2", None, "fc"),
            ("layernorm_backward", None, None, "ln2"),
            ("residual_add", "residual2", None, None),
            ("matmul_backward", "atty", "attproj", "attproj"),
            ("attention_backward", "qkv", None, None),
            ("matmul_backward", "ln1", None, "qkv"),
            ("layernorm_backward", None, None, "ln1"),
            ("residual_add", None, None, None),
        ):
            name = name and f"{name}.{i}"
            if function == "residual_add" and name is None:
                name = stream(i)
            params = (f"{layer}w.{i}", f"{layer}b.{i}") if layer else ()
            yield function, name, dout and f"{dout}.{i}", params
    yield "encoder_backward", None, None, ("wte", "wpe")


class Tap:
    """The functions of `layers`, for one forward and one backward pass of a model of L blocks.

    edits: {name: (forward, backward)}, a pair of functions like a layer's. forward(x) -> out, cache
    replaces the tensor; backward(dout, cache) -> dx says what gradient goes on from there.
    """

    HIDDEN: tuple[str, ...] = (  # by these layers, which never have them as arrays
        "preatt", "att", "losses", "dlosses", "dlogits", "dpreatt", "datt",
    )  # fmt: skip

    def __init__(self, layers, L, see, edits=None):
        self.layers, self.see, self.edits = layers, see, dict(edits or {})
        self._calls, self._edit_caches, self._backward = calls(L), {}, False
        for name in self.edits:
            base, block = split_name(name)
            hidden = base in self.HIDDEN or base not in EDITABLE
            if hidden or (base in BLOCK_SHAPES) != (block is not None and block < L):
                raise ArgumentError(f"edits: {name} is not a tensor that can be replaced here")

    def called(self, function):
        """What the next call is, which must be of this function."""
        expected, name, dout, params = next(self._calls)
        assert function == expected, f"{function} was called in the place of {expected}"
        return name, dout, params

    def forth(self, name, out):
        """Edit and show a tensor on its way forward -> what goes on."""
        if name in self.edits:
            out, self._edit_caches[name] = self.edits[name][0](out)
        self.see(name, out)
        return out

    def back(self, name, dout):
        """Show a tensor's gradient -> the gradient of what it was before its edit."""
        self.see(f"d{name}", dout)
        if name in self.edits:
            dout = self.edits[name][1](dout, self._edit_caches.pop(name))
        return dout

    def encoder_forward(self, tokens, wte, wpe):
        name, _, _ = self.called("encoder_forward")
        out, cache = self.layers.encoder_forward(tokens, wte, wpe)
        return self.forth(name, out), cache

    def encoder_backward(self, dout, cache, out, add):
        _, _, params = self.called("encoder_backward")
        self.layers.encoder_backward(dout, cache, out, add)
        self.see_gradients(params, out)

    def layernorm_forward(self, x, w, b):
        name, _, _ = self.called("layernorm_forward")
        out, cache = self.layers.layernorm_forward(x, w, b)
        base, dot, block = name.partition(".")
        for what, value in zip(("mean", "rstd"), cache[2:], strict=True):
            self.see(f"{base}_{what}{dot}{block}", value[..., 0])
        return self.forth(name, out), cache

    def layernorm_backward(self, dout, cache, out, add):
        self._backward = True
        name, _, params = self.called("layernorm_backward")
        dx, *_ = self.layers.layernorm_backward(dout, cache, out, add)
        dx = self.back(name, dx) if name else dx
        self.see_gradients(params, out)
        return dx, *out

    def matmul_forward(self, x, w, b=None):
        name, _, _ = self.called("matmul_forward")
        out, cache = self.layers.matmul_forward(x, w, b)
        return self.forth(name, out), cache

    def matmul_backward(self, dout, cache, out, add):
        name, dname, params = self.called("matmul_backward")
        dout = self.back(dname, dout) if dname else dout
        dx, *_ = self.layers.matmul_backward(dout, cache, out, add)
        dx = self.back(name, dx)
        self.see_gradients(params, out)
        return dx, *out

    def attention_forward(self, qkv, NH):
        name, _, _ = self.called("attention_forward")
        out, cache = self.layers.attention_forward(qkv, NH)
        return self.forth(name, out), cache

    def attention_backward(self, dout, cache):
        name, _, _ = self.called("attention_backward")
        return self.back(name, self.layers.attention_backward(dout, cache))

    def gelu_forward(self, x):
        name, _, _ = self.called("gelu_forward")
        out, cache = self.layers.gelu_forward(x)
        return self.forth(name, out.view(type(x))), cache

    def gelu_backward(self, dout, cache):
        name, _, _ = self.called("gelu_backward")
        return self.back(name, self.layers.gelu_backward(dout, cache).view(type(cache)))

    def residual_add(self, x, y):
        name, _, _ = self.called("residual_add")
        out = self.layers.residual_add(x, y)
        return self.back(name, out) if self._backward else self.forth(name, out)

    def crossentropy_forward(self, x, wte, targets):
        logits, _ = self.layers.matmul_forward(x, wte)  # (B, T, V)
        self.see("logits", logits)
        loss, cache = self.layers.crossentropy_forward(x, wte, targets)
        self.see("probs", cache[2][:, : len(wte)].reshape(logits.shape))
        self.see("loss", loss)
        return loss, cache

    def crossentropy_backward(self, dloss, cache, out):
        dx, dwte = self.layers.crossentropy_backward(dloss, cache, out)
        return self.back("lnf", dx), dwte

    def see_gradients(self, names, gradients):
        for name, gradient in zip(names, gradients, strict=True):
            self.see(f"d{name}", gradient)


class TextbookTap(Tap):
    """A Tap of the textbook, whose attention and crossentropy go in steps, each of them shown.

    They compute what npgpt.layers.attention and npgpt.layers.crossentropy do; what is behind the
    causal mask is 0.
    """

    HIDDEN = ()

    def attention_forward(self, qkv, NH):
        name, _, _ = self.called("attention_forward")
        _, dot, block = name.partition(".")
        B, T, C3 = qkv.shape
        q, k, v = split_heads(qkv, NH)  # (B, NH, T, hs)
        preatt = self.forth(f"preatt{dot}{block}", scores(q, k))  # (B, NH, T, T)
        softmax = causal_softmax(preatt)  # (B, NH, T, T)
        att = self.forth(f"att{dot}{block}", softmax)
        y = att @ v  # (B, NH, T, hs)
        out = y.swapaxes(1, 2).reshape(B, T, C3 // 3)  # (B, T, C)
        return self.forth(name, out), (qkv, softmax, att)

    def attention_backward(self, dout, cache):
        name, _, _ = self.called("attention_backward")
        _, dot, block = name.partition(".")
        qkv, softmax, att = cache
        B, NH, T, _ = att.shape
        q, k, v = split_heads(qkv, NH)  # (B, NH, T, hs)
        dqkv = np.empty_like(qkv)  # (B, T, 3C)
        dq, dk, dv = split_heads(dqkv, NH)  # (B, NH, T, hs), views of dqkv
        dy = dout.reshape(B, T, NH, -1).swapaxes(1, 2)  # (B, NH, T, hs)
        # y = att @ v
        datt = self.back(f"att{dot}{block}", causal(dy @ v.swapaxes(-1, -2)))  # (B, NH, T, T)
        dv[:] = att.swapaxes(-1, -2) @ dy
        # att = causal_softmax(preatt)
        dpreatt = softmax * (datt - (softmax * datt).sum(-1, keepdims=True))  # (B, NH, T, T)
        dpreatt = self.back(f"preatt{dot}{block}", dpreatt)
        # preatt = q @ k^T * scale
        scale = 1 / math.sqrt(q.shape[-1])
        dq[:] = dpreatt @ k * scale
        dk[:] = dpreatt.swapaxes(-1, -2) @ q * scale
        return self.back(name, dqkv)

    def crossentropy_forward(self, x, wte, targets):
        rows = x.reshape(-1, x.shape[-1])  # (B*T, C)
        logits = rows @ wte.T  # (B*T, V)
        self.see("logits", logits.reshape(*targets.shape, -1))
        shifted = logits - logits.max(-1, keepdims=True)  # (B*T, V)
        counted = np.flatnonzero(targets != IGNORED)  # (n,)
        target = targets.reshape(-1)[counted]  # (n,)
        target_logits = shifted[counted, target]  # (n,)
        probs = np.exp(shifted, out=shifted)  # (B*T, V)
        sums = probs.sum(-1, keepdims=True)  # (B*T, 1)
        probs /= sums
        self.see("probs", probs.reshape(*targets.shape, -1))
        losses = np.zeros_like(rows[:, 0])  # (B*T,)
        losses[counted] = np.log(sums[counted, 0]) - target_logits
        self.see("losses", losses.reshape(targets.shape))
        loss = losses.sum() / len(counted)
        self.see("loss", loss)
        return loss, (rows, wte, probs, counted, target, targets.shape)

    def crossentropy_backward(self, dloss, cache, out):
        rows, wte, probs, counted, target, BT = cache
        dlosses = np.zeros_like(rows[:, 0])  # (B*T,)
        # loss = mean of the losses of the positions that have a target
        dlosses[counted] = dloss / len(counted)
        self.see("dlosses", dlosses.reshape(BT))
        # losses = -log(probs[target])
        dlogits = probs * dlosses[:, None]  # (B*T, V)
        dlogits[counted, target] -= dlosses[counted]
        self.see("dlogits", dlogits.reshape(*BT, -1))
        # logits = rows @ wte.T
        dlnf = (dlogits @ wte).reshape(*BT, -1)  # (B, T, C)
        dwte = dlogits.T @ rows  # (V, C)
        return self.back("lnf", dlnf), *write_grads((dwte,), out, False)


def scores(q, k):
    """q and k (B, NH, T, hs) -> preatt (B, NH, T, T): of query t for keys up to t, else 0."""
    return causal(q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1])))


def causal(x):
    """x (..., T, T) with 0 where u > t, in the future: x itself, changed in place."""
    x[..., future(x.shape[-1])] = 0
    return x


def future(T):
    """Where u > t: bool (T, T)."""
    return np.triu(np.ones((T, T), bool), 1)


def causal_softmax(preatt):
    """The softmax of each row up to the diagonal: preatt (..., T, T) -> att, 0 above it."""
    shifted = preatt.copy()
    shifted[..., future(preatt.shape[-1])] = -np.inf
    shifted -= shifted.max(-1, keepdims=True)
    att = np.exp(shifted, out=shifted)
    att /= att.sum(-1, keepdims=True)
    return att
