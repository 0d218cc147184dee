"""tokenizer.json: transformers reads a text as we do, typography and all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from storygen.checkpoints import save
from storygen.checkpoints.fast_tokenizer import FILE, read_fast
from storygen.checkpoints.hf import write_tokenizer
from storygen.errors import CheckpointError
from storygen.text import plain_typography
from storygen.tokenizers import BPETokenizer

CURLY = "“I’m here . . .” he said--and the hen left.\r\n  An\u00a0‘owl’ … ---  and  é"


@pytest.mark.parametrize("plain", [False, True])
def test_transformers_gives_our_ids(tmp_path, tiny_model, tiny_tokenizer, plain):
    ours = BPETokenizer(tiny_tokenizer.vocab, tiny_tokenizer.merges, plain)
    save(tmp_path / "m", tiny_model, ours)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "m")
    assert theirs(CURLY)["input_ids"] == ours.encode(CURLY)
    assert theirs.decode(ours.encode(CURLY)) == (plain_typography(CURLY) if plain else CURLY)
    assert theirs.eos_token_id == ours.eot_id


@pytest.fixture(scope="module")
def normalizer(tmp_path_factory, tiny_tokenizer):
    directory = tmp_path_factory.mktemp("plain")
    write_tokenizer(directory, BPETokenizer(tiny_tokenizer.vocab, tiny_tokenizer.merges, True))
    return Tokenizer.from_file(str(directory / FILE)).normalizer


@given(
    st.text(st.sampled_from("a. -—–‐‘’“”…\u00a0\u200b\u00ad\r\n\t") | st.characters(codec="utf-8"))
)
def test_its_typography_is_ours(normalizer, text):
    assert normalizer.normalize_str(text) == plain_typography(text)


def test_it_can_be_read_back(tmp_path, tiny_tokenizer):
    write_tokenizer(tmp_path, tiny_tokenizer)
    found = read_fast(tmp_path / FILE, plain=False)
    assert (found.vocab, found.merges) == (tiny_tokenizer.vocab, tiny_tokenizer.merges)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        '{"model": {"type": "Unigram"}, "pre_tokenizer": {"type": "ByteLevel"}}',
        '{"model": {"type": "BPE", "vocab": {"a": 5}, "merges": []},'
        ' "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}',
        '{"model": {"type": "BPE", "vocab": [], "merges": 3},'
        ' "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false}}',
    ],
)
def test_another_kind_is_a_sentence(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        read_fast(tmp_path / FILE, plain=False)
