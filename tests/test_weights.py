"""The models that ship: whole, small enough, open elsewhere, and as good as their cards say."""

import json
import re
from pathlib import Path

import pytest
import torch

from storygen import checkpoints
from storygen.catalogue import Catalogue
from storygen.checkpoints.adapter_files import base_of
from storygen.files import wrong_sum
from storygen.settings import ROOT
from storygen.tokenizers import BPETokenizer
from storygen.train.evaluate import score_text
from storygen.train.finish import continuation

from .reference.char_model import CharModel, bits_per_byte

MODELS = {info.name: info for info in Catalogue(ROOT / "weights").models()}
EXCERPTS = sorted((Path(__file__).parent / "data").glob("*.txt"))
LARGEST = 95_000_000


def test_the_models_of_the_readme_ship():
    genres = {"mystery", "fantasy", "short-story", "dialogue"}
    assert {"base", "movie-plots", "one-story"} | genres <= set(MODELS)
    assert {name for name in MODELS if base_of(MODELS[name].directory)} == genres


@pytest.mark.parametrize("name", MODELS)
def test_every_file_is_as_it_was_saved_and_small_enough(name):
    directory = MODELS[name].directory
    assert (directory / "SHA256SUMS").is_file()
    assert wrong_sum(directory) is None
    assert max(path.stat().st_size for path in directory.iterdir()) < LARGEST


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft with this transformers
@pytest.mark.parametrize("name", MODELS)
def test_transformers_reads_the_same_tokens_and_gives_the_same_logits(name):
    from peft import PeftModel
    from transformers import AutoTokenizer, GPT2LMHeadModel

    directory = MODELS[name].directory
    ours, tokenizer = checkpoints.load(directory)
    whole = base_of(directory) or directory
    theirs = GPT2LMHeadModel.from_pretrained(whole).eval()
    if whole != directory:
        theirs = PeftModel.from_pretrained(theirs, directory).eval()
    text = EXCERPTS[0].read_text(encoding="utf-8")
    ids = tokenizer.encode(text)
    if isinstance(tokenizer, BPETokenizer):  # they have no form for characters
        assert AutoTokenizer.from_pretrained(whole).encode(text) == ids
    idx = torch.tensor(ids[: 2 * ours.config.block_size]).view(2, -1)  # whole windows
    with torch.inference_mode():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def baselines():
    """Bits per byte on each excerpt of character frequencies (order 0) and of order 3, which
    have learnt the other excerpts and go on learning from this one."""

    def score(order, text):
        model = CharModel(order)
        for other in EXCERPTS:
            learnt = other.read_text(encoding="utf-8")
            for i in range(len(learnt) if learnt != text else 0):
                model.learn(learnt, i)
        return bits_per_byte(model, text, adapt=True)

    texts = [path.read_text(encoding="utf-8") for path in EXCERPTS]
    return {order: [score(order, text) for text in texts] for order in (0, 3)}


def test_mystery_predicts_held_out_prose_far_better_than_character_models(baselines):
    model, tokenizer = checkpoints.load(MODELS["mystery"].directory)
    for n, path in enumerate(EXCERPTS):
        ours = score_text(model, tokenizer, path.read_text(encoding="utf-8")).bits_per_byte
        assert ours < 0.75 * min(baselines[0][n], baselines[3][n]), path.name


@pytest.mark.parametrize("name", MODELS)
def test_the_card_tells_corpus_licence_recipe_score_and_three_samples(name):
    info = MODELS[name]
    card = (info.directory / "README.md").read_text(encoding="utf-8")
    for part in ("Corpus", "Licence", "Recipe", "Held out", "Score on it"):
        assert f"**{part}" in card
    assert f"{info.bits_per_byte:.3f} bits per byte" in card
    assert len(re.findall(r"^> \*\*", card, flags=re.MULTILINE)) == 3


@pytest.mark.parametrize("name", MODELS)
def test_the_samples_of_the_card_are_what_the_model_writes(name):
    info = MODELS[name]
    model, tokenizer = checkpoints.load(info.directory)
    card = (info.directory / "README.md").read_text(encoding="utf-8")
    for quoted in re.findall(r"^(?:>.*\n)+", card, flags=re.MULTILINE):
        prompt, sample = re.fullmatch(
            r"\*\*(.*?)\*\*(.*)", re.sub(r"^> ?", "", quoted, flags=re.M), flags=re.S
        ).groups()
        written = continuation(model, tokenizer, prompt, info.suggested, 12)
        assert sample.startswith(written.rstrip()), prompt


def test_extras_are_what_the_chat_can_use():
    for info in MODELS.values():
        extras = json.loads((info.directory / "storygen.json").read_text(encoding="utf-8"))
        assert {"display_name", "genre", "description", "opening_lines"} <= set(extras)
        assert all(line.strip() == line for line in info.opening_lines)
