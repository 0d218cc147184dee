"""What leaves is what was here: read back with the packages that others use."""

import json
import shutil
from dataclasses import replace

import ctranslate2
import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel

from storygen.checkpoints import load, save
from storygen.checkpoints.adapter import save_adapter
from storygen.checkpoints.export import TYPES, export_gguf, export_hf
from storygen.checkpoints.importers import Asked, import_model
from storygen.checkpoints.importers.gguf import open_gguf
from storygen.errors import CheckpointError
from storygen.model import generate
from storygen.model.lora import add_lora, lora_matrices
from storygen.tokenizers import BPETokenizer, CharTokenizer
from tests.conftest import random_model

IDX = torch.arange(24).view(2, 12)
OURS = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "h.0.attn.c_attn.weight": "blk.0.attn_qkv.weight",
    "h.0.attn.c_proj.weight": "blk.0.attn_output.weight",
    "h.0.mlp.c_fc.bias": "blk.0.ffn_up.bias",
    "h.0.mlp.c_proj.weight": "blk.0.ffn_down.weight",
    "ln_f.weight": "output_norm.weight",
}


@pytest.fixture
def directory(tmp_path, tiny_model, tiny_tokenizer):
    save(tmp_path / "tiny", tiny_model, tiny_tokenizer)
    return tmp_path / "tiny"


@pytest.fixture
def adapted(tmp_path, directory):
    """An adapter over `tiny`."""
    model, _ = load(directory)
    add_lora(model, 2, 4.0)
    with torch.no_grad():
        for change in lora_matrices(model).values():
            change.B.fill_(0.05)
    extras = {"storygen.json": json.dumps({"display_name": "Genre"}), "README.md": "# Genre"}
    save_adapter(tmp_path / "genre", model, directory, rank=2, alpha=4.0, files=extras)
    return tmp_path / "genre"


def read_back(path):
    """Tensors of a GGUF file by llama.cpp's names, as float32."""
    reader = gguf.GGUFReader(path)
    return {
        t.name: gguf.dequantize(t.data, t.tensor_type).reshape(tuple(map(int, t.shape[::-1])))
        for t in reader.tensors
    }, {name: field.contents() for name, field in reader.fields.items()}


@pytest.mark.parametrize(("kind", "step"), [("f16", 2**-11), ("q8_0", 1 / 127), ("q4_0", 1 / 8)])
def test_a_gguf_file_has_our_tensors_within_its_precision(tmp_path, directory, kind, step):
    export_gguf(directory, tmp_path / "m.gguf", kind, "tiny")
    tensors, values = read_back(tmp_path / "m.gguf")
    model, _ = load(directory)
    ours = model.state_dict()
    for name, theirs in OURS.items():
        largest = float(ours[name].abs().max())
        assert np.abs(tensors[theirs] - ours[name].numpy()).max() <= step * largest, theirs
    assert len(tensors) == len(ours) - 1  # the head is the embedding
    assert values["general.architecture"] == "gpt2"
    assert values["gpt2.context_length"] == 32
    assert values["gpt2.attention.head_count"] == 2


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("kind", "tolerance"), [("f16", 0.05), ("q8_0", 0.5)])
def test_a_gguf_file_comes_back(
    tmp_path, tiny_model, tiny_tokenizer, monkeypatch, plain, kind, tolerance
):
    monkeypatch.setattr("storygen.checkpoints.importers.gguf.ROWS", 7)
    tokenizer = BPETokenizer(tiny_tokenizer.vocab, tiny_tokenizer.merges, plain)
    save(tmp_path / "tiny", tiny_model, tokenizer)
    export_gguf(tmp_path / "tiny", tmp_path / "m.gguf", kind, "tiny")
    import_model(str(tmp_path / "m.gguf"), "back", tmp_path / "weights", Asked())
    model, found = load(tmp_path / "weights" / "back")
    assert model.config == tiny_model.config
    torch.testing.assert_close(model(IDX), tiny_model(IDX), rtol=tolerance, atol=tolerance)
    assert (found.vocab, found.merges, found.plain) == (tokenizer.vocab, tokenizer.merges, plain)


@settings(max_examples=12)
@given(
    kind=st.sampled_from([*TYPES]),
    n_head=st.integers(1, 4),
    head_size=st.sampled_from([1, 3, 8, 16, 32]),
    n_layer=st.integers(1, 3),
    block_size=st.integers(1, 40),
    n_inner=st.none() | st.integers(1, 70),
    more_tokens=st.integers(0, 40),
    activation=st.sampled_from(["gelu_new", "gelu"]),
    tied=st.booleans(),
)
def test_any_size_comes_back_as_the_package_reads_it(
    tmp_path_factory, tiny_tokenizer, kind, n_head, head_size, more_tokens, activation, **sizes
):
    folder = tmp_path_factory.mktemp("gguf")
    vocab_size = tiny_tokenizer.vocab_size + more_tokens
    sizes |= {"n_head": n_head, "n_embd": n_head * head_size, "activation": activation}
    save(folder / "m", random_model(vocab_size, **sizes), tiny_tokenizer)
    export_gguf(folder / "m", folder / "m.gguf", kind, "any")
    import_model(str(folder / "m.gguf"), "back", folder / "weights", Asked())
    model, tokenizer = load(folder / "weights" / "back")
    wanted = replace(load(folder / "m")[0].config, activation="gelu_new")  # all that it can say
    assert model.config == replace(wanted, n_inner=model.config.n_inner)
    assert model.config.mlp_size == wanted.mlp_size
    assert tokenizer.vocab == tiny_tokenizer.vocab
    tensors, values = read_back(folder / "m.gguf")
    assert open_gguf(folder / "m.gguf").values == {
        name: value for name, value in values.items() if not name.startswith("GGUF.")
    }
    ours = {name: model.state_dict()[name] for name in OURS}
    assert all(np.array_equal(tensors[OURS[name]], ours[name].numpy()) for name in OURS)


def test_rows_beyond_the_vocabulary_are_unused_tokens(tmp_path, tiny_tokenizer):
    save(tmp_path / "padded", random_model(300), tiny_tokenizer)
    export_gguf(tmp_path / "padded", tmp_path / "m.gguf", "f16", "padded")
    _, values = read_back(tmp_path / "m.gguf")
    assert len(values["tokenizer.ggml.tokens"]) == 300
    import_model(str(tmp_path / "m.gguf"), "back", tmp_path / "weights", Asked())
    model, tokenizer = load(tmp_path / "weights" / "back")
    assert (model.config.vocab_size, tokenizer.vocab_size) == (300, tiny_tokenizer.vocab_size)


def test_an_untied_head_goes_with_the_file(tmp_path, tiny_tokenizer):
    model = random_model(tiny_tokenizer.vocab_size, tied=False)
    save(tmp_path / "m", model, tiny_tokenizer)
    export_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16", "m")
    tensors, _ = read_back(tmp_path / "m.gguf")
    assert np.allclose(tensors["output.weight"], model.lm_head.weight.numpy(), atol=1e-3)


@pytest.mark.parametrize(("changes", "characters"), [({"activation": "relu"}, False), ({}, True)])
def test_what_llama_cpp_cannot_run_is_refused(tmp_path, tiny_tokenizer, changes, characters):
    tokenizer = CharTokenizer(["a", "b"]) if characters else tiny_tokenizer
    save(tmp_path / "m", random_model(tokenizer.vocab_size, **changes), tokenizer)
    with pytest.raises(CheckpointError, match="m cannot become a GGUF file"):
        export_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16", "m")
    assert not list(tmp_path.glob("*.gguf*"))


def test_merged_an_adapter_is_one_directory(tmp_path, adapted):
    export_hf(adapted, tmp_path / "out", merge=True)
    wanted, _ = load(adapted)
    model, _ = load(tmp_path / "out")
    assert torch.equal(model(IDX), wanted(IDX))
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(theirs(IDX).logits, wanted(IDX), rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "out" / "storygen.json").read_text())["display_name"] == "Genre"


def test_without_merging_the_files_are_the_same(tmp_path, adapted):
    export_hf(adapted, tmp_path / "out", merge=False)
    names = sorted(path.name for path in adapted.iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert all((tmp_path / "out" / n).read_bytes() == (adapted / n).read_bytes() for n in names)


@pytest.mark.parametrize(
    "error",
    [
        shutil.Error([("a", "b", "[Errno 28] No space left"), ("c", "d", "other")]),
        OSError("No space left"),
        OSError(28, "No space left"),
    ],
)
def test_a_copy_that_fails_is_a_sentence(tmp_path, directory, monkeypatch, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("shutil.copytree", fails)
    with pytest.raises(CheckpointError, match=r"out could not be written: .*No space left\.$"):
        export_hf(directory, tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path, directory):
    (tmp_path / "out").write_text("mine")
    for export in (
        lambda: export_hf(directory, tmp_path / "out", merge=False),
        lambda: export_gguf(directory, tmp_path / "out", "f16", "tiny"),
    ):
        with pytest.raises(CheckpointError, match="is there already"):
            export()
    with pytest.raises(CheckpointError, match="no directory: make it first"):
        export_hf(directory, tmp_path / "no" / "where", merge=False)
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("fails", [False, True])
def test_what_lies_beside_the_file_stays_as_it_is(tmp_path, directory, monkeypatch, fails):
    (tmp_path / "m.gguf.new").write_text("mine")
    before = {path.name for path in tmp_path.iterdir()}
    if fails:
        monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full_disk)
        with pytest.raises(CheckpointError, match="No space left"):
            export_gguf(directory, tmp_path / "m.gguf", "f16", "tiny")
    else:
        export_gguf(directory, tmp_path / "m.gguf", "f16", "tiny")
    after = {path.name for path in tmp_path.iterdir()}
    assert after - before == (set() if fails else {"m.gguf"})
    assert (tmp_path / "m.gguf.new").read_text() == "mine"


def full_disk(*_):
    raise OSError(28, "No space left on device")


@pytest.mark.filterwarnings("ignore")  # of the converter with this transformers
def test_ctranslate2_writes_the_same(tmp_path, directory, tiny_model, tiny_tokenizer):
    converter = ctranslate2.converters.TransformersConverter(str(directory))
    converter.convert(str(tmp_path / "ct2"))
    theirs = ctranslate2.Generator(str(tmp_path / "ct2"), intra_threads=1)
    prompt = tiny_tokenizer.encode("the hen and")
    spelled = {n: spelling for spelling, n in tiny_tokenizer.vocab.items()}
    (found,) = theirs.generate_batch(
        [[spelled[n] for n in prompt]],
        max_length=16,
        sampling_topk=1,
        include_prompt_in_result=False,
    )
    greedy = generate(
        tiny_model, torch.tensor([prompt]), 16, lambda logits, ids: int(logits.argmax())
    )
    ours = (
        greedy[: greedy.index(tiny_tokenizer.eot_id)] if tiny_tokenizer.eot_id in greedy else greedy
    )
    assert found.sequences_ids[0] == ours
