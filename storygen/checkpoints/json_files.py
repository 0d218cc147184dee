"""JSON files of a model directory."""

import json
from pathlib import Path
from typing import Any

from storygen.errors import CheckpointError

MAX_BYTES = 32 << 20  # GPT-2's vocab.json has 1 million, its tokenizer.json 1.4 million


def read_text(path: Path) -> str:
    """The text of a file of a model directory; raises ValueError, or OSError, where it is none."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; raises CheckpointError where there is none."""
    try:
        found = json.loads(read_text(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path.parent} has no {path.name}: it is no model.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path} must hold a JSON object.")
    return found


def write_json(path: Path, value: Any) -> None:
    """Write value as people like to read it."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
