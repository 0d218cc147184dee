"""Which weights are stepped how: AdamW, or Muon for matrices, and the schedule of their rates."""

import torch
from torch.optim import AdamW, Muon, Optimizer

from storygen.model import GPT
from storygen.train.config import TrainConfig


def configure_optimizers(model: GPT, config: TrainConfig) -> list[Optimizer]:
    """The optimizers of a run; each parameter group keeps its full rate as `peak_lr`.

    AdamW (Loshchilov and Hutter 2019) for everything, or Muon (Jordan et al. 2024, scaled to
    AdamW's step as in Liu et al. 2025) for the matrices inside the blocks and AdamW for the rest.
    Biases and layer norms do not decay.
    """
    weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
    muon = config.muon_learning_rate is not None
    inner = [p for name, p in weights.items() if muon and p.dim() == 2 and name.startswith("h.")]
    chosen = {id(p) for p in inner}
    matrices = [p for p in weights.values() if p.dim() > 1 and id(p) not in chosen]
    vectors = [p for p in weights.values() if p.dim() <= 1]
    optimizers: list[Optimizer] = [
        AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
    ]
    if config.muon_learning_rate is not None:
        rate, decay = config.muon_learning_rate, config.weight_decay
        optimizers.append(Muon(inner, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def set_rates(optimizers: list[Optimizer], share: float) -> None:
    """Give every group this share of its full rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * group["peak_lr"]


def schedule(step: int, config: TrainConfig) -> float:
    """Share of the full rate at a step, counted from 1: up in a line over warmup_steps, level, and
    down in a line over the last decay_share of all steps to final_share."""
    up = step / config.warmup_steps if config.warmup_steps else 1.0
    decay_steps = config.decay_share * config.max_steps
    left = config.max_steps - step + 1
    down = min(1.0, left / decay_steps) if decay_steps else 1.0
    return min(up, config.final_share + (1 - config.final_share) * down)


def last_level_step(config: TrainConfig) -> int:
    """The last step before the rate comes down: until then nothing depends on how long a run is."""
    return int(config.max_steps - config.decay_share * config.max_steps + 1)


def optimizer_tensors(model: GPT, optimizers: list[Optimizer]) -> dict[str, torch.Tensor]:
    """The optimizers' state by parameter name, such as `opt.wte.weight.exp_avg`."""
    return {
        f"opt.{name}.{key}": value
        for name, weight in model.named_parameters()
        for optimizer in optimizers
        for key, value in optimizer.state.get(weight, {}).items()
    }


def restore_optimizers(
    model: GPT, optimizers: list[Optimizer], tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what optimizer_tensors() took out."""
    weights = dict(model.named_parameters())
    names = {id(weight): name for name, weight in weights.items()}
    for optimizer in optimizers:
        for weight in (p for group in optimizer.param_groups for p in group["params"]):
            prefix = f"opt.{names[id(weight)]}."
            found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            if found:
                # Fused AdamW counts its steps in fp32 where the weights are.
                optimizer.state[weight] = {k: v.to(weight.device) for k, v in found.items()}
