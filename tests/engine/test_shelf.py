import pytest

from storygen.engine.shelf import Shelf


class Opened:
    """Stands for a Runner."""

    def __init__(self, name):
        if name == "broken":
            raise OSError("by hand")
        self.name, self.closed = name, False

    def close(self):
        self.closed = True


def test_a_model_is_opened_once():
    shelf = Shelf(2, Opened)
    assert shelf.take("a", {"a"}) is shelf.take("a", {"a"})


def test_the_longest_unused_goes_first():
    shelf = Shelf(2, Opened)
    a, b, *_ = [shelf.take(name, {name}) for name in ("a", "b", "a", "c")]
    assert shelf.names == ["a", "c"]
    assert (a.closed, b.closed) == (False, True)


def test_a_busy_model_stays():
    shelf = Shelf(2, Opened)
    for name in ("a", "b"):
        shelf.take(name, {name})
    shelf.take("c", {"a", "c"})
    assert shelf.names == ["a", "c"]


def test_a_model_that_cannot_be_opened_leaves_nothing_behind():
    shelf = Shelf(2, Opened)
    shelf.take("a", {"a"})
    with pytest.raises(OSError, match="by hand"):
        shelf.take("broken", {"broken"})
    assert shelf.names == ["a"]


def test_a_dropped_model_is_opened_anew():
    shelf = Shelf(2, Opened)
    first = shelf.take("a", {"a"})
    shelf.drop("a")
    assert shelf.take("a", {"a"}) is not first
    shelf.clear()
    assert shelf.names == []
