"""tokenizer.json, the form of transformers' fast tokenizers: our vocabulary with its typography
spelled out as a normalizer, so that other programs read a text as the model was taught to."""

from pathlib import Path

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from storygen.checkpoints.json_files import read_json
from storygen.errors import CheckpointError
from storygen.text import DASH, ELLIPSIS, SPACES, TRANSLATED
from storygen.tokenizers import END_OF_TEXT, BPETokenizer

FILE = "tokenizer.json"


def write_fast(directory: Path, tokenizer: BPETokenizer) -> None:
    """Write tokenizer.json beside vocab.json and merges.txt."""
    fast = FastTokenizer(models.BPE(vocab=tokenizer.vocab, merges=tokenizer.merges))
    if tokenizer.plain:
        fast.normalizer = _typography()
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    if tokenizer.eot_id is not None:
        fast.add_special_tokens([END_OF_TEXT])
    fast.save(str(directory / FILE))


def read_fast(path: Path, plain: bool) -> BPETokenizer:
    """The vocabulary of a tokenizer.json that is byte-level BPE as GPT-2 has it."""
    found = read_json(path)
    try:
        model, split, added = found["model"], found["pre_tokenizer"], found.get("added_tokens")
        if model["type"] != "BPE" or split["type"] != "ByteLevel" or split["add_prefix_space"]:
            raise CheckpointError(
                f"{path} is not of GPT-2's kind, byte-level BPE: another vocabulary cannot be read."
            )
        merges = [tuple(m.split(" ") if isinstance(m, str) else m) for m in model["merges"]]
        vocab = model["vocab"] | {token["content"]: token["id"] for token in added or []}
        if (
            sorted(vocab.values()) != list(range(len(vocab)))
            or not all(isinstance(t, str) and type(n) is int for t, n in vocab.items())
            or any(len(m) != 2 or not all(isinstance(part, str) for part in m) for m in merges)
        ):
            raise ValueError
    except (TypeError, KeyError, AttributeError, ValueError):
        raise CheckpointError(
            f"{path} describes no tokenizer that can be read. Copy or download it again."
        ) from None
    return BPETokenizer(vocab, merges, plain)


def _typography() -> normalizers.Normalizer:
    """storygen.text.plain_typography, step by step."""
    instead: dict[str, str] = {}
    for code, plain in TRANSLATED.items():
        instead[plain or ""] = instead.get(plain or "", "") + chr(code)
    return normalizers.Sequence(
        [
            *(normalizers.Replace(Regex(f"[{cs}]"), plain) for plain, cs in instead.items()),
            normalizers.Replace(Regex(SPACES.pattern), " "),
            normalizers.Replace(Regex(ELLIPSIS.pattern), "..."),
            normalizers.Replace(Regex(DASH.pattern), "—"),
        ]
    )
