"""What vLLM's loader asks of a GPT-2 directory is there. It takes a GPU or a long build to run, so
its conditions stand here as a table: the architecture it looks up, the switches it asserts, each
parameter with its shape once Conv1D's matrices are turned, a tokenizer that transformers opens."""

import json

import pytest
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer

from storygen.checkpoints import save
from tests.conftest import random_model

LAYER = {
    "ln_1.weight": ("C",),
    "ln_1.bias": ("C",),
    "attn.c_attn.weight": ("3C", "C"),
    "attn.c_attn.bias": ("3C",),
    "attn.c_proj.weight": ("C", "C"),
    "attn.c_proj.bias": ("C",),
    "ln_2.weight": ("C",),
    "ln_2.bias": ("C",),
    "mlp.c_fc.weight": ("I", "C"),
    "mlp.c_fc.bias": ("I",),
    "mlp.c_proj.weight": ("C", "I"),
    "mlp.c_proj.bias": ("C",),
}
WHOLE = {"wte.weight": ("V", "C"), "wpe.weight": ("T", "C"), "ln_f.weight": ("C",)}
WHOLE |= {"ln_f.bias": ("C",)}
TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
ACTIVATIONS = ("gelu_new", "gelu", "relu")


def wanted(config):
    """Parameters of its GPT2LMHeadModel by name."""
    C = config.hidden_size
    sizes = {"C": C, "3C": 3 * C, "I": config.n_inner or 4 * C, "V": config.vocab_size}
    sizes["T"] = config.max_position_embeddings
    layers = {
        f"h.{n}.{name}": s for n in range(config.num_hidden_layers) for name, s in LAYER.items()
    }
    found = {f"transformer.{name}": shape for name, shape in (WHOLE | layers).items()}
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = ("V", "C")
    return {name: tuple(sizes[size] for size in shape) for name, shape in found.items()}


def offered(directory):
    """Parameters in a directory as its loader reads them: safetensors, those of the index if there
    is one, the prefix added where it is missing."""
    index = directory / "model.safetensors.index.json"
    files = sorted(directory.glob("*.safetensors"))
    if index.is_file():
        named = set(json.loads(index.read_text())["weight_map"].values())
        files = [path for path in files if path.name in named]
    found = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                shape = tuple(file.get_slice(name).get_shape())
                full = (
                    name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
                )
                found[full] = shape[::-1] if name.endswith(TURNED) else shape
    return found


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied": False}, {"activation": "gelu", "n_inner": 48}, {"activation": "relu"}],
    ids=["gpt2", "untied", "inner", "relu"],
)
@pytest.mark.parametrize("shard", [10**9, 5000])
def test_its_loader_finds_what_it_asks_for(tmp_path, tiny_tokenizer, monkeypatch, changes, shard):
    monkeypatch.setattr("storygen.checkpoints.models.SHARD_BYTES", shard)
    save(tmp_path / "m", random_model(tiny_tokenizer.vocab_size, **changes), tiny_tokenizer)
    config = AutoConfig.from_pretrained(tmp_path / "m")
    assert config.architectures == ["GPT2LMHeadModel"]
    assert config.activation_function in ACTIVATIONS
    assert not config.add_cross_attention
    assert not config.scale_attn_by_inverse_layer_idx
    assert not config.reorder_and_upcast_attn
    assert config.hidden_size % config.num_attention_heads == 0
    assert offered(tmp_path / "m") == wanted(config)


def test_its_tokenizer_is_transformers(tmp_path, tiny_model, tiny_tokenizer):
    save(tmp_path / "m", tiny_model, tiny_tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert theirs.is_fast
    assert theirs("The hen.")["input_ids"] == tiny_tokenizer.encode("The hen.")
    assert len(theirs) <= tiny_model.config.vocab_size
    assert theirs.eos_token_id == tiny_tokenizer.eot_id


def test_an_output_bias_is_a_parameter_it_does_not_have(tmp_path, tiny_tokenizer):
    """docs/checkpoints.md says so: such a model stays here."""
    model = random_model(tiny_tokenizer.vocab_size, output_bias=True, tied=False)
    save(tmp_path / "m", model, tiny_tokenizer)
    config = AutoConfig.from_pretrained(tmp_path / "m")
    assert set(offered(tmp_path / "m")) - set(wanted(config)) == {"lm_head.bias"}
