"""python -m storygen.train from a recipe to a directory that can be used, and its complaints."""

import json
import signal

import pytest
import torch

from storygen.catalogue import Catalogue
from storygen.checkpoints import load
from storygen.checkpoints.ngrams import read_ngrams
from storygen.model import GPT
from storygen.train.__main__ import main
from storygen.train.config import load_recipe, recipe_names
from storygen.train.evaluate import score_text, score_tokens
from storygen.train.metrics import read_metrics

from .conftest import RECIPE


@pytest.fixture
def recipe(tmp_path):
    """The tiny recipe as a file."""
    card = "".join(f"{k} = {json.dumps(v)}\n" for k, v in RECIPE["card"].items())
    values = {k: v for k, v in RECIPE.items() if k != "card"}
    values["prompts"] = list(values["prompts"])
    top = "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    (tmp_path / "tiny.toml").write_text(f"{top}[card]\n{card}")
    return str(tmp_path / "tiny.toml")


def test_a_recipe_becomes_a_model_directory(recipe, corpus, corpus_dir, tmp_path, capsys):
    run = tmp_path / "run"
    assert main([recipe, "--corpus", str(corpus_dir), "--out", str(run)]) == 0
    assert f"{run / 'model'} is ready" in capsys.readouterr().out
    assert (run / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert read_metrics(run)[-1]["step"] == 12

    model, tokenizer = load(run / "model")
    info = Catalogue(run).get("model")
    assert info.display_name == "Tiny"
    score = score_tokens(model, tokenizer, corpus.val)
    assert info.bits_per_byte == pytest.approx(score.bits_per_byte, abs=0.01)  # fp16 on disk
    card = (run / "model" / "README.md").read_text()
    assert f"{info.bits_per_byte:.3f} bits per byte" in card
    assert "12 steps, 1,536 tokens seen" in card
    assert "> **once **" in card
    assert read_ngrams(run / "model", tokenizer).next(corpus.train[:5].tolist()) is not None


def test_a_bounded_run_leaves_a_model_and_can_go_on(
    recipe, corpus_dir, tmp_path, capsys, monkeypatch
):
    arguments = [recipe, "--corpus", str(corpus_dir), "--out", str(tmp_path / "run")]
    clock = iter(range(0, 10_000, 10))  # each look at it takes ten seconds
    monkeypatch.setattr("storygen.train.trainer.time.monotonic", lambda: next(clock))
    assert main([*arguments, "--minutes", "1"]) == 0
    out = capsys.readouterr().out
    assert "model is ready" in out
    assert "Stopped at step" in out
    load(tmp_path / "run" / "model")
    monkeypatch.undo()
    assert main([*arguments, "--resume"]) == 0
    assert "Stopped" not in capsys.readouterr().out
    assert "12 steps" in (tmp_path / "run" / "model" / "README.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_a_checkpoint_of_its_last_step(
    recipe, corpus_dir, tmp_path, capsys, monkeypatch, number
):
    run = tmp_path / "run"
    arguments = [recipe, "--corpus", str(corpus_dir), "--out", str(run)]

    def told(bar, task, progress):
        if progress.step == 3:
            signal.raise_signal(number)

    monkeypatch.setattr("storygen.train.__main__._show", told)
    before = signal.getsignal(number)
    assert main(arguments) == 0
    assert signal.getsignal(number) is before
    assert "Stopped at step 3. Go on with --resume." in capsys.readouterr().out
    assert not (run / "model").exists()  # measuring would take longer than whoever asks waits
    monkeypatch.undo()
    assert main([*arguments, "--resume"]) == 0
    assert [m["step"] for m in read_metrics(run)] == list(range(1, 13))


def test_ctrl_c_pressed_twice_ends_it_at_once(recipe, corpus_dir, tmp_path, capsys, monkeypatch):
    def told(bar, task, progress):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("storygen.train.__main__._show", told)
    assert main([recipe, "--corpus", str(corpus_dir), "--out", str(tmp_path / "run")]) == 1
    assert "Go on from the last checkpoint with --resume." in capsys.readouterr().err


def test_a_run_is_not_overwritten_but_resumed(recipe, corpus_dir, tmp_path, capsys):
    arguments = [recipe, "--corpus", str(corpus_dir), "--out", str(tmp_path / "run")]
    assert main([*arguments, "--minutes", "0"]) == 0
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert main(arguments) == 1
    assert "holds an earlier run: add --resume" in capsys.readouterr().err
    assert main([*arguments, "--resume"]) == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no-such"], "There is no recipe 'no-such'. Recipes: ancestors/crime-mystery"),
        (["base", "--set", "n_layer"], "has no '='"),
        (["base", "--set", "n_layer=0"], "n_layer: Input should be greater than or equal to 1"),
        (["base", "--set", "layers=2"], "layers: Extra inputs are not permitted"),
        (["base", "--set", "n_head=7"], "n_embd 320 is not a multiple of n_head 7"),
        (["base", "--corpus", "nowhere"], "nowhere is no prepared corpus"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_1(arguments, sentence, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "r")]) == 1
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_that_ships_is_whole(name):
    config = load_recipe(name)
    assert config.prompts
    assert config.card.opening_lines


def test_bits_per_byte_of_a_model_that_knows_nothing(corpus):
    """All logits equal: each character costs log2 of the vocabulary, and is one byte."""
    config = load_recipe("one-story", {"n_layer": 1, "n_embd": 8, "n_head": 1, "block_size": 16})
    model = GPT(config.model_config_for(32)).init_weights().eval()
    with torch.no_grad():
        model.wte.weight.zero_()
    text = corpus.tokenizer.decode(list(range(corpus.tokenizer.vocab_size)))
    score = score_text(model, corpus.tokenizer, text * 5)
    assert score.bytes == score.tokens == 5 * len(text)
    assert score.bits_per_byte == pytest.approx(5.0)  # log2 32
    assert score.perplexity == pytest.approx(32.0)
