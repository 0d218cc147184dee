"""The vocabulary of a character-level corpus, and its works written in it."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from storygen.corpora.works import Work
from storygen.text import plain_typography
from storygen.tokenizers import END_OF_TEXT, CharTokenizer

RARE = 100_000  # a character is kept that makes up at least one in so many
END = "\x03"  # "end of text" in ASCII, which no book contains: the token after each story


def char_vocabulary(works: Sequence[Work]) -> tuple[CharTokenizer, list[Work]]:
    """A CharTokenizer of the works, and the works in plain typography with nothing else in them.

    A model learns nothing of a character that it hardly ever sees. So a rare one becomes its
    plain letter (é: e) where it has one, and is left out where it has none.
    """
    plain = [replace(work, text=plain_typography(work.text)) for work in works]
    counts = Counter[str]()
    for work in plain:
        counts.update(work.text.replace(END_OF_TEXT, ""))
    kept = {c for c, n in counts.items() if n * RARE >= counts.total() and c != END}
    table = str.maketrans({c: _plainer(c, kept) for c in {*counts, *END_OF_TEXT} - kept})
    written = [replace(work, text=_translated(work.text, table)) for work in plain]
    return CharTokenizer([*sorted(kept), END], eot=END, plain=True), written


def _plainer(character: str, kept: set[str]) -> str:
    parts = unicodedata.normalize("NFKD", character)
    return "".join(part for part in parts if part in kept and not unicodedata.combining(part))


def _translated(text: str, table: dict[int, str]) -> str:
    return END_OF_TEXT.join(story.translate(table) for story in text.split(END_OF_TEXT))
