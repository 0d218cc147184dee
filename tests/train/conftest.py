"""A tiny corpus and a recipe that trains on it in a blink."""

import pytest

from storygen.corpora.prepare import Work, prepare
from storygen.tokenizers import CharTokenizer
from storygen.train.config import TrainConfig
from storygen.train.data import load_corpus

RECIPE = {
    "n_layer": 1,
    "n_head": 2,
    "n_embd": 16,
    "block_size": 16,
    "max_steps": 12,
    "batch_size": 4,
    "accumulate": 2,
    "dropout": 0.1,  # so that a resumed run needs the random generator's state
    "learning_rate": 1e-2,
    "warmup_steps": 3,
    "eval_every": 5,
    "eval_windows": 3,
    "prompts": ("once ",),
    "sample_tokens": 20,
    "card": {
        "display_name": "Tiny",
        "genre": "test",
        "description": "Made in a test.",
        "corpus": "made up",
        "licence": "none needed",
    },
}


@pytest.fixture
def config():
    return TrainConfig.model_validate(RECIPE)


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory):
    text = "once upon a time there was an owl.\n" * 40
    out = tmp_path_factory.mktemp("corpus") / "tiny"
    prepare("tiny", [Work("owl.txt", text)], CharTokenizer.from_text(text), out)
    return out


@pytest.fixture
def corpus(corpus_dir):
    return load_corpus(corpus_dir, 16)
