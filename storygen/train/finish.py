"""What a finished run leaves: the loss plot, samples, the held-out score and a model directory."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from storygen.checkpoints import save
from storygen.checkpoints.adapter import save_adapter
from storygen.checkpoints.ngrams import count
from storygen.model import GPT, generate
from storygen.model.windows import window_start
from storygen.params import Row, SamplingParams
from storygen.penalties import breaker_tokens, penalties
from storygen.sampling import sample
from storygen.tokenizers import Tokenizer
from storygen.train.card import model_card
from storygen.train.config import TrainConfig
from storygen.train.evaluate import score_tokens
from storygen.train.metrics import read_metrics
from storygen.train.plots import plot_loss
from storygen.train.trainer import Trainer

SAMPLE_SEED = 1
MOST_SCORED = 200_000  # held-out tokens: minutes of a core for ten million weights


def finish(trainer: Trainer, name: str) -> Path:
    """Measure the trained model and write RUN/model, ready to be used; returns that directory."""
    suggested = trainer.config.card.suggested
    run, config, corpus = trainer.run_dir, trainer.config, trainer.corpus
    metrics = read_metrics(run)
    plot_loss(metrics, f"{name}: {trainer.model.n_params / 1e6:.1f}M parameters", run / "loss.png")
    model = trainer.model.eval()
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.requires_grad):
            weight.copy_(weight.half())  # as it will be read back: the card speaks of what ships
    score = score_tokens(model, corpus.tokenizer, corpus.val, MOST_SCORED)
    samples = []
    for prompt in config.prompts:
        text = continuation(model, corpus.tokenizer, prompt, suggested, config.sample_tokens)
        for stop in config.card.stop:
            text = text.partition(stop)[0]
        samples.append((prompt, text))
    card = model_card(name, config, corpus.meta, model, score, samples, metrics)
    files = {"README.md": card, "storygen.json": _extras(config, score.bits_per_byte)}
    if config.lora_rank:
        rank, alpha = config.lora_rank, config.lora_alpha
        base = Path(config.init)
        save_adapter(run / "model", model, base, rank=rank, alpha=alpha, files=files)
    else:
        save(run / "model", model, corpus.tokenizer, dtype=torch.float16, files=files)
        ngrams = count(corpus.tokenizer, np.asarray(corpus.train))
        ngrams.save(run / "model")  # an adapter takes its base's
    return run / "model"


def continuation(
    model: GPT, tokenizer: Tokenizer, prompt: str, suggested: Mapping[str, Any], max_new_tokens: int
) -> str:
    """How the model goes on with a prompt, with its suggested settings and the cards' seed."""
    params = SamplingParams(**{**suggested, "seed": SAMPLE_SEED})
    breakers, prompt_ids = breaker_tokens(tokenizer), tokenizer.encode(prompt)

    def choose(logits: torch.Tensor, ids: list[int]) -> int:
        seen = ids[window_start(len(ids), model.config.block_size) :]
        added = penalties(params, seen, min(len(seen), len(ids) - len(prompt_ids)), breakers)
        token = sample(logits[None], [Row(params, len(ids), seen, list(added.items()))])[0]
        assert token is not None, "training refuses weights that are no finite numbers"
        return token

    idx = torch.tensor([prompt_ids], device=model.wte.weight.device)
    new = generate(model, idx, max_new_tokens, choose)
    if tokenizer.eot_id in new:
        new = new[: new.index(tokenizer.eot_id)]
    return tokenizer.decode(new)


def _extras(config: TrainConfig, bits_per_byte: float) -> str:
    """storygen.json: what the chat shows of the model."""
    card = config.card
    extras = {
        "display_name": card.display_name,
        "genre": card.genre,
        "description": card.description,
        "opening_lines": card.opening_lines,
        "stop": card.stop,
        "prompt_template": card.prompt_template,
        "suggested": card.suggested,
        "bits_per_byte": round(bits_per_byte, 6),
    }
    return json.dumps(extras, indent=2, ensure_ascii=False) + "\n"
