"""Training tokens per second: our step, nanoGPT's way on a CPU, and transformers' plain loop.

    python -m benchmarks.train [--rounds 5] [--threads 2]

One shape for all, that of the `base` recipe, on random tokens. nanoGPT trains in fp32 on a CPU,
uncompiled, with PyTorch's plain AdamW: so does its row, with a network of the same arithmetic. The
rows take turns, three steps a turn; medians over the rounds, and the peak memory of the process
that held them all.
"""

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from storygen.model import GPT
from storygen.tokenizers import CharTokenizer
from storygen.train.config import TrainConfig, load_recipe
from storygen.train.data import Corpus
from storygen.train.trainer import Trainer, mean_loss

STEPS = 3


def ours(config: TrainConfig, corpus: Corpus) -> Callable[[], object]:
    """The trainer's own step."""
    trainer = Trainer(config, corpus, Path(tempfile.mkdtemp()))
    trainer.model.train()
    return trainer._timed_step


def plain(config: TrainConfig, corpus: Corpus) -> Callable[[], object]:
    """fp32, uncompiled, AdamW as it comes, gradients clipped."""
    model = GPT(config.model_config_for(corpus.tokenizer.vocab_size)).init_weights().train()
    return _loop(model, config, corpus, lambda x, y: mean_loss(model, x, y))


def transformers(config: TrainConfig, corpus: Corpus) -> Callable[[], object]:
    """GPT2LMHeadModel, which shifts its labels itself."""
    shape = GPT2Config(
        vocab_size=corpus.tokenizer.vocab_size,
        n_positions=config.block_size,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        use_cache=False,
    )
    model = GPT2LMHeadModel(shape).train()
    return _loop(model, config, corpus, lambda x, _: model(x, labels=x).loss)


def _loop(
    model: torch.nn.Module,
    config: TrainConfig,
    corpus: Corpus,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.from_numpy(corpus.train.astype(np.int64))

    def step() -> None:
        for _ in range(config.accumulate):
            starts = torch.randint(len(ids) - config.block_size - 1, (config.batch_size,))
            x = torch.stack([ids[s : s + config.block_size] for s in starts])
            y = torch.stack([ids[s + 1 : s + 1 + config.block_size] for s in starts])
            loss = loss_of(x, y) / config.accumulate
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def main() -> None:
    """Print a row for each way of training."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = load_recipe("base")
    adamw = {"muon_learning_rate": None}
    tokens = np.random.default_rng(0).integers(8192, size=200_000).astype(np.uint16)
    tokenizer = CharTokenizer([chr(0x4E00 + n) for n in range(8192)])
    corpus = Corpus(tokens, tokens, tokenizer, {})
    steps = {
        "storygen, the recipe (Muon, compiled, bf16 where there)": ours(config, corpus),
        "storygen, AdamW, compiled": ours(config.model_copy(update=adamw), corpus),
        "storygen, AdamW": ours(config.model_copy(update=adamw | {"compile": False}), corpus),
        "as nanoGPT on a CPU": plain(config, corpus),
        "transformers' plain loop": transformers(config, corpus),
    }
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(-1, args.rounds):  # the first turn warms up and compiles
        for name, step in steps.items():
            began = time.perf_counter()
            for _ in range(STEPS):
                step()
            if turn >= 0:
                speeds[name].append(STEPS * config.tokens_per_step / (time.perf_counter() - began))
    reference = statistics.median(speeds["as nanoGPT on a CPU"])
    for name, values in speeds.items():
        median = statistics.median(values)
        print(f"{name:56} {median:6.0f} tokens/s {median / reference:5.2f} x")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of all together {peak:.0f} MB")


if __name__ == "__main__":
    main()
