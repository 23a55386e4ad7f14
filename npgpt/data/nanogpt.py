"""nanoGPT's meta.pkl, the characters of its train.bin and val.bin, read without executing it.

A pickle is a program for a small machine with a stack, and some of its instructions import and call
any function there is. Here only those are understood that make dicts, texts and integers.
"""

import os
import pickletools

from npgpt.errors import FileError
from npgpt.files import open_for_reading
from npgpt.wording import counted

META = "meta.pkl"
LARGEST = 1 << 24  # bytes
VALUES = {
    "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE",
    "BININT", "BININT1", "BININT2", "INT", "LONG1",
}  # fmt: skip
REMEMBER = {"BINPUT", "LONG_BINPUT", "PUT"}
RECALL = {"BINGET", "LONG_BINGET", "GET"}
IGNORED = {"PROTO", "FRAME"}
MARK = object()


def read_meta(path):
    """The tokenizer's description of the token file at path by the meta.pkl beside it, or None.

    Raises FileError where that is not what nanoGPT's data/*_char/prepare.py writes.
    """
    path = os.path.join(os.path.dirname(path), META)
    if not os.path.exists(path):
        return None
    with open_for_reading(path) as (file, size):
        if size > LARGEST:
            raise FileError(f"{path}: {counted(size, 'byte')}, but {LARGEST:,} are the most")
        content = file.read()
    try:
        meta = plain_dict(content)
        characters = [meta["itos"][i] for i in range(len(meta["itos"]))]
        whole = meta["vocab_size"] == len(characters) and all(len(c) == 1 for c in characters)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise FileError(
            f"{path}: not nanoGPT's characters: {type(error).__name__}: {error}"
        ) from error
    if not whole or len(set(characters)) < len(characters):
        raise FileError(f"{path}: not nanoGPT's characters: itos must have vocab_size of them")
    return {"name": "chars", "characters": "".join(characters)}


def plain_dict(content):
    """The dict of dicts, texts and integers that a pickle's bytes make.

    Raises ValueError for anything else.
    """
    stack, memory = [], {}
    for op, argument, _ in pickletools.genops(content):
        if op.name in VALUES:
            stack.append(argument)
        elif op.name == "EMPTY_DICT":
            stack.append({})
        elif op.name == "MARK":
            stack.append(MARK)
        elif op.name == "SETITEMS":
            at = len(stack) - 1 - stack[::-1].index(MARK)
            items = stack[at + 1 :]
            stack[at - 1].update(zip(items[::2], items[1::2], strict=True))
            del stack[at:]
        elif op.name == "SETITEM":
            key, value = stack[-2:]
            del stack[-2:]
            stack[-1][key] = value
        elif op.name == "MEMOIZE":
            memory[len(memory)] = stack[-1]
        elif op.name in REMEMBER:
            memory[argument] = stack[-1]
        elif op.name in RECALL:
            stack.append(memory[argument])
        elif op.name == "STOP":
            (made,) = stack
            return made
        elif op.name not in IGNORED:
            raise ValueError(f"the pickle's instruction {op.name} is not executed")
    raise ValueError("the pickle has no end")
