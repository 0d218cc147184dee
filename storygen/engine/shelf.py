"""Shelf: the models in memory. The longest unused goes first when there is no room."""

from collections.abc import Callable, Collection

from storygen.engine.runner import Runner


class Shelf:
    """Runners by model name, at most `size`, in the order of their last use."""

    def __init__(self, size: int, open_runner: Callable[[str], Runner]) -> None:
        self._size, self._open = size, open_runner
        self._runners: dict[str, Runner] = {}

    @property
    def names(self) -> list[str]:
        """The models in memory, the longest unused first."""
        return list(self._runners)

    def take(self, name: str, busy: Collection[str]) -> Runner:
        """The runner of a model, opened if need be in the place of one that is not busy."""
        runner = self._runners.pop(name, None)
        if runner is None:
            while len(self._runners) >= self._size:
                self.drop(next(model for model in self._runners if model not in busy))
            runner = self._open(name)
        self._runners[name] = runner  # last: just used
        return runner

    def drop(self, name: str) -> None:
        """Give a model's memory back."""
        runner = self._runners.pop(name, None)
        if runner is not None:
            runner.close()

    def clear(self) -> None:
        """Give all memory back."""
        for name in self.names:
            self.drop(name)
