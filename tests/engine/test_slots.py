"""Which slot a story gets, and what it need not read again."""

import pytest

from storygen.engine.slots import Slots


class Copies:
    """Stands for a Decoder: notes what is copied."""

    def __init__(self, n_slots):
        self.n_slots, self.copied = n_slots, []

    def copy(self, source, target, n):
        self.copied.append((source, target, n))


@pytest.fixture
def decoder():
    return Copies(3)


@pytest.fixture
def slots(decoder):
    return Slots(decoder)


def told(slots, ids):
    """A story was told in a slot, which is free again."""
    slot = slots.take(ids)
    slots.learned(slots.rows(slot, ids, slots.recall(slot, ids), len(ids)))
    slots.give_back(slot)
    return slot


def test_new_stories_get_the_slot_that_was_not_used_for_the_longest_time(slots):
    stories = [[n, n, n, n] for n in range(1, 6)]
    assert [told(slots, story) for story in stories] == [0, 1, 2, 0, 1]


def test_a_story_that_goes_on_gets_its_own_slot(slots, decoder):
    told(slots, [1, 2, 3])
    told(slots, [7, 8, 9])
    slot = slots.take([1, 2, 3, 4, 5])
    assert (slot, slots.recall(slot, [1, 2, 3, 4, 5])) == (0, 3)
    assert decoder.copied == []


def test_a_story_that_only_begins_alike_leaves_the_other_its_memory(slots, decoder):
    told(slots, [1, 2, 3, 4, 5, 6])
    other = [1, 2, 9, 9]
    slot = slots.take(other)
    assert (slot, slots.recall(slot, other)) == (1, 2)
    assert decoder.copied == [(0, 1, 2)]
    slots.give_back(slot)
    whole = [1, 2, 3, 4, 5, 6, 7]
    assert slots.recall(slots.take(whole), whole) == 6


def test_the_last_token_is_always_read(slots):
    told(slots, [1, 2, 3])
    slot = slots.take([1, 2, 3])
    assert slots.recall(slot, [1, 2, 3]) == 2


def test_a_slot_in_use_is_copied_from_but_not_taken(slots, decoder):
    first = slots.take([1, 2, 3, 4])
    slots.learned(slots.rows(first, [1, 2, 3, 4], 0, 4))
    second = slots.take([1, 2, 3, 4])
    assert second != first
    assert slots.recall(second, [1, 2, 3, 4]) == 3
    assert decoder.copied == [(first, second, 4)]


def test_what_is_read_over_is_forgotten(slots):
    slot = slots.take([1, 2, 3, 4])
    slots.learned(slots.rows(slot, [1, 2, 3, 4], 0, 4))
    slots.recall(slot, [1, 2, 8])  # and then reading 8 failed
    assert slots.recall(slot, [1, 2, 3, 4]) == 2
    slots.forget(slot)
    assert slots.recall(slot, [1, 2, 3, 4]) == 0
