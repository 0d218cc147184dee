"""Mail: news on its way from the worker to the event loop, which is woken now and then only."""

import asyncio
from collections.abc import Callable
from threading import Lock

from storygen.engine.place import News, Place

EVERY = 0.02  # seconds that a word may wait for others; the page shows new ones every 0.05


class Mail:
    """To wake the loop for each of some thousand words a second takes much of a core from those who
    write them. So a passage's first words, its end and all other news are brought at once; words in
    between wait until the loop looks, as it does of itself while there are any."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        deliver: Callable[[list[tuple[Place, News]]], None],
    ) -> None:
        self._loop, self._deliver = loop, deliver
        self._lock = Lock()
        self._box: list[tuple[Place, News]] = []
        self._will_look = False

    def post(self, news: list[tuple[Place, News]]) -> None:
        """From any thread; RuntimeError where the loop is closed."""
        can_wait = bool(news) and all(place.heard and not told.final for place, told in news)
        for place, _ in news:
            place.heard = True
        with self._lock:
            self._box += news
            if can_wait and self._will_look:
                return
        self._loop.call_soon_threadsafe(self._bring)

    def _bring(self) -> None:
        with self._lock:
            news, self._box = self._box, []
            begins = not self._will_look and any(not told.final for _, told in news)
            self._will_look = self._will_look or begins
        if begins:
            self._loop.call_later(EVERY, self._look)
        self._deliver(news)

    def _look(self) -> None:
        with self._lock:
            news, self._box = self._box, []
            self._will_look = bool(news)
        if news:
            self._loop.call_later(EVERY, self._look)
            self._deliver(news)
