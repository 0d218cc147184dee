"""The training loop: steps over sliding windows, measured, resumable, and silent.

What happens goes to metrics.jsonl and to a callback; who shows it is none of its business.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from storygen.errors import TrainError
from storygen.model import GPT
from storygen.train.checkpoint import read_checkpoint, write_checkpoint
from storygen.train.config import TrainConfig
from storygen.train.data import Corpus, Windows, spread_windows
from storygen.train.optimizer import (
    configure_optimizers,
    optimizer_tensors,
    restore_optimizers,
    schedule,
    set_rates,
)

METRICS = "metrics.jsonl"


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
        device: torch.device | str = "cpu",
        on_step: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.config, self.corpus, self.run_dir, self.on_step = config, corpus, run, on_step
        self.device = torch.device(device)
        self.dtype = training_dtype(config.dtype, self.device)
        torch.manual_seed(config.seed)
        shape = config.model_config_for(corpus.tokenizer.vocab_size)
        self.model = GPT(shape).init_weights().to(self.device)
        self.optimizers = configure_optimizers(self.model, config)
        self._loss = torch.compile(self._mean_loss) if config.compile else self._mean_loss
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)
        stride = config.stride or config.block_size
        self.windows = Windows(corpus.train, config.block_size, stride, config.seed)
        self.step = 0
        self.damaged: list[str] = []  # checkpoints that resume() had to pass over
        run.mkdir(parents=True, exist_ok=True)

    def run(self, minutes: float | None = None) -> bool:
        """Train to max_steps, or until the minutes are over; True when all steps are done.

        A checkpoint is written every few minutes and at the end; resume() goes on from it exactly.
        """
        began = saved = time.monotonic()
        deadline = math.inf if minutes is None else began + 60 * minutes
        self.model.train()
        while self.step < self.config.max_steps and time.monotonic() < deadline:
            self._report(*self._timed_step())
            if time.monotonic() - saved > 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
        self.save()
        return self.step == self.config.max_steps

    def validation_loss(self) -> float:
        """Mean loss over fixed windows of the held-out tokens."""
        count = self.config.eval_windows
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            losses = [
                self._mean_loss(x.to(self.device), y.to(self.device)).item()
                for x, y in spread_windows(self.corpus.val, self.config.block_size, count)
            ]
        self.model.train()
        return sum(losses) / len(losses)

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        tensors = {f"model.{k}": v.detach() for k, v in self.model.named_parameters()}
        tensors |= optimizer_tensors(self.model, self.optimizers)
        tensors["rng"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        state = {
            "step": self.step,
            "scaler": self.scaler.state_dict(),
            "config": self.config.model_dump(mode="json"),
        }
        write_checkpoint(self.run_dir, self.step, tensors, state)

    def resume(self) -> bool:
        """Go on from the newest whole checkpoint of this run; False where there is none."""
        found = read_checkpoint(self.run_dir)
        if found is None:
            self._drop_metrics_after(0)
            return False
        tensors, state, self.damaged = found
        self._check_same_run(state["config"])
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(tensors[f"model.{name}"])
        restore_optimizers(self.model, self.optimizers, tensors)
        if state["scaler"]:  # empty where the run was not in fp16
            self.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(tensors["rng"])
        if "rng.cuda" in tensors and self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step = state["step"]
        self._drop_metrics_after(self.step)
        return True

    def _timed_step(self) -> tuple[float, float]:
        """One optimizer step; its mean loss and the seconds it took."""
        began = time.perf_counter()
        self.step += 1
        set_rates(self.optimizers, schedule(self.step, self.config))
        total = 0.0
        for micro in range(self.config.accumulate):
            number = (self.step - 1) * self.config.accumulate + micro
            x, y = self.windows.batch(number, self.config.batch_size)
            with self._autocast():
                loss = self._loss(x.to(self.device), y.to(self.device)) / self.config.accumulate
            self.scaler.scale(loss).backward()
            total += loss.item()
        if not math.isfinite(total):
            raise TrainError(
                f"The loss became {total} at step {self.step}: the last checkpoint is kept. "
                "Lower learning_rate, or use dtype=fp32."
            )
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.model.zero_grad(set_to_none=True)
        return total, time.perf_counter() - began

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
        with (self.run_dir / METRICS).open("a", encoding="utf-8") as file:
            entries = {k: v for k, v in vars(progress).items() if v is not None}
            file.write(json.dumps(entries) + "\n")
        self.on_step(progress)

    def _mean_loss(self, x: Tensor, y: Tensor) -> Tensor:
        logits = self.model(x)  # (B, T, V)
        return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.dtype is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def _check_same_run(self, saved: dict[str, Any]) -> None:
        now = self.config.model_dump(mode="json")
        free = {"card", "prompts", "sample_tokens", "eval_every", "checkpoint_minutes"}
        changed = [key for key in now if key not in free and now[key] != saved.get(key)]
        if changed:
            raise TrainError(
                f"{self.run_dir} was begun with {changed[0]} = {saved.get(changed[0])}, and now it "
                f"is {now[changed[0]]}. Resume with the same values, or choose another --out."
            )

    def _drop_metrics_after(self, step: int) -> None:
        """Forget metrics of steps that a cut-off run made after its last checkpoint."""
        path = self.run_dir / METRICS
        if path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = (n for n, line in enumerate(lines) if _step_of(line) > step)
            path.write_text("".join(lines[: next(kept, len(lines))]), encoding="utf-8")


def _step_of(line: str) -> float:
    """Step of a metrics line; a half-written last line counts as the future."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return math.inf


def training_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The dtype of the forward pass: bf16 where the hardware multiplies it, else fp16 on CUDA,
    fp32 on a CPU."""
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if wanted != "auto":
        return named[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32
