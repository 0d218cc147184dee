"""A card measured: tokens per second, memory, logits beside the CPU's, and training.

    python -m benchmarks.gpu --out runs/gpu
    python -m benchmarks.gpu --toy --device cpu --train eager --out /tmp/toy      # tries it out

Whatever is compared takes turns within one process; medians over the rounds. Decoding reads a
prompt of 128 tokens and writes 256 at temperature 0.8 and top-k 50, reading included. The bound is
what a step must read, weights and the keys and values of the mean context, over the bytes that a
large copy moves in the same run. Training's share is of the rate of one large product: 6 operations
for each weight of a matrix and token, and for attention half of its square. Rows are written as
they come.
"""

import argparse
import csv
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.models import SIZES, random_model
from storygen.checkpoints import load
from storygen.decode.eager import EagerDecoder
from storygen.decode.graphs import GraphDecoder
from storygen.decode.interface import Decoder, Token
from storygen.model import GPT, GPTConfig
from storygen.params import Row, SamplingParams
from storygen.tokenizers import CharTokenizer
from storygen.train.config import TrainConfig, load_recipe
from storygen.train.data import Corpus
from storygen.train.distributed import Group
from storygen.train.trainer import Trainer

ROOT = Path(__file__).parents[1]
PARTS = ("agree", "decode", "train")
TRAINING: dict[str, dict[str, Any]] = {
    "eager": {"compile": False},
    "compiled": {"compile": True},
    "fp16": {"compile": False, "dtype": "fp16"},
}
TOY = GPTConfig(60, 64, n_layer=2, n_head=2, n_embd=16)


class Table:
    """Rows by part, each in a CSV file as they come and in a Markdown table."""

    def __init__(self, folder: Path, device: str) -> None:
        self.folder, self.device = folder, device
        self.parts: dict[str, list[dict[str, Any]]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, part: str, **row: Any) -> None:
        """Keep a row, print it and write all of them."""
        self.parts.setdefault(part, []).append(row)
        print(part, *(f"{key}={_short(value)}" for key, value in row.items()), flush=True)
        rows = self.parts[part]
        with (self.folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        text = f"{self.device}, PyTorch {torch.__version__}\n\n{_markdown(rows)}\n"
        (self.folder / f"{part}.md").write_text(text, encoding="utf-8")


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([*map(_short, r.values())] for r in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


class Card:
    """Where things are computed, and how fast it moves and multiplies."""

    def __init__(self, device: str, toy: bool) -> None:
        self.device, self.toy = torch.device(device), toy
        self.on_card = self.device.type == "cuda"

    @property
    def name(self) -> str:
        """As it calls itself."""
        return torch.cuda.get_device_name() if self.on_card else "CPU"

    def seconds(self, work: Callable[[], object]) -> float:
        """How long work takes, to its end."""
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        """For everything that was started."""
        if self.on_card:
            torch.cuda.synchronize()

    def bandwidth(self) -> float:
        """Bytes per second that a copy reads and writes."""
        source = torch.randn(2**16 if self.toy else 2**29, device=self.device)
        target = torch.empty_like(source)
        times = [self.seconds(lambda: target.copy_(source)) for _ in range(12)][2:]
        return 2 * source.nbytes / statistics.median(times)

    def product(self) -> float:
        """Operations per second of a large product in bf16."""
        n = 128 if self.toy else 8192
        a, b = (torch.randn(n, n, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        times = [self.seconds(lambda: a @ b) for _ in range(13)][3:]
        return 2 * n**3 / statistics.median(times)

    @contextmanager
    def peak(self) -> Iterator[Callable[[], float]]:
        """Most megabytes of the card that the block has taken."""
        if not self.on_card:
            yield lambda: 0.0
            return
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield lambda: (torch.cuda.max_memory_allocated() - before) / 1e6


@dataclass(frozen=True)
class Passages:
    """So many passages side by side, and how they are written."""

    n: int
    prompt: int
    new: int
    vocab_size: int

    def prompts(self, turn: int) -> list[list[int]]:
        """Others in each turn."""
        chance = np.random.default_rng([turn, self.n])
        return chance.integers(self.vocab_size, size=(self.n, self.prompt)).tolist()


def ours(decoder: Decoder, of: Passages, turn: int) -> list[list[int]]:
    """What a decoder writes, driven a step at a time as the engine drives it."""
    stories = of.prompts(turn)
    for slot, ids in enumerate(stories):
        for start in range(0, of.prompt - 1, decoder.max_rows):
            piece = ids[start : min(start + decoder.max_rows, of.prompt - 1)]
            decoder.logits([Token(slot, start + n, i) for n, i in enumerate(piece)], [])
    for position in range(of.prompt - 1, of.prompt + of.new - 1):
        rows = [Token(slot, position, ids[-1]) for slot, ids in enumerate(stories)]
        params = SamplingParams(temperature=0.8, top_k=min(50, of.vocab_size), seed=turn)
        choices = [Row(params, position + 1, ids) for ids in stories]
        for ids, token in zip(
            stories, decoder.step(rows, range(of.n), choices, of.vocab_size), strict=True
        ):
            assert token is not None
            ids.append(token)
    return stories


def theirs(model: GPT2LMHeadModel, of: Passages, turn: int) -> None:
    """transformers' generate, with its dynamic cache, as its documentation has it."""
    ids = torch.tensor(of.prompts(turn), device=model.device)
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=of.new,
            do_sample=True,
            temperature=0.8,
            top_k=50,
            pad_token_id=0,
        )


def as_transformers(config: GPTConfig) -> GPT2LMHeadModel:
    """A random model of the same shape."""
    shape = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.block_size,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_embd=config.n_embd,
        bos_token_id=None,
        eos_token_id=None,  # so that no passage ends early
    )
    return GPT2LMHeadModel(shape).eval()


def decode(card: Card, table: Table, args: argparse.Namespace) -> None:
    """Tokens per second of each system, model and batch, in turns."""
    bandwidth, dtype = card.bandwidth(), getattr(torch, args.dtype)
    for name, model in subjects(args):
        config = model.config
        prompt = min(128, config.block_size // 4)
        new = min(256, config.block_size - prompt - 1)
        size = torch.finfo(dtype).bits // 8
        for n in args.batches:
            of = Passages(n, prompt, new, config.vocab_size)
            systems: dict[str, Callable[[Passages, int], object]] = {}
            began: dict[str, dict[str, float]] = {}
            for system in args.systems:
                with card.peak() as megabytes:
                    opening = time.perf_counter()
                    systems[system] = start(system, model, of, card, dtype)
                    opened = time.perf_counter() - opening
                    first = card.seconds(partial(systems[system], of, args.rounds))
                    began[system] = {
                        "open_seconds": opened,
                        "first_seconds": first,
                        "peak_megabytes": megabytes(),
                    }
            times: dict[str, list[float]] = {system: [] for system in systems}
            for turn in range(args.rounds):
                for system, work in systems.items():
                    times[system].append(card.seconds(partial(work, of, turn)))
            inner = config.n_layer * config.n_embd * (4 * config.n_embd + 2 * config.mlp_size)
            read = size * (inner + config.vocab_size * config.n_embd)
            read += n * size * 2 * config.n_layer * config.n_embd * (prompt + new // 2)
            reference = statistics.median(times.get("transformers", [float("nan")]))
            for system, taken in times.items():
                speed = n * new / statistics.median(taken)
                table.add(
                    "decode",
                    model=name,
                    dtype=args.dtype,
                    passages=n,
                    system=system,
                    tokens_per_second=speed,
                    x_transformers=reference / statistics.median(taken),
                    bound=n * bandwidth / read,
                    of_bound=speed / (n * bandwidth / read),
                    **began[system],
                    gigabytes_per_second=bandwidth / 1e9,
                )
            del systems


def start(
    system: str, model: GPT, of: Passages, card: Card, dtype: torch.dtype
) -> Callable[[Passages, int], object]:
    """What writes passages."""
    if system == "transformers":
        return partial(theirs, as_transformers(model.config).to(card.device, dtype))
    network = GPT(model.config).to(card.device, dtype).eval().requires_grad_(False)
    network.load_state_dict(model.state_dict())
    if system == "eager":
        return partial(ours, EagerDecoder(network, of.n))
    decoder = GraphDecoder(network, of.n)
    if system == "graph, compiled":
        decoder.network = torch.compile(decoder.network, dynamic=False)
    decoder.warm(of.n, of.vocab_size)
    return partial(ours, decoder)


def subjects(args: argparse.Namespace) -> Iterator[tuple[str, GPT]]:
    """The models by name: random ones of a size, or ours."""
    for name in args.models:
        if args.toy:
            yield name, random_model(TOY)
        elif name in SIZES:
            yield name, random_model(SIZES[name])
        else:
            yield name, load(ROOT / "weights" / name)[0].eval().requires_grad_(False)


def agree(card: Card, table: Table, args: argparse.Namespace) -> None:
    """Logits here beside those of the CPU in fp32, a token at a time."""
    for name, model in subjects(args):
        n = min(128, model.config.block_size)
        ids = np.random.default_rng(1).integers(model.config.vocab_size, size=n).tolist()
        with torch.inference_mode():
            expected = model(torch.tensor([ids]))[0]  # (T, V)
        for form in ("float32", "bfloat16", "float16"):
            network = GPT(model.config).to(card.device, getattr(torch, form))
            network.load_state_dict(model.state_dict())
            decoder = GraphDecoder(network.eval().requires_grad_(False), 1)
            greedy, found = SamplingParams(temperature=0.0), []
            for position, token in enumerate(ids):
                row = Row(greedy, position + 1, ())
                decoder.step([Token(0, position, token)], [0], [row], model.config.vocab_size)
                found.append(decoder.scores[0].cpu().clone())
            logits = torch.stack(found)
            same = (logits.argmax(-1) == expected.argmax(-1)).double().mean()
            error = float((logits - expected).norm() / expected.norm())
            table.add("agree", model=name, dtype=form, error=error, same_best=float(same))


def train(card: Card, table: Table, args: argparse.Namespace) -> None:
    """Steps of base-large on tokens that are half foreseeable, so that a loss can fall."""
    config = load_recipe("base-large")
    if args.toy:
        small = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 32, "batch_size": 2}
        config = config.model_copy(update=small)
    vocab_size = 60 if args.toy else 8192
    chance = np.random.default_rng(0)
    tokens = chance.integers(vocab_size, size=4_000 if args.toy else 4_000_000).astype(np.uint16)
    tokens[1::2] = tokens[::2]
    tokenizer = CharTokenizer([chr(0x4E00 + n) for n in range(vocab_size)])
    corpus = Corpus(tokens, tokens, tokenizer, {})
    product = card.product()
    for name in args.train:
        row = trained(config.model_copy(update=TRAINING[name]), corpus, card, args.steps)
        speed = row["tokens_per_second"]
        share = speed * operations(config, vocab_size) / product
        table.add(
            "train",
            how=name,
            **row,
            of_product=share,
            teraflops_of_product=product / 1e12,
        )


def trained(config: TrainConfig, corpus: Corpus, card: Card, steps: int) -> dict[str, Any]:
    """Some steps: their speed but for the first ones, what compiling took, losses and memory."""
    with tempfile.TemporaryDirectory() as folder, card.peak() as megabytes:
        config = config.model_copy(update={"warmup_steps": 1, "max_steps": 10 * steps})
        trainer = Trainer(config, corpus, Path(folder), Group(card.device))
        trainer.model.train()
        losses, times = [], []
        for _ in range(steps):
            loss, seconds = trainer._timed_step()
            losses.append(loss)
            times.append(seconds)
        return {
            "tokens_per_second": config.tokens_per_step / statistics.median(times[3:]),
            "first_step_seconds": times[0],
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "loss_scale": float(trainer.scaler.get_scale()),
            "peak_megabytes": megabytes(),
        }


def operations(config: TrainConfig, vocab_size: int) -> float:
    """Of both passes, for a token."""
    width, context = config.n_embd, config.window_size
    weights = 12 * config.n_layer * width**2 + vocab_size * width
    return 6 * weights + 6 * config.n_layer * width * context


def main(argv: list[str] | None = None) -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[*PARTS])
    parser.add_argument("--models", nargs="+", default=["gpt2", "mystery", "movie-plots"])
    systems = ["graph", "eager", "transformers"]
    known = [*systems, "graph, compiled"]
    parser.add_argument("--systems", nargs="+", choices=known, default=systems)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", nargs="+", choices=list(TRAINING), default=list(TRAINING))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--toy", action="store_true", help="tiny models, to try it out")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        print(
            "PyTorch finds no CUDA card here. Try it out with --toy --device cpu.", file=sys.stderr
        )
        return 1
    card = Card(args.device, args.toy)
    table = Table(args.out, card.name)
    for part in args.parts:
        {"agree": agree, "decode": decode, "train": train}[part](card, table, args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
