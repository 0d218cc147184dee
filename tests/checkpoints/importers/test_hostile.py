"""Files made to harm, or merely broken: each is refused quickly, cheaply and by name.

Except where a test says so nothing reaches the process that opens pickles: they are judged by what
can be read of them without opening. What must be opened is converted in this process here; its
limits are tested in test_pickles.py.
"""

import io
import json
import os
import pickle
import re
import struct
import time
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from storygen.checkpoints import hf, save, stored, tensors
from storygen.checkpoints.export import export_gguf
from storygen.checkpoints.importers import Asked, import_model, pickles
from storygen.checkpoints.importers.gguf import open_gguf, tokenizer_of
from storygen.checkpoints.importers.vocabulary import choose_tokenizer
from storygen.errors import CheckpointError
from tests.checkpoints.importers.corpus import (
    ADAPTERS,
    CALLS,
    DIRECTORIES,
    EARLY,
    LATE,
    MEGABYTE,
    adapter,
    call,
    saved,
    state,
    zipped,
)

SECONDS, MEMORY = 2, 64 * MEGABYTE
WAYS_OUT = re.compile(
    r"[Cc]opy or download|copy it again|save (?:it|only|the|all)|[Mm]erge it|merge that|take it out"
    r"|name the|name it|omit --|convert the|docs/checkpoints\.md|the program that trained it"
    r"|llama\.cpp runs|[Ss]ay |add |A model directory needs|A model on the hub is|is not to be had"
)


def refused(place, path, **asked):
    """The sentence that path is refused with; soon, in little memory, and leaving nothing."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    memory, seconds = peak_memory(), time.process_time()
    with pytest.raises(CheckpointError) as caught:
        import_model(str(path), "m", place / "weights", Asked(n_head=2, **asked), fetch=nowhere)
    seconds, memory = time.process_time() - seconds, peak_memory() - memory
    sentence = str(caught.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert WAYS_OUT.search(sentence), sentence
    assert ".new-" not in sentence, "where it is unpacked is nobody's business"
    assert "weights_only" not in sentence
    assert list((place / "weights").iterdir()) == []
    assert not (place / "canary").exists()
    assert seconds < SECONDS
    assert memory < MEMORY
    return sentence


def peak_memory():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def nowhere(name):
    raise CheckpointError(f"{name!r} is not to be had.")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "c").write_text("abcdefgh")
    (tmp_path / "weights").mkdir()
    return tmp_path


@pytest.fixture
def directory(place, tiny_model, tiny_tokenizer):
    """A sound model to do harm to."""
    save(place / "theirs", tiny_model, tiny_tokenizer)
    return place / "theirs"


@pytest.mark.parametrize("name", EARLY)
def test_what_can_be_seen_from_outside_is_never_opened(place, name, monkeypatch):
    path = place / name.replace(" ", "-")
    path.write_bytes(EARLY[name]() if callable(EARLY[name]) else EARLY[name])
    monkeypatch.setattr(pickles, "_run_child", lambda *_: pytest.fail("it was opened"))
    refused(place, path, chars=place / "c")


@pytest.mark.parametrize("name", LATE)
def test_what_must_be_opened_to_be_seen_is_refused_as_well(place, name, in_process):
    (place / name).write_bytes(LATE[name])
    refused(place, place / name, chars=place / "c")


@pytest.mark.parametrize("harm", DIRECTORIES)
def test_directories_are_refused_as_well(place, harm, directory):
    DIRECTORIES[harm](directory)
    refused(place, directory)


@pytest.mark.parametrize("harm", ADAPTERS)
def test_adapters_are_refused_as_well(place, harm, directory):
    refused(place, adapter(directory, **ADAPTERS[harm]))


def test_what_these_are_made_from_is_accepted(place, directory, in_process):
    (place / "model.pth").write_bytes(saved(state()))
    sources = {
        place / "model.pth": Asked(n_head=2, chars=place / "c"),
        directory: Asked(n_head=2),
        adapter(directory): Asked(),
    }
    for source, asked in sources.items():
        import_model(str(source), source.stem, place / "weights", asked)
    assert len(list((place / "weights").iterdir())) == 3


def test_a_pickle_with_a_hole_is_not_read_as_a_whole(place):
    """It says that all of its 2 GB are one text, and takes no place on the disk."""
    path = place / "long.pth"
    path.write_bytes(b"\x80\x02X" + struct.pack("<I", 2_000_000_000))
    os.truncate(path, 2_000_000_000)
    refused(place, path)


def test_a_file_that_was_cut_off_names_the_way_out(place):
    (place / "cut.pth").write_bytes(saved(state())[:-200])
    assert "download it again" in refused(place, place / "cut.pth")


def test_there_are_sixty_and_more():
    assert len(EARLY) + len(LATE) + len(DIRECTORIES) + len(ADAPTERS) >= 60


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), -1.0, 0.0])
def test_an_epsilon_that_is_none_is_refused(place, directory, epsilon):
    export_gguf(directory, place / "tiny.gguf", "f16", "tiny")
    content = (place / "tiny.gguf").read_bytes()
    usual = struct.pack("<f", 1e-5)
    assert content.count(usual) == 1
    (place / "tiny.gguf").write_bytes(content.replace(usual, struct.pack("<f", epsilon)))
    assert "must be between 0 and 1" in refused(place, place / "tiny.gguf")


def test_a_path_that_is_no_file_is_refused(place):
    os.mkfifo(place / "pipe")
    for path in (place / "pipe", place / "nowhere"):
        assert "is no file and no directory" in refused(place, path)


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), SafetensorError("I/O: No space left on device")],
)
def test_a_full_disk_is_a_sentence_and_leaves_nothing(place, in_process, monkeypatch, error):
    def full(*_, **__):
        raise error

    (place / "model.pth").write_bytes(saved(state()))
    monkeypatch.setattr("storygen.checkpoints.models.save_file", full)
    with pytest.raises(CheckpointError, match=r"could not be written: .*No space left on device"):
        import_model(
            str(place / "model.pth"), "m", place / "weights", Asked(n_head=2, chars=place / "c")
        )
    assert list((place / "weights").iterdir()) == []


@pytest.fixture(scope="module")
def sound_gguf(tmp_path_factory, tiny_model, tiny_tokenizer):
    folder = tmp_path_factory.mktemp("sound")
    save(folder / "m", tiny_model, tiny_tokenizer)
    export_gguf(folder / "m", folder / "m.gguf", "q4_0", "m")
    return (folder / "m.gguf").read_bytes()


BYTE = st.integers(0, 255)
SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=3)
WILD = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=6)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 12_000), BYTE) | st.tuples(st.integers(0, 600), BYTE)),
    st.none() | st.integers(0, 40_000),
)
def test_any_damage_to_a_gguf_file_is_read_or_refused(tmp_path, sound_gguf, changes, length):
    content = bytearray(sound_gguf[:length])
    for place, byte in changes:
        content[place : place + 1] = bytes([byte])
    (tmp_path / "m.gguf").write_bytes(content)
    with suppress(CheckpointError):
        checkpoint = open_gguf(tmp_path / "m.gguf")
        for weight in checkpoint.weights.values():
            assert weight.read().shape == weight.shape
        tokenizer_of(tmp_path / "m.gguf", checkpoint.values)


@pytest.fixture(scope="module")
def sound_tensors(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "m.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).half()}, path)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


FORMS = st.sampled_from(["F32", "F16", "BF16", "I64", "F4", "", None])
SIZES = st.lists(st.integers(-1, 5) | st.sampled_from([0, 2**62, 2**64, True, 1.5]), max_size=10)
OFFSETS = st.lists(st.integers(-1, 40) | st.sampled_from([2**63, "0"]), max_size=3)
ENTRY = st.fixed_dictionaries({"dtype": FORMS, "shape": SIZES, "data_offsets": OFFSETS})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["a", "b", "c", "../x", "__metadata__"]), ENTRY | WILD),
    st.integers(-3, 3),
    st.none() | st.integers(0, 200),
)
def test_any_safetensors_header_is_read_or_refused(tmp_path, sound_tensors, changes, off, length):
    header, data = sound_tensors
    said = json.dumps(header | changes).encode()
    content = max(0, len(said) + off).to_bytes(8, "little") + said + data
    (tmp_path / "m.safetensors").write_bytes(content[:length])
    with suppress(CheckpointError):
        stored.read_shapes(tmp_path / "m.safetensors")
        for name in tensors.read_floats(tmp_path / "m.safetensors"):
            tensors.read_tensor(tmp_path / "m.safetensors", name)


@pytest.fixture(scope="module")
def sound_pickle():
    return saved(state())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 6000), BYTE) | st.tuples(st.integers(60, 1000), BYTE)),
    st.none() | st.integers(0, 6000),
)
def test_any_damage_to_a_pth_file_is_read_or_refused(
    tmp_path, sound_pickle, in_process, changes, length
):
    """Opened here, by the code of the child, which has limits besides."""
    content = bytearray(sound_pickle[:length])
    for place, byte in changes:
        content[place : place + 1] = bytes([byte])
    (tmp_path / "m.pth").write_bytes(content)
    with TemporaryDirectory() as scratch, suppress(CheckpointError):
        weights, _ = pickles.open_pickle(tmp_path / "m.pth", Path(scratch))
        for weight in weights.values():
            assert weight.read().shape == weight.shape


FIELDS = ("model", "tokens", "merges", "token_type")


@given(
    st.dictionaries(st.sampled_from(FIELDS), WILD)
    | st.fixed_dictionaries({"tokens": st.just(["a", "b"]), "merges": WILD, "token_type": WILD})
)
@example({"tokens": ["a"], "merges": ["a b"], "token_type": 5})
@example({"tokens": ["a"], "merges": ["a b"], "token_type": [5]})
@example({"tokens": 5, "merges": 5})
@example({"tokens": [1], "merges": [1]})
def test_any_vocabulary_of_a_gguf_file_is_read_or_refused(said):
    values = {"model": "gpt2"} | said
    with suppress(CheckpointError):
        tokenizer_of(Path("x.gguf"), {f"tokenizer.ggml.{k}": v for k, v in values.items()})


@pytest.mark.parametrize("merges", [[1, 2], 5, "ab"])
def test_merges_that_are_no_texts_are_not_left_out(tiny_tokenizer, merges):
    values = {"model": "gpt2", "tokens": list(tiny_tokenizer.vocab), "merges": merges}
    with pytest.raises(CheckpointError, match="contradicts itself"):
        tokenizer_of(Path("x.gguf"), {f"tokenizer.ggml.{k}": v for k, v in values.items()})


CONFIG_KEYS = (
    *hf.CONFIG_SIZES,
    *("n_inner", "activation_function", "layer_norm_epsilon", "tie_word_embeddings", "output_bias"),
    *("model_type", "scale_attn_weights", "scale_attn_by_inverse_layer_idx"),
)
NUMBERS = st.integers() | st.sampled_from([10**400, 2**63, 512, 513, 65_536, 1_000_000])
SOUND = dict(zip(hf.CONFIG_SIZES, (264, 32, 2, 2, 32), strict=True))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(CONFIG_KEYS), NUMBERS | WILD, max_size=4))
@example({"activation_function": {}})
@example({"layer_norm_epsilon": "1e-5"})
@example({"n_inner": True})
@example({"output_bias": 0})
def test_any_config_is_within_its_bounds_or_refused(tmp_path, changes):
    """Python's json writes and reads NaN, Infinity and numbers of any length."""
    (tmp_path / "config.json").write_text(json.dumps(SOUND | changes))
    try:
        config = hf.read_config(tmp_path)
    except CheckpointError:
        return
    for theirs, (ours, largest) in hf.CONFIG_SIZES.items():
        assert getattr(config, ours) == (SOUND | changes)[theirs]
        assert 1 <= getattr(config, ours) <= largest
    assert type(config.mlp_size) is int
    assert 1 <= config.mlp_size <= hf.LARGEST_INNER
    assert 0 < config.layer_norm_epsilon < 1
    assert type(config.tied) is type(config.output_bias) is bool


KEYS = ("model", "type", "BPE", "pre_tokenizer", "vocab", "merges", "added_tokens", "characters")
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=2), inner, max_size=5)
    ),
    max_leaves=12,
)
TOKENIZER = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries({"type": st.just("BPE"), "vocab": JSON, "merges": JSON}),
        "pre_tokenizer": st.just({"type": "ByteLevel", "add_prefix_space": False}),
        "added_tokens": JSON,
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([hf.CHARACTERS, "vocab.json", "tokenizer.json"]), JSON | TOKENIZER)
@example("tokenizer.json", {"model": {"merges": ["a", 1]}})
@example(hf.CHARACTERS, {"characters": ["\ud800"]})
def test_any_json_of_a_vocabulary_is_read_or_refused(tmp_path, file, said):
    for name in hf.TOKENIZER_FILES:
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "merges.txt").write_text("")
    (tmp_path / file).write_text(json.dumps(said))
    with suppress(CheckpointError):
        hf.read_tokenizer(tmp_path)


OPCODES = (b"K\x01", b"}", b"(", b"s", b"u", b"q\x00", b"h\x00", b"X\x01\x00\x00\x00a", b"\x94")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(OPCODES)).map(b"".join) | st.binary(max_size=20))
@example(b"K\x01(K\x01K\x01u")
def test_any_pickle_of_a_vocabulary_is_read_or_refused(tmp_path, content):
    (tmp_path / "meta.pkl").write_bytes(b"\x80\x02" + content + b".")
    with suppress(CheckpointError):
        choose_tokenizer(tmp_path, 5, Asked())


class Asking(pickle._Unpickler):  # type: ignore[misc,name-defined]  # the one in Python
    """Notes which names a pickle asks for, and gives it nothing."""

    def __init__(self, content):
        super().__init__(io.BytesIO(content))
        self.asked = set()

    def find_class(self, module, name):
        self.asked.add(f"{module} {name}")
        return lambda *_: None


NAMED = st.sampled_from([*CALLS, "torch FloatStorage", "collections OrderedDict", "torch Size"])
PARTS = st.sampled_from(OPCODES) | NAMED.map(call) | st.binary(max_size=3)


@given(st.lists(PARTS | NAMED.map(lambda name: call(name)[2:-1]), max_size=8).map(b"".join))
@example(call("os system"))
@example(call("torch Size"))
def test_what_is_let_through_asks_for_nothing_but_weights(content):
    """Python's own reader agrees with what is judged from outside, however it is put together."""
    try:
        pickles._check_names(Path("m.pth"), b"\x80\x02" + content + b".")
    except CheckpointError:
        return
    reader = Asking(b"\x80\x02" + content + b".")
    with suppress(Exception):
        reader.load()
    assert [name for name in reader.asked if not pickles.HARMLESS.fullmatch(name)] == []


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_protocol_hides_a_call(place, protocol, monkeypatch):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {place / 'canary'}",)

    monkeypatch.setattr(pickles, "_run_child", lambda *_: pytest.fail("it was opened"))
    (place / "x.pth").write_bytes(zipped(pickle.dumps({"a": Harm()}, protocol)))
    assert "asks to run" in refused(place, place / "x.pth")
