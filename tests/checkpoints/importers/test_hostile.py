"""Files made to harm, or merely broken: each is refused quickly, cheaply and by name.

Except where a test says so nothing reaches the process that opens pickles: they are judged by what
can be read of them without opening. What must be opened is converted in this process here; its
limits are tested in test_pickles.py.
"""

import io
import json
import os
import pickle
import struct
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import save_file

from storygen.checkpoints import hf, save
from storygen.checkpoints.export import export_gguf
from storygen.checkpoints.importers import Asked, import_model, pickles
from storygen.checkpoints.importers.gguf import tokenizer_of
from storygen.checkpoints.importers.vocabulary import choose_tokenizer
from storygen.errors import CheckpointError
from tests.checkpoints.importers.conftest import scramble
from tests.reference import raschka

MEGABYTE = 1 << 20
BOOK = {
    "vocab_size": 8,
    "context_length": 4,
    "emb_dim": 4,
    "n_heads": 2,
    "n_layers": 1,
    "qkv_bias": False,
}
CALLS = [
    "os system",
    "posix system",
    "nt system",
    "builtins eval",
    "builtins exec",
    "builtins getattr",
    "builtins __import__",
    "subprocess Popen",
    "runpy _run_code",
    "importlib import_module",
    "pty spawn",
    "socket create_connection",
    "shutil rmtree",
    "webbrowser open",
    "operator attrgetter",
    "functools partial",
    "pickle loads",
    "torch load",
    "torch.hub load",
    "torch._utils _import_dotted_name",
    "numpy load",
    "asyncio.unix_events _UnixSubprocessTransport._start",
    "pip main",
    "torch.nn.modules.linear Linear",
]


def call(name):
    """A pickle that calls a function by its module and name."""
    module, function = name.split(" ")
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"X\x02\x00\x00\x00lsq\x00\x85R."


def stack_global():
    return b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02ls\x85R."


def zipped(data_pkl, compression=zipfile.ZIP_STORED, **entries):
    """A file as torch.save makes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        if data_pkl is not None:
            archive.writestr("archive/data.pkl", data_pkl)
        for name, data in entries.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def saved(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def state(**changes):
    return dict(scramble(raschka.GPTModel(BOOK)).state_dict(), **changes)


def many_entries():
    return zipped(b"\x80\x02}.", **{f"data/{n}": b"" for n in range(66_000)})


def uncounted_entries():
    """A table of 150,000 entries that says it has one."""
    whole = zipped(b"\x80\x02}.")
    end = whole.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<I", whole, end + 16)[0]
    entry = whole[start:end]
    table = entry + b"".join(
        entry[:28] + struct.pack("<H", 6) + entry[30:46] + b"%06x" % n for n in range(150_000)
    )
    sizes = struct.pack("<II", len(table), start)
    return whole[:start] + table + whole[end : end + 12] + sizes + whole[end + 20 :]


def header_only(header, data=b""):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + data


def gguf(version=3, tensors=0, values=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, values) + rest


def text(value):
    return struct.pack("<Q", len(value)) + value


def gguf_tensor(shape=(4,), kind=0, offset=0, name=b"token_embd.weight"):
    dims = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return gguf(tensors=1, rest=text(name) + dims + struct.pack("<IQ", kind, offset) + bytes(200))


EARLY = {
    **{f"zip-{name}.pth": zipped(call(name)) for name in CALLS},
    **{f"bare-{name}.pth": call(name) for name in CALLS},
    "stack-global.pth": zipped(stack_global()),
    "inst.pth": zipped(b"\x80\x02(X\x02\x00\x00\x00lsiposix\nsystem\n."),
    "whole-model.pth": saved(torch.nn.Linear(2, 2)),
    "packed.pth": zipped(b"\x80\x02}." + bytes(5 * MEGABYTE), zipfile.ZIP_DEFLATED),
    "packed-entry.pth": zipped(b"\x80\x02}.", zipfile.ZIP_BZIP2, **{"data/0": bytes(MEGABYTE)}),
    "long-description.pth": zipped(b"\x80\x02" + b"N0" * (3 * MEGABYTE) + b"N."),
    "many-opcodes.pth": zipped(b"\x80\x02" + b"N0" * (3 * MEGABYTE // 2) + b"N."),
    "no-description.pth": zipped(None, version=b"3"),
    "two-descriptions.pth": zipped(b"\x80\x02}.", **{"more/data.pkl": b"\x80\x02}."}),
    "unfinished.pth": zipped(b"\x80\x02}q\x00"),
    "unknown-opcode.pth": zipped(b"\x80\x02\xff."),
    "long-number.pth": zipped(b"\x80\x02\x8b\xff\xff\xff\x7f1."),
    "long-text.pth": zipped(b"\x80\x02X\xff\xff\xff\xffa."),
    "many-entries.pth": many_entries,
    "uncounted-entries.pth": uncounted_entries,
    "empty-zip.pth": zipped(None),
    "cut-off.pth": saved(state())[:-200],
    "only-a-beginning.pth": saved(state())[:40],
    "zip-magic-only.pth": b"PK",
    "pickle-magic-only.pth": b"\x80",
    "empty.pth": b"",
    "page-not-found.pth": b"<!DOCTYPE html><html>404 Not Found</html>",
    "zeros.pth": bytes(1000),
    "header-of-2-to-63.safetensors": struct.pack("<Q", 2**63) + b"{}",
    "header-too-long.safetensors": header_only(b"{" + b" " * 2_000_000 + b"}"),
    "many-tensors.safetensors": header_only(
        {f"t{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(9000)}
    ),
    "deep.safetensors": header_only(b'{"a":' + b"[" * 100_000),
    "twice.safetensors": header_only(
        b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'
        b'"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    ),
    "huge-shape.safetensors": header_only(
        {"a": {"dtype": "F32", "shape": [2**62, 0], "data_offsets": [0, 0]}}
    ),
    "many-dimensions.safetensors": header_only(
        {"a": {"dtype": "F32", "shape": [1] * 100_000, "data_offsets": [0, 4]}}, bytes(4)
    ),
    "trailing.safetensors": header_only({}, bytes(99)),
    "stranger.safetensors": header_only(
        {"conv1.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "path-name.safetensors": header_only(
        {"../../etc/x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)
    ),
    "version.gguf": gguf(version=99),
    "other-endian.gguf": b"GGUF" + struct.pack(">IQQ", 3, 1, 1),
    "many-tensors.gguf": gguf(tensors=2**60),
    "many-values.gguf": gguf(values=2**60),
    "cut-off.gguf": gguf(values=5)[:20],
    "long-key.gguf": gguf(values=1, rest=struct.pack("<Q", 2**62) + b"a"),
    "long-list.gguf": gguf(
        values=1, rest=text(b"a") + struct.pack("<IIQ", 9, 0, 2**60) + bytes(64)
    ),
    "list-past-the-end.gguf": gguf(
        values=1, rest=text(b"a") + struct.pack("<IIQ", 9, 10, 200_000) + bytes(64)
    ),
    "list-of-lists.gguf": gguf(
        values=1, rest=text(b"a") + struct.pack("<IIQ", 9, 9, 5) + bytes(64)
    ),
    "unknown-kind.gguf": gguf(values=1, rest=text(b"a") + struct.pack("<I", 77) + bytes(64)),
    "many-lists.gguf": lambda: gguf(
        values=3,
        rest=b"".join(
            text(b"%d" % n) + struct.pack("<IIQ", 9, 8, 200_000) + bytes(1_600_000)
            for n in range(3)
        ),
    ),
    "other-architecture.gguf": gguf(
        values=2, rest=text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama")
    ),
    "same-key.gguf": gguf(values=2, rest=2 * (text(b"a") + struct.pack("<IB", 7, 1))),
    "bad-alignment.gguf": gguf(
        values=1, rest=text(b"general.alignment") + struct.pack("<II", 4, 2**31 + 1)
    ),
    "not-utf8.gguf": gguf(values=1, rest=text(b"\xff\xfe") + bytes(64)),
    "no-architecture.gguf": gguf(rest=bytes(64)),
    "huge-tensor.gguf": gguf_tensor(shape=(2**40, 2**40)),
    "past-the-end.gguf": gguf_tensor(offset=2**40),
    "no-dimensions.gguf": gguf_tensor(shape=()),
    "empty-tensor.gguf": gguf_tensor(shape=(0,)),
    "type-not-known.gguf": gguf_tensor(kind=12),
    "half-a-block.gguf": gguf_tensor(shape=(33,), kind=8),
}


def deep_list():
    found: list = []
    for _ in range(60):
        found = [found] * 10
    return found


LATE = {
    "one-number-as-a-million.pth": saved(state(**{"out_head.weight": torch.zeros(1).expand(9**6)})),
    "not-a-number.pth": saved(state(**{"out_head.weight": torch.full((8, 4), torch.nan)})),
    "infinity.pth": saved(state(**{"pos_emb.weight": torch.full((4, 4), -torch.inf)})),
    "name-with-a-path.pth": saved(state(**{"../../etc/passwd": torch.zeros(1)})),
    "long-name.pth": saved(state(**{"a" * 9999: torch.zeros(1)})),
    "only-a-list.pth": saved([torch.zeros(1)]),
    "only-numbers.pth": saved({"a": 1, "b": 2.0}),
    "only-integers.pth": saved({"tok_emb.weight": torch.zeros(2, 2, dtype=torch.int64)}),
    "deep.pth": saved({"model": deep_list()}),
    "keys-are-numbers.pth": saved({1: torch.zeros(1)}),
    "half-a-model.pth": saved({k: v for k, v in state().items() if "ff" not in k}),
    "other-shape.pth": saved(state(**{"pos_emb.weight": torch.zeros(4, 5)})),
    "flat.pth": saved(state(**{"tok_emb.weight": torch.zeros(32)})),
    "extra.pth": saved(state(**{"trf_blocks.0.att.gate.weight": torch.zeros(1)})),
    "layer-left-out.pth": saved({k.replace("blocks.0", "blocks.5"): v for k, v in state().items()}),
    "storage-missing.pth": zipped(
        zipfile.ZipFile(io.BytesIO(saved(state()))).read("archive/data.pkl")
    ),
}


def refused(tmp_path, path):
    with pytest.raises(CheckpointError) as caught:
        import_model(str(path), "m", tmp_path / "weights", Asked(n_head=2, chars=tmp_path / "c"))
    sentence = str(caught.value)
    assert path.name in sentence
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert "weights_only" not in sentence
    assert list((tmp_path / "weights").iterdir()) == []
    assert not (tmp_path / "canary").exists()
    return sentence


def peak_memory():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


@pytest.fixture
def place(tmp_path):
    (tmp_path / "c").write_text("abcdefgh")
    (tmp_path / "weights").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", EARLY)
def test_what_can_be_seen_from_outside_is_never_opened(place, name, monkeypatch):
    content = EARLY[name]() if callable(EARLY[name]) else EARLY[name]
    path = place / name.replace(" ", "-")
    path.write_bytes(content)
    monkeypatch.setattr(pickles, "_run_child", lambda *_: pytest.fail("it was opened"))
    del content
    Path("/proc/self/clear_refs").write_text("5")
    memory, seconds = peak_memory(), time.process_time()
    refused(place, path)
    assert time.process_time() - seconds < 2
    assert peak_memory() - memory < 64 * MEGABYTE


@pytest.mark.parametrize("name", ["vocab.json", "tokenizer.json", "config.json", "long.pth"])
def test_a_file_with_a_hole_is_not_read_as_a_whole(place, tiny_model, tiny_tokenizer, name):
    """2 GB that take no place on the disk; the pickle says that all of it is one text."""
    path = directory_of(place, tiny_model, tiny_tokenizer)
    if name == "tokenizer.json":
        (path / "vocab.json").unlink()
    path = path / name if name == "long.pth" else path
    file = path if name == "long.pth" else path / name
    file.write_bytes(b"\x80\x02X" + struct.pack("<I", 2_000_000_000))
    os.truncate(file, 2_000_000_000)
    Path("/proc/self/clear_refs").write_text("5")
    memory = peak_memory()
    with pytest.raises(CheckpointError, match=r"no readable|more than|cut off"):
        import_model(str(path), "m", place / "weights", Asked())
    assert peak_memory() - memory < 256 * MEGABYTE


@pytest.mark.parametrize("name", LATE)
def test_what_must_be_opened_to_be_seen_is_refused_as_well(place, name, in_process):
    (place / name).write_bytes(LATE[name])
    refused(place, place / name)


def test_the_model_that_these_are_made_from_is_accepted(place, in_process):
    (place / "model.pth").write_bytes(saved(state()))
    import_model(
        str(place / "model.pth"), "m", place / "weights", Asked(n_head=2, chars=place / "c")
    )
    assert [path.name for path in (place / "weights").iterdir()] == ["m"]


def test_a_file_that_was_cut_off_names_the_way_out(place):
    (place / "cut.pth").write_bytes(saved(state())[:-200])
    assert "download it again" in refused(place, place / "cut.pth")


def test_there_are_sixty_and_more():
    assert len(EARLY) + len(LATE) >= 60


def directory_of(place, tiny_model, tiny_tokenizer):
    save(place / "theirs", tiny_model, tiny_tokenizer)
    return place / "theirs"


DIRECTORIES = {
    "points-outside": lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../../../etc/passwd"}}'
    ),
    "pickled-shard-outside": lambda d: (
        (d / "model.safetensors").unlink(),
        (d / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "/etc/passwd"}}'),
    ),
    "large-sizes": lambda d: (d / "config.json").write_text(
        (d / "config.json").read_text().replace('"n_layer": 2', '"n_layer": 1000000000')
    ),
    "other-sizes": lambda d: (d / "config.json").write_text(
        (d / "config.json").read_text().replace('"n_layer": 2', '"n_layer": 500')
    ),
    "empty": lambda d: [path.unlink() for path in d.iterdir()],
    "two-checkpoints": lambda d: (
        (d / "model.safetensors").rename(d / "a.safetensors"),
        save_file({"a": torch.zeros(1)}, d / "b.safetensors"),
    ),
    "shard-missing": lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "nowhere.safetensors"}}'
    ),
    "pipe": lambda d: ((d / "model.safetensors").unlink(), os.mkfifo(d / "model.safetensors")),
}


@pytest.mark.parametrize("harm", DIRECTORIES)
def test_directories_are_refused_as_well(place, harm, tiny_model, tiny_tokenizer):
    path = directory_of(place, tiny_model, tiny_tokenizer)
    DIRECTORIES[harm](path)
    refused(place, path)


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf"), -1.0, 0.0])
def test_an_epsilon_that_is_none_is_refused(place, tiny_model, tiny_tokenizer, epsilon):
    path = directory_of(place, tiny_model, tiny_tokenizer)
    export_gguf(path, place / "tiny.gguf", "f16", "tiny")
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
    monkeypatch.setattr("storygen.checkpoints.hf.save_file", full)
    with pytest.raises(CheckpointError, match=r"could not be written: .*No space left on device"):
        import_model(
            str(place / "model.pth"), "m", place / "weights", Asked(n_head=2, chars=place / "c")
        )
    assert list((place / "weights").iterdir()) == []


SCALARS = st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(max_size=3)
WILD = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4), max_leaves=6)
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


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_no_protocol_hides_a_call(place, protocol, monkeypatch):
    class Harm:
        def __reduce__(self):
            return os.system, (f"touch {place / 'canary'}",)

    monkeypatch.setattr(pickles, "_run_child", lambda *_: pytest.fail("it was opened"))
    (place / "x.pth").write_bytes(zipped(pickle.dumps({"a": Harm()}, protocol)))
    assert "asks to run" in refused(place, place / "x.pth")
