"""From works to token files: split, free of duplicates, tokenised, and written down.

A prepared corpus is a directory: train.bin and val.bin (uint16 token ids), the tokenizer's files,
and meta.json with everything needed to see that two preparations are the same.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np

from storygen.checkpoints.hf import write_tokenizer
from storygen.corpora.passages import Removed, drop_duplicates
from storygen.corpora.works import HELD_OUT, Work, stories
from storygen.errors import TrainError
from storygen.files import atomic_directory, sha256
from storygen.text import plain_typography
from storygen.tokenizers import Tokenizer


@dataclass(frozen=True)
class WorkMeta:
    """What meta.json says of a work, or of one side of it; characters and bytes are those left
    without duplicated passages, sha256 is of the file as it was found."""

    name: str
    sha256: str
    characters: int
    bytes: int
    tokens: int
    split: str


def split_by_work(works: Sequence[Work], share: float = HELD_OUT) -> list[Work]:
    """Hold out whole works until they reach `share` of the characters, never parts of one.

    Each folder is split by itself, so that a genre has the same works held out alone and beside
    others. The order in which works are considered is that of their file names' hashes, so adding
    a work moves few others. A work that would take more than half as much again as is wanted is
    passed over. A single work has no whole to hold out, so its end is, as in the ancestors'
    training. Works whose side is decided already stay there.
    """
    undecided = [work for work in works if work.held_out is None]
    if len(works) == 1 and undecided:
        (work,) = works
        cut = round(len(work.text) * (1 - share))
        return [
            replace(work, text=work.text[:cut], held_out=False),
            replace(work, text=work.text[cut:], held_out=True),
        ]
    chosen: set[str] = set()
    for _, group in groupby(sorted(undecided, key=_folder), key=_folder):
        chosen |= _held_out(list(group), share)
    return [
        work if work.held_out is not None else replace(work, held_out=work.name in chosen)
        for work in works
    ]


def _folder(work: Work) -> str:
    return str(PurePosixPath(work.name).parent)


def _held_out(works: Sequence[Work], share: float) -> set[str]:
    """Names of the works of one folder that are held out."""
    wanted = share * sum(len(work.text) for work in works)
    chosen: set[str] = set()
    held = 0
    for work in sorted(works, key=_order):
        if held < wanted and held + len(work.text) <= 1.5 * wanted:
            chosen.add(work.name)
            held += len(work.text)
    if not chosen and len(works) > 1:  # few works, each of them large
        chosen.add(min(works, key=lambda work: len(work.text)).name)
    return chosen


def _order(work: Work) -> str:
    return hashlib.sha256(PurePosixPath(work.name).name.encode()).hexdigest()


def tokenise(work: Work, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids (n,) uint16 of a work in plain typography; each story ends with the end-of-text
    token."""
    ids: list[int] = []
    for story in stories(work.text):
        ids += tokenizer.encode(story if tokenizer.plain else plain_typography(story))
        if tokenizer.eot_id is not None:
            ids.append(tokenizer.eot_id)
    return np.array(ids, dtype=np.uint16)


def prepare(
    name: str,
    works: Sequence[Work],
    tokenizer: Tokenizer | Callable[[Sequence[Work]], tuple[Tokenizer, list[Work]]],
    out: Path,
    progress: Callable[[WorkMeta], None] = lambda _: None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Removed:
    """Write the prepared corpus `name` to the directory out, all or nothing.

    A tokenizer may be made from the works as they are once they are split and free of
    duplicates, such as characters.char_vocabulary, which changes them to what it can hold.
    options are what the works were read with, for meta.json.
    Raises TrainError when a side is empty.
    """
    parts, removed = drop_duplicates(split_by_work(works))
    if callable(tokenizer):
        tokenizer, parts = tokenizer(parts)
    assert tokenizer.vocab_size <= 2**16, tokenizer.vocab_size
    metas = []
    with atomic_directory(out) as new:
        with (new / "train.bin").open("wb") as train, (new / "val.bin").open("wb") as val:
            for work in parts:
                ids = tokenise(work, tokenizer)
                ids.tofile(val if work.held_out else train)
                metas.append(_meta(work, len(ids)))
                progress(metas[-1])
        if {meta.split for meta in metas if meta.tokens} != {"train", "val"}:
            raise TrainError(f"{name} is too small to hold a part of it out: add works or stories.")
        write_tokenizer(new, tokenizer)
        meta = {
            "name": name,
            "options": dict(options),
            "vocab_size": tokenizer.vocab_size,
            "train_tokens": sum(meta.tokens for meta in metas if meta.split == "train"),
            "val_tokens": sum(meta.tokens for meta in metas if meta.split == "val"),
            "duplicates": asdict(removed),
            "files": {path.name: sha256(path) for path in sorted(new.iterdir())},
            "works": [asdict(meta) for meta in metas],
        }
        text = json.dumps(meta, indent=2, ensure_ascii=False) + "\n"
        (new / "meta.json").write_text(text, encoding="utf-8")
    return removed


def _meta(work: Work, tokens: int) -> WorkMeta:
    data = work.text.encode("utf-8", "replace")
    return WorkMeta(
        name=work.name,
        sha256=work.sha256 or hashlib.sha256(data).hexdigest(),
        characters=len(work.text),
        bytes=len(data),
        tokens=tokens,
        split="val" if work.held_out else "train",
    )
