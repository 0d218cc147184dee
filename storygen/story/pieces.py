"""A long text cut into passages where a reader would pause.

Every cut is behind white space, which stays with the passage before it: so no joint adds anything,
and the passages in a row are the very text.
"""

import re

from storygen.story.layout import begins_part

FEWEST, WANTED, MOST = 200, 600, 1000  # words of a passage
WIDEST = 10  # characters that count as a word where there are no spaces, as in Chinese

_WORD = re.compile(r"\s*\S+\s*")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*_]*\s*\Z")
_PART, _PARAGRAPH, _LINE, _SENTENCE, _WORDS = range(5, 0, -1)  # what a cut comes between


def split(text: str) -> list[str]:
    """Passages of about 600 words, 1,000 at most, that joined are the text again.

    They begin with a heading or a scene break where there is one, else with a paragraph, else with
    a line or a sentence. Only a single word can be longer.
    """
    pieces = []
    start = 0
    while start < len(text):
        end = _end(text, start)
        pieces.append(text[start:end])
        start = end
    return pieces


def _end(text: str, start: int) -> int:
    """Where the passage that begins at start ends."""
    best, best_score = start, (0, 0)
    for count, word in enumerate(_WORD.finditer(text, start), 1):
        size = max(count, (word.end() - start) // WIDEST)
        if size > MOST:
            return word.end() if best == start else best
        score = (0, size)  # where nothing better comes, as much as can be
        if size >= FEWEST:
            score = (_rank(text, word), -abs(size - WANTED))
        if score > best_score:
            best, best_score = word.end(), score
    return best if best_score[0] == _PART else len(text)  # all of the rest is short enough


def _rank(text: str, word: re.Match[str]) -> int:
    """How good a place the end of a word and its white space is for a cut."""
    end, written = word.end(), word.group()
    line_ends = written.count("\n", len(written.rstrip()))
    if line_ends:
        following = text[end : end + 200].partition("\n")[0]
        if line_ends > 1 and begins_part(following):
            return _PART
        return _PARAGRAPH if line_ends > 1 else _LINE
    return _SENTENCE if _SENTENCE_END.search(written) else _WORDS
