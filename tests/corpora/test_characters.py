"""A character corpus has the characters that can be learnt, and nothing else in its texts."""

from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.characters import END, char_vocabulary
from storygen.corpora.works import Work, stories
from storygen.tokenizers import END_OF_TEXT


def test_rare_characters_become_plain_letters_or_go():
    works = [Work("a", "cafe! " * 50_000 + "café ☃ naïve – ½", False)]
    tokenizer, (work,) = char_vocabulary(works)
    assert tokenizer.characters == [*" !acef", END]
    assert work.text.endswith("cafe  ae  ")


def test_typography_is_plain():
    tokenizer, (work,) = char_vocabulary([Work("a", "“I’m here,” he said…", False)])
    assert work.text == '"I\'m here," he said...'
    assert {'"', "'", "."} <= set(tokenizer.characters)


def test_the_separator_is_no_text():
    tokenizer, (work,) = char_vocabulary([Work("a", f"aa\n{END_OF_TEXT}\nbb\n", False)])
    assert tokenizer.characters == ["\n", "a", "b", END]
    assert list(stories(work.text)) == ["aa\n", "bb\n"]
    assert tokenizer.characters[tokenizer.eot_id] == END


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_every_text_can_be_encoded(texts):
    tokenizer, works = char_vocabulary([Work(str(n), text) for n, text in enumerate(texts)])
    for work in works:
        for story in stories(work.text):
            assert tokenizer.decode(tokenizer.encode(story.rstrip("\n"))) == story.rstrip("\n")
