"""Models for other programs: a GGUF file for llama.cpp and what is built on it, or a directory for
everything that reads Hugging Face's.

An adapter becomes one model with its base. llama.cpp's gpt2 has the tanh GELU, byte-level BPE and
no output bias; a model that needs something else cannot go there.
"""

import shutil
from contextlib import closing
from pathlib import Path

import gguf
import numpy as np
from torch import Tensor

from storygen.checkpoints import adapter, hf, models, ngrams, packed
from storygen.checkpoints.adapter_files import CONFIG
from storygen.checkpoints.importers.gguf import NAMES, PLAIN
from storygen.errors import CheckpointError
from storygen.files import atomic_directory, atomic_file
from storygen.model import GPT, GPTConfig
from storygen.tokenizers import BPETokenizer, Tokenizer

ARCHITECTURE = "gpt2"
TYPES = {
    "f16": (gguf.LlamaFileType.MOSTLY_F16, gguf.GGMLQuantizationType.F16),
    "q8_0": (gguf.LlamaFileType.MOSTLY_Q8_0, gguf.GGMLQuantizationType.Q8_0),
    "q4_0": (gguf.LlamaFileType.MOSTLY_Q4_0, gguf.GGMLQuantizationType.Q4_0),
}


def export_hf(directory: Path, out: Path, merge: bool) -> None:
    """Copy a model's directory to out; with merge, an adapter and its base as one model."""
    _check_free(out)
    if merge and (directory / CONFIG).is_file():
        model, tokenizer = adapter.load(directory)
        texts = {
            name: (directory / name).read_text(encoding="utf-8")
            for name in hf.FOR_PEOPLE
            if (directory / name).is_file()
        }
        models.save(out, model, tokenizer, files=texts)
        return
    hf.check_sums(directory)
    try:
        with atomic_directory(out) as new:
            ours = shutil.ignore_patterns(packed.FOLDER, ngrams.FILE)  # nobody else reads them
            shutil.copytree(directory, new, dirs_exist_ok=True, ignore=ours)
    except OSError as error:  # shutil.Error lists every file that failed
        raise CheckpointError(f"{out} could not be written: {_reason(error)}.") from None


def export_gguf(directory: Path, out: Path, kind: str, name: str) -> None:
    """Write a model as the GGUF file out, its matrices as f16, q8_0 or q4_0."""
    _check_free(out)
    model, tokenizer = adapter.load(directory)
    if not isinstance(tokenizer, BPETokenizer) or not _is_plain_gpt2(model.config):
        raise CheckpointError(
            f"{name} cannot become a GGUF file: llama.cpp's gpt2 has byte-level BPE, a GELU and no "
            "output bias, and this model differs. Use --format hf."
        )
    try:
        with atomic_file(out) as new, closing(gguf.GGUFWriter(new, ARCHITECTURE)) as writer:
            _describe(writer, model.config, kind, name)
            _add_vocabulary(writer, tokenizer, model.config.vocab_size)
            _add_tensors(writer, model, kind)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
    except OSError as error:
        raise CheckpointError(f"{out} could not be written: {_reason(error)}.") from None


def _reason(error: OSError) -> str:
    """What went wrong, of the first file where there are several."""
    first = error.args[0] if error.args else None
    if isinstance(error, shutil.Error) and isinstance(first, list) and first:
        return str(first[0][-1])
    return error.strerror or str(error) or type(error).__name__


def _check_free(out: Path) -> None:
    if out.exists():
        raise CheckpointError(f"{out} is there already: take another name, or move it away.")
    if not out.parent.is_dir():
        raise CheckpointError(f"{out.parent} is no directory: make it first.")


def _is_plain_gpt2(config: GPTConfig) -> bool:
    return config.activation != "relu" and not config.output_bias


def _describe(writer: gguf.GGUFWriter, config: GPTConfig, kind: str, name: str) -> None:
    writer.add_name(name)
    writer.add_context_length(config.block_size)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(config.mlp_size)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(TYPES[kind][0])


def _add_vocabulary(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    """The tokens by their ids; rows of the model beyond them are marked as unused."""
    assert isinstance(tokenizer, BPETokenizer), type(tokenizer)
    tokens = sorted(tokenizer.vocab, key=tokenizer.vocab.__getitem__)
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    if tokenizer.eot_id is not None:
        kinds[tokenizer.eot_id] = gguf.TokenType.CONTROL
        writer.add_bos_token_id(tokenizer.eot_id)
        writer.add_eos_token_id(tokenizer.eot_id)
    unused = range(len(tokens), vocab_size)
    writer.add_tokenizer_model(ARCHITECTURE)
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *(f"[PAD{n}]" for n in unused)])
    writer.add_token_types([*kinds, *(gguf.TokenType.UNUSED for _ in unused)])
    writer.add_token_merges([f"{a} {b}" for a, b in tokenizer.merges])
    writer.add_add_bos_token(False)
    writer.add_bool(PLAIN, tokenizer.plain)


def _add_tensors(writer: gguf.GGUFWriter, model: GPT, kind: str) -> None:
    theirs = {ours: name for name, ours in NAMES.items()}
    for ours, weight in model.state_dict().items():
        if model.config.tied and ours == "lm_head.weight":
            continue
        *layer, rest = ours.split(".", 2) if ours.startswith("h.") else [ours]
        module, _, part = rest.rpartition(".")
        name = f"blk.{layer[1]}." if layer else ""
        data, stored = _numbers(theirs[module], weight, kind)
        writer.add_tensor(f"{name}{theirs[module]}.{part}", data, raw_dtype=stored)


def _numbers(
    module: str, weight: Tensor, kind: str
) -> tuple[np.ndarray, gguf.GGMLQuantizationType]:
    """A tensor as it is stored: vectors and positions in float32, as llama.cpp computes with them,
    embedding and output never in less than eight bits, rows that make no whole blocks in f16."""
    numbers: np.ndarray = weight.float().numpy()
    stored = TYPES[kind][1]
    if weight.dim() == 1 or module == "position_embd":
        return numbers, gguf.GGMLQuantizationType.F32
    if stored == gguf.GGMLQuantizationType.Q4_0 and module in ("token_embd", "output"):
        stored = gguf.GGMLQuantizationType.Q8_0
    if numbers.shape[-1] % gguf.GGML_QUANT_SIZES[stored][0]:
        stored = gguf.GGMLQuantizationType.F16
    return gguf.quantize(numbers, stored), stored
