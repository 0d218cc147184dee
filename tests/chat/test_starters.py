"""Opening lines."""

from storygen.chat.starters import MAX_STARTERS, opening_lines
from tests.chat.test_controls import model


def test_models_take_turns_and_each_line_names_its_model() -> None:
    models = [model("a", opening_lines=("A1", "A2")), model("b", opening_lines=("B1",))]
    lines = [(starter.message, starter.command) for starter in opening_lines(models)]
    assert lines == [("A1", "a"), ("B1", "b"), ("A2", "a")]


def test_there_are_not_too_many_and_none_twice() -> None:
    models = [model(name, opening_lines=("Same.", *"123456789")) for name in "abc"]
    lines = [starter.message for starter in opening_lines(models)]
    assert len(lines) <= MAX_STARTERS
    assert len(set(lines)) == len(lines)


def test_without_models_there_are_none() -> None:
    assert opening_lines([]) == []
