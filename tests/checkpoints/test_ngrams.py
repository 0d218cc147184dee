import shutil
from collections import Counter, defaultdict
from io import BytesIO

import numpy as np
import pytest

from storygen.checkpoints import ngrams
from storygen.checkpoints.ngrams import FILE, NONE, NGrams, count, read_ngrams
from storygen.errors import CheckpointError
from storygen.tokenizers import CharTokenizer
from tests.conftest import CHARACTERS

LETTERS = CharTokenizer(CHARACTERS)


def counted(ids, n):
    """How often each token follows each n tokens, counted plainly."""
    found = defaultdict(Counter)
    for at in range(n, len(ids)):
        found[tuple(ids[at - n : at])][ids[at]] += 1
    return found


@pytest.mark.parametrize(("kind", "orders"), [("words", (2, 1)), ("letters", (5, 3))])
def test_what_followed_most_often_is_foretold(tiny_tokenizer, monkeypatch, kind, orders):
    monkeypatch.setattr(ngrams, "ROOM", 1 << 19)  # where no two n-grams fall together
    tokenizer = tiny_tokenizer if kind == "words" else LETTERS
    draws = np.random.default_rng(1).zipf(1.5, 400) % 12
    ids = draws.astype(np.uint16)
    found, seen = count(tokenizer, ids), 0
    by_order = [(n, counted(ids.tolist(), n)) for n in orders]
    for at in range(1, len(ids) + 1):
        tail = ids[max(0, at - 8) : at].tolist()
        expected = next((c for n, by in by_order if (c := by.get(tuple(tail[-n:])))), Counter())
        if len(tail) >= orders[0]:
            seen += 1
            assert expected[found.next(tail)] == max(expected.values(), default=0)
    assert seen > 390


def test_what_was_never_read_foretells_nothing(tiny_tokenizer):
    found = count(tiny_tokenizer, np.array([1, 2, 3], np.uint16))
    assert found.next([1, 2]) == 3
    assert found.next([7, 8]) is None
    assert found.next([]) is None
    assert count(tiny_tokenizer, np.array([], np.uint16)).next([1, 2]) is None


def test_of_a_long_text_stretches_from_everywhere_are_counted(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(ngrams, "MOST_COUNTED", 2000)
    monkeypatch.setattr(ngrams, "STRETCHES", 4)
    ids = np.repeat(np.arange(100, 200, dtype=np.uint16), 100)  # 100, a hundred times, then 101
    found = count(tiny_tokenizer, ids)
    known = [token for token in range(100, 200) if found.next([token, token]) == token]
    assert known[0] == 100
    assert known[-1] == 199
    assert 18 <= len(known) <= 24


def test_a_full_table_is_no_error(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(ngrams, "BITS", range(8, 9))
    ids = np.random.default_rng(1).integers(0, 250, 5000).astype(np.uint16)
    found = count(tiny_tokenizer, ids)
    assert len(found.table) == 256
    assert all(found.next([a, b]) < 250 for a in range(20) for b in range(20))


def test_it_is_read_as_it_was_saved(tiny_weights, tiny_tokenizer, tmp_path):
    model = tmp_path / "tiny"
    shutil.copytree(tiny_weights / "tiny", model)
    assert read_ngrams(model, tiny_tokenizer) is None
    path = count(tiny_tokenizer, np.array([5, 6, 7] * 9, np.uint16)).save(model)
    assert path == model / FILE
    assert read_ngrams(model, tiny_tokenizer).next([5, 6]) == 7
    adapter = tmp_path / "voice"
    adapter.mkdir()
    config = '{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["c_attn", "c_fc", '
    config += '"c_proj"], "base_model_name_or_path": "tiny"}'
    (adapter / "adapter_config.json").write_text(config)
    assert read_ngrams(adapter, tiny_tokenizer).next([5, 6]) == 7


@pytest.mark.parametrize("kind", ["words", "letters"])
def test_a_text_may_be_of_any_length(tiny_tokenizer, kind):
    tokenizer = tiny_tokenizer if kind == "words" else LETTERS
    for n in range(12):
        assert count(tokenizer, np.arange(n, dtype=np.uint16)).next([0]) in (None, 1)


def test_numpy_reads_it_too(tmp_path):
    table = np.arange(256, dtype=np.uint16)
    assert (np.load(NGrams((2, 1), table).save(tmp_path)) == table).all()


def with_header(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def of_numpy(save, *args, **kwargs) -> bytes:
    file = BytesIO()
    save(file, *args, **kwargs)
    return file.getvalue()


WHOLE = of_numpy(np.save, np.zeros(256, np.uint16))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:-1],
        WHOLE + b"x",
        WHOLE.replace(b"NUMPY", b"NUMPI"),
        WHOLE.replace(b"<u2", b">u2"),
        WHOLE.replace(b"(256,)", b"(2**9)"),
        with_header(b"(" * 5000),
        with_header(b"{'descr': '<u2', 'fortran_order': False, 'shape': (1099511627776,), }\n"),
        with_header(b"-" * 9000) + bytes(1000),
        b"PK\x03\x04" + bytes(700),
        of_numpy(np.savez, next=np.zeros(256, np.uint16)),
        of_numpy(np.save, np.array([{}] * 256, dtype=object), allow_pickle=True),
        of_numpy(np.save, np.zeros(256, np.uint32)),
        of_numpy(np.save, np.zeros((16, 16), np.uint16)),
        of_numpy(np.save, np.zeros(300, np.uint16)),
        of_numpy(np.save, np.zeros(1 << 20, np.uint16)),
    ],
    ids=range(16),
)
def test_a_file_that_is_no_table_is_refused_in_a_sentence(tiny_tokenizer, tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"ngrams\.npy is no table of n-grams\. Delete it"):
        read_ngrams(tmp_path, tiny_tokenizer)


def test_a_disk_with_no_room_is_said(tmp_path):
    (tmp_path / FILE).mkdir()
    (tmp_path / FILE / "in the way").touch()
    with pytest.raises(CheckpointError, match=r"ngrams\.npy could not be written"):
        NGrams((2, 1), np.full(256, NONE, np.uint16)).save(tmp_path)
