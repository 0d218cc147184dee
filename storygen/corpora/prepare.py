"""From a folder of texts to token files: split by work, tokenise, write down what was done.

A prepared corpus is a directory: train.bin and val.bin (uint16 token ids), the tokenizer's files,
and meta.json with everything needed to see that two preparations are the same.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from storygen.checkpoints.hf import write_tokenizer
from storygen.errors import TrainError
from storygen.files import atomic_directory
from storygen.tokenizers import END_OF_TEXT, Tokenizer

VALIDATION_SHARE = 0.1


@dataclass(frozen=True)
class Work:
    """One file: its name, its text and whether it is held out."""

    name: str
    text: str
    held_out: bool = False


@dataclass(frozen=True)
class WorkMeta:
    """What meta.json says of a work."""

    name: str
    sha256: str
    characters: int
    bytes: int
    tokens: int
    split: str


def read_works(folder: Path) -> list[Work]:
    """Every .txt below a folder by name, or the one file it is; raises TrainError for none."""
    files = [folder] if folder.is_file() else sorted(folder.rglob("*.txt"))
    if not files:
        raise TrainError(f"{folder} holds no .txt files: name a folder of books with --from.")
    try:
        return [Work(file.name, file.read_text(encoding="utf-8")) for file in files]
    except UnicodeDecodeError as error:
        raise TrainError(f"A file in {folder} is not UTF-8 text: {error}.") from None
    except OSError as error:
        raise TrainError(f"{error.filename} cannot be read: {error.strerror}.") from None


def split_by_work(works: Sequence[Work], share: float = VALIDATION_SHARE) -> list[Work]:
    """Hold out whole works until they reach `share` of the characters, never parts of one.

    The order in which works are considered is that of their names' hashes, so adding a work moves
    few others. A work that would take more than half as much again as is wanted is passed over. A
    single work has no whole to hold out, so its end is, as in the ancestors' training.
    """
    if len(works) == 1:
        (work,) = works
        cut = round(len(work.text) * (1 - share))
        return [
            Work(work.name, work.text[:cut]),
            Work(work.name, work.text[cut:], held_out=True),
        ]
    wanted = share * sum(len(work.text) for work in works)
    chosen: set[str] = set()
    held = 0
    for work in sorted(works, key=lambda w: hashlib.sha256(w.name.encode()).hexdigest()):
        if held < wanted and held + len(work.text) <= 1.5 * wanted:
            chosen.add(work.name)
            held += len(work.text)
    if not chosen:  # few works, each of them large
        chosen.add(min(works, key=lambda work: len(work.text)).name)
    return [Work(work.name, work.text, work.name in chosen) for work in works]


def stories(text: str) -> Iterator[str]:
    """The stories of a work, which stand apart by lines of <|endoftext|>."""
    for story in text.split(END_OF_TEXT):
        if story.strip():
            yield story.strip() + "\n"


def tokenise(work: Work, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids (n,) uint16 of a work; each story ends with the end-of-text token."""
    ids: list[int] = []
    for story in stories(work.text):
        ids += tokenizer.encode(story)
        if tokenizer.eot_id is not None:
            ids.append(tokenizer.eot_id)
    return np.array(ids, dtype=np.uint16)


def prepare(
    name: str,
    works: Sequence[Work],
    tokenizer: Tokenizer,
    out: Path,
    progress: Callable[[WorkMeta], None] = lambda _: None,
) -> None:
    """Write the prepared corpus `name` to the directory out, all or nothing."""
    assert tokenizer.vocab_size <= 2**16, tokenizer.vocab_size
    metas = []
    with atomic_directory(out) as new:
        with (new / "train.bin").open("wb") as train, (new / "val.bin").open("wb") as val:
            for work in split_by_work(works):
                ids = tokenise(work, tokenizer)
                ids.tofile(val if work.held_out else train)
                metas.append(_meta(work, len(ids)))
                progress(metas[-1])
        write_tokenizer(new, tokenizer)
        (new / "meta.json").write_text(_meta_json(name, tokenizer, metas), encoding="utf-8")


def _meta(work: Work, tokens: int) -> WorkMeta:
    data = work.text.encode("utf-8")
    return WorkMeta(
        name=work.name,
        sha256=hashlib.sha256(data).hexdigest(),
        characters=len(work.text),
        bytes=len(data),
        tokens=tokens,
        split="val" if work.held_out else "train",
    )


def _meta_json(name: str, tokenizer: Tokenizer, metas: Sequence[WorkMeta]) -> str:
    def total(split: str) -> int:
        return sum(meta.tokens for meta in metas if meta.split == split)

    content = {
        "name": name,
        "vocab_size": tokenizer.vocab_size,
        "train_tokens": total("train"),
        "val_tokens": total("val"),
        "works": [asdict(meta) for meta in metas],
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
