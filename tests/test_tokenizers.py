import codecs

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer

from storygen.errors import CheckpointError, PromptError
from storygen.text import plain_typography, whole_characters
from storygen.tokenizers import (
    BYTE_SPELLING,
    END_OF_TEXT,
    BPETokenizer,
    CharTokenizer,
    StreamDecoder,
    bpe_from_files,
)

# Jane Austen, Pride and Prejudice (1813), public domain.
AUSTEN = """It is a truth universally acknowledged, that a single man in possession of a good
fortune, must be in want of a wife. “My dear Mr. Bennet,” said his lady to him one day, “have you
heard that Netherfield Park is let at last?” Mr. Bennet replied that he hadn't; it's 1813."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """A vocabulary trained by the reference library, with the library's own tokenizer."""
    theirs = ByteLevelBPETokenizer()
    theirs.train_from_iterator(
        [AUSTEN], vocab_size=400, min_frequency=2, show_progress=False, special_tokens=[END_OF_TEXT]
    )
    directory = tmp_path_factory.mktemp("bpe")
    theirs.save_model(str(directory))
    files = [(directory / name).read_text("utf-8") for name in ("vocab.json", "merges.txt")]
    return theirs, bpe_from_files(*files)


any_text = st.text(max_size=200) | st.text(
    alphabet=" \n\t\r\u00a0ab'.,1é—😀\u0301\u200b", max_size=200
)


@given(any_text)
def test_bpe_ids_equal_the_reference_library(reference, text):
    assume(END_OF_TEXT not in text)  # which is a token to the reference wherever it is typed
    theirs, ours = reference
    assert ours.encode(text) == theirs.encode(text).ids


@pytest.mark.parametrize("text", [AUSTEN, AUSTEN * 300, " " * 50, "a  b   c\n\n\n  d \n "])
def test_bpe_ids_equal_the_reference_library_on_prose(reference, text):
    theirs, ours = reference
    assert ours.encode(text) == theirs.encode(text).ids


@given(any_text)
def test_bpe_round_trip_is_lossless(tiny_tokenizer, text):
    assert tiny_tokenizer.decode(tiny_tokenizer.encode(text)) == text


@given(any_text)
def test_a_vocabulary_of_plain_typography_reads_all_text_so(tiny_tokenizer, text):
    plain = BPETokenizer(tiny_tokenizer.vocab, tiny_tokenizer.merges, plain=True)
    assert plain.decode(plain.encode(text)) == plain_typography(text)


def test_characters_of_plain_typography_are_read_so():
    tokenizer = CharTokenizer(list("I'm."), plain=True)
    assert tokenizer.decode(tokenizer.encode("I’m…")) == "I'm..."
    with pytest.raises(PromptError, match="never seen '’'"):
        CharTokenizer(list("I'm.")).encode("I’m")


@given(st.text(alphabet=st.characters(codec=None, categories=None), max_size=50))
def test_bpe_reads_a_lone_surrogate_as_the_replacement_character(tiny_tokenizer, text):
    decoded = tiny_tokenizer.decode(tiny_tokenizer.encode(text))
    assert decoded == whole_characters(text)
    assert not any("\ud800" <= c <= "\udfff" for c in decoded)


def test_whole_characters_joins_surrogates_that_belong_together():
    assert whole_characters("\ud83d\ude00 \ud83d.") == "😀 \ufffd."


@pytest.mark.parametrize(
    "text",
    [" " * 1_000_000, " " * 1_000_500 + "x", "\n" * 300_000, "a" * 1_000_000, "…" * 200_000],
    ids=["spaces", "spaces and a word", "lines", "one word", "dots"],
)
def test_bpe_reads_a_million_characters_of_anything(reference, text):
    ours = reference[1]
    assert ours.decode(ours.encode(text)) == text


def test_the_end_of_text_typed_as_text_is_plain_text(tiny_tokenizer):
    ids = tiny_tokenizer.encode(f"The{END_OF_TEXT}End")
    assert tiny_tokenizer.eot_id not in ids
    assert tiny_tokenizer.decode(ids) == f"The{END_OF_TEXT}End"


def test_merges_are_applied_in_order(tiny_tokenizer):
    spelled = [tiny_tokenizer.token_bytes(i) for i in tiny_tokenizer.encode("then the hand and er")]
    assert spelled == [b"the", b"n", b" the", b" ", b"h", b"a", b"n", b"d", b" and", b" ", b"er"]


def test_ids_need_not_be_in_the_order_of_the_merges(tiny_tokenizer):
    last = tiny_tokenizer.vocab_size - 1
    turned = {spelling: last - token for spelling, token in tiny_tokenizer.vocab.items()}
    ours = BPETokenizer(turned, tiny_tokenizer.merges)
    assert [last - i for i in ours.encode(AUSTEN)] == tiny_tokenizer.encode(AUSTEN)
    assert ours.decode(ours.encode(AUSTEN)) == AUSTEN


def test_bpe_says_which_token_the_vocabulary_lacks(tiny_tokenizer):
    vocab = {s: i for s, i in tiny_tokenizer.vocab.items() if s != "the"}
    with pytest.raises(CheckpointError, match="lacks 'the'"):
        BPETokenizer(vocab, tiny_tokenizer.merges)


@pytest.mark.parametrize(
    ("vocab", "merges", "message"),
    [
        ("{", "", "not JSON"),
        ("[]", "", "each token to its id"),
        ('{"a": 0, "b": 2}', "", "without gaps"),
        ('{"a": 0, "b": 1}', "#version: 0.2\na b c\n", "'a b c'"),
        ('{"a": 0, "b": 1}', "a b\n", "lacks"),
    ],
)
def test_damaged_bpe_files_are_refused_with_the_reason(vocab, merges, message):
    with pytest.raises(CheckpointError, match=message):
        bpe_from_files(vocab, merges)


# Characters


@given(st.text(alphabet="abc é\n", max_size=100))
def test_char_round_trip_is_lossless(text):
    letters = CharTokenizer.from_text("abc é\n")
    assert letters.decode(letters.encode(text)) == text
    assert b"".join(map(letters.token_bytes, letters.encode(text))) == text.encode()


def test_char_ids_are_in_code_point_order():
    assert CharTokenizer.from_text("banana").encode("nab") == [2, 0, 1]


def test_an_unknown_character_is_named():
    with pytest.raises(PromptError, match="3 characters and has never seen 'x'"):
        CharTokenizer.from_text("banana").encode("bax")


@pytest.mark.parametrize("characters", [["a", "a"], ["ab"], [""]])
def test_a_character_list_must_hold_single_distinct_characters(characters):
    with pytest.raises(CheckpointError, match="single, distinct"):
        CharTokenizer(characters)


# Streaming


@given(st.binary(max_size=60))
def test_streamed_text_is_the_decoded_text_for_any_bytes(tiny_tokenizer, data):
    ids = [tiny_tokenizer.vocab[s] for s in map(BYTE_SPELLING.get, data)]
    decoder = StreamDecoder(tiny_tokenizer)
    assert "".join(map(decoder.push, ids)) + decoder.flush() == tiny_tokenizer.decode(ids)


@given(st.text(max_size=40))
def test_streamed_pieces_never_hold_half_a_character(tiny_tokenizer, text):
    decoder, shown = StreamDecoder(tiny_tokenizer), ""
    for token in tiny_tokenizer.encode(text):
        shown += decoder.push(token)
        assert text.startswith(shown)
    assert shown == text


def test_an_unfinished_character_appears_only_on_flush(tiny_tokenizer):
    decoder = StreamDecoder(tiny_tokenizer)
    first, *_ = tiny_tokenizer.encode("é")
    assert decoder.push(first) == ""
    assert decoder.flush() == codecs.decode("é".encode()[:1], errors="replace")
