"""What a run begins with: new weights, given ones, given ones with an adapter."""

import pytest
import torch

from storygen import checkpoints
from storygen.catalogue import Catalogue
from storygen.checkpoints import load
from storygen.checkpoints.adapter import save_adapter
from storygen.errors import CheckpointError, TrainError
from storygen.model.lora import add_lora
from storygen.tokenizers import CharTokenizer
from storygen.train.config import load_recipe
from storygen.train.finish import finish
from storygen.train.start import first_model, in_context
from storygen.train.trainer import Trainer
from tests.conftest import random_model


@pytest.fixture
def base(corpus, tmp_path):
    """A directory with a trained model of the corpus' vocabulary."""
    model = random_model(corpus.tokenizer.vocab_size)
    checkpoints.save(tmp_path / "base", model, corpus.tokenizer)
    return tmp_path / "base"


def test_fine_tuning_begins_with_the_given_weights(config, corpus, base):
    tuned = config.model_copy(update={"init": str(base)})
    model = first_model(tuned, corpus.tokenizer)
    assert model.config.dropout == config.dropout
    for name, weight in load(base)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("recipe", ["mystery", "fantasy", "short-story", "dialogue"])
@pytest.mark.parametrize("context", [512, 1024])
def test_an_adapters_windows_are_as_long_as_its_bases_context(recipe, context, corpus, tmp_path):
    model = random_model(corpus.tokenizer.vocab_size, block_size=context)
    checkpoints.save(tmp_path / "base", model, corpus.tokenizer)
    config = in_context(load_recipe(recipe, {"init": str(tmp_path / "base")}))
    assert config.window_size == context
    assert first_model(config, corpus.tokenizer).config.block_size == context


def test_a_window_that_is_named_stays(base):
    named = load_recipe("fantasy", {"init": str(base), "block_size": 16})
    assert in_context(named).window_size == 16
    assert in_context(load_recipe("base")).window_size == 512
    assert in_context(load_recipe("ancestors/short-stories")).window_size == 1024


def test_an_adapter_learns_and_its_base_does_not(config, corpus, base, tmp_path):
    before = {p.name: p.read_bytes() for p in base.iterdir()}
    tuned = config.model_copy(
        update={"init": str(base), "lora_rank": 4, "max_steps": 60, "dropout": 0.0}
    )
    trainer = Trainer(tuned, corpus, tmp_path / "run")
    first = trainer.validation_loss()
    trainer.run()
    last = trainer.validation_loss()
    assert last < first - 0.5
    finish(trainer, "genre").rename(tmp_path / "genre")
    assert {p.name: p.read_bytes() for p in base.iterdir()} == before
    adapted, _ = load(tmp_path / "genre")
    trainer.model = adapted
    assert trainer.validation_loss() == pytest.approx(last, abs=0.02)  # fp16, and bf16 in training
    assert Catalogue(tmp_path).get("genre").display_name == "Tiny"


def test_an_adapter_over_an_adapter_is_refused_with_two_ways_out(config, corpus, base):
    model, _ = load(base)
    save_adapter(base.parent / "voice", add_lora(model, 2, 4), base, rank=2, alpha=4, files={})
    tuned = config.model_copy(update={"init": str(base.parent / "voice"), "lora_rank": 4})
    with pytest.raises(TrainError, match=f"--init {base}, or .* export voice --format hf --merge"):
        first_model(tuned, corpus.tokenizer)
    whole = tuned.model_copy(update={"lora_rank": 0})
    first_model(whole, corpus.tokenizer)


def test_a_resumed_adapter_equals_an_unbroken_one(config, corpus, base, tmp_path):
    tuned = config.model_copy(update={"init": str(base), "lora_rank": 2})
    unbroken = Trainer(tuned, corpus, tmp_path / "a")
    unbroken.run()
    first = Trainer(tuned, corpus, tmp_path / "b")
    first.run(minutes=0)
    second = Trainer(tuned, corpus, tmp_path / "b")
    assert second.resume()
    second.run()
    for name, weight in unbroken.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_a_model_of_another_vocabulary_is_refused(config, corpus, tmp_path):
    other = CharTokenizer(list(reversed(corpus.tokenizer.characters)))
    checkpoints.save(tmp_path / "base", random_model(other.vocab_size), other)
    tuned = config.model_copy(update={"init": str(tmp_path / "base")})
    with pytest.raises(TrainError, match="reads other tokens than this corpus holds"):
        first_model(tuned, corpus.tokenizer)


def test_windows_longer_than_the_given_context_are_refused(config, corpus, base):
    tuned = config.model_copy(update={"init": str(base), "block_size": 64})
    with pytest.raises(TrainError, match="reads 32 tokens at once: set window"):
        first_model(tuned, corpus.tokenizer)


def test_a_base_that_is_nowhere_is_a_sentence(config, corpus):
    tuned = config.model_copy(update={"init": "no such place"})
    with pytest.raises(CheckpointError, match="neither a directory here nor a name on the hub"):
        first_model(tuned, corpus.tokenizer)
    adapted = tuned.model_copy(update={"lora_rank": 2})
    with pytest.raises(TrainError, match="adapter needs its base model beside it"):
        first_model(adapted, corpus.tokenizer)
