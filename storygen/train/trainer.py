"""The training loop: steps over sliding windows, measured, resumable, and silent.

What happens goes to metrics.jsonl and to a callback; who shows it is none of its business.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storygen.errors import TrainError
from storygen.model.gpt import CausalSelfAttention
from storygen.train.attention import blocked_attention
from storygen.train.checkpoint import read_checkpoint, write_checkpoint
from storygen.train.config import TrainConfig
from storygen.train.data import Corpus, Windows, spread_windows
from storygen.train.distributed import Group
from storygen.train.metrics import MetricsFile, drop_metrics_after
from storygen.train.optimizer import (
    configure_optimizers,
    last_level_step,
    optimizer_tensors,
    restore_optimizers,
    schedule,
    set_rates,
)
from storygen.train.start import first_model

# What may change when a run goes on: nothing that the weights depend on.
FREE = ("card", "prompts", "sample_tokens", "eval_every", "checkpoint_minutes")
# And what says when the rate comes down, for a run that is still before it.
LENGTH = ("max_steps", "decay_share", "final_share")


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a step; val_loss where it was just measured."""

    step: int
    loss: float
    learning_rate: float
    tokens: int
    tokens_per_second: float
    val_loss: float | None = None


class Trainer:
    """One run in one directory. Loss is the mean cross-entropy of a token, in nats."""

    def __init__(
        self,
        config: TrainConfig,
        corpus: Corpus,
        run: Path,
        group: Group | None = None,
        on_step: Callable[[Progress], None] = lambda _: None,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """on_trouble is told, in a sentence, what did not end the run."""
        self.group = group or Group(torch.device("cpu"))
        self.corpus, self.run_dir, self.on_step, self.on_trouble = corpus, run, on_step, on_trouble
        self.group.from_first(lambda: _made(run))
        self.device = self.group.device
        self.dtype = training_dtype(config.dtype, self.device)
        stride = config.stride or config.window_size
        self.windows = Windows(corpus.train, config.window_size, stride, config.seed)
        self.config = config.with_steps(self.windows.per_epoch)
        self.rows = self.group.share(config.batch_size)
        torch.manual_seed(config.seed)
        self.model = first_model(config, corpus.tokenizer).to(self.device)
        torch.manual_seed(config.seed + self.group.rank)  # no two drop the same units
        if config.compile and self.device.type == "cpu":
            for module in self.model.modules():
                if isinstance(module, CausalSelfAttention):
                    module.attend = blocked_attention
        self.net = self.group.wrap(self.model)
        self.loss = torch.compile(mean_loss) if config.compile else mean_loss
        self.optimizers = configure_optimizers(self.model, self.config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        self.step = 0
        self.damaged: list[str] = []  # checkpoints that resume() had to pass over
        self.is_stopped = False  # whether it was told to end after the present step
        self._metrics = MetricsFile(run)

    def run(self, minutes: float | None = None) -> bool:
        """Train to max_steps, or until the minutes are over or stop() is called; True when all
        steps are done.

        A checkpoint is written every few minutes and at the end; resume() goes on from it exactly.
        Where one between cannot be written the run goes on, and tries again after as many minutes;
        raises TrainError where the last one cannot.
        """
        began = saved = time.monotonic()
        deadline = math.inf if minutes is None else began + 60 * minutes
        self.model.train()
        while self.step < self.config.max_steps:
            now = time.monotonic()
            waited = now - saved > 60 * self.config.checkpoint_minutes
            # Clocks may differ, and a signal may have come to one process only.
            told, late, save = self.group.mean(self.is_stopped, now >= deadline, waited)
            if told:
                self.stop()
            if told or late:
                break
            if save:
                self._save_if_possible()
                saved = now
            self._report(*self._timed_step())
        self.save()
        self.net = self.model  # what wraps it would keep the group's threads beyond its end
        return self.step == self.config.max_steps

    def stop(self) -> None:
        """End after the present step, with a checkpoint; may be called from a signal handler."""
        self.is_stopped = True

    def validation_loss(self) -> float:
        """Mean loss over fixed windows of the held-out tokens."""
        count, group = self.config.eval_windows, self.group
        windows = spread_windows(self.corpus.val, self.config.window_size, count)
        own = islice(windows, group.rank, None, group.size)
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            losses = [
                mean_loss(self.model, x.to(self.device), y.to(self.device)).item() for x, y in own
            ]
        self.model.train()
        (each,) = group.mean(sum(losses))
        return each * group.size / count

    def save(self) -> None:
        """Write a checkpoint of the present step; raises TrainError, in all processes, when the
        disk of the first does not take it."""
        tensors = {f"model.{k}": v.detach() for k, v in self._trained().items()}
        tensors |= optimizer_tensors(self.model, self.optimizers)
        tensors["rng"] = torch.stack(self.group.gather(torch.get_rng_state()))
        if self.device.type == "cuda":
            on_card = torch.cuda.get_rng_state(self.device)
            tensors["rng.cuda"] = torch.stack(self.group.gather(on_card))
        state = {
            "step": self.step,
            "scaler": self.scaler.state_dict(),
            "config": self.config.model_dump(mode="json"),
        }
        self.group.from_first(lambda: write_checkpoint(self.run_dir, self.step, tensors, state))

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of this run; False where there is none.

        Only the first process reads it: the others may be where its disk is not.
        """
        tensors: dict[str, Tensor] = {}
        state, self.damaged = self.group.from_first(lambda: self._read(tensors))
        if state is None:
            return False
        self._restore(self.group.tensors_from_first(tensors), state)
        self.step = state["step"]
        return True

    def _read(self, tensors: dict[str, Tensor]) -> tuple[dict[str, Any] | None, list[str]]:
        """State of the newest whole checkpoint, its tensors put into the dictionary, and the names
        of damaged ones; the metrics of later steps are forgotten."""
        found = read_checkpoint(self.run_dir)
        state, damaged = found[1:] if found else (None, [])
        if found and state:
            self._check_same_run(state["config"], state["step"])
            tensors |= found[0]
        try:
            drop_metrics_after(self.run_dir, state["step"] if state else 0)
        except OSError as error:
            raise TrainError(
                f"{self.run_dir} does not let its metrics be changed ({error}). Put that right, "
                "then go on with --resume."
            ) from None
        return state, damaged

    def _save_if_possible(self) -> None:
        try:
            self.save()
        except TrainError as error:
            if self.group.first:
                self.on_trouble(str(error))

    def _restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        with torch.no_grad():
            for name, weight in self._trained().items():
                weight.copy_(tensors[f"model.{name}"])
        restore_optimizers(self.model, self.optimizers, tensors)
        if state["scaler"]:  # empty where the run was not in fp16
            self.scaler.load_state_dict(state["scaler"])
        rank = self.group.rank
        if rank < len(tensors["rng"]):  # more processes than before begin with their own seeds
            torch.set_rng_state(tensors["rng"][rank].clone())
            if "rng.cuda" in tensors and self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["rng.cuda"][rank].clone(), self.device)

    def _trained(self) -> dict[str, Tensor]:
        """The weights that steps change, by name."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    def _timed_step(self) -> tuple[float, float]:
        """One optimizer step; its mean loss and the seconds it took."""
        began = time.perf_counter()
        self.step += 1
        set_rates(self.optimizers, schedule(self.step, self.config))
        total = torch.zeros((), device=self.device)
        for micro in range(self.config.accumulate):
            number = (self.step - 1) * self.config.accumulate + micro
            x, y = self.windows.batch(number, self.config.batch_size, self.rows)
            x, y = x.to(self.device), y.to(self.device)
            with self._autocast():
                loss = self.loss(self.net, x, y) / self.config.accumulate
            self.scaler.scale(loss).backward()
            total += loss.detach()
        (mean,) = self.group.mean(total.item())
        if not math.isfinite(mean):
            raise TrainError(
                f"The loss became {mean} at step {self.step}: the last checkpoint is kept. "
                "Lower learning_rate, or use dtype=fp32."
            )
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return mean, time.perf_counter() - began

    def _report(self, loss: float, seconds: float) -> None:
        last = self.step == self.config.max_steps
        measured = self.step % self.config.eval_every == 0 or last
        progress = Progress(
            step=self.step,
            loss=loss,
            learning_rate=self.optimizers[0].param_groups[0]["lr"],
            tokens=self.step * self.config.tokens_per_step,
            tokens_per_second=self.config.tokens_per_step / seconds,
            val_loss=self.validation_loss() if measured else None,
        )
        if self.group.first:
            entries = {k: v for k, v in vars(progress).items() if v is not None}
            self._metrics.append(entries)
            self.on_step(progress)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _check_same_run(self, saved: dict[str, Any], step: int) -> None:
        now = self.config.model_dump(mode="json")
        begun = TrainConfig.model_validate(saved)
        level = step <= min(last_level_step(begun), last_level_step(self.config))
        free = FREE + LENGTH if level else FREE
        changed = [key for key in now if key not in free and now[key] != saved.get(key)]
        if changed:
            raise TrainError(
                f"{self.run_dir} was begun with {changed[0]} = {saved.get(changed[0])}, and now it "
                f"is {now[changed[0]]}. Resume with the same values, or choose another --out."
            )


def _made(run: Path) -> None:
    """Make a run's directory; raises TrainError where it cannot be."""
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(f"{run} cannot be made ({error}). Choose another --out.") from None


def mean_loss(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of the targets y (B, T) after the inputs x (B, T)."""
    logits = net(x)  # (B, T, V)
    return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())


def training_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of the forward pass: bf16 where the hardware multiplies it, else fp16 on CUDA,
    fp32 on a CPU."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
