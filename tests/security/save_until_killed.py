"""Saves over an older state and is ended at each change to the disk in turn, see crash.c.

    LD_PRELOAD=crash.so python -m tests.security.save_until_killed FOLDER KIND...

Prints one line of JSON for each KIND of SAVES: how many changes a save makes, and what was amiss
after which of them. Each save runs in a child of this process, which has imported everything, so
that hundreds take seconds.
"""

import ctypes
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from storygen import checkpoints
from storygen.accounts.models import give
from storygen.catalogue import Catalogue
from storygen.chat import guards
from storygen.checkpoints.adapter import save_adapter
from storygen.checkpoints.export import export_gguf
from storygen.corpora.prepare import prepare
from storygen.corpora.works import Work
from storygen.files import recovered
from storygen.model.lora import add_lora, lora_matrices
from storygen.tokenizers import BYTE_SPELLING, END_OF_TEXT, BPETokenizer, CharTokenizer
from storygen.train.checkpoint import read_checkpoint, write_checkpoint
from tests.conftest import CHARACTERS, MERGES, random_model

CRASHED = 86
NEWEST = 3  # the version whose saving is cut off
LIBRARY = ctypes.CDLL(None)
Saved = Callable[[Path], object]


class Kind(NamedTuple):
    """How version n of something is saved in a folder, and read as something to compare; None
    where a reader is told that it has to be made (again)."""

    save: Callable[[Path, int], None]
    read: Callable[[Path], object]


def letters(version: int) -> CharTokenizer:
    """A vocabulary in another order for each version."""
    shuffled = random.Random(version).sample(CHARACTERS, len(CHARACTERS))
    return CharTokenizer("".join(shuffled))


def save_checkpoint(folder: Path, version: int) -> None:
    tensors = {"weight": torch.full((64, 64), float(version)), "generator": torch.tensor([version])}
    write_checkpoint(folder, version, tensors, {"step": version})


def read_newest(folder: Path) -> object:
    found = read_checkpoint(folder)
    assert found is not None
    tensors, state, _ = found
    step = state["step"]
    assert all(bool((tensor == step).all()) for tensor in tensors.values())
    return step


def save_model(folder: Path, version: int) -> None:
    model = random_model(len(CHARACTERS), seed=version)
    card = {"README.md": f"version {version}"}
    checkpoints.save(folder / "model", model, letters(version), files=card)


def read_model(folder: Path) -> object:
    model, tokenizer = checkpoints.load(folder / "model")
    weights = {name: weight.tolist() for name, weight in model.state_dict().items()}
    return weights, tokenizer.encode(CHARACTERS), (folder / "model" / "README.md").read_text()


def save_voice(folder: Path, version: int) -> None:
    base = folder / "base"
    if not base.is_dir():
        checkpoints.save(base, random_model(len(CHARACTERS)), letters(0))
    model, _ = checkpoints.load(base)
    torch.manual_seed(version)
    add_lora(model, 2, 4.0)
    with torch.no_grad():
        for change in lora_matrices(model).values():
            change.B.fill_(version + 1)
    save_adapter(folder / "voice", model, base, rank=2, alpha=4.0, files={})


def read_voice(folder: Path) -> object:
    model, _ = checkpoints.load(folder / "voice")
    return [weight.tolist() for weight in model.state_dict().values()]


def save_corpus(folder: Path, version: int) -> None:
    books = [Work(f"book-{n}.txt", f"Tale {n} of {version}. " * 20) for n in range(20)]
    plain = CharTokenizer.from_text("".join(book.text for book in books) + "\n")
    prepare(f"version {version}", books, plain, folder / "corpus")


def read_corpus(folder: Path) -> object:
    corpus = recovered(folder / "corpus")
    return {path.name: path.read_bytes() for path in sorted(corpus.iterdir())}


def save_gguf(folder: Path, version: int) -> None:
    if not (folder / "model").is_dir():
        spellings = [*BYTE_SPELLING.values(), *(a + b for a, b in MERGES), END_OF_TEXT]
        tokenizer = BPETokenizer({spelling: n for n, spelling in enumerate(spellings)}, MERGES)
        checkpoints.save(folder / "model", random_model(len(spellings)), tokenizer)
    if version == NEWEST and not (folder / "out.gguf").exists():  # it is never written over
        export_gguf(folder / "model", folder / "out.gguf", "f16", "model")


def read_gguf(folder: Path) -> object:
    out = folder / "out.gguf"
    return out.read_bytes() if out.exists() else None


def save_secret(folder: Path, version: int) -> None:
    if version == NEWEST:  # it is made once
        guards.secret(folder)


def read_secret(folder: Path) -> object:
    """A secret is drawn: all that can be said is that whoever asks next gets a whole one."""
    secret = guards.secret(folder)
    assert len(secret) >= guards.SECRET_BYTES
    assert (folder / "auth_secret").stat().st_mode & 0o777 == 0o600
    return "whole"


def save_owner(folder: Path, version: int) -> None:
    model = folder / "weights" / "model"
    if not model.is_dir():
        checkpoints.save(model, random_model(len(CHARACTERS)), letters(0))
    give(folder / "weights", "model", f"writer-{version}")


def read_owner(folder: Path) -> object:
    return Catalogue(folder / "weights").get("model").owner


def save_carelessly(folder: Path, version: int) -> None:
    new = folder / "note.new"
    new.write_text(f"{version}" * 100)
    new.replace(folder / "note")  # whole for who reads it now; after a loss of power perhaps half


def read_note(folder: Path) -> object:
    return (folder / "note").read_text()


SAVES = {
    "checkpoint": Kind(save_checkpoint, read_newest),
    "model": Kind(save_model, read_model),
    "adapter": Kind(save_voice, read_voice),
    "corpus": Kind(save_corpus, read_corpus),
    "gguf": Kind(save_gguf, read_gguf),
    "secret": Kind(save_secret, read_secret),
    "owner": Kind(save_owner, read_owner),
    "careless": Kind(save_carelessly, read_note),  # so that it is seen what this finds
}


def ended_at(kind: Kind, folder: Path, change: int) -> tuple[bool, int]:
    """Save the newest version, the power failing at this change or at the end; whether it was
    cut off, and the changes made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        LIBRARY.crash_begin(str(folder).encode(), change)
        kind.save(folder, NEWEST)
        LIBRARY.crash_now()
        os.write(writer, str(LIBRARY.crash_changes()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        changes = said.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, CRASHED), code
    return code == CRASHED, int(changes or 0)


def amiss(kind: Kind, folder: Path, known: list[object], is_done: bool) -> str | None:
    """What is wrong after a save, whole or cut off: neither version can be read, or what was cut
    off is in the way of the next save."""
    try:
        found = kind.read(folder)
        if found not in (known[-1:] if is_done else known):
            return f"neither version: {str(found)[:80]}"
        kind.save(folder, NEWEST)
        if kind.read(folder) != known[-1]:
            return "the next save is not read"
    except Exception as error:
        return repr(error)[:300]
    left = sorted(path.name for path in folder.iterdir() if ".new-" in path.name)
    return f"left behind: {left}" if left else None


def every_change(kind: Kind, folder: Path) -> dict[str, object]:
    """Cut a save off at each of its changes; the report."""
    old = folder / "old"
    old.mkdir(parents=True)
    for version in range(NEWEST):
        kind.save(old, version)
    new = shutil.copytree(old, folder / "new")
    kind.save(new, NEWEST)
    known = [kind.read(shutil.copytree(old, folder / "probe")), kind.read(new)]
    wrong: dict[int, str] = {}
    change = changes = 0
    is_cut = True
    while is_cut:
        change += 1
        here = shutil.copytree(old, folder / f"{change}")
        is_cut, changes = ended_at(kind, here, change)
        told = amiss(kind, here, known, not is_cut)
        if told:
            wrong[change] = told
        shutil.rmtree(here)
    assert change == changes + 1, (change, changes)
    return {"changes": changes, "wrong": wrong}


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        report = every_change(SAVES[name], Path(sys.argv[1]) / name)
        sys.stdout.write(json.dumps({"kind": name} | report) + "\n")
