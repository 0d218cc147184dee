"""Checkpoints of other programs become model directories: `python -m storygen import`.

The dialect is recognised by the names of the tensors. Nothing is written outside the new
directory, which appears whole or not at all.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

from storygen.checkpoints import adapter_files, hub, models
from storygen.checkpoints.importers import (
    char_gpt,
    gguf,
    huggingface,
    nanogpt,
    peft,
    raschka,
)
from storygen.checkpoints.importers.card import card, extras
from storygen.checkpoints.importers.network import Asked, Checkpoint, Network, unwrapped
from storygen.checkpoints.importers.pickles import open_pickle
from storygen.checkpoints.importers.vocabulary import choose_tokenizer
from storygen.checkpoints.weights import Weight, weights_of
from storygen.errors import CheckpointError
from storygen.files import atomic_directory
from storygen.tokenizers import Tokenizer

DIALECTS = {
    "hf": huggingface,
    "raschka": raschka,
    "char": char_gpt,
    "nanogpt": nanogpt,
    "gguf": gguf,
}
HUB = "hf:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CHECKPOINTS = ("*.safetensors", "*.gguf", "*.pt", "*.pth", "*.bin")

__all__ = ["Asked", "import_model"]


@dataclass(frozen=True)
class _Opened:
    """A source that has been understood: the network, its vocabulary and the files read."""

    network: Network
    tokenizer: Tokenizer
    files: list[Path]


def import_model(
    source: str,
    name: str,
    weights_dir: Path,
    asked: Asked,
    fetch: Callable[[str], Path] = hub.fetch_any,
) -> Network:
    """Translate the checkpoint at source, a path or hf:owner/name, into weights_dir/name.

    Raises CheckpointError with what is wrong with it or what it does not say.
    """
    target = weights_dir / name
    if not NAME.fullmatch(name) or name.endswith((".old", ".")) or ".new-" in name:
        raise CheckpointError(
            f"{name[:80]!r} cannot be a model's name: take up to 64 letters, digits, dots, dashes "
            "and underscores, and neither .old at its end nor .new- in it, which mark unfinished "
            "work."
        )
    if target.exists():
        raise CheckpointError(f"There is already a model {name!r} in {weights_dir}: take another.")
    path = fetch(source.removeprefix(HUB)) if source.startswith(HUB) else Path(source)
    if not path.is_file() and not path.is_dir():
        raise CheckpointError(
            f"{source} is no file and no directory here. A model on the hub is hf:owner/name."
        )
    if odd := _pipe_or_device(path):
        raise CheckpointError(f"{odd} is neither a file nor a directory: take it out of there.")
    called = source if source.startswith(HUB) else path.resolve().name
    try:
        with atomic_directory(target) as new:
            with TemporaryDirectory(dir=new, prefix="unpacked-") as scratch:
                opened = _opened(path, Path(scratch), weights_dir, asked, fetch)
                network = opened.network
                about = card(name, called, network, opened.files, datetime.now(UTC))
                files = {"README.md": about, "storygen.json": extras(name, called, {})}
                models.write_model(new, network.config, network.weights, opened.tokenizer, files)
    except OSError as error:
        raise CheckpointError(f"{target} could not be written: {error.strerror}.") from None
    return network


def _pipe_or_device(path: Path) -> Path | None:
    """Something in a directory that could keep a reader waiting for ever."""
    inside = path.iterdir() if path.is_dir() else ()
    return next((p for p in inside if p.exists() and not p.is_file() and not p.is_dir()), None)


def _opened(
    path: Path, scratch: Path, weights_dir: Path, asked: Asked, fetch: Callable[[str], Path]
) -> _Opened:
    if path.is_dir() and (path / adapter_files.CONFIG).is_file():
        return _opened_adapter(path, scratch, weights_dir, asked, fetch)
    files = _files(path)
    checkpoint = _checkpoint(path, files, scratch)
    dialect = _dialect(checkpoint, asked)
    network = dialect.translate(checkpoint, asked)
    _check_asked(path, dialect, network, asked)
    tokenizer = None
    if asked.tokenizer is None and asked.chars is None:
        tokenizer = gguf.tokenizer_of(path, checkpoint.values)
    found = tokenizer or choose_tokenizer(path, network.config.vocab_size, asked)
    return _Opened(network, found, files)


def _opened_adapter(
    path: Path, scratch: Path, weights_dir: Path, asked: Asked, fetch: Callable[[str], Path]
) -> _Opened:
    """An adapter merged with its base: one beside it or in the weights directory, or of the hub."""
    named = peft.base_name(path)
    last = Path(named).name
    places = (Path(named), path.parent / last, weights_dir / last)
    base_path = next((p for p in places if (p / "config.json").is_file()), None)
    if base_path is None:
        try:
            base_path = fetch(named)
        except CheckpointError as error:
            raise CheckpointError(
                f"{path} is an adapter over {named[:80]!r}, which is not beside it: {error}"
            ) from None
    if (base_path / adapter_files.CONFIG).is_file():
        raise CheckpointError(
            f"{path} is an adapter over another adapter, {base_path}: merge that with PEFT's "
            "merge_and_unload() first."
        )
    base = _opened(base_path, scratch, weights_dir, asked, fetch)
    files = [path / name for name in peft.FILES if (path / name).is_file()][:1]
    if not files:
        raise CheckpointError(f"{path} has no {adapter_files.WEIGHTS}: copy or download it again.")
    network = peft.merge(_checkpoint(path, files, scratch), base.network)
    return _Opened(network, base.tokenizer, [*files, *base.files])


def _files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's weights."""
    if path.is_file():
        return [path]
    if files := huggingface.weight_files(path):
        return files
    found = sorted(file for pattern in CHECKPOINTS for file in path.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5]) or "none"
        raise CheckpointError(
            f"{path} should hold one checkpoint, and there are {len(found)} ({names}): name the "
            "file itself."
        )
    return found


def _checkpoint(path: Path, files: list[Path], scratch: Path) -> Checkpoint:
    weights: dict[str, Weight] = {}
    values: dict[str, object] = {}
    for file in files:
        found = _read(file, scratch)
        if twice := next((name for name in found.weights if name in weights), None):
            raise CheckpointError(f"{file} holds {twice[:80]!r}, which another shard has as well.")
        weights |= found.weights
        values |= found.values
    return Checkpoint(path, unwrapped(weights), values)


def _read(file: Path, scratch: Path) -> Checkpoint:
    """A file by what it begins with, whatever its name."""
    try:
        with file.open("rb") as opened:
            start = opened.read(9)
    except OSError as error:
        raise CheckpointError(
            f"{file} cannot be read: {error.strerror}. Copy or download it again."
        ) from None
    if start.startswith(gguf.MAGIC):
        return gguf.open_gguf(file)
    if start[8:] == b"{":  # after the length of its header
        return Checkpoint(file, weights_of(file))
    if start.startswith((b"PK", b"\x80")):
        weights, values = open_pickle(file, scratch)
        return Checkpoint(file, weights, values)
    raise CheckpointError(
        f"{file} is no checkpoint: it begins neither as safetensors, nor as a file of torch.save, "
        "nor as GGUF. Copy or download it again."
    )


def _check_asked(path: Path, dialect: ModuleType, network: Network, asked: Asked) -> None:
    """Raise CheckpointError for something that was said of a network and cannot be so."""
    n_head = network.config.n_head
    if asked.n_head not in (None, n_head):
        raise CheckpointError(f"{path} says that it has {n_head} attention heads: omit --n-head.")
    if asked.attention_scale is not None and dialect is not char_gpt:
        raise CheckpointError(
            f"{path} is a {network.dialect}, whose attention is always scaled by the width of a "
            "head: omit --attention-scale."
        )


def _dialect(checkpoint: Checkpoint, asked: Asked) -> ModuleType:
    if asked.dialect != "auto":
        return DIALECTS[asked.dialect]
    names = checkpoint.weights
    if "general.architecture" in checkpoint.values:
        return gguf
    for dialect in (raschka, char_gpt):
        if any(re.fullmatch(dialect.MARK, name) for name in names):
            return dialect
    mark = next((name for name in names if re.fullmatch(nanogpt.MARK, name)), None)
    if mark is not None:  # Hugging Face keeps matrices as (in, out)
        rows, columns = (*names[mark].shape, 0, 0)[:2]
        return nanogpt if rows > columns else huggingface
    some = ", ".join(list(names)[:3]) or "none"
    raise CheckpointError(
        f"{checkpoint.path} is of no network that is known here: its tensors are called {some} and "
        "so on. docs/checkpoints.md says which can be read."
    )
