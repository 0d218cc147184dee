"""Mail: what cannot wait is brought at once, the rest together, nothing twice and nothing never."""

import asyncio
import threading

import pytest

from storygen.engine import mail
from storygen.engine.interface import Segment
from storygen.engine.mail import EVERY, Mail
from storygen.engine.place import News, Place


def word(place, text="a", final=False):
    return place, News(Segment(text, 1, "stop" if final else None), final)


@pytest.fixture
def unhurried(monkeypatch):
    """A loop that never looks of itself, however slow the machine is."""
    monkeypatch.setattr(mail, "EVERY", 3600)


class Counted:
    """A mail whose deliveries are kept, each as the texts it brought."""

    def __init__(self):
        self.brought = []
        loop = asyncio.get_running_loop()
        self.mail = Mail(loop, lambda news: self.brought.append([n.value.text for _, n in news]))


async def test_the_first_word_and_the_last_are_brought_at_once_and_those_between_together(
    unhurried,
):
    here, place = Counted(), Place("m", "")
    here.mail.post([word(place, "1")])
    await asyncio.sleep(0)
    assert here.brought == [["1"]]
    for text in "234":
        here.mail.post([word(place, text)])
        await asyncio.sleep(0)
    assert here.brought == [["1"]]
    here.mail.post([word(place, "5", final=True)])
    await asyncio.sleep(0)
    assert here.brought == [["1"], ["2", "3", "4", "5"]]


async def test_a_word_that_nothing_follows_does_not_stay_behind():
    here, place = Counted(), Place("m", "")
    here.mail.post([word(place, "1")])
    await asyncio.sleep(0)
    here.mail.post([word(place, "2")])
    await asyncio.sleep(3 * EVERY)
    assert here.brought == [["1"], ["2"]]
    await asyncio.sleep(3 * EVERY)  # nobody looks any more
    here.mail.post([word(place, "3")])
    await asyncio.sleep(0)
    assert here.brought[2:] == [["3"]]


async def test_another_writers_first_word_does_not_wait(unhurried):
    here, one, other = Counted(), Place("m", ""), Place("m", "")
    here.mail.post([word(one, "1")])
    await asyncio.sleep(0)
    here.mail.post([word(one, "2"), word(other, "first")])
    await asyncio.sleep(0)
    assert here.brought == [["1"], ["2", "first"]]


async def test_of_many_words_from_a_thread_each_comes_once_and_in_order():
    here, place = Counted(), Place("m", "")

    def write():
        for n in range(5000):
            here.mail.post([word(place, str(n), final=n == 4999)])

    writer = threading.Thread(target=write)
    writer.start()
    await asyncio.to_thread(writer.join)
    await asyncio.sleep(0)
    assert [text for texts in here.brought for text in texts] == [str(n) for n in range(5000)]


async def test_who_posts_to_a_closed_loop_is_told():
    loop = asyncio.new_event_loop()
    here = Mail(loop, lambda news: None)
    loop.close()
    with pytest.raises(RuntimeError):
        here.post([])
