"""One training in several processes, as torchrun starts them; alone, a group of one.

Each process takes its share of every batch and all step alike, so the trainer has one way of doing
things. The first process writes; the others only compute.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from storygen.errors import StorygenError, TrainError

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a training: this one's rank, how many there are, its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, rows: int) -> slice:
        """The rows of a batch that this process computes; raises TrainError for uneven shares."""
        if rows % self.size:
            raise TrainError(
                f"A batch of {rows} does not divide among {self.size} processes: set batch_size "
                f"to a multiple of {self.size}."
            )
        each = rows // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def wrap(self, model: nn.Module) -> nn.Module:
        """model with gradients that are the mean over the group."""
        return model if self.size == 1 else DistributedDataParallel(model)

    def mean(self, *values: float) -> list[float]:
        """The means of these numbers over the group."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return [value / self.size for value in total.tolist()]

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """This tensor of every process, in the order of their ranks, on the CPU."""
        if self.size == 1:
            return [tensor.cpu()]
        tensor = tensor.to(self.device)
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        distributed.all_gather(found, tensor)
        return [t.cpu() for t in found]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raises TrainError, instead of a backend's own error, where another process is gone."""
        try:
            yield
        except RuntimeError as error:
            lost = isinstance(error, distributed.DistError) or "gloo" in str(error)
            if self.size == 1 or not lost:
                raise
            raise TrainError(
                "Another process of this training has ended, or cannot be reached. Start all of "
                "them again with --resume."
            ) from error

    def from_first(self, make: Callable[[], T]) -> T:
        """What make gives in the first process, for all of them. Its StorygenError is raised in
        all, so that they end or go on together."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.first:
            try:
                answer[0] = make()
            except StorygenError as error:
                answer[1] = error
        distributed.broadcast_object_list(answer, device=self.device)
        if answer[1] is not None:
            raise answer[1]
        given: T = answer[0]
        return given

    def tensors_from_first(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first process' tensors, in all of them, on the CPU."""
        if self.size == 1:
            return tensors
        forms = self.from_first(lambda: {n: (t.shape, t.dtype) for n, t in tensors.items()})
        found = {}
        for name, (shape, dtype) in forms.items():
            tensor = tensors[name] if self.first else torch.empty(shape, dtype=dtype)
            tensor = tensor.to(self.device)
            distributed.broadcast(tensor, 0)
            found[name] = tensor.cpu()
        return found

    def leave(self) -> None:
        """End the group, and its threads: one that still has a tensor of Python's when the process
        ends aborts it. They live as long as anything wraps a model for the group."""
        if self.size > 1:
            gc.collect()
            distributed.destroy_process_group()


def join() -> Group:
    """The group that torchrun's environment variables describe, or this process alone."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else "cpu"
    if cuda:
        torch.cuda.set_device(device)
    group = Group(torch.device(device), rank, size)
    if size > 1:
        with group.together():
            distributed.init_process_group("nccl" if cuda else "gloo", rank=rank, world_size=size)
    return group
