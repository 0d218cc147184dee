"""A card's memory: what models take of it, and that no more are opened than fit."""

import pytest
import torch

from storygen.catalogue import Catalogue, ModelInfo
from storygen.decode.choose import n_slots
from storygen.decode.graphs import GraphDecoder
from storygen.decode.interface import Token
from storygen.engine import local
from storygen.engine.limits import Limits
from storygen.engine.local import LocalEngine
from storygen.engine.memory import OF_CARD, card_bytes, model_bytes
from storygen.errors import EngineError
from storygen.params import Row, SamplingParams
from tests.conftest import random_model

T4 = 16e9
# OpenAI's four.
FAMILY = {
    "gpt2": (12, 768),
    "gpt2-medium": (24, 1024),
    "gpt2-large": (36, 1280),
    "gpt2-xl": (48, 1600),
}


def info(n_layer, n_embd, vocab_size=50257, block_size=1024):
    sizes = {"n_layer": n_layer, "n_embd": n_embd, "vocab_size": vocab_size}
    return ModelInfo("model", None, block_size=block_size, **sizes)


@pytest.mark.parametrize("name", FAMILY)
def test_each_of_gpt2s_family_fits_a_t4_with_eight_writers(name):
    assert card_bytes(info(*FAMILY[name]), "fp16", 8) < OF_CARD * T4


def test_gpt2_and_its_slots_are_counted_by_hand():
    """85 million weights in blocks, 38.6 + 0.8 in embeddings; 9 slots of 1,025 places in 12 layers,
    for the 128 MB that are spared hold one more of 75 MB, which a slot may take elsewhere."""
    weights = 2 * (12 * 12 * 768**2 + (50257 + 1024) * 768)
    slots = 8 + 128 * 2**20 // (8 * 12 * 768 * 1024)
    cache = 2 * 2 * slots * 12 * 768 * 1025
    assert card_bytes(info(12, 768), "fp16", 8) == weights + cache + 160 * slots * 50257


def test_keys_and_values_on_a_card_take_half_of_what_fp32_does():
    many = info(12, 768, vocab_size=256)
    assert card_bytes(many, "fp16", 32) < 0.6 * model_bytes(many, "fp16", 32)


@pytest.fixture
def engine(tiny_weights, monkeypatch):
    """One that believes there is a card, on which nothing is computed."""

    def make(card, **limits):
        monkeypatch.setattr(local, "cuda_capability", lambda: (7, 5))
        monkeypatch.setattr(local, "cuda_bytes", lambda: card)
        return LocalEngine(Catalogue(tiny_weights), device="cuda", limits=Limits(**limits))

    return make


def test_models_share_the_memory_of_the_card(engine, tiny_weights):
    sizes = {i.name: card_bytes(i, "fp16", 8) for i in Catalogue(tiny_weights).models()}
    both = sum(sizes.values()) / OF_CARD
    for memory, fits in ((both + 9, True), (both - 9, False)):
        here = engine(memory)
        for name in sizes:
            here._known(name)
        assert here._fits(list(sizes)) is fits


def test_a_model_too_large_for_the_card_is_refused_with_both_sizes(engine):
    for here, says in (
        (engine(1e3), r"tiny needs .* MB of memory and the card has room for 0\."),
        (engine(1e9, memory=1e3), r"tiny needs .* and STORYGEN_MEMORY_MB allows 0\."),
    ):
        here._known("tiny")
        with pytest.raises(EngineError, match=says):
            here._fits(["tiny"])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card to fill")
@pytest.mark.parametrize("top_k", [50, 0])
def test_a_card_is_filled_as_was_computed(top_k):
    model = random_model(8192, block_size=512, n_layer=6, n_embd=384, n_head=6)
    of = info(6, 384, 8192, 512)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    slots = n_slots(model.config, 8)
    here = GraphDecoder(model.to("cuda", torch.float16), slots)
    rows = [Token(slot, 0, 1) for slot in range(8)]
    params = SamplingParams(top_k=top_k, top_p=0.9, repetition_penalty=1.1, seed=1)
    here.step(rows, range(8), [Row(params, 1, [1], [(2, -1.0)])] * 8, 8192)
    taken = torch.cuda.max_memory_allocated() - before
    assert 0.5 * card_bytes(of, "fp16", 8) < taken < card_bytes(of, "fp16", 8) + 64e6
