"""Adapters on disk: what is saved comes back merged, PEFT agrees, and what does not fit is said."""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from transformers import GPT2LMHeadModel

from storygen.catalogue import Catalogue
from storygen.checkpoints import load, save
from storygen.checkpoints.adapter import save_adapter
from storygen.errors import CheckpointError
from storygen.model.lora import add_lora, lora_matrices
from tests.conftest import random_model

IDX = torch.arange(24).view(2, 12)


@pytest.fixture
def weights(tmp_path, tiny_model, tiny_tokenizer):
    """A weights directory with `base`, and `genre` over it; the adapted model's logits beside."""
    save(tmp_path / "base", tiny_model, tiny_tokenizer)
    model, _ = load(tmp_path / "base")
    add_lora(model, 4, 8.0)
    torch.manual_seed(3)
    with torch.no_grad():
        for change in lora_matrices(model).values():
            change.A.copy_(change.A.half())
            change.B.copy_((0.1 * torch.randn_like(change.B)).half())
        torch.save(model(IDX), tmp_path / "logits.pt")
    extras = {"storygen.json": json.dumps({"display_name": "Genre"})}
    save_adapter(tmp_path / "genre", model, tmp_path / "base", rank=4, alpha=8.0, files=extras)
    return tmp_path


def edit_config(weights, **changes):
    path = weights / "genre" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    (weights / "genre" / "SHA256SUMS").unlink()


def test_an_adapter_loads_as_one_model(weights, tiny_tokenizer):
    model, tokenizer = load(weights / "genre")
    wanted = torch.load(weights / "logits.pt")
    torch.testing.assert_close(model(IDX), wanted)
    assert not torch.allclose(wanted, load(weights / "base")[0](IDX))
    assert tokenizer.vocab == tiny_tokenizer.vocab


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft with this transformers
def test_peft_opens_it_with_the_same_logits(weights):
    base = GPT2LMHeadModel.from_pretrained(weights / "base").eval()
    theirs = PeftModel.from_pretrained(base, weights / "genre").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            theirs(IDX).logits, torch.load(weights / "logits.pt"), rtol=1e-4, atol=1e-4
        )


def test_the_catalogue_knows_its_size_from_the_base(weights):
    info = Catalogue(weights).get("genre")
    assert (info.display_name, info.block_size, info.n_layer) == ("Genre", 32, 2)


def test_an_adapter_without_its_base_says_which_is_missing(weights):
    shutil.rmtree(weights / "base")
    with pytest.raises(CheckpointError, match="adapter for the model 'base', which is not beside"):
        load(weights / "genre")
    assert [info.name for info in Catalogue(weights).models()] == []


def test_an_adapter_over_other_weights_is_refused(weights, tiny_tokenizer):
    shutil.rmtree(weights / "base")
    save(weights / "base", random_model(tiny_tokenizer.vocab_size, seed=9), tiny_tokenizer)
    with pytest.raises(CheckpointError, match="trained over another 'base'"):
        load(weights / "genre")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"r": 5}, r"lora_A.weight is \(4, 32\), and the base and .* make it \(5, 32\)"),
        ({"r": 0}, "r is 0, not a number from 1 to 1024"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"lora_alpha": "x"}, "lora_alpha is x"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"peft_type": "IA3"}, "is no LoRA adapter"),
        ({"target_modules": ["c_attn"]}, "is no LoRA adapter of c_attn, c_proj, c_fc"),
        ({"base_model_name_or_path": ".."}, "names no base model"),
        ({"base_model_name_or_path": 3}, "names no base model"),
    ],
)
def test_a_config_that_cannot_be_is_one_sentence(weights, changes, sentence):
    edit_config(weights, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        load(weights / "genre")


def test_a_damaged_adapter_is_named(weights):
    path = weights / "genre" / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is missing or not as"):
        load(weights / "genre")
    path.write_bytes(data[:-3])
    (weights / "genre" / "SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        load(weights / "genre")
