"""Next words against all there are, one after another, on vocabularies that allow it."""

from collections import defaultdict

import pytest
import torch

from storygen.decode.native import NativeDecoder
from storygen.engine import beginnings
from storygen.engine.beginnings import TextSearch, first_word
from storygen.engine.interface import TokenScore
from storygen.engine.slots import Slots
from storygen.engine.words import next_words_job
from storygen.tokenizers import CharTokenizer
from tests.conftest import random_model

DEPTH = 4


def letters(characters, eot=None):
    made = CharTokenizer(characters, eot)
    made.tokens_per_word = DEPTH
    return made


def every_word(model, tokenizer, prompt):
    """The probability of every word of at most DEPTH tokens: each beginning, each token."""
    found = defaultdict(float)

    def go_on(ids, text, probability):
        logits = model(torch.tensor([tokenizer.encode(prompt) + ids]))[0, -1]
        for token, share in enumerate(logits.double().softmax(-1).tolist()):
            if token == tokenizer.eot_id:
                word, over = first_word(text)[0], True
            else:
                word, over = first_word(text + tokenizer.decode([token]))
            if over or len(ids) + 1 == DEPTH:
                found[word] += probability * share
            else:
                go_on([*ids, token], text + tokenizer.decode([token]), probability * share)

    go_on([], "", 1.0)
    found.pop("", None)
    return dict(found)


def asked(library, model, tokenizer, prompt, n):
    decoder = NativeDecoder(library, model.config, model.state_dict(), "fp32", 6, 1)
    slots, job = Slots(decoder), next_words_job("letters", prompt, n)
    done = False
    while not done:
        done, words = job.advance(decoder, slots, tokenizer)
    decoder.close()
    return words


@pytest.mark.parametrize(
    ("characters", "eot"), [("ab ,'", None), ("ab ._#", "#"), ("a\n \"'’", None)]
)
@pytest.mark.parametrize("seed", range(3))
def test_all_words_have_the_probability_of_all_their_tokens(library, characters, eot, seed):
    tokenizer = letters(characters, eot)
    model = random_model(tokenizer.vocab_size, seed=seed)
    words = asked(library, model, tokenizer, "ab a"[seed:].replace("b", "a"), 10_000)
    exact = every_word(model, tokenizer, "ab a"[seed:].replace("b", "a"))
    assert {word.text: word.probability for word in words} == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_words_are_the_best_of_all(library, seed):
    tokenizer = letters("abc .")
    model = random_model(tokenizer.vocab_size, seed=seed)
    exact = every_word(model, tokenizer, "a cab.")
    best = sorted(exact, key=exact.__getitem__, reverse=True)[:5]
    words = asked(library, model, tokenizer, "a cab.", 5)
    assert [word.text for word in words] == best
    assert [word.probability for word in words] == pytest.approx([exact[w] for w in best], abs=1e-5)


@pytest.mark.parametrize(
    ("characters", "eot"), [("ab ,'", None), ("ab ._#", "#"), ("a\n \"'’", None)]
)
def test_from_texts_come_the_words_that_come_from_tokens(monkeypatch, characters, eot):
    monkeypatch.setattr(beginnings, "LONGEST_WORD", DEPTH - 1)
    tokenizer = letters(characters, eot)
    model = random_model(tokenizer.vocab_size, seed=1)
    texts = [tokenizer.decode([i]) if i != tokenizer.eot_id else "" for i in range(len(characters))]
    search = TextSearch(10_000, 10_000)
    while paths := search.next(3):
        for path in paths:
            logits = model(torch.tensor([tokenizer.encode("aa" + path.start)]))[0, -1]
            told = zip(texts, logits.double().log_softmax(-1).tolist(), strict=True)
            search.expand(path, [TokenScore(text, logprob) for text, logprob in told])
    exact = every_word(model, tokenizer, "aa")
    assert {word.text: word.probability for word in search.best()} == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(
    ("text", "word", "over"),
    [
        ("", "", False),
        (" ", "", False),
        ("\n\n", "", False),
        (" the", " the", False),
        (" the ", " the", True),
        (" don't", " don't", False),
        (" don'", " don", False),
        (" don',", " don", True),
        (" don''", " don", True),
        ("'", "'", False),
        ("'s", "'", True),
        ('."', '."', False),
        ('."\n', '."', True),
        (", and", ",", True),
        (" _so_", " _", True),
        ("é", "é", False),
        ("1984.", "1984", True),
    ],
)
def test_a_word_is_letters_or_marks_with_the_space_before_it(text, word, over):
    assert first_word(text) == (word, over)


def test_byte_pieces_of_letters_and_merged_tokens_make_whole_words(library, tiny_tokenizer):
    model = random_model(tiny_tokenizer.vocab_size, seed=3)
    words = asked(library, model, tiny_tokenizer, "the hen", 30)
    assert sum(word.probability for word in words) <= 1
    assert not any("\ufffd" in word.text for word in words)
    assert all(first_word(word.text)[0] == word.text for word in words)
