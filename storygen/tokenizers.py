"""Text to token ids and back: byte-level BPE, characters, and decoding as tokens arrive.

A tokenizer is pure and lossless: decode(encode(text)) is text, for any text, or its plain
typography where the vocabulary was made for that. Special tokens in text are ordinary characters;
only `eot_id` ends a story. Knows no torch and no files.
"""

import codecs
import json
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

import tiktoken

from storygen.errors import CheckpointError, PromptError
from storygen.text import plain_typography, whole_characters

END_OF_TEXT = "<|endoftext|>"

# GPT-2's division of text into pieces that are merged apart (Radford et al. 2019).
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PART = 20_000  # characters merged at a time


class Tokenizer(Protocol):
    """What the engine and the trainer ask of a vocabulary."""

    vocab_size: int
    eot_id: int | None  # ends a story; None where the vocabulary has no such token
    tokens_per_word: int  # which nearly all words have at most
    plain: bool  # whether text is read in plain typography

    def encode(self, text: str) -> list[int]:
        """Token ids of text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one token, perhaps less than a whole character."""
        ...


class BPETokenizer:
    """Byte-level byte-pair encoding as GPT-2 has it, merged by tiktoken."""

    tokens_per_word = 4

    def __init__(
        self, vocab: dict[str, int], merges: Sequence[tuple[str, str]], plain: bool = False
    ) -> None:
        """vocab maps GPT-2's printable spelling of each token to its id, as in vocab.json; merges
        are the pairs of merges.txt in order; plain: text is read in plain typography, as our own
        vocabulary has it. Raises CheckpointError when vocab and merges do not agree."""
        self.vocab, self.merges, self.plain = vocab, list(merges), plain
        self.vocab_size = max(vocab.values(), default=-1) + 1
        self.eot_id = vocab.get(END_OF_TEXT)
        self._bytes: list[bytes] = [b""] * self.vocab_size
        for spelling, token in vocab.items():
            self._bytes[token] = _unspell(spelling) if token != self.eot_id else spelling.encode()
        # tiktoken merges the pair of lowest rank first, so the rank is the order of the merges,
        # which need not be the order of the ids.
        spellings = [*BYTE_SPELLING.values(), *(a + b for a, b in self.merges)]
        unknown = next((s for s in spellings if s not in vocab), None)
        if unknown is not None:
            raise CheckpointError(f"The vocabulary lacks {unknown!r}, which its merges need.")
        self._rank_to_id = [vocab[s] for s in spellings]
        ranks = {_unspell(s): rank for rank, s in enumerate(spellings)}
        self._encoding = tiktoken.Encoding(
            "storygen", pat_str=GPT2_PATTERN, mergeable_ranks=ranks, special_tokens={}
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of text; a lone surrogate, which is no character, is read as U+FFFD."""
        text = whole_characters(text)
        return [
            self._rank_to_id[rank]
            for part in _parts(plain_typography(text) if self.plain else text)
            for rank in self._encoding.encode_ordinary(part)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; bytes that are no UTF-8 become U+FFFD."""
        return b"".join(self._bytes[i] for i in ids).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Bytes of one token, perhaps less than a whole character."""
        return self._bytes[token]


class CharTokenizer:
    """One token per character of a fixed list."""

    tokens_per_word = 16

    def __init__(
        self, characters: Sequence[str], eot: str | None = None, plain: bool = False
    ) -> None:
        """characters in the order of their ids; eot is the one of them that ends a story; plain:
        text is read in plain typography."""
        self.characters, self.plain = list(characters), plain
        self.vocab_size = len(self.characters)
        self._ids = {c: i for i, c in enumerate(self.characters)}
        if len(self._ids) != len(self.characters) or any(len(c) != 1 for c in self.characters):
            raise CheckpointError("A character list must hold single, distinct characters.")
        if half := next((c for c in self.characters if "\ud800" <= c <= "\udfff"), None):
            raise CheckpointError(f"A character list holds {half!r}, half a character.")
        self.eot_id = None if eot is None else self._ids[eot]

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The characters of a text, in code point order."""
        return cls(sorted(set(text)))

    def encode(self, text: str) -> list[int]:
        """Token ids; raises PromptError naming the first character the list lacks."""
        try:
            return [self._ids[c] for c in (plain_typography(text) if self.plain else text)]
        except KeyError as error:
            raise PromptError(
                f"This model was trained on {self.vocab_size} characters and has never seen "
                f"{error.args[0]!r}. Leave it out, or choose another model."
            ) from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids."""
        return "".join(self.characters[i] for i in ids)

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 bytes of one character."""
        return self.characters[token].encode("utf-8")


def readable(tokenizer: Tokenizer, text: str) -> str:
    """text without the characters that the vocabulary lacks."""
    if not isinstance(tokenizer, CharTokenizer):
        return text
    known = set(tokenizer.characters)
    return "".join(c for c in text if c in known)


class StreamDecoder:
    """Text from tokens one at a time, holding back the bytes of an unfinished character.

    The pieces joined are what Tokenizer.decode gives for all tokens at once, except that an
    unfinished character at the very end appears only when flush() asks for it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters this token completes, often one word, sometimes none."""
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    @property
    def unfinished(self) -> bytes:
        """The bytes held back. Setting them goes back to where they were held back."""
        return self._decoder.getstate()[0]

    @unfinished.setter
    def unfinished(self, held: bytes) -> None:
        self._decoder.setstate((held, 0))

    def flush(self) -> str:
        """What is left: empty, or U+FFFD for a character that was never finished."""
        return self._decoder.decode(b"", final=True)


def _byte_spelling() -> dict[int, str]:
    """GPT-2's printable character for each byte: itself where printable, else from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spelling = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in spelling)
    return spelling | {byte: chr(0x100 + n) for n, byte in enumerate(others)}


BYTE_SPELLING = _byte_spelling()
_SPELLING_BYTE = {character: byte for byte, character in BYTE_SPELLING.items()}


def _unspell(spelling: str) -> bytes:
    try:
        return bytes(_SPELLING_BYTE[c] for c in spelling)
    except KeyError:
        raise CheckpointError(f"{spelling!r} is no byte-level BPE token.") from None


def _parts(text: str) -> Iterable[str]:
    """text in parts that encode to the same tokens as the whole.

    tiktoken's regex gives up on runs of a million spaces and slows down on long texts. GPT-2's
    pattern always starts a piece at a single space between two other characters, so cutting there
    changes nothing; only a text without any such space is cut blindly, still losslessly.
    """
    start = 0
    while len(text) - start > _PART:
        found = _CUT.search(text, start + _PART // 2, start + _PART)
        stop = found.start() + 1 if found else start + _PART
        yield text[start:stop]
        start = stop
    yield text[start:]


_CUT = re.compile(r"\S (?=\S)")


def bpe_from_files(vocab_json: str, merges_txt: str, plain: bool = False) -> BPETokenizer:
    """A BPETokenizer from the text of vocab.json and merges.txt."""
    try:
        vocab = json.loads(vocab_json)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"vocab.json is not JSON: {error}.") from None
    ids = [i for i in vocab.values() if type(i) is int] if isinstance(vocab, dict) else []
    if not ids or sorted(ids) != list(range(len(vocab))):
        raise CheckpointError("vocab.json must map each token to its id, from 0 without gaps.")
    lines = [line for line in merges_txt.split("\n") if line and not line.startswith("#version")]
    pairs = [tuple(line.split(" ")) for line in lines]
    wrong = next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise CheckpointError(f"merges.txt has {wrong!r} where two tokens are expected.")
    return BPETokenizer(vocab, pairs, plain)  # type: ignore[arg-type]  # each pair was just counted
