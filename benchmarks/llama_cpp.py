"""Does llama.cpp compute what we compute, and is a quantized file as good as its own quantizer's?

    pip install -r benchmarks/requirements.txt          # builds llama-cpp-python
    python -m benchmarks.llama_cpp TEXT --model mystery

Exports a model in every type and reads the first 500 tokens of a text. What a file is worth is told
by its own numbers: the file imported again and computed here in float32. llama.cpp multiplies
quantized weights with activations that it rounds to eight bits, so its logits stray from these; the
rows show how far, what it costs in perplexity, and for how many of 60 tokens both write the same.
The last row is q4_0 as llama.cpp makes it of our f16 file.
"""

import argparse
import ctypes
import tempfile
from pathlib import Path

import llama_cpp
import torch
from torch import Tensor
from torch.nn import functional as F

from storygen.catalogue import Catalogue
from storygen.checkpoints import load
from storygen.checkpoints.export import TYPES, export_gguf
from storygen.checkpoints.importers import Asked, import_model
from storygen.model import GPT, generate
from storygen.settings import load_settings

TOKENS, PROMPT = 60, 32
HEADER = (
    "type",
    "MB",
    "perplexity here",
    "in llama.cpp",
    "logits off by",
    "at most",
    "same tokens",
)


def main() -> None:
    """Compare one model in every type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path)
    parser.add_argument("--model", default="mystery")
    args = parser.parse_args()
    info = Catalogue(load_settings().weights_dir).get(args.model)
    model, tokenizer = load(info.directory)
    text = args.text.read_text(encoding="utf-8")
    ids = tokenizer.encode(text)[: min(500, info.block_size - TOKENS)]
    print(
        f"{len(ids)} tokens, perplexity {perplexity(logits_here(model, ids), ids):.3f} in float32"
    )
    print("| " + " | ".join(HEADER) + " |")
    print("|---" + "|---:" * (len(HEADER) - 1) + "|")
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            path = Path(folder) / f"{kind}.gguf"
            export_gguf(info.directory, path, kind, info.name)
            print(row(kind, path, ids), flush=True)
        path = Path(folder) / "theirs.gguf"
        quantize(Path(folder) / "f16.gguf", path)
        print(row("q4_0 by llama.cpp", path, ids))


def row(name: str, path: Path, ids: list[int]) -> str:
    """What a file gives here and there."""
    import_model(str(path), path.stem, path.parent, Asked())
    ours, _ = load(path.parent / path.stem)
    theirs = llama_cpp.Llama(
        str(path), n_ctx=ours.config.block_size, n_threads=1, logits_all=True, verbose=False
    )
    here, there = logits_here(ours, ids), logits_there(theirs, ids)
    off = here - there
    same = together(greedy_here(ours, ids[:PROMPT]), greedy_there(theirs, ids[:PROMPT]))
    cells = (
        f"{path.stat().st_size / 1e6:.1f}",
        f"{perplexity(here, ids):.3f}",
        f"{perplexity(there, ids):.3f}",
        f"{float(off.square().mean().sqrt()):.4f}",
        f"{float(off.abs().max()):.3f}",
        f"{same} of {TOKENS}",
    )
    return "| " + " | ".join([name, *cells]) + " |"


def quantize(source: Path, target: Path) -> None:
    """q4_0 by llama.cpp's own quantizer, with the embedding in eight bits as in ours."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.nthread = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, 1
    params.token_embedding_type = params.output_tensor_type = llama_cpp.GGML_TYPE_Q8_0
    files = (str(source).encode(), str(target).encode())
    assert llama_cpp.llama_model_quantize(*files, ctypes.byref(params)) == 0


def logits_here(model: GPT, ids: list[int]) -> Tensor:
    """Ours after each token, (T, V)."""
    with torch.inference_mode():
        return model(torch.tensor([ids]))[0]


def logits_there(model: llama_cpp.Llama, ids: list[int]) -> Tensor:
    """llama.cpp's after each token, (T, V)."""
    model.reset()
    model.eval(ids)
    return torch.tensor(model.scores[: len(ids)])


def perplexity(logits: Tensor, ids: list[int]) -> float:
    """How many tokens the next is drawn from, as it were."""
    return float(F.cross_entropy(logits[:-1], torch.tensor(ids[1:])).exp())


def greedy_here(model: GPT, prompt: list[int]) -> list[int]:
    """Our continuation by the uncached oracle."""
    return generate(model, torch.tensor([prompt]), TOKENS, lambda logits, _: int(logits.argmax()))


def greedy_there(model: llama_cpp.Llama, prompt: list[int]) -> list[int]:
    """llama.cpp's continuation, a token at a time over its cache."""
    found: list[int] = []
    model.reset()
    model.eval(prompt)
    while len(found) < TOKENS:
        found.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(found[-1:])
    return found


def together(a: list[int], b: list[int]) -> int:
    """How many tokens two continuations have in common before they part."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y), len(a))


if __name__ == "__main__":
    main()
