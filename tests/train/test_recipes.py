"""Every recipe trains at a reduced size; the ancestors' have their published numbers."""

import pytest

from storygen import checkpoints
from storygen.corpora.prepare import Work, prepare
from storygen.model import GPT
from storygen.tokenizers import CharTokenizer
from storygen.train.__main__ import main
from storygen.train.config import load_recipe, recipe_names
from tests.conftest import random_model

ANCESTORS = [name for name in recipe_names() if name.startswith("ancestors/")]
GPT2_SMALL = {"n_layer": 12, "n_head": 12, "n_embd": 768}
CHARACTERS = {"n_layer": 8, "n_head": 8, "n_embd": 512, "block_size": 256, "dropout": 0.2}
PUBLISHED = {
    "crime-mystery": {
        **GPT2_SMALL,
        "block_size": 1024,
        "learning_rate": 4e-4,
        "weight_decay": 0.1,
        "dropout": 0.1,
        "batch_size": 64,
        "epochs": 50,
    },
    "short-stories": {
        "init": "gpt2",
        "learning_rate": 5e-5,
        "epochs": 3,
        "batch_size": 2,
        "dtype": "fp16",
    },
    "fantasy-books": {
        "init": "gpt2",
        "window": 128,
        "batch_size": 32,
        "epochs": 11,
        "learning_rate": 1e-4,
    },
    "movie-plots": CHARACTERS | {"batch_size": 128, "learning_rate": 3e-4, "max_steps": 10_000},
    "office-lines": CHARACTERS | {"batch_size": 128, "learning_rate": 3e-4, "max_steps": 10_000},
    "one-story": {**GPT2_SMALL, "block_size": 256},
}
SMALL = ["n_layer=1", "n_head=1", "n_embd=8", "block_size=32", "batch_size=2", "stride=0"]
SHORT = ["max_steps=2", "epochs=0", "eval_windows=2", "sample_tokens=5", "compile=False"]
TEXT = "The plot summary of the movie named 'Owls' is:\nMichael: Every old man, once upon a time.\n"


def test_every_ancestor_has_a_recipe():
    assert {name.removeprefix("ancestors/") for name in ANCESTORS} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_numbers(name):
    config = load_recipe(f"ancestors/{name}")
    assert {key: getattr(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_the_published_character_model_has_its_known_size():
    """Over 100 characters, counted by hand from its layers."""
    config = load_recipe("ancestors/movie-plots")
    model = GPT(config.model_config_for(100))
    width, vocab = 512, 100
    block = 2 * 2 * width + (3 * width + 3) * width + width * width + width
    block += 4 * width * width + 4 * width + 4 * width * width + width
    assert model.n_params == 8 * block + 2 * width * vocab + vocab + 256 * width + 2 * width


@pytest.mark.parametrize("name", recipe_names())
def test_a_reduced_recipe_runs_from_text_to_model(name, tmp_path, capsys):
    config = load_recipe(name)
    alphabet = sorted(set(TEXT + "".join(config.prompts)))
    tokenizer = CharTokenizer(alphabet)
    prepare("tiny", [Work("a.txt", TEXT * 20)], tokenizer, tmp_path / "corpus")
    changes = [*SMALL, *SHORT]
    if config.init:
        checkpoints.save(tmp_path / "base", random_model(tokenizer.vocab_size), tokenizer)
        changes += [f"init={tmp_path / 'base'}"]
    if config.window:
        changes += ["window=16"]
    sets = [part for change in changes for part in ("--set", change)]
    out = ["--corpus", str(tmp_path / "corpus"), "--out", str(tmp_path / "run")]
    assert main([name, *out, *sets]) == 0, capsys.readouterr().err
    model, _ = checkpoints.load((tmp_path / "run" / "model").rename(tmp_path / "model"))
    assert (model.config.activation, model.config.tied) == (config.activation, config.tied)
    assert (tmp_path / "model" / "adapter_config.json").exists() == bool(config.lora_rank)
