"""Does llama.cpp write what we write? Exports a model and compares greedy passages.

    pip install xllamacpp          # llama.cpp with a ready wheel; not a dependency of storygen
    python benchmarks/llama_cpp.py --model one-story

Prints a row for each type: characters up to the first difference, and the size of the file. f16
must agree to the end; the quantized ones are other models and may not.
"""

import argparse
import tempfile
from pathlib import Path

import torch
import xllamacpp

from storygen.catalogue import Catalogue
from storygen.checkpoints import load
from storygen.checkpoints.export import TYPES, export_gguf
from storygen.model import generate
from storygen.settings import load_settings


def main() -> None:
    """Compare one model in every type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="one-story")
    parser.add_argument("--prompt", default="He had always been")
    parser.add_argument("--tokens", type=int, default=60)
    args = parser.parse_args()
    info = Catalogue(load_settings().weights_dir).get(args.model)
    ours = greedy(info.directory, args.prompt, args.tokens)
    print(f"ours  {ours!r}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in TYPES:
            path = Path(folder) / f"{kind}.gguf"
            export_gguf(info.directory, path, kind, info.name)
            theirs = llama_cpp(path, args.prompt, args.tokens, info.block_size)
            same = next(
                (n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
                min(len(ours), len(theirs)),
            )
            agree = "same" if theirs == ours else f"the same for {same} of {len(ours)} characters"
            print(f"{kind:5} {path.stat().st_size / 1e6:7.1f} MB  {agree}")


def greedy(directory: Path, prompt: str, tokens: int) -> str:
    """Our continuation by the uncached oracle."""
    model, tokenizer = load(directory)
    idx = torch.tensor([tokenizer.encode(prompt)])
    ids = generate(model, idx, tokens, lambda logits, _: int(logits.argmax()))
    return tokenizer.decode(ids[: ids.index(tokenizer.eot_id)] if tokenizer.eot_id in ids else ids)


def llama_cpp(path: Path, prompt: str, tokens: int, block_size: int) -> str:
    """llama.cpp's continuation."""
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = block_size
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    answer = server.handle_completions(
        {
            "prompt": prompt,
            "max_tokens": tokens,
            "temperature": 0,
            "top_k": 1,
            "cache_prompt": False,
        }
    )
    return str(answer["choices"][0]["text"])


if __name__ == "__main__":
    main()
