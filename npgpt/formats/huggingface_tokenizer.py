"""The tokenizer in a Hugging Face folder: tokenizer.json, or vocab.json and merges.txt.

A folder's own files say which tokens its model was trained on. Where they are GPT-2's, npgpt's own
GPT-2 tokenizer reads and writes them; others need the package tokenizers.
"""

import hashlib
import json
import os

from npgpt.data.descriptions import tokenizer_from_description
from npgpt.data.json_tokenizer import LETTERS, JSONTokenizer, to_letters
from npgpt.data.tokenizer import END_OF_TEXT, GPT2Tokenizer
from npgpt.errors import ArgumentError, FileError
from npgpt.files import read_json, read_text

TOKENIZER, VOCAB, MERGES = "tokenizer.json", "vocab.json", "merges.txt"
CONFIG, ADDED = "tokenizer_config.json", "added_tokens.json"
STALE = ("special_tokens_map.json", "generation_config.json")  # of another model
OTHERS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt")
# sha256 of GPT-2's 50,257 tokens in the order of their ids, and of its 50,000 merges, as lines
GPT2_TOKENS = "e35a33a0b2250c932ffdafc4c3a3552aef0cc7af7a11e9ebfddf1d2a6517371f"
GPT2_MERGES = "04e3597d7996f292ca9b8b7285ca4d58a6ae171ac47d73fc7140ceb0c7a6bbc0"


def read_folder_tokenizer(folder, eot):
    """The description of the tokenizer of a folder's own files, None where it has none.

    eot is the eos_token_id of the model's config, whatever it is; where it is no token, the end of
    text is found by its names. Raises FileError where the files are of a kind that npgpt cannot
    read.
    """
    if os.path.exists(folder / TOKENIZER):
        path, content = folder / TOKENIZER, read_json(folder / TOKENIZER)
    elif os.path.exists(folder / VOCAB):
        path, content = folder / VOCAB, content_of_vocab(folder)
    else:
        for name in OTHERS:
            if os.path.exists(folder / name):
                raise FileError(
                    f"{folder / name}: a tokenizer that npgpt cannot read: only byte-level BPE"
                    f" ({TOKENIZER}, or {VOCAB} and {MERGES}); without this file in the folder, the"
                    " model is read with no tokenizer"
                )
        return None
    if is_gpt2(content):
        return GPT2Tokenizer().description
    try:
        return JSONTokenizer(content, find_eot(folder, content, eot)).description
    except ArgumentError as error:
        raise FileError(f"{path}: {error}") from error


def find_eot(folder, content, eot):
    """The end-of-text token: eot or the first of it, or what tokenizer_config.json calls eos_token.

    Else it is that of GPT-2's name, or the last added token.
    """
    try:
        added = {token["content"]: token["id"] for token in content["added_tokens"]}
        ids = content["model"]["vocab"] | added
        known = set(ids.values())
        for each in eot if isinstance(eot, list) else [eot]:
            if each in known:
                return each
        options = read_json(folder / CONFIG) if os.path.exists(folder / CONFIG) else {}
        name = options.get("eos_token")
        name = name.get("content") if isinstance(name, dict) else name
        return ids.get(name, ids.get(END_OF_TEXT, [None, *added.values()][-1]))
    except (AttributeError, KeyError, TypeError):  # JSONTokenizer says what is wrong
        return None


def content_of_vocab(folder):
    """What a tokenizer.json would hold, by the older files of GPT-2's tokenizer."""
    vocab = read_json(folder / VOCAB)
    lines = read_text(folder / MERGES).split("\n")
    merges = [line for line in lines if line and not line.startswith("#version")]
    options = read_json(folder / CONFIG) if os.path.exists(folder / CONFIG) else {}
    added = read_json(folder / ADDED) if os.path.exists(folder / ADDED) else {}
    if END_OF_TEXT in vocab:
        added.setdefault(END_OF_TEXT, vocab[END_OF_TEXT])
    try:
        for i, token in options.get("added_tokens_decoder", {}).items():
            added[token["content"]] = int(i)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise FileError(f"{folder / CONFIG}: its added_tokens_decoder is damaged") from error
    return bpe_content(vocab, merges, added, bool(options.get("add_prefix_space")))


def bpe_content(vocab, merges, added, add_prefix_space=False):
    """A tokenizer.json of byte-level BPE; vocab and added are {token: id}."""
    level = {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, **flags, "special": True} for token, i in added.items()
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }


def is_gpt2(content):
    """Whether a tokenizer.json's content is that of GPT-2, with no token more."""
    try:
        model, added, level = content["model"], content["added_tokens"], content["pre_tokenizer"]
        ids = {i: token for token, i in model["vocab"].items()}
        ids |= {token["id"]: token["content"] for token in added}
        if len(ids) != GPT2Tokenizer.vocab_size:
            return False
        tokens = [ids.get(i, "") for i in range(len(ids))]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
        return (
            digest(tokens) == GPT2_TOKENS
            and digest(merges) == GPT2_MERGES
            and content.get("normalizer") is None
            and level["type"] == "ByteLevel"
            and not level.get("add_prefix_space")
            and level.get("use_regex", True)
            and {token["content"] for token in added} <= {END_OF_TEXT}
            and not any(token.get("lstrip") or token.get("rstrip") for token in added)
            and not model.get("dropout")
        )
    except (KeyError, TypeError, AttributeError, UnicodeEncodeError):
        return False


def digest(lines):
    """The sha256 of lines, in hexadecimal."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def tokenizer_files(folder, description, config):
    """{path: content} of the files by which transformers' AutoTokenizer finds this tokenizer.

    The contents are None, no file, where the description is None, for the older kind of file and
    for what would overrule these.
    config is the model's GPT2Config. Raises FileError where GPT-2's own files are needed and cannot
    be downloaded.
    """
    files = dict.fromkeys(
        folder / name for name in (TOKENIZER, CONFIG, VOCAB, MERGES, ADDED, *STALE)
    )
    if description is None:
        return files
    content = tokenizer_json(description)
    eot = tokenizer_from_description(description).eot
    end = next((token["content"] for token in content["added_tokens"] if token["id"] == eot), None)
    options = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "model_max_length": config.block_size,
        "clean_up_tokenization_spaces": False,
    }
    files[folder / TOKENIZER] = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    files[folder / CONFIG] = json.dumps(options, indent=2).encode() + b"\n"
    return files


def tokenizer_json(description):
    """The content of a tokenizer.json for the tokenizer of a description."""
    tokenizer = tokenizer_from_description(description)
    end = {END_OF_TEXT: tokenizer.eot}
    match description["name"]:
        case "json":
            return description["content"]
        case "gpt2":
            tokens = [tokenizer.decode_bytes([i]) for i in range(tokenizer.eot)]
            vocab = {to_letters(token): i for i, token in enumerate(tokens)}
            pairs = [" ".join(map(to_letters, pair)) for pair in merges_of(tokens)]
            return bpe_content(vocab | end, pairs, end)
        case "bytes":
            return bpe_content({LETTERS[i]: i for i in range(256)} | end, [], end)
    return characters_content(tokenizer.characters, end)


def merges_of(tokens):
    """The pairs whose merging made GPT-2's tokens, given by their bytes in the order of their ids.

    A token's two parts are what the merges before it leave of its bytes.
    """
    ranks = {token: i for i, token in enumerate(tokens)}
    for rank, token in enumerate(tokens):
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:
            found = [ranks.get(a + b, rank) for a, b in zip(parts, parts[1:], strict=False)]
            i = found.index(min(found))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            yield parts


def characters_content(characters, end):
    """The tokenizer.json of one token a character."""
    content = bpe_content({}, [], end)
    vocab = {character: i for i, character in enumerate(characters)}
    each = {
        "type": "Split",
        "pattern": {"Regex": r"[\s\S]"},
        "behavior": "Isolated",
        "invert": False,
    }
    unknown = {"unk_token": END_OF_TEXT}
    model = {"type": "WordLevel", "vocab": vocab | end, **unknown}
    return {**content, "pre_tokenizer": each, "decoder": {"type": "Fuse"}, "model": model}
