"""Kept weights: the same passage to the bit, in less memory, and never those of another model."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from storygen import checkpoints
from storygen.checkpoints.adapter import save_adapter
from storygen.checkpoints.packed import packed_file
from storygen.decode.choose import Arithmetic
from storygen.decode.interface import Token
from storygen.engine import opening
from storygen.engine.opening import open_model, quantize, read_model
from storygen.errors import CheckpointError
from storygen.model import GPT, GPTConfig
from storygen.model.lora import add_lora
from storygen.model.shapes import matrix_shapes, vector_shapes
from tests.conftest import random_model

CPU = "cpu"
ROWS = [Token(0, n, token) for n, token in enumerate((3, 1, 4, 1, 5))]


def fail(*_):
    raise AssertionError("the model's own weights were read")


def logits(by, directory, **load):
    decoder, _ = open_model(by, directory, 1, 1, **load)
    found = decoder.logits(ROWS, range(len(ROWS))).copy()
    decoder.close()
    return found


@pytest.fixture
def directory(tmp_path, tiny_weights):
    shutil.copytree(tiny_weights / "tiny", tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture
def voice(directory):
    """An adapter over it."""
    model, _ = checkpoints.load(directory)
    add_lora(model, 2, 4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith((".A", ".B")):
                weight.copy_(torch.randn(weight.shape))
    voice = directory.with_name("voice")
    save_adapter(voice, model, directory, rank=2, alpha=4, files={})
    return voice


@given(
    st.builds(
        GPTConfig,
        vocab_size=st.integers(1, 9),
        block_size=st.integers(1, 9),
        n_layer=st.integers(1, 3),
        n_head=st.just(1),
        n_embd=st.integers(1, 9),
        n_inner=st.none() | st.integers(1, 9),
        tied=st.booleans(),
        output_bias=st.booleans(),
    )
)
def test_matrices_and_vectors_are_all_that_a_network_has(config):
    state = {name: tuple(weight.shape) for name, weight in GPT(config).state_dict().items()}
    if config.tied:
        del state["wte.weight"]
    assert matrix_shapes(config) | vector_shapes(config) == state


@pytest.mark.parametrize("form", ["fp32", "bf16", "int8", "int4"])
def test_kept_weights_give_the_same_bits(library, directory, form):
    by = Arithmetic(CPU, form, library)
    expected = logits(by, directory)
    quantize(directory, form)
    assert np.array_equal(logits(by, directory, load=fail), expected)


def test_an_adapter_is_kept_with_its_base_in_it(library, voice, directory):
    by = Arithmetic(CPU, "int8", library)
    expected = logits(by, voice)
    assert not np.array_equal(expected, logits(by, directory))
    quantize(voice, "int8")
    assert np.array_equal(logits(by, voice, load=fail), expected)
    base = directory / "model.safetensors"
    base.write_bytes(base.read_bytes())  # touched, not changed
    assert np.array_equal(logits(by, voice, load=fail), expected)


def test_weights_that_were_made_of_others_are_left_alone(library, directory, caplog):
    quantize(directory, "int8")
    other = random_model(264, seed=7)
    _, tokenizer = checkpoints.load(directory)
    kept = packed_file(directory, "int8").read_bytes()
    checkpoints.save(directory, other, tokenizer)
    packed_file(directory, "int8").parent.mkdir()
    packed_file(directory, "int8").write_bytes(kept)
    by = Arithmetic(CPU, "int8", library)
    found = logits(by, directory)
    assert "made of other weights" in caplog.text
    assert "python -m storygen quantize tiny --type int8" in caplog.text
    shutil.rmtree(packed_file(directory, "int8").parent)
    assert np.array_equal(found, logits(by, directory))


def test_weights_that_change_while_they_are_rounded_are_no_longer_those(
    library, directory, caplog, monkeypatch
):
    def read_and_change(directory):
        config, tokenizer, weights = read_model(directory)
        whole = {name: weights[name] for name in weights}
        checkpoints.save(directory, random_model(264, seed=7), tokenizer)
        return config, tokenizer, whole

    with monkeypatch.context() as patched:
        patched.setattr(opening, "read_model", read_and_change)
        quantize(directory, "int8")
    logits(Arithmetic(CPU, "int8", library), directory)
    assert "made of other weights" in caplog.text


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda b: b[:-1], "damaged or cut off"),
        (lambda b: b[:-5] + bytes([b[-5] ^ 1]) + b[-4:], "is damaged"),
        (lambda b: b[:4], "no safetensors file"),
        (lambda b: b.replace(b'"made_of"', b'"mode_of"'), "made of other weights"),
    ],
)
def test_a_damaged_file_is_said_and_done_without(library, directory, caplog, damage, said):
    by = Arithmetic(CPU, "int8", library)
    expected = logits(by, directory)
    path = quantize(directory, "int8")
    path.write_bytes(damage(path.read_bytes()))
    assert np.array_equal(logits(by, directory), expected)
    assert said in caplog.text


def test_a_file_of_another_shape_is_done_without(library, directory, caplog):
    path = quantize(directory, "int4")
    path.rename(packed_file(directory, "int8"))
    by = Arithmetic(CPU, "int8", library)
    logits(by, directory)
    assert "has not the model's shape" in caplog.text


def test_damage_beside_the_weights_is_not_passed_over(library, directory):
    quantize(directory, "int8")
    (directory / "merges.txt").write_text("#version: 0.2\na b\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"merges\.txt is missing or not"):
        logits(Arithmetic(CPU, "int8", library), directory)


# Prints how much more memory than before its model took, at most.
OPEN = """
import sys
from pathlib import Path
from storygen.decode.build import native_library
from storygen.decode.choose import Arithmetic
from storygen.decode.interface import Token
from storygen.engine.opening import open_model

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))

by = Arithmetic("cpu", "int8", native_library(Path(sys.argv[2])))
before = peak()
decoder, _ = open_model(by, Path(sys.argv[1]), 1, 1)
decoder.logits([Token(0, 0, 1)], [0])
print(peak() - before)
"""


# Prints a passage's length and whether PyTorch was there.
WRITE = """
import asyncio, sys
from pathlib import Path
from storygen.catalogue import Catalogue
from storygen.engine.local import LocalEngine
from storygen.params import SamplingParams

async def main():
    engine = LocalEngine(Catalogue(Path(sys.argv[1])), native=Path(sys.argv[2]))
    await engine.start()
    params = SamplingParams(max_new_tokens=9, seed=1, end_at_sentence=False)
    n = sum([s.token_count async for s in engine.stream(sys.argv[3], "It was", params)])
    await engine.score(sys.argv[3], "It was a dark night")
    await engine.next_tokens(sys.argv[3], "It was", 5)
    await engine.next_words(sys.argv[3], "It was", 5)
    await engine.close()
    print(n, "torch" in sys.modules)

asyncio.run(main())
"""


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("kind", ["directory", "voice"])
def test_native_code_writes_without_pytorch(request, native_folder, library, kind, kept):
    model = request.getfixturevalue(kind)
    if kept:
        quantize(model, "int8")
    command = [sys.executable, "-c", WRITE, str(model.parent), str(native_folder), model.name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["9", "False"], done.stderr


def test_rounding_keeps_no_more_than_one_matrix_in_memory(directory):
    _, _, weights = read_model(directory)
    network, _ = checkpoints.load(directory)
    for name, weight in network.state_dict().items():
        assert np.array_equal(weights[name], weight)
        assert weights[name] is not weights[name]


def test_opening_takes_no_more_memory_than_the_weights_have(
    tmp_path, native_folder, library, tiny_tokenizer
):
    model = random_model(264, n_embd=768, n_layer=6, n_head=12)  # 171 MB as they come, 45 rounded
    checkpoints.save(tmp_path / "wide", model, tiny_tokenizer)
    size = quantize(tmp_path / "wide", "int8").stat().st_size
    command = [sys.executable, "-c", OPEN, str(tmp_path / "wide"), str(native_folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 1.25 * size + 8e6, done.stderr
