"""JSON files of a model directory."""

import json
from pathlib import Path
from typing import Any

from storygen.errors import CheckpointError

# GPT-2's vocab.json has 1 million bytes and 100,000 parts, its tokenizer.json up to 3.6 million and
# 250,000. Nothing within these bounds was found to take more than 56 MB while it is read.
MAX_BYTES = 6 << 20
MAX_PARTS = 400_000


def read_text(path: Path) -> str:
    """The text of a file of a model directory; raises ValueError, or OSError, where it is none."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    text = path.read_text(encoding="utf-8")
    if sum(text.count(mark) for mark in ",:[{") > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS:,} parts")
    return text


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises CheckpointError where there is none."""
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: it is no model. Copy or download it again."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} cannot be read as JSON: {error}. Copy or download it again."
        ) from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object. Copy or download it again.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write value as people like to read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
