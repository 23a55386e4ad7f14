"""A Session: a model, what it was trained with here, and the answers that the page shows.

Every answer is a dict of texts, numbers, lists and arrays, which npgpt.explore.wire makes JSON of.
A text and its edits come with each question, so that they belong to the page that asks; the weights
and the way they were trained belong to the session.
"""

import math
from collections import OrderedDict
from importlib.resources import files
from typing import Any

import numpy as np

from npgpt.core.parameters import Parameters
from npgpt.data.tokenizer import CharsTokenizer
from npgpt.errors import ArgumentError
from npgpt.explore import views
from npgpt.explore.changes import check_below, edits_of
from npgpt.explore.code import code_of
from npgpt.explore.explain import check_index, explain
from npgpt.explore.layer_check import check_layer
from npgpt.explore.learning import Learning
from npgpt.explore.numbers import Numbers
from npgpt.explore.passes import (
    forward,
    forward_backward,
    is_gradient_of_parameter,
    next_tokens,
)
from npgpt.explore.tasks import Characters, Source, Sums, Task, config_of
from npgpt.explore.wire import finite
from npgpt.formats.llmc import read_checkpoint
from npgpt.model.gpt2 import GPT2
from npgpt.model.memory import estimate
from npgpt.model.text import encode_prompt
from npgpt.wording import size_text

MOST_TOKENS = 128
LONGEST_TEXT = 20_000  # characters, before they are tokens
PROMPT = "When Mary and John went to the store, John gave a drink to"
# The bundled model has 251 tokens without a meaning: here 250 characters, and end-of-text.
TINY_CHARACTERS = "\n" + "".join(filter(str.isprintable, map(chr, range(0x400))))[:249]
TINY_PROMPT = "she sells sea shells"
PASSES_BYTES = 50_000_000  # beyond the pass that is looked at
LARGEST = 8  # numbers of a row that are named


class Session:
    """A model and its training.

    Attributes:
        source: where the model comes from.
        model: the GPT2.
        learning: its training.
    """

    def __init__(self, source: Source):
        self.source = source
        self.labels = views.Labels(source.tokenizer)
        params = source.parameters()
        self.model = GPT2(params.config, params=params)
        self.model.tokenizer = source.tokenizer
        self.learning = Learning(self, self._reset)
        self._passes: OrderedDict[Any, Any] = OrderedDict()
        self._passes_of = 0

    @classmethod
    def of_model(cls, where) -> "Session":
        """Of any model that `sample` takes; raises ArgumentError where no tokenizer is known."""
        first = [GPT2.from_pretrained(where)]
        tokenizer = first[0].tokenizer
        if tokenizer is None:
            raise ArgumentError(
                f"{where}: no tokenizer is known for this model: write its description beside it,"
                " as the guide says"
            )

        def parameters():
            return (first.pop() if first else GPT2.from_pretrained(where)).params

        return cls(Source(str(where), parameters, tokenizer, None, PROMPT))

    @classmethod
    def of_task(cls, task: Task) -> "Session":
        """Of a new model that can be trained on a task."""
        config = config_of(task)
        return cls(
            Source(task.name, lambda: Parameters.init(config), task.tokenizer, task, task.prompt)
        )

    @classmethod
    def named(cls, name, text="") -> "Session":
        """A model that comes with npgpt: addition, characters (of the text), or tiny."""
        if name == "addition":
            return cls.of_task(Sums())
        if name == "characters":
            return cls.of_task(Characters(checked_text(text)))
        if name == "tiny":
            where = files("npgpt") / "assets" / "tiny.bin"
            tokenizer = CharsTokenizer(TINY_CHARACTERS)
            return cls(
                Source(name, lambda: read_checkpoint(str(where)), tokenizer, None, TINY_PROMPT)
            )
        raise ArgumentError(f"the model must be addition, characters or tiny, not {name!r}")

    def _reset(self):
        self.model.params.flat[:] = self.source.parameters().flat

    # What the page asks.

    def describe(self) -> dict[str, Any]:
        """The model, its sizes, and what training it has had."""
        c = self.model.config
        return {
            "name": self.source.name,
            "task": self.source.task and self.source.task.name,
            "prompt": self.source.prompt,
            "config": {
                "block_size": c.block_size, "vocab_size": c.vocab_size, "n_layer": c.n_layer,
                "n_head": c.n_head, "n_embd": c.n_embd,
            },
            "parameters": self.model.params.flat.size,
            "tokenizer": self.source.tokenizer.name,
            "memory": size_text(estimate(c, 1, min(c.block_size, 64)).total),
            "rates": self.learning.suggested_rates(),
            **self.progress(),
        }  # fmt: skip

    def progress(self, since=0) -> dict[str, Any]:
        """The losses from number `since` on, all where there are fewer; and what can be undone."""
        learning = self.learning
        check_below("number since", since, 2**31)
        since = since if since <= len(learning.losses) else 0
        losses = [loss if math.isfinite(loss) else None for loss in learning.losses]
        return {
            "updates": learning.updates,
            "since": since,
            "losses": losses[since:],
            "actions": [
                {"steps": a.steps, "lr": a.lr, "task": a.text is None} for a in learning.actions
            ],
            "diverged": learning.diverged(),
        }

    def picture(self, text, edits=()) -> dict[str, Any]:
        """The forward picture of a text."""
        tokens = self.encode(text)
        tensors = self.forward(tokens, edits)
        targets = self.next_targets(tokens)
        return views.picture(tokens, targets, tensors, self.model.config.n_layer, self.labels)

    def position(self, text, position, token=None, edits=()) -> dict[str, Any]:
        """What the model says at a position, and what made `token`, or the likeliest, likely."""
        tokens = self.encode(text)
        check_below("position", position, len(tokens))
        if token is not None:
            check_below("token", token, self.model.config.vocab_size)
        return views.position(self.model, self.forward(tokens, edits), position, token, self.labels)

    def block(self, text, block, position, edits=()) -> dict[str, Any]:
        """What a block adds at a position."""
        tokens = self.encode(text)
        check_below("position", position, len(tokens))
        check_below("block", block, self.model.config.n_layer)
        return views.block(self.model, self.forward(tokens, edits), block, position, self.labels)

    def find_token(self, text) -> dict[str, Any]:
        """The first token of a text, to be a target."""
        tokens = self.source.tokenizer.encode(checked_text(text, LONGEST_TEXT))
        if not tokens:
            raise ArgumentError("a target needs at least one character")
        check_below("token", tokens[0], self.model.config.vocab_size)
        return self.labels.named(tokens[:1])[0]

    def backward(self, text, position=None, token=None, edits=()) -> dict[str, Any]:
        """The backward picture: of the text's next tokens or, with a position, of one target."""
        tokens, targets = self._targets(text, position, token)
        tensors = self._backward(tokens, targets, edits)
        return views.backward(self.model, tensors, targets, self.labels)

    def numbers(self, text, name, row=None, position=None, token=None, edits=()) -> dict[str, Any]:
        """A row of a tensor: of an activation the one at a position, of a matrix any.

        row is the index but for its last number, [] for a vector; None: the row with the largest
        number, of an activation the last position.
        """
        numbers = self._numbers(text, name, position, token, edits)
        array = numbers[name]
        if row is not None and not isinstance(row, list):
            raise ArgumentError(f"a row must be a list of integers, not {row!r:.40}")
        if row is None:
            largest = np.unravel_index(np.argmax(np.abs(array)), array.shape)
            row = [int(i) for i in largest[:-1]]
        check_index(name, [*row, 0], array.shape)
        values = array[tuple(row)].copy()  # of weights and gradients, which the next step changes
        order = np.argsort(-np.abs(values), kind="stable")[:LARGEST]
        return {
            "name": name, "shape": list(array.shape), "row": row, "values": values,
            "largest": [int(i) for i in order], "norm": finite(np.linalg.norm(values)),
        }  # fmt: skip

    def explain(self, text, name, index, position=None, token=None, edits=()) -> dict[str, Any]:
        """How one number of a tensor was made."""
        if not isinstance(index, list):
            raise ArgumentError(f"an index must be a list of integers, not {index!r}")
        return explain(self._numbers(text, name, position, token, edits), name, index)

    def code(self, name) -> dict[str, Any]:
        """The lines of npgpt/layers/ that make a tensor."""
        return code_of(name)

    def check(self, text, name, position=None, token=None, edits=()) -> dict[str, Any]:
        """The gradient check of the layer that makes a tensor, on this text's numbers."""
        tokens, targets = self._targets(text, position, token)
        tensors = self._backward(tokens, targets, edits)
        return check_layer(Numbers(self.model, tokens, tensors, self.labels, targets), name)

    # How it gets there.

    def encode(self, text):
        """The tokens of a text (T,), checked for the page's and the model's limits."""
        most = min(self.model.config.block_size, MOST_TOKENS)
        tokens = np.array(encode_prompt(checked_text(text, LONGEST_TEXT), self.model))
        if len(tokens) > most:
            limit = "the model reads" if most < MOST_TOKENS else "the page shows"
            raise ArgumentError(
                f"{limit} at most {most} tokens, and this text has {len(tokens)}: shorten it"
            )
        return tokens

    def next_targets(self, tokens):
        """What is to be learnt of tokens (T,): each next one that the task counts, else -1."""
        return (self.source.task.targets if self.source.task else next_tokens)(tokens)

    def _targets(self, text, position, token):
        """A text's tokens and targets: its next tokens or, with a position, one token there."""
        tokens = self.encode(text)
        targets = self.next_targets(tokens)
        if position is None:
            return tokens, targets
        check_below("position", position, len(tokens))
        if token is None:
            token = int(self.forward(tokens, ())["logits"][position].argmax())
        check_below("token", token, self.model.config.vocab_size)
        targets = np.full_like(targets, -1)
        targets[position] = token
        return tokens, targets

    def _numbers(self, text, name, position, token, edits):
        """The tensors that a name is looked up in: those of a backward pass for a gradient."""
        tokens, targets = self._targets(text, position, token)
        backward = str(name).startswith("d") or name == "losses"
        if backward and not (targets < 0).all():
            tensors = self._backward(tokens, targets, edits)
        else:
            tensors = self.forward(tokens, edits)
        return Numbers(self.model, tokens, tensors, self.labels, targets)

    def forward(self, tokens, edits):
        """The tensors of a forward pass over tokens (T,)."""
        key = ("forward", tokens.tobytes(), edits_key(edits))
        changes = edits_of(self, tokens, edits)
        targets = self.next_targets(tokens)
        return self._kept(key, lambda: forward(self.model, tokens, targets, changes))

    def _backward(self, tokens, targets, edits):
        key = ("backward", tokens.tobytes(), targets.tobytes(), edits_key(edits))
        changes = edits_of(self, tokens, edits)
        return self._kept(key, lambda: forward_backward(self.model, tokens, targets, changes))

    def _kept(self, key, compute):
        """What was computed for this key since the weights have changed.

        Up to PASSES_BYTES are kept, and of backward passes one: all share the model's gradients.
        """
        if self._passes_of != self.learning.changes:
            self._passes.clear()
            self._passes_of = self.learning.changes
        if key not in self._passes:
            if key[0] == "backward":
                self._drop(lambda other: other[0] == "backward")
            while self._passes and sum(map(size_of, self._passes.values())) > PASSES_BYTES:
                self._passes.popitem(last=False)
            self._passes[key] = compute()
        self._passes.move_to_end(key)
        return self._passes[key]

    def _drop(self, which):
        for key in [*filter(which, self._passes)]:
            del self._passes[key]


def size_of(tensors):
    """The bytes of a pass's activations and their gradients."""
    return sum(a.nbytes for name, a in tensors.items() if not is_gradient_of_parameter(name))


def checked_text(text, longest=None):
    """The text, which must be one, and no longer than that."""
    if not isinstance(text, str):
        raise ArgumentError(f"the text must be a string, not {type(text).__name__}")
    if longest is not None and len(text) > longest:
        raise ArgumentError(
            f"a text can have {longest:,} characters here, not {len(text):,}: shorten it"
        )
    return text


def edits_key(edits):
    """Edits as something that can be compared and kept."""
    return repr(edits) if edits else ""
