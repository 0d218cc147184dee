"""Which tokenizer an imported model gets: what the person names, else what lies beside the
checkpoint, else for a model of GPT-2's size GPT-2's."""

import json
import pickletools
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import tiktoken

from storygen.checkpoints import hf
from storygen.checkpoints.importers.network import Asked
from storygen.errors import CheckpointError
from storygen.tokenizers import (
    BYTE_SPELLING,
    END_OF_TEXT,
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
)

GPT2_VOCABULARY = 50_257
GPT2_PADDED = 50_304  # nanoGPT rounds up to a multiple of 64
META = "meta.pkl"
MAX_META = 1 << 20
MAX_OPCODES = 400_000  # 20,000 characters take 100,000


def choose_tokenizer(
    path: Path,
    vocab_size: int,
    asked: Asked,
    gpt2: Callable[[], tiktoken.Encoding] = lambda: tiktoken.get_encoding("gpt2"),
) -> Tokenizer:
    """The tokenizer of a checkpoint at path with vocab_size tokens; raises CheckpointError with
    what to say where there is none, or one that cannot be its own."""
    directory = path if path.is_dir() else path.parent
    if asked.chars is not None:
        tokenizer: Tokenizer = _characters(asked.chars, vocab_size)
    elif asked.tokenizer is not None:
        tokenizer = hf.read_tokenizer(asked.tokenizer)
    elif (directory / META).is_file():
        tokenizer = _from_meta(directory / META)
    elif any((directory / name).is_file() for name in hf.TOKENIZER_FILES):
        tokenizer = hf.read_tokenizer(directory)
    elif GPT2_VOCABULARY <= vocab_size <= GPT2_PADDED:
        tokenizer = _gpt2(path, gpt2)
    else:
        raise CheckpointError(
            f"{path} does not say what its {vocab_size:,} tokens are: add --chars with the text "
            "that a character-level model was trained on (or a JSON list of its characters in "
            "order), or --tokenizer with a directory of vocab.json and merges.txt."
        )
    if tokenizer.vocab_size > vocab_size:
        raise CheckpointError(
            f"The tokenizer has {tokenizer.vocab_size:,} tokens and {path} only {vocab_size:,}: "
            "this is not the one it was trained with. Name another with --tokenizer or --chars."
        )
    return tokenizer


def _characters(path: Path, vocab_size: int) -> CharTokenizer:
    """From the training text, as Python's open() reads it, or from a list."""
    if path.name.endswith(".pkl"):
        return _from_meta(path)
    try:
        raw = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text: {error}.") from None
    listed = _listed(raw)
    if listed is not None:
        found = CharTokenizer(listed)
    else:  # line ends are translated when a text is opened as the lecture opens it
        found = CharTokenizer.from_text(re.sub("\r\n?", "\n", raw))
        if found.vocab_size != vocab_size:
            as_it_is = CharTokenizer.from_text(raw)
            found = as_it_is if as_it_is.vocab_size == vocab_size else found
    if found.vocab_size != vocab_size:
        raise CheckpointError(
            f"{path} has {found.vocab_size:,} different characters and the model {vocab_size:,}: "
            "--chars needs the very text it was trained on, or a JSON list of its characters."
        )
    return found


def _listed(text: str) -> list[str] | None:
    """The characters of a JSON list, of {"characters": list}, or of stoi or itos as JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        listed = found.get("characters")
        found = listed if isinstance(listed, list) else _in_order(found.get("stoi", found))
    return found if isinstance(found, list) and all(isinstance(c, str) for c in found) else None


def _in_order(mapping: Any) -> list[str] | None:
    """Characters in the order of their ids, from {character: id} or {id: character}."""
    if not isinstance(mapping, dict):
        return None
    ids = {v: k for k, v in mapping.items() if type(v) is int} or {
        int(k): v for k, v in mapping.items() if str(k).isdecimal()
    }
    return [ids[n] for n in range(len(mapping))] if sorted(ids) == [*range(len(mapping))] else None


def _from_meta(path: Path) -> CharTokenizer:
    """nanoGPT's meta.pkl: a dictionary with stoi, {character: id}. Read without unpickling."""
    found = read_plain_pickle(path)
    characters = _in_order(found.get("stoi")) if isinstance(found, dict) else None
    if characters is None or not all(isinstance(c, str) for c in characters):
        raise CheckpointError(
            f"{path} holds no stoi that gives each character its number: say with --chars what "
            "the characters are."
        )
    return CharTokenizer(characters)


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of dictionaries, texts and whole numbers says, by the meaning of its opcodes:
    nothing is looked up, built or called. Raises CheckpointError for any other pickle."""
    try:
        if path.stat().st_size > MAX_META:
            raise ValueError(f"it has more than {MAX_META:,} bytes")
        with path.open("rb") as file:
            return _replay(pickletools.genops(file.read()))
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(
            f"{path} is no pickle of plain texts and numbers ({str(error)[:80]}): it was not "
            "opened. Say with --chars what the characters are."
        ) from None


_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE")


def _replay(operations: Iterable[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Any:
    stack: list[Any] = []
    below: list[list[Any]] = []  # what was on the stack at each mark
    memo: dict[int, Any] = {}
    for operation, argument, _ in islice(operations, MAX_OPCODES):
        name = operation.name
        if name in _VALUES:
            if isinstance(argument, int) and abs(argument) > 2**40:
                raise ValueError("it has a number that counts nothing")
            stack.append(argument)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "MARK":
            below.append(stack)
            stack = []
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEMS":
                values, stack = stack, below.pop()
            else:
                values, stack[-2:] = stack[-2:], []
            if not isinstance(stack[-1], dict):
                raise ValueError(f"it puts entries into {str(stack[-1])[:40]!r}")
            stack[-1].update(zip(values[::2], values[1::2], strict=True))
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"it has the opcode {name}")
    raise ValueError("it has no end")


def _gpt2(path: Path, gpt2: Callable[[], tiktoken.Encoding]) -> BPETokenizer:
    """GPT-2's own vocabulary from tiktoken, which keeps it once it has fetched it."""
    try:
        encoding = gpt2()
    except Exception as error:  # whatever its HTTP client and the file system raise
        reason = type(error).__name__
        raise CheckpointError(
            f"{path} uses GPT-2's vocabulary, which is not here and could not be fetched "
            f"({reason}): add --tokenizer with a directory that has GPT-2's vocab.json and "
            "merges.txt, such as a download of the model gpt2."
        ) from None
    return from_ranks(encoding._mergeable_ranks)


def from_ranks(ranks: Mapping[bytes, int]) -> BPETokenizer:
    """The tokenizer whose tokens are ranked as GPT-2's are: ids in the order of the merges.

    tiktoken keeps no merges. The last merge that makes a token joins the two parts that the
    earlier merges leave of it.
    """
    vocab = {_spelled(token): rank for token, rank in ranks.items()}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _last_two(token, rank, ranks)
            merges.append((_spelled(left), _spelled(right)))
    return BPETokenizer(vocab | {END_OF_TEXT: len(vocab)}, merges)


def _spelled(token: bytes) -> str:
    return "".join(BYTE_SPELLING[b] for b in token)


def _last_two(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    parts = [token[n : n + 1] for n in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
        n = min(range(len(pairs)), key=pairs.__getitem__)
        if pairs[n] >= rank:
            break
        parts[n : n + 2] = [parts[n] + parts[n + 1]]
    if len(parts) != 2:
        raise CheckpointError(f"The token {token!r} cannot be made by merging two others.")
    return parts[0], parts[1]
