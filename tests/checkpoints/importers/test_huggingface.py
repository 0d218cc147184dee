"""GPT-2 directories of transformers in all their forms, and PEFT's adapters over them."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from storygen.checkpoints import load, save
from storygen.checkpoints.hf import write_tokenizer
from storygen.checkpoints.importers import Asked, import_model
from storygen.errors import CheckpointError
from tests.checkpoints.importers.conftest import scramble

pytestmark = pytest.mark.usefixtures("in_process")

IDX = torch.arange(24).view(2, 12)


@pytest.fixture
def theirs(tiny_tokenizer):
    sizes = {"n_positions": 32, "n_embd": 24, "n_layer": 2, "n_head": 3}
    return scramble(GPT2LMHeadModel(GPT2Config(vocab_size=tiny_tokenizer.vocab_size, **sizes)))


@pytest.fixture
def directory(tmp_path, theirs, tiny_tokenizer):
    """As save_pretrained() leaves it, with the vocabulary."""
    theirs.save_pretrained(tmp_path / "theirs")
    write_tokenizer(tmp_path / "theirs", tiny_tokenizer)
    return tmp_path / "theirs"


def imported(tmp_path, path, name="m", **asked):
    import_model(str(path), name, tmp_path / "weights", Asked(**asked))
    return load(tmp_path / "weights" / name)


def assert_same_logits(model, theirs, tolerance=1e-4):
    with torch.inference_mode():
        wanted = theirs(IDX).logits.float()
        torch.testing.assert_close(model(IDX), wanted, rtol=tolerance, atol=tolerance)


def as_pickle(directory, names, legacy=False, prefix=True):
    """Weights as they were before safetensors, in one file or several with an index."""
    state = load_file(directory / "model.safetensors")
    if not prefix:
        state = {name.removeprefix("transformer."): weight for name, weight in state.items()}
    state["h.0.attn.bias" if not prefix else "transformer.h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    (directory / "model.safetensors").unlink()
    parts = [dict(list(state.items())[n :: len(names)]) for n in range(len(names))]
    for name, part in zip(names, parts, strict=True):
        torch.save(part, directory / name, _use_new_zipfile_serialization=not legacy)
    if len(names) > 1:
        places = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        index = {"metadata": {}, "weight_map": places}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def test_safetensors(tmp_path, directory, theirs, tiny_tokenizer):
    model, tokenizer = imported(tmp_path, directory)
    assert_same_logits(model, theirs)
    assert tokenizer.vocab == tiny_tokenizer.vocab


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("prefix", [False, True])
def test_pytorch_model_bin(tmp_path, directory, theirs, legacy, prefix):
    as_pickle(directory, ["pytorch_model.bin"], legacy, prefix)
    assert_same_logits(imported(tmp_path, directory)[0], theirs)


def test_sharded_pickles(tmp_path, directory, theirs):
    as_pickle(directory, [f"pytorch_model-0000{n}-of-00003.bin" for n in (1, 2, 3)])
    assert_same_logits(imported(tmp_path, directory)[0], theirs)


def test_sharded_safetensors(tmp_path, theirs, tiny_tokenizer):
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    write_tokenizer(tmp_path / "theirs", tiny_tokenizer)
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 1
    assert_same_logits(imported(tmp_path, tmp_path / "theirs")[0], theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path, theirs, tiny_tokenizer, dtype):
    theirs.to(dtype).save_pretrained(tmp_path / "theirs")
    write_tokenizer(tmp_path / "theirs", tiny_tokenizer)
    model, _ = imported(tmp_path, tmp_path / "theirs")
    assert_same_logits(model, theirs.float())


def test_an_untied_head_is_kept(tmp_path, tiny_tokenizer):
    sizes = {"n_positions": 32, "n_embd": 24, "n_layer": 1, "n_head": 3}
    config = GPT2Config(vocab_size=tiny_tokenizer.vocab_size, tie_word_embeddings=False, **sizes)
    theirs = scramble(GPT2LMHeadModel(config))
    theirs.save_pretrained(tmp_path / "theirs")
    write_tokenizer(tmp_path / "theirs", tiny_tokenizer)
    model, _ = imported(tmp_path, tmp_path / "theirs")
    assert_same_logits(model, theirs)
    assert not model.config.tied


def test_one_file_without_its_config_needs_the_heads(tmp_path, directory, theirs):
    (directory / "config.json").unlink()
    with pytest.raises(CheckpointError, match="add --n-head N"):
        imported(tmp_path, directory)
    assert_same_logits(imported(tmp_path, directory / "model.safetensors", n_head=3)[0], theirs)


def test_only_tokenizer_json_is_enough(tmp_path, directory, tiny_tokenizer):
    (directory / "vocab.json").unlink()
    (directory / "merges.txt").unlink()
    _, tokenizer = imported(tmp_path, directory)
    assert tokenizer.encode("and the hen — é") == tiny_tokenizer.encode("and the hen — é")


def adapter_of(directory, theirs, said=None, **options):
    """An adapter over theirs with random matrices, saved in directory; said goes into its config
    as it is."""
    kind = {"r": 4, "lora_alpha": 8, "fan_in_fan_out": True} | options
    adapted = get_peft_model(theirs, LoraConfig(task_type="CAUSAL_LM", **kind))
    torch.manual_seed(2)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.3)
    adapted.eval().save_pretrained(directory, save_embedding_layers=False)
    config = directory / "adapter_config.json"
    said = {"base_model_name_or_path": "owner/theirs"} | (said or {})
    config.write_text(json.dumps(json.loads(config.read_text()) | said))
    return adapted


@pytest.mark.parametrize(
    ("targets", "options"),
    [
        (["c_attn"], {}),
        (["c_attn", "c_proj", "c_fc"], {"use_rslora": True}),
        (["attn.c_proj"], {"r": 1}),
        (["c_attn", "c_fc"], {"init_lora_weights": "orthogonal"}),
        (["c_attn"], {"init_lora_weights": "mica"}),
        (["c_attn", "c_fc"], {"rank_pattern": {"h.1.attn.c_attn": 2, "c_fc": 3}}),
        (["c_attn"], {"alpha_pattern": {"h.0.attn.c_attn": 3}, "rank_pattern": {"c_attn": 2}}),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of peft
def test_an_adapter_is_merged_with_its_base(tmp_path, directory, theirs, targets, options):
    adapted = adapter_of(tmp_path / "adapter", theirs, target_modules=targets, **options)
    assert_same_logits(imported(tmp_path, tmp_path / "adapter")[0], adapted)
    shutil.move(directory, tmp_path / "weights" / "theirs")
    assert_same_logits(imported(tmp_path, tmp_path / "adapter", "again")[0], adapted)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of peft
def test_an_adapted_head_leaves_the_embedding_as_it_was(tmp_path, directory, theirs):
    adapted = adapter_of(tmp_path / "adapter", theirs, target_modules=["c_attn", "lm_head"])
    model, _ = imported(tmp_path, tmp_path / "adapter")
    assert not model.config.tied
    assert_same_logits(model, PeftModel.from_pretrained(base_of(directory), tmp_path / "adapter"))
    assert_same_logits(model, adapted)


def base_of(directory):
    return GPT2LMHeadModel.from_pretrained(directory).eval()


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4'.* changed its base"),
        ({"init_lora_weights": "olora"}, "changed its base"),
        ({"init_lora_weights": "corda"}, "changed its base"),
        ({"init_lora_weights": "eva"}, None),
        ({"alpha_pattern": {"h.[01].attn": 3}}, "by more than their names"),
        ({"r": 3}, "makes the rank of .* 3, and the file has one of 4"),
        ({"init_lora_weights": ["x"]}, "changed its base"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "repeats layers"),
        ({"init_lora_weights": "gaussian"}, None),
        ({"init_lora_weights": False}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # of peft
def test_an_adapter_over_a_changed_base_is_refused(tmp_path, directory, theirs, said, sentence):
    adapted = adapter_of(tmp_path / "adapter", theirs, said, target_modules=["c_attn"])
    if sentence is None:
        assert_same_logits(imported(tmp_path, tmp_path / "adapter")[0], adapted)
        return
    with pytest.raises(CheckpointError, match=sentence):
        imported(tmp_path, tmp_path / "adapter")


def test_a_change_of_a_tied_embedding_is_refused(tmp_path, directory):
    (tmp_path / "adapter").mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": "o/theirs"}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    name = "base_model.model.transformer.wte.lora_"
    rows = load_file(directory / "model.safetensors")["transformer.wte.weight"].shape[0]
    changes = {f"{name}A.weight": torch.ones(1, 24), f"{name}B.weight": torch.ones(rows, 1)}
    save_file(changes, tmp_path / "adapter" / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="output head as well"):
        imported(tmp_path, tmp_path / "adapter")


def test_an_adapter_without_its_base_is_a_sentence(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/b"}')

    def fetch(name):
        raise CheckpointError(f"{name!r} is not to be had.")

    with pytest.raises(CheckpointError, match="'owner/b' is not to be had"):
        import_model(str(tmp_path / "a"), "m", tmp_path / "weights", Asked(), fetch)


def test_our_own_models_are_imported_as_they_are(tmp_path, tiny_model, tiny_tokenizer):
    save(tmp_path / "ours", tiny_model, tiny_tokenizer)
    model, tokenizer = imported(tmp_path, tmp_path / "ours")
    assert torch.equal(model(IDX), tiny_model(IDX))
    assert tokenizer.vocab == tiny_tokenizer.vocab


def test_a_name_that_is_taken_or_impossible_is_refused(tmp_path, directory):
    imported(tmp_path, directory)
    for name, sentence in (("m", "already a model 'm'"), ("../m", "cannot be"), ("a/b", "cannot")):
        with pytest.raises(CheckpointError, match=sentence):
            imported(tmp_path, directory, name)


def test_two_shards_with_one_tensor_are_refused(tmp_path, directory):
    state = load_file(directory / "model.safetensors")
    for n in (1, 2):
        save_file(state, directory / f"model-{n}.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="which another shard has as well"):
        imported(tmp_path, directory)
