"""Text in and out of a model: a prompt's tokens, and the text of the tokens that come after it."""

import codecs

from npgpt.errors import ArgumentError
from npgpt.model.generation import stream_tokens

UNKNOWN = "\ufffd".encode()  # a token beyond the tokenizer's, where the model's wte is padded


class TextStream:
    """The text of one token after another: whole characters, and nothing from `stop` on."""

    def __init__(self, tokenizer, stop=None):
        self.tokenizer, self.stop = tokenizer, stop
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.held = ""  # the end of the text, while it may be the beginning of stop
        self.ended = False

    def add(self, token):
        """Take the next token -> the text that can be shown by now."""
        if self.ended:
            return ""
        known = token < self.tokenizer.vocab_size
        new = self.tokenizer.decode_bytes([token]) if known else UNKNOWN
        return self._until_stop(self.held + self.decoder.decode(new))

    def end(self):
        """The tokens are over -> what is left to show: half a character is U+FFFD."""
        if self.ended:
            return ""
        return self._until_stop(self.held + self.decoder.decode(b"", final=True)) + self.held

    def _until_stop(self, text):
        self.held = ""
        if not self.stop:
            return text
        text, found, _ = text.partition(self.stop)
        self.ended = bool(found)
        if not found:
            held = max(n for n in range(len(self.stop)) if text.endswith(self.stop[:n]))
            text, self.held = text[: len(text) - held], text[len(text) - held :]
        return text


def encode_prompt(prompt, model):
    """The tokens of a prompt, after end-of-text; they have to be in the vocabulary.

    A model without an end-of-text, as nanoGPT's of characters, begins with the prompt.
    """
    tokenizer, V = model.tokenizer, model.config.vocab_size
    tokens = [tokenizer.eot, *tokenizer.encode(prompt)]
    if tokenizer.eot == V:
        tokens = tokens[1:]
        if not tokens:
            raise ArgumentError("this model has no end-of-text to begin with: give it a prompt")
    if max(tokens) >= V:
        raise ArgumentError(
            f"the prompt has the token {max(tokens)} of the tokenizer {tokenizer.name}, but the"
            f" model's vocabulary ends at {V - 1}"
        )
    return tokens


def text_pieces(model, prompt, tokens, samples, count, stop, options):
    """Yield step by step what each of the samples grows by, a list of texts: first the prompt.

    tokens are encode_prompt's, count is how many come after them, options are generate's.
    """
    new = stream_tokens(model, [tokens] * samples, count, **options)
    texts = [TextStream(model.tokenizer, stop) for _ in range(samples)]
    yield [prompt] * samples
    for step in new:
        yield [text.add(token) for text, token in zip(texts, step.tolist(), strict=True)]
        if all(text.ended for text in texts):
            break
    yield [text.end() for text in texts]


def generate_text(model, prompt, count, seed):
    """A text of `count` tokens that continues the prompt, the prompt included."""
    out = model.generate([encode_prompt(prompt, model)], count, seed=seed)
    text = TextStream(model.tokenizer)
    return "".join(text.add(token) for token in out[0, 1:].tolist()) + text.end()
