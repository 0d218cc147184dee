"""Model directories: what is saved comes back, transformers agrees, damage is named."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from storygen.checkpoints import load, save
from storygen.checkpoints.hf import read_tokenizer, write_tokenizer
from storygen.errors import CheckpointError
from storygen.files import write_sums
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import BPETokenizer, CharTokenizer

CONFIG = GPTConfig(vocab_size=40, block_size=16, n_layer=2, n_head=2, n_embd=8)
TOKENIZER = CharTokenizer([chr(ord("A") + n) for n in range(40)], eot="A")


def random_gpt(config=CONFIG):
    torch.manual_seed(0)
    model = GPT(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)  # biases and norms too: nothing may be lost
    return model


@pytest.fixture
def directory(tmp_path):
    """A saved model without SHA256SUMS, so that tests can damage it in other ways."""
    save(tmp_path / "m", random_gpt(), TOKENIZER)
    (tmp_path / "m" / "SHA256SUMS").unlink()
    return tmp_path / "m"


def edit_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": False},
        {"activation": "relu", "output_bias": True, "tied": False},
        {"activation": "gelu", "n_inner": 12},
    ],
    ids=["gpt2", "untied", "relu-bias", "gelu-inner"],
)
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path, changes):
    model = random_gpt(replace(CONFIG, **changes))
    save(tmp_path / "m", model, TOKENIZER)
    loaded, tokenizer = load(tmp_path / "m")
    assert loaded.config == model.config
    assert tokenizer.characters == TOKENIZER.characters
    assert tokenizer.eot_id == 0
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, loaded.state_dict()[name]), name


@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "relu"])
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_gives_the_same_logits(tmp_path, activation, tied):
    from transformers import GPT2LMHeadModel

    save(tmp_path / "m", random_gpt(replace(CONFIG, activation=activation, tied=tied)), TOKENIZER)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "m").eval()
    ours, _ = load(tmp_path / "m")
    idx = torch.randint(0, 40, (3, 16))
    with torch.inference_mode():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-5, rtol=1e-5)


def test_a_directory_saved_by_transformers_loads(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=16, n_embd=8, n_layer=2, n_head=2)
    ).eval()
    theirs.save_pretrained(tmp_path / "m")
    save(tmp_path / "tokenizer", random_gpt(), TOKENIZER)
    (tmp_path / "tokenizer" / "characters.json").rename(tmp_path / "m" / "characters.json")
    ours, _ = load(tmp_path / "m")
    idx = torch.randint(0, 40, (2, 9))
    with torch.inference_mode():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-5, rtol=1e-5)


def test_half_precision_files_are_read_as_float32_by_everybody(tmp_path):
    from transformers import GPT2LMHeadModel

    save(tmp_path / "m", random_gpt(), TOKENIZER, dtype=torch.float16)
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "m").eval()
    ours, _ = load(tmp_path / "m")
    assert theirs.dtype == ours.wte.weight.dtype == torch.float32
    idx = torch.randint(0, 40, (1, 5))
    with torch.inference_mode():
        torch.testing.assert_close(ours(idx), theirs(idx).logits, atol=1e-5, rtol=1e-5)


def test_shards_are_read_here_and_by_transformers(tmp_path, monkeypatch):
    from transformers import GPT2LMHeadModel

    monkeypatch.setattr("storygen.checkpoints.models.SHARD_BYTES", 2000)
    model = random_gpt()
    save(tmp_path / "m", model, TOKENIZER)
    assert len(list((tmp_path / "m").glob("model-*-of-*.safetensors"))) > 2
    ours, _ = load(tmp_path / "m")
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "m")
    assert torch.equal(ours.wpe.weight, model.wpe.weight)
    assert torch.equal(theirs.transformer.wpe.weight, model.wpe.weight)


def test_saving_over_a_model_leaves_the_old_one_when_it_fails(tmp_path):
    save(tmp_path / "m", random_gpt(), TOKENIZER)
    broken = random_gpt()
    broken.wte = torch.nn.Embedding(1, 1)
    with pytest.raises(TypeError):
        save(tmp_path / "m", broken, TOKENIZER, files={"README.md": None})
    load(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_flipped_bit_is_found_by_its_sum(tmp_path):
    save(tmp_path / "m", random_gpt(), TOKENIZER)
    path = tmp_path / "m" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or not as it was"):
        load(tmp_path / "m")


def test_card_and_suggestions_may_be_edited(tmp_path):
    files = {"README.md": "# Owl", "storygen.json": "{}"}
    save(tmp_path / "m", random_gpt(), TOKENIZER, files=files)
    for name in files:
        (tmp_path / "m" / name).write_text('{"display_name": "My owl"}')
    load(tmp_path / "m")


def truncate(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_weights(directory):
    (directory / "model.safetensors").unlink()


def lie_about_header(directory):
    (directory / "model.safetensors").write_bytes((2**63).to_bytes(8, "little") + b"{}")


def empty_weights(directory):
    (directory / "model.safetensors").write_bytes(b"")


def text_as_weights(directory):
    (directory / "model.safetensors").write_text("<html>404 not found</html>" * 9)


def duplicate_names(directory):
    header = b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},' + (
        b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    )
    path = directory / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def header(directory, content):
    data = len(content).to_bytes(8, "little") + content
    (directory / "model.safetensors").write_bytes(data)


def nan(directory):
    edit_weights(directory, lambda t: t["transformer.wpe.weight"].fill_(float("nan")))


def one_infinity(directory):
    edit_weights(directory, lambda t: t["transformer.wte.weight"][3, 3].fill_(float("inf")))


def missing_tensor(directory):
    edit_weights(directory, lambda t: t.pop("transformer.h.1.ln_2.bias"))


def foreign_tensor(directory):
    edit_weights(directory, lambda t: t.update({"../../etc/x": torch.zeros(1)}))


def wrong_shape(directory):
    edit_weights(directory, lambda t: t.update({"transformer.wpe.weight": torch.zeros(16, 9)}))


DAMAGE = {
    truncate: "damaged or cut off",
    no_weights: r"has no model\.safetensors",
    lie_about_header: "is no safetensors file",
    empty_weights: "is no safetensors file",
    text_as_weights: "is no safetensors file",
    duplicate_names: "a name appears twice",
    nan: "no finite numbers",
    one_infinity: "no finite numbers",
    missing_tensor: "lacks 1 of the model's tensors",
    foreign_tensor: "which no GPT-2 has",
    wrong_shape: r"is \(16, 9\), and config\.json makes it \(16, 8\)",
    lambda d: edit_config(d, n_layer=3): "lacks 12 of the model's tensors",
    lambda d: edit_config(d, n_embd=10**9): "n_embd is 1000000000",
    lambda d: edit_config(d, n_head=3): "not a multiple",
    lambda d: edit_config(d, vocab_size="40"): "vocab_size is 40, not a whole number",
    lambda d: edit_config(d, model_type="llama"): "'llama'",
    lambda d: edit_config(d, activation_function="swish"): "'swish'",
    lambda d: edit_config(d, scale_attn_by_inverse_layer_idx=True): "another attention scale",
    lambda d: (d / "config.json").write_text("{"): "cannot be read as JSON",
    lambda d: (d / "config.json").write_text("[" * 100_000): "cannot be read as JSON",
    lambda d: (d / "config.json").write_text("[]"): "must hold a JSON object",
    lambda d: (d / "config.json").unlink(): r"has no config\.json",
    lambda d: (d / "characters.json").unlink(): r"has no readable vocab\.json",
    lambda d: (d / "characters.json").write_text('{"characters": ["ab"]}'): "single, distinct",
    lambda d: (d / "characters.json").write_text('{"characters": 5}'): "no list of characters",
    lambda d: (d / "characters.json").write_text('{"characters": [5]}'): "no list of characters",
    lambda d: (d / "characters.json").write_text('{"characters": ["a"], "eot": "b"}'): "no list",
    lambda d: edit_config(d, layer_norm_epsilon=float("nan")): "between 0 and 1, not nan",
    lambda d: edit_config(d, layer_norm_epsilon=float("inf")): "between 0 and 1, not inf",
    lambda d: edit_config(d, layer_norm_epsilon=-1): "between 0 and 1, not -1",
    lambda d: edit_config(d, layer_norm_epsilon=10**400): "too large",
    lambda d: edit_config(d, n_inner="abc"): "n_inner is abc",
    lambda d: edit_config(d, n_inner=-1): "n_inner is -1",
    lambda d: edit_config(d, n_inner=True): "n_inner is True",
    lambda d: edit_config(d, output_bias="false"): "output_bias cannot be 'false'",
    lambda d: edit_config(d, layer_norm_epsilon="1e-5"): "layer_norm_epsilon cannot be '1e-5'",
    lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": []}'): "does not map",
    lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": []}}'
    ): "does not map",
    lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../x"}}'
    ): "points outside",
    lambda d: (d / "characters.json").write_text('{"characters": ["\\ud800"]}'): "half a character",
    lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "x\\u0000"}}'
    ): "points outside",
    lambda d: (
        (d / "characters.json").unlink(),
        (d / "vocab.json").write_text("[" * 100_000),
        (d / "merges.txt").write_text(""),
    ): r"vocab\.json is not JSON",
    lambda d: header(d, b"[]"): "lists no tensors",
    lambda d: header(d, b'{"a":{"dtype":[],"shape":[0],"data_offsets":[0,0]}}'): "cannot have",
    lambda d: (d / "SHA256SUMS").write_bytes(b"\xff\xfe"): "is missing or not as it was saved",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda d: d.__name__)
def test_damage_is_named_in_one_sentence(directory, damage):
    damage(directory)
    with pytest.raises(CheckpointError, match=DAMAGE[damage]) as caught:
        load(directory)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("plain", [False, True])
def test_a_vocabulary_keeps_its_typography(tiny_tokenizer, tmp_path, plain):
    for n, tokenizer in enumerate(
        (
            BPETokenizer(tiny_tokenizer.vocab, tiny_tokenizer.merges, plain),
            CharTokenizer(["a", "b"], plain=plain),
        )
    ):
        (tmp_path / str(n)).mkdir()
        write_tokenizer(tmp_path / str(n), tokenizer)
        assert read_tokenizer(tmp_path / str(n)).plain is plain


def test_a_tokenizer_of_another_model_is_refused(directory):
    many = json.dumps({"characters": [chr(0x100 + n) for n in range(99)], "eot": None})
    (directory / "characters.json").write_text(many)
    with pytest.raises(CheckpointError, match="the tokenizer has 99 tokens"):
        load(directory)


def test_a_million_empty_tensors_are_refused_before_they_are_parsed(directory):
    header = b'{"a":' + b" " * 2_000_000 + b"}"
    path = directory / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="claims 2,000,006 bytes"):
        load(directory)


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    write_sums(tmp_path)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert (tmp_path / "SHA256SUMS").read_text() == f"{known}  a\n"
