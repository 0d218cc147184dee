"""Passages stand once in what is learnt, and never there when they are held out."""

from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.passages import drop_duplicates
from storygen.corpora.works import Work, stories
from storygen.tokenizers import END_OF_TEXT

LONG = "The keeper of the lighthouse counted {} ships that evening, and not one of them came."


def text(*numbers):
    return "\n\n".join(LONG.format(n) for n in numbers) + "\n"


def test_a_passage_of_two_works_stays_in_the_first():
    works, removed = drop_duplicates(
        [Work("a", text(1, 2, 3), False), Work("b", text(4, 2, 5), False)]
    )
    assert [w.text for w in works] == [text(1, 2, 3), text(4, 5)]
    assert (removed.passages, removed.held_out, removed.stories) == (1, 0, 0)
    assert removed.characters == len(LONG.format(2))


def test_case_spacing_and_typography_make_no_difference():
    typed = "“It’s late—too late,” she told the boy who had come so far, for nothing at all."
    plain = '"IT\'S late--too  late," she told the boy, who had come so far for nothing at all.'
    works, removed = drop_duplicates(
        [Work("a", typed, False), Work("b", f"{text(1, 2)}\n{plain}", False)]
    )
    assert works[1].text == text(1, 2)
    assert removed.passages == 1


def test_what_is_held_out_is_dropped_from_training_wherever_it_stands():
    held = Work("z", text(2, 9), True)
    works, removed = drop_duplicates([Work("a", text(1, 2, 3), False), held])
    assert works == [Work("a", text(1, 3), False), held]
    assert removed.held_out == 1


def test_a_repetition_inside_a_story_is_its_authors():
    work = Work("a", text(1, 2, 1), False)
    assert drop_duplicates([work])[0] == [work]


def test_a_story_that_is_mostly_anothers_goes_whole():
    first, second = text(1, 2, 3), text(1, 2, 3) + "\nThe end.\n"
    joined = f"{first}\n{END_OF_TEXT}\n\n{second}\n{END_OF_TEXT}\n\n{text(4)}"
    (work,), removed = drop_duplicates([Work("a", joined, False)])
    assert list(stories(work.text)) == [first, text(4)]
    assert (removed.stories, removed.passages) == (1, 3)


def test_short_lines_may_be_said_twice():
    works = [Work("a", "Yes, sir.\n", False), Work("b", "Yes, sir.\n", False)]
    assert drop_duplicates(works)[0] == works


lines = st.lists(st.integers(0, 12), max_size=8)


@given(st.lists(st.tuples(lines, st.booleans()), max_size=6))
def test_no_passage_is_left_twice_and_none_is_lost(drawn):
    works = [Work(str(n), text(*numbers), held) for n, (numbers, held) in enumerate(drawn)]
    after, _ = drop_duplicates(works)
    passages = [
        (n, work.held_out, line)
        for n, work in enumerate(after)
        for line in {line for line in work.text.split("\n") if line}
    ]
    held = {line for _, is_held, line in passages if is_held}
    trained = [line for _, is_held, line in passages if not is_held]
    assert len(trained) == len(set(trained))
    assert held.isdisjoint(trained)
    assert [w for w in after if w.held_out] == [w for w in works if w.held_out]
