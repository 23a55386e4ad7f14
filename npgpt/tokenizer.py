"""Text to tokens and back: GPT-2's byte-pair encoding, through tiktoken, or plain bytes."""

from npgpt.errors import ArgumentError, FileError


class GPT2Tokenizer:
    """GPT-2's 50,256 byte pairs and end-of-text; tiktoken fetches their two files and keeps them.

    Raises FileError where they are neither in tiktoken's cache nor to be had.
    """

    vocab_size = 50257
    eot = 50256

    def __init__(self):
        import tiktoken

        try:
            self._encoding = tiktoken.get_encoding("gpt2")
        except (OSError, ValueError) as error:  # no network, no room, or wrong bytes
            raise FileError(
                "the gpt2 tokenizer's files cannot be had"
                f" ({type(error).__name__}): put OpenAI's vocab.bpe as"
                " 6d1cbeee0f20b3d9449abfede4726ed8212e3aee and encoder.json as"
                " 6c7ea1a7e38e3a7f062df639a5b80947f075ffe6 into a folder and name that folder in"
                " TIKTOKEN_CACHE_DIR, or use the tokenizer bytes"
            ) from error

    def encode(self, text):
        """Text -> a list of tokens; what looks like a special token is text as any other."""
        return self._encoding.encode_ordinary(text)

    def decode(self, tokens):
        """Tokens -> text; bytes that are no UTF-8 come out as U+FFFD."""
        return self._encoding.decode(tokens)


class BytesTokenizer:
    """The 256 bytes of UTF-8 and end-of-text: nothing to download, every text can be encoded."""

    vocab_size = 257
    eot = 256

    def encode(self, text):
        """Text -> a list of tokens."""
        return list(text.encode("utf-8"))

    def decode(self, tokens):
        """Tokens -> text; end-of-text is `<|endoftext|>`, bytes that are no UTF-8 are U+FFFD."""
        pieces = (b"<|endoftext|>" if token == self.eot else bytes([token]) for token in tokens)
        return b"".join(pieces).decode("utf-8", errors="replace")


TOKENIZERS = {"gpt2": GPT2Tokenizer, "bytes": BytesTokenizer}


def get_tokenizer(name):
    """The tokenizer called `gpt2` or `bytes`: encode, decode, vocab_size and eot."""
    if name not in TOKENIZERS:
        raise ArgumentError(f"tokenizer must be one of {', '.join(TOKENIZERS)}, not {name!r}")
    return TOKENIZERS[name]()
