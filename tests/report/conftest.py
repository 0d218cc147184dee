"""Two tiny prepared corpora with the tiny tokenizer, and models that carry their names."""

import json
import shutil
from pathlib import Path

import pytest

from storygen.corpora.prepare import Work, prepare
from storygen.report.held_out import Genre, read_genres
from storygen.tokenizers import END_OF_TEXT

NAMES = {"letters": ("owl", "fox", "hen"), "tiny": ("king", "witch", "ship", "moon")}


def tale(hero: str, n: int) -> str:
    """A story of three paragraphs, different for every n."""
    lines = [
        f"Once upon a time there was an old {hero} who lived by a deep dark wood with {n} friends.",
        f"Every morning the {hero} went out to the river and counted {n * 7} stones on its banks.",
        f"'It is late,' said the {hero} at last; and nobody has heard of it since that {n}th day.",
    ]
    return "\n\n".join(lines)


def book(hero: str, stories: int = 6) -> Work:
    text = f"\n{END_OF_TEXT}\n".join(tale(hero, n) for n in range(stories))
    return Work(f"{hero}.txt", text)


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    for name, heroes in NAMES.items():
        prepare(name, [book(hero) for hero in heroes], tiny_tokenizer, folder / name)
    return folder


@pytest.fixture(scope="session")
def genres(corpora: Path) -> list[Genre]:
    return read_genres(corpora)


@pytest.fixture
def copied(corpora: Path, tmp_path: Path) -> Path:
    """The corpora where a test may change them."""
    return Path(shutil.copytree(corpora, tmp_path / "corpora"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Path:
    """The tiny models, which suggest short passages."""
    folder = tmp_path_factory.mktemp("report") / "weights"
    shutil.copytree(tiny_weights, folder)
    for directory in folder.iterdir():
        extras = {"suggested": {"max_new_tokens": 40}}
        (directory / "storygen.json").write_text(json.dumps(extras), encoding="utf-8")
    return folder
