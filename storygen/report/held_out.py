"""Text that no model has read: what every model and every baseline is measured on.

It is decoded from the prepared corpora once, so that models of different vocabularies meet the
same characters, and chosen at even distances, so that every run meets the same excerpts.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from storygen.errors import TrainError
from storygen.text import plain_typography
from storygen.tokenizers import Tokenizer
from storygen.train.data import Corpus, load_corpus

PIECE = 4000  # characters of an excerpt, about 1,000 tokens
PROMPT_WORDS = 12
FOLLOWING_WORDS = 150  # of the author's own text, to compare a passage with
_TITLE = re.compile(r"The plot summary of the movie named '.*' is:\n")  # as prepared
_PROMPT = re.compile(rf"\S+(?: \S+){{{PROMPT_WORDS - 1}}}(?= )")

T = TypeVar("T")
Work = tuple[str, ...]  # its stories


@dataclass(frozen=True)
class Opening:
    """The first words of a paragraph, and how its author went on."""

    prompt: str
    rest: str


@dataclass(frozen=True)
class Genre:
    """A prepared corpus with the text of its held-out works; passed_over are the names of those
    that another corpus trains on, parts those of corpora whose training works are all in this one's
    too, as a genre's are in the base's."""

    name: str
    corpus: Corpus
    works: tuple[Work, ...]
    passed_over: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def training_stories(self) -> Iterator[str]:
        """The stories that models of this genre learn from."""
        return _stories(np.asarray(self.corpus.train), self.corpus.tokenizer)


def read_genres(folder: Path) -> list[Genre]:
    """Every prepared corpus below a folder, by name; raises TrainError where there is none."""
    found = sorted(path.parent for path in folder.glob("*/meta.json"))
    if not found:
        raise TrainError(
            f"{folder} holds no prepared corpora. Make one with: "
            f"python -m storygen.corpora prepare NAME --from BOOKS --out {folder / 'NAME'}"
        )
    corpora = {directory.name: load_corpus(directory, 1) for directory in found}
    return [_genre(name, corpora) for name in corpora]


def without_wholes(genres: Sequence[Genre]) -> list[Genre]:
    """The genres without what is only several of them together."""
    return [genre for genre in genres if not genre.parts]


def without_parts(genres: Sequence[Genre]) -> list[Genre]:
    """The corpora that hold all training text once."""
    parts = {part for genre in genres for part in genre.parts}
    return [genre for genre in genres if genre.name not in parts]


def _genre(name: str, corpora: dict[str, Corpus]) -> Genre:
    corpus = corpora[name]
    held_out = [work for work in corpus.meta["works"] if work["split"] == "val"]
    if sum(work["tokens"] for work in held_out) != len(corpus.val):
        raise TrainError(
            f"The held-out works of {name} have other lengths in meta.json than in val.bin: "
            "prepare the corpus again."
        )
    others = {key: _learnt(other) for key, other in corpora.items() if key != name}
    learnt, own = set().union(*others.values()), _learnt(corpus)
    parts = tuple(key for key, files in others.items() if files and files < own)
    ends = np.cumsum([work["tokens"] for work in held_out])
    texts = np.split(corpus.val, ends[:-1])
    works = tuple(
        tuple(_stories(ids, corpus.tokenizer))
        for work, ids in zip(held_out, texts, strict=True)
        if _file(work) not in learnt
    )
    passed_over = tuple(_file(work) for work in held_out if _file(work) in learnt)
    if not any(works):
        raise TrainError(
            f"Every held-out work of {name} is in another corpus's training split "
            f"({', '.join(passed_over)}): prepare them with one split, or leave one corpus out."
        )
    return Genre(name, corpus, tuple(work for work in works if work), passed_over, parts)


def _learnt(corpus: Corpus) -> set[str]:
    """The files that are in a training split whole, not in both splits as collections are."""
    works = corpus.meta["works"]
    held_out = {_file(work) for work in works if work["split"] == "val"}
    return {_file(work) for work in works} - held_out


def _file(work: dict[str, Any]) -> str:
    """Name of a work's file without its folder, which a corpus of many genres has."""
    return PurePosixPath(work["name"]).name


def _stories(ids: np.ndarray, tokenizer: Tokenizer) -> Iterator[str]:
    """The texts between end-of-text tokens, in plain typography."""
    eot = -1 if tokenizer.eot_id is None else tokenizer.eot_id
    for piece in np.split(ids, np.flatnonzero(ids == eot)):
        text = plain_typography(tokenizer.decode(piece[piece != eot].tolist())).strip()
        if text:
            yield text


def excerpts(genre: Genre, size: int) -> list[str]:
    """About `size` bytes: as much of each held-out work, in pieces at even distances."""
    chosen: list[str] = []
    for work in genre.works:
        pieces = [piece for story in work for piece in _pieces(story)]
        share = size / len(genre.works) / sum(len(piece.encode()) for piece in pieces)
        chosen += _spread(pieces, min(len(pieces), max(1, round(share * len(pieces)))))
    return chosen


def openings(genre: Genre, count: int) -> list[Opening]:
    """As many openings from each work, at even distances; repeated where a work has too few.

    Raises TrainError where no paragraph is long enough to have an opening.
    """
    works = [found for work in genre.works if (found := _openings(work))]
    if not works:
        raise TrainError(
            f"The held-out works of {genre.name} have no line of more than {PROMPT_WORDS} words "
            "to begin a passage with: add text to the corpus."
        )
    shares = [count // len(works) + (n < count % len(works)) for n in range(len(works))]
    return [o for work, share in zip(works, shares, strict=True) for o in _spread(work, share)]


def _pieces(story: str) -> Iterator[str]:
    """A story in pieces of whole paragraphs, PIECE characters long or one paragraph."""
    piece = ""
    for line in story.split("\n"):
        if piece.strip() and len(piece) + len(line) > PIECE:
            yield piece.strip()
            piece = ""
        piece += line + "\n"
    yield piece.strip()


def _openings(work: Work) -> list[Opening]:
    """The openings of a work that enough text follows; of all its paragraphs if of none."""
    found = [
        Opening(match[0], story[match.end() : match.end() + 2 * PIECE])
        for story in work
        for match in _prompts(story)
    ]
    return [o for o in found if len(o.rest.split()) >= FOLLOWING_WORDS] or found


def _prompts(story: str) -> Iterator[re.Match[str]]:
    """A film plot's line with its title, or the first words of every other story's paragraphs."""
    if title := _TITLE.match(story):
        yield title
        return
    for line in re.finditer("^", story, flags=re.MULTILINE):
        if words := _PROMPT.match(story, line.start()):
            yield words


def _spread(items: Sequence[T], count: int) -> list[T]:
    """The items in the middle of `count` equal parts."""
    return [items[(2 * n + 1) * len(items) // (2 * count)] for n in range(count)]
