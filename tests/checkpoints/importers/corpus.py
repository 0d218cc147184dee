"""Files made to harm, or merely broken: what a reader of foreign checkpoints must refuse.

EARLY can be judged without opening a pickle, LATE only by the process that opens them. DIRECTORIES
are harm done to a sound model directory, ADAPTERS adapters over one. A value that is a function
makes a large file when it is needed.
"""

import io
import json
import os
import struct
import zipfile

import torch
from safetensors.torch import load_file, save_file

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


def long_names():
    """As many entries as are read, with names as long as they may be, and a call."""
    return zipped(call("os system"), **{f"{n:0>200}": b"" for n in range(19_900)})


def late_call():
    return zipped(b"\x80\x02" + b"N0" * 499_000 + b"cposix\nsystem\n.")


def many_texts():
    """As many texts as may be, and room for a tensor."""
    texts = b"".join(text(b"%06d" % n) for n in range(299_000))
    said = text(b"tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 299_000) + texts
    return gguf(tensors=1, values=2, rest=said + gguf_tensor()[24:])


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
    said = text(b"general.architecture") + struct.pack("<I", 8) + text(b"gpt2")
    described = text(name) + dims + struct.pack("<IQ", kind, offset)
    return gguf(tensors=1, values=1, rest=said + described + bytes(200))


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
    "long-names.pth": long_names,
    "late-call.pth": late_call,
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
    "lists.safetensors": header_only(b'{"a":[' + b"[]," * 300_000 + b"[]]}"),
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
    "many-texts.gguf": many_texts,
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
    "type-not-known.gguf": gguf_tensor(kind=16),
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


def configured(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def with_a_hole(path):
    """2 GB that take no place on the disk."""
    path.write_bytes(b"{")
    os.truncate(path, 2_000_000_000)


def only_tokenizer_json(directory, content):
    (directory / "vocab.json").unlink()
    (directory / "tokenizer.json").write_bytes(content)


def with_meta(directory, opcodes):
    """A network that leaves its vocabulary to meta.pkl."""
    for path in directory.iterdir():
        path.unlink()
    save_file(scramble(raschka.GPTModel(BOOK)).state_dict(), directory / "model.safetensors")
    (directory / "meta.pkl").write_bytes(b"\x80\x02" + opcodes + b".")


def same_hash(directory):
    """Keys that Python's dictionaries cannot tell apart quickly."""
    numbers = (n * (2**61 - 1) for n in range(1, 40_000))
    keys = b"".join(b"\x8a\x0a" + n.to_bytes(10, "little") + b"K\x01" for n in numbers)
    with_meta(directory, b"}(" + keys + b"u")


DIRECTORIES = {
    "points-outside": lambda d: (d / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "../../../etc/passwd"}}'
    ),
    "pickled-shard-outside": lambda d: (
        (d / "model.safetensors").unlink(),
        (d / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "/etc/passwd"}}'),
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
    "huge-sizes": lambda d: configured(d, n_layer=10**9),
    "other-sizes": lambda d: configured(d, n_layer=500),
    "size-of-400-digits": lambda d: configured(d, n_embd=10**400),
    "size-is-a-truth": lambda d: configured(d, n_layer=True),
    "size-is-a-fraction": lambda d: configured(d, n_head=2.0),
    "size-is-a-list": lambda d: configured(d, vocab_size=[264]),
    "epsilon-is-not-a-number": lambda d: configured(d, layer_norm_epsilon=float("nan")),
    "other-activation": lambda d: configured(d, activation_function="__import__('os')"),
    "activation-is-a-list": lambda d: configured(d, activation_function=["gelu"]),
    "other-model": lambda d: configured(d, model_type="llama"),
    "config-with-a-hole": lambda d: with_a_hole(d / "config.json"),
    "config-of-lists": lambda d: (d / "config.json").write_bytes(b'{"a":[' + b"[]," * (1 << 20)),
    "config-is-deep": lambda d: (d / "config.json").write_text("[" * 100_000),
    "index-with-a-hole": lambda d: with_a_hole(d / "model.safetensors.index.json"),
    "vocab-with-a-hole": lambda d: with_a_hole(d / "vocab.json"),
    "vocab-of-numbers": lambda d: (d / "vocab.json").write_text(
        json.dumps({str(n): n for n in range(190_000)})
    ),
    "merges-with-a-hole": lambda d: with_a_hole(d / "merges.txt"),
    "merges-without-end": lambda d: (d / "merges.txt").write_bytes(b"a b\n" * (1 << 20)),
    "tokenizer-with-a-hole": lambda d: (
        (d / "vocab.json").unlink(),
        with_a_hole(d / "tokenizer.json"),
    ),
    "tokenizer-of-objects": lambda d: only_tokenizer_json(
        d, b'{"model":[' + b'{"ab":1.5},' * 120_000 + b"{}]}"
    ),
    "tokenizer-of-long-texts": lambda d: only_tokenizer_json(
        d, b'{"model":"' + "\U0001f989".encode() + b"a" * (5 << 20) + b'"}'
    ),
    "characters-of-one-text": lambda d: (d / "characters.json").write_bytes(
        b'{"characters":["' + "\U0001f989".encode() + b"a" * (5 << 20) + b'"]}'
    ),
    "meta-with-a-hole": lambda d: (with_meta(d, b"}"), with_a_hole(d / "meta.pkl")),
    "meta-calls": lambda d: with_meta(d, b"cposix\nsystem\nX\x02\x00\x00\x00ls\x85R"),
    "meta-of-dictionaries": lambda d: with_meta(d, b"}" * 1_000_000),
    "meta-that-remembers": lambda d: with_meta(d, b"}\x94" * 199_000),
    "meta-that-marks": lambda d: with_meta(d, b"}" * 100_000 + b"(u" * 140_000),
    "meta-of-one-hash": same_hash,
}


def adapter(base, tensors=None, **said):
    """An adapter over base with more said in its config; with other tensors, if they are given."""
    directory = base.with_name("adapter")
    directory.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": base.name}
    (directory / "adapter_config.json").write_text(json.dumps(config | said))
    width = load_file(base / "model.safetensors")["transformer.wte.weight"].shape[1]
    name = "base_model.model.transformer.h.0.attn.c_proj.lora_"
    sound = {f"{name}A.weight": torch.ones(1, width), f"{name}B.weight": torch.ones(width, 1)}
    tensors = sound if tensors is None else tensors
    save_file(tensors, directory / "adapter_model.safetensors")
    return directory


ADAPTERS = {
    "no-adapter-tensors": {"tensors": {}},
    "strange-tensor": {"tensors": {"base_model.model.x.lora_A.weight": torch.ones(1, 1)}},
    "half-a-change": {
        "tensors": {"base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight": torch.ones(1, 32)}
    },
    "huge-rank": {"r": 10**9},
    "rank-of-another": {"r": 3},
    "no-rank": {"r": None},
    "alpha-is-not-a-number": {"lora_alpha": float("nan")},
    "alpha-is-infinite": {"lora_alpha": float("inf")},
    "slow-pattern": {"alpha_pattern": {"(a+)+$" * 9: 1}},
    "pattern-is-a-list": {"rank_pattern": [["h", 1]]},
    "other-kind": {"peft_type": "IA3"},
    "doubled-layers": {"layer_replication": [[0, 2], [1, 2]]},
    "changed-base": {"init_lora_weights": "olora"},
    "over-itself": {"base_model_name_or_path": "adapter"},
    "base-is-a-number": {"base_model_name_or_path": 5},
}
