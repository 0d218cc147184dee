"""Do checkpoints made by their authors' own classes give their authors' logits here?

    pip install llms-from-scratch          # the book's package; not a dependency of storygen
    python -m benchmarks.import [--nanogpt model.py] [--lecture gpt.py] [--movie-plots gpt.py]
    python -m benchmarks.import --large

Each class gets random numbers in every weight and is saved as its author saves it; the real command
imports the file, in a process of its own, and the logits of both are compared. The classes that no
package has are taken out of the files named, which are not run: they would train. Prints a row
each: the largest difference, of logits whose largest is beside it. Exits with 1 above 1e-4.
--large imports a GPT-2 of 124 million numbers in each form instead, and prints seconds and the most
memory that the command and its converter had, beside the size of the file.
"""

import argparse
import ast
import dataclasses
import math
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from storygen.checkpoints import load
from storygen.checkpoints.export import export_gguf
from storygen.checkpoints.hf import write_tokenizer
from storygen.tokenizers import BYTE_SPELLING, END_OF_TEXT, BPETokenizer

ROOT = Path(__file__).resolve().parent.parent

TOLERANCE = 1e-4
TEXT = "The owl, and 12 hens: said (once) no more?!\n"
CHARACTERS = sorted(set(TEXT))
V, T, C, HEADS, LAYERS = len(CHARACTERS), 32, 48, 4, 3
SIZES = {"vocab_size": V, "block_size": T, "n_embd": C, "n_head": HEADS, "n_layer": LAYERS}
IDX = torch.randint(0, V, (4, T), generator=torch.Generator().manual_seed(1))
BPE = BPETokenizer({s: n for n, s in enumerate([*BYTE_SPELLING.values(), END_OF_TEXT])}, [])
MEASURED = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1000)
"""
Logits = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class Case:
    """A checkpoint that a class has left at path, what to say with it, and the class's logits."""

    name: str
    path: Path
    options: list[str]
    logits: Logits


def main() -> None:
    """Import everything that can be made here, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="nanoGPT's model.py")
    parser.add_argument("--lecture", type=Path, nargs="+", default=[], help="the lecture's gpt.py")
    parser.add_argument("--movie-plots", type=Path, help="MoviePlotGPT's gpt.py")
    parser.add_argument("--large", action="store_true", help="measure time and memory instead")
    args = parser.parse_args()
    if args.large:
        with tempfile.TemporaryDirectory() as folder:
            large(Path(folder))
        return
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        (Path(folder) / "training.txt").write_text(TEXT)
        for n, case in enumerate(cases(Path(folder), args)):
            difference, largest = compared(case, Path(folder), f"m{n}")
            worst = max(worst, difference)
            print(f"{case.name:66} {difference:.1e} of {largest:.1f}", flush=True)
    sys.exit(worst > TOLERANCE)


def cases(folder: Path, args: argparse.Namespace) -> Iterator[Case]:
    """Everything that can be made with what is installed and named."""
    yield from book(folder)
    if args.nanogpt:
        yield from nanogpt(folder, args.nanogpt)
    for source in args.lecture:
        yield from lecture(folder, source, "lecture")
    if args.movie_plots:
        yield from lecture(folder, args.movie_plots, "MoviePlotGPT")
    yield from transformers(folder)
    yield from adapters(folder)


def book(folder: Path) -> Iterator[Case]:
    """Raschka's GPTModel, its faster form, the one with a cache, and the third chapter's heads."""
    try:
        from llms_from_scratch import ch03, ch04
        from llms_from_scratch.kv_cache import gpt2
    except ImportError:
        print("llms-from-scratch is not installed: the book's classes are left out")
        return

    class Heads(ch03.MultiHeadAttentionWrapper):
        """Several of the third chapter's heads where the fourth has one module."""

        def __init__(self, d_in: int, d_out: int, num_heads: int, **options: Any) -> None:
            super().__init__(d_in, d_out // num_heads, num_heads=num_heads, **options)

    config = {"vocab_size": V, "context_length": T, "emb_dim": C, "drop_rate": 0.1}
    config |= {"n_heads": HEADS, "n_layers": LAYERS}
    package = f"llms-from-scratch {version('llms-from-scratch')}"
    chars = ["--chars", str(folder / "training.txt")]
    for kind in (ch04.GPTModel, ch04.GPTModelFast, gpt2.GPTModel):
        for qkv_bias in (False, True):
            model = scrambled(kind(config | {"qkv_bias": qkv_bias}))
            name = f"{package}: {kind.__module__.split('.', 1)[1]}.{kind.__name__}"
            path = folder / "book.pth"
            torch.save(model.state_dict(), path)
            options = [*chars, "--n-head", str(HEADS)]
            yield Case(f"{name}{' qkv_bias' if qkv_bias else ''}", path, options, model)
    usual, ch04.MultiHeadAttention = ch04.MultiHeadAttention, Heads
    model = scrambled(ch04.GPTModel(config | {"qkv_bias": False}))
    ch04.MultiHeadAttention = usual
    optimizer = torch.optim.AdamW(model.parameters())
    both = {"model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
    torch.save(both, folder / "model_and_optimizer.pth")
    name = f"{package}: ch03.MultiHeadAttentionWrapper"
    yield Case(name, folder / "model_and_optimizer.pth", chars, model)


def nanogpt(folder: Path, source: Path) -> Iterator[Case]:
    """ckpt.pt as train.py writes it, meta.pkl beside it."""
    namespace = classes(source, {})
    stoi = {c: n for n, c in enumerate(CHARACTERS)}
    meta = {"vocab_size": V, "itos": dict(enumerate(CHARACTERS)), "stoi": stoi}
    directory = folder / "out"
    directory.mkdir()
    (directory / "meta.pkl").write_bytes(pickle.dumps(meta))
    for bias in (False, True):
        for prefix in ("", "_orig_mod."):
            args = SIZES | {"bias": bias, "dropout": 0.2}
            model = scrambled(namespace["GPT"](namespace["GPTConfig"](**args)))
            optimizer = torch.optim.AdamW(model.parameters())
            checkpoint = {
                "model": {prefix + name: weight for name, weight in model.state_dict().items()},
                "optimizer": optimizer.state_dict(),
                "model_args": args,
                "iter_num": 250,
                "best_val_loss": torch.tensor(1.5),
                "config": {"out_dir": "out", "learning_rate": 6e-4, "compile": True},
            }
            torch.save(checkpoint, directory / "ckpt.pt")
            name = f"nanoGPT: GPT{', bias' if bias else ''}{', compiled' if prefix else ''}"
            yield Case(name, directory / "ckpt.pt", [], all_logits(model))


def lecture(folder: Path, source: Path, name: str) -> Iterator[Case]:
    """The lecture's network, or MoviePlotGPT's, which take their sizes from globals."""
    namespace = classes(source, SIZES | {"dropout": 0.2, "device": "cpu"})
    kind = next(v for k, v in namespace.items() if k.endswith("LanguageModel"))
    model = scrambled(kind())
    torch.save(model.state_dict(), folder / "checkpoint.pth")
    scale = "embd" if re.search(r"\bC ?\*\* ?\(?-0\.5", source.read_text()) else "head"
    options = ["--chars", str(folder / "training.txt"), "--attention-scale", scale]
    label = f"{name}: {kind.__name__} of {source.name}, {scale}"
    yield Case(label, folder / "checkpoint.pth", options, lambda idx: model(idx)[0])


def transformers(folder: Path) -> Iterator[Case]:
    """GPT2LMHeadModel as save_pretrained() leaves it."""
    from transformers import GPT2LMHeadModel, GPT2Model

    package = f"transformers {version('transformers')}"
    for form in ({}, {"tie_word_embeddings": False}, {"activation_function": "gelu"}):
        model = scrambled(GPT2LMHeadModel(gpt2_config(**form)))
        path = folder / "hf" / ("-".join(form) or "plain")
        model.save_pretrained(path)
        write_tokenizer(path, BPE)
        said = "".join(f", {key}={value}" for key, value in form.items())
        yield Case(f"{package}: GPT2LMHeadModel{said}", path, [], hf_logits(model))
    model = scrambled(GPT2LMHeadModel(gpt2_config()))
    path = folder / "hf" / "sharded"
    model.save_pretrained(path, max_shard_size="100KB")
    write_tokenizer(path, BPE)
    yield Case(f"{package}: GPT2LMHeadModel in shards", path, [], hf_logits(model))
    path = folder / "hf" / "half"
    half = scrambled(GPT2LMHeadModel(gpt2_config())).to(torch.bfloat16)
    half.save_pretrained(path)
    write_tokenizer(path, BPE)
    yield Case(f"{package}: GPT2LMHeadModel in bfloat16", path, [], hf_logits(half.float()))
    path = folder / "hf" / "bare"
    model.transformer.save_pretrained(path)
    assert isinstance(model.transformer, GPT2Model)
    write_tokenizer(path, BPE)
    yield Case(f"{package}: GPT2Model, no head of its own", path, [], hf_logits(model))


def adapters(folder: Path) -> Iterator[Case]:
    """PEFT's LoRA with each start that leaves the base as it was."""
    from peft import LoraConfig, get_peft_model
    from transformers import GPT2LMHeadModel

    base = folder / "hf" / "plain"
    for start in (True, False, "gaussian", "orthogonal"):
        config = LoraConfig(
            r=4,
            lora_alpha=8,
            target_modules=["c_attn", "c_proj", "c_fc"],
            fan_in_fan_out=True,
            init_lora_weights=start,
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(GPT2LMHeadModel.from_pretrained(base), config)
        scrambled(adapted, only="lora_")
        path = folder / "hf" / f"adapter-{start}"
        adapted.save_pretrained(path)
        name = f"peft {version('peft')}: LoRA, init_lora_weights={start}"
        yield Case(name, path, [], hf_logits(adapted))


def large(folder: Path) -> None:
    """Seconds and memory of the largest that people usually bring."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config())
    model.save_pretrained(folder / "safetensors")
    write_tokenizer(folder / "safetensors", BPE)
    (folder / "pickle").mkdir()
    write_tokenizer(folder / "pickle", BPE)
    model.config.save_pretrained(folder / "pickle")
    torch.save(model.state_dict(), folder / "pickle" / "pytorch_model.bin")
    del model
    for kind in ("f16", "q8_0"):
        export_gguf(folder / "safetensors", folder / f"{kind}.gguf", kind, kind)
    for path in sorted(folder.iterdir()):
        files = [path] if path.is_file() else [p for p in path.iterdir() if p.suffix != ".json"]
        size = sum(p.stat().st_size for p in files) / 1e6
        command = [sys.executable, "-m", "storygen", "import", str(path), path.stem]
        environment = os.environ | {"STORYGEN_WEIGHTS_DIR": str(folder / "weights")}
        # A process begins with the memory of the one that starts it: a small one does.
        shell = [sys.executable, "-c", MEASURED, *command]
        done = subprocess.run(shell, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
        clock, used, peak = map(float, done.stdout.split())
        print(
            f"{path.name:12} {size:4.0f} MB: {clock:5.1f} s, {used:5.1f} s of processor time, at "
            f"most {peak:4.0f} MB, {peak / size:.2f} of the file",
            flush=True,
        )


def gpt2_config(**form: Any) -> Any:
    """GPT2Config of the sizes used here."""
    from transformers import GPT2Config

    sizes = {"n_positions": T, "n_embd": C, "n_head": HEADS, "n_layer": LAYERS}
    return GPT2Config(vocab_size=BPE.vocab_size, **sizes, **form)


def scrambled(model: nn.Module, only: str = "") -> nn.Module:
    """Random numbers in every weight, biases and norms too, so that nothing lost goes unseen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if only in name:
                weight.normal_(std=0.4)
    return model.eval()


def hf_logits(model: nn.Module) -> Logits:
    """The logits in what transformers gives back."""
    return lambda idx: model(idx).logits


def all_logits(model: nn.Module) -> Logits:
    """nanoGPT computes all positions only where it has targets."""
    return lambda idx: model(idx, idx)[0].view(*idx.shape, -1)


def classes(source: Path, sizes: dict[str, Any]) -> dict[str, Any]:
    """The classes that a file defines, with sizes as its globals. Nothing else in it is run."""
    kept = [
        node
        for node in ast.parse(source.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef | ast.Import | ast.ImportFrom)
    ]
    module = sys.modules[source.stem] = ModuleType(source.stem)  # where dataclasses look
    vars(module).update(sizes)
    exec(compile(ast.Module(kept, []), str(source), "exec"), vars(module))
    return vars(module)


def compared(case: Case, folder: Path, name: str) -> tuple[float, float]:
    """Import a case as name by the real command: the largest difference of logits, and the largest
    logit."""
    wanted = case.logits(IDX).float()
    command = [sys.executable, "-m", "storygen", "import", str(case.path), name, *case.options]
    environment = os.environ | {"STORYGEN_WEIGHTS_DIR": str(folder / "weights")}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        return math.inf, float(wanted.abs().max())
    ours = load(folder / "weights" / name)[0](IDX)
    return float((ours - wanted).abs().max()), float(wanted.abs().max())


if __name__ == "__main__":
    main()
