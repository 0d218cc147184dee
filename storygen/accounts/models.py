"""Models of one user: what was trained on somebody's drafts may know them by heart."""

import json
from pathlib import Path

from storygen.catalogue import Catalogue
from storygen.errors import AccountError
from storygen.files import atomic_file


def give(weights_dir: Path, model: str, owner: str) -> None:
    """Let nobody but a user write with a model, or everybody where owner is empty.

    It counts from the next question for the models on. Raises ModelNotFoundError, and AccountError
    where storygen.json cannot be changed.
    """
    extras = Catalogue(weights_dir).get(model).directory / "storygen.json"
    try:
        said = json.loads(extras.read_text(encoding="utf-8")) if extras.exists() else {}
        with atomic_file(extras) as new:
            text = json.dumps(dict(said) | {"owner": owner}, indent=2, ensure_ascii=False)
            new.write_text(text + "\n", encoding="utf-8")
    except (OSError, ValueError, TypeError) as error:
        raise AccountError(
            f"{extras} cannot be changed: {error}. Mend it, or its rights."
        ) from None
