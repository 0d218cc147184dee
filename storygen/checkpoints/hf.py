"""Hugging Face's GPT-2 directory: what is in it. Knows no torch.

config.json, model.safetensors (or shards with an index), vocab.json and merges.txt, or
characters.json for a character-level model. Names and layouts are translated here and nowhere
else: Hugging Face's Conv1D keeps its matrices as (in, out), torch.nn.Linear as (out, in).
"""

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from storygen.checkpoints import fast_tokenizer
from storygen.checkpoints.json_files import read_json, read_text, write_json
from storygen.checkpoints.stored import Stored, read_arrays
from storygen.errors import CheckpointError
from storygen.files import wrong_sum
from storygen.model import GPTConfig
from storygen.model.shapes import matrix_shapes, vector_shapes
from storygen.tokenizers import (
    END_OF_TEXT,
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    bpe_from_files,
)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CHARACTERS = "characters.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER_FILES = (CHARACTERS, "vocab.json", fast_tokenizer.FILE)  # any of them makes one
PLAIN = "plain_typography"  # of tokenizer_config.json or characters.json; others pass over it
FOR_PEOPLE = ("README.md", "storygen.json")  # may be edited; they change nothing that is computed

# theirs: ours, and the largest value a file may ask for before any memory is taken
CONFIG_SIZES = {
    "vocab_size": ("vocab_size", 1_000_000),
    "n_positions": ("block_size", 1_000_000),
    "n_layer": ("n_layer", 512),
    "n_head": ("n_head", 512),
    "n_embd": ("n_embd", 65_536),
}
MAX_LINES = 200_000  # of merges.txt; GPT-2's has 50,000, and a pretty vocab.json as many
AGAIN = "Copy or download it again."
LARGEST_INNER = 4 * 65_536
CONV1D = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
# Buffers that older files carry along: the causal mask.
IGNORED = (".attn.bias", ".attn.masked_bias")


def describe(directory: Path, unread: Collection[str] = ()) -> tuple[GPTConfig, Tokenizer]:
    """What lies beside the weights, checked; files named in unread are not compared with
    SHA256SUMS."""
    config = read_config(directory)
    check_sums(directory, unread)
    tokenizer = read_tokenizer(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size:,} tokens and the model only "
            f"{config.vocab_size:,}. These files are not of one model."
        )
    return config, tokenizer


def check_sums(directory: Path, unread: Collection[str] = ()) -> None:
    """Raise CheckpointError naming the first file that is not as SHA256SUMS says."""
    changed = wrong_sum(directory, ignore={*FOR_PEOPLE, *unread})
    if changed is not None:
        raise CheckpointError(
            f"{directory / changed} is missing or not as it was saved (its SHA-256 differs from "
            "SHA256SUMS). Copy or download the model again."
        )


def read_config(directory: Path) -> GPTConfig:
    """GPTConfig of a directory's config.json, each size bounded."""
    path = directory / "config.json"
    config = read_json(path)
    if config.get("model_type", "gpt2") != "gpt2":
        raise CheckpointError(
            f"{path} is of a {str(config['model_type'])[:40]!r} model; storygen reads GPT-2's "
            "kind, and docs/checkpoints.md says which."
        )
    sizes = {}
    for theirs, (ours, largest) in CONFIG_SIZES.items():
        value = config.get(theirs)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            raise CheckpointError(
                f"{path}: {theirs} is {str(value)[:40]}, not a whole number from 1 to "
                f"{largest:,}. {AGAIN}"
            )
        sizes[ours] = value
    inner = config.get("n_inner")
    if inner is not None and (type(inner) is not int or not 1 <= inner <= LARGEST_INNER):
        raise CheckpointError(f"{path}: n_inner is {str(inner)[:40]}, not a width. {AGAIN}")
    scaling = {"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
    if any(config.get(key, usual) != usual for key, usual in scaling.items()):
        raise CheckpointError(
            f"{path} asks for another attention scale than GPT-2's: use the program that trained "
            "it."
        )
    switches = {"tie_word_embeddings": True, "output_bias": False}
    others = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5} | switches
    said = {key: config.get(key, usual) for key, usual in others.items()}
    wrong = next((key for key, usual in others.items() if not _is_alike(said[key], usual)), None)
    if wrong is not None:
        raise CheckpointError(f"{path}: {wrong} cannot be {str(said[wrong])[:40]!r}. {AGAIN}")
    activation = said["activation_function"]
    try:
        return GPTConfig(
            **sizes,
            n_inner=inner,
            activation={"gelu_pytorch_tanh": "gelu_new"}.get(activation, activation),
            layer_norm_epsilon=float(said["layer_norm_epsilon"]),
            tied=said["tie_word_embeddings"],
            output_bias=said["output_bias"],
        )
    except (ValueError, OverflowError) as error:
        raise CheckpointError(f"{path} describes no GPT-2: {str(error)[:200]}. {AGAIN}") from None


def _is_alike(value: Any, usual: Any) -> bool:
    """Whether a value is of the kind of the usual one; a whole number is a fraction as well."""
    return type(value) in ((int, float) if isinstance(usual, float) else (type(usual),))


def read_tokenizer(directory: Path) -> Tokenizer:
    """The tokenizer of a directory: characters.json, else vocab.json with merges.txt, else
    tokenizer.json."""
    try:
        return _tokenizer(directory)
    except CheckpointError as error:
        if str(directory) in str(error):
            raise
        raise CheckpointError(f"{directory} holds no vocabulary: {error} {AGAIN}") from None


def _tokenizer(directory: Path) -> Tokenizer:
    if (directory / CHARACTERS).is_file():
        found = read_json(directory / CHARACTERS)
        characters, eot = found.get("characters"), found.get("eot")
        listed: list[Any] = characters if isinstance(characters, list) else [None]
        if not all(isinstance(c, str) for c in listed) or not (eot is None or eot in listed):
            raise CheckpointError(f"{directory / CHARACTERS} holds no list of characters. {AGAIN}")
        return CharTokenizer(listed, eot, plain=found.get(PLAIN) is True)
    config = directory / TOKENIZER_CONFIG
    plain = config.is_file() and read_json(config).get(PLAIN) is True
    if not (directory / "vocab.json").exists() and (directory / fast_tokenizer.FILE).is_file():
        return fast_tokenizer.read_fast(directory / fast_tokenizer.FILE, plain)
    texts = []
    for name in ("vocab.json", "merges.txt"):
        try:
            texts.append(read_text(directory / name))
            if texts[-1].count("\n") > MAX_LINES:
                raise ValueError(f"it has more than {MAX_LINES:,} lines")
        except (OSError, ValueError):
            raise CheckpointError(
                f"{directory} has no readable {name}. A model directory needs vocab.json and "
                f"merges.txt, or {fast_tokenizer.FILE}, or {CHARACTERS}."
            ) from None
    vocab_json, merges_txt = texts
    return bpe_from_files(vocab_json, merges_txt, plain=plain)


def write_tokenizer(directory: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer's files into a directory."""
    if isinstance(tokenizer, CharTokenizer):
        eot = None if tokenizer.eot_id is None else tokenizer.characters[tokenizer.eot_id]
        write_json(
            directory / CHARACTERS,
            {"characters": tokenizer.characters, "eot": eot, PLAIN: tokenizer.plain},
        )
        return
    assert isinstance(tokenizer, BPETokenizer), type(tokenizer)
    (directory / "vocab.json").write_text(
        json.dumps(tokenizer.vocab, ensure_ascii=False), encoding="utf-8"
    )
    merges = "".join(f"{a} {b}\n" for a, b in tokenizer.merges)
    (directory / "merges.txt").write_text("#version: 0.2\n" + merges, encoding="utf-8")
    fast_tokenizer.write_fast(directory, tokenizer)
    special = None if tokenizer.eot_id is None else END_OF_TEXT
    write_json(
        directory / TOKENIZER_CONFIG,
        {
            # of transformers; the one class that takes tokenizer.json as it is, with its typography
            "tokenizer_class": "PreTrainedTokenizerFast" if tokenizer.plain else "GPT2Tokenizer",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "bos_token": special,
            "eos_token": special,
            "unk_token": special,
            PLAIN: tokenizer.plain,
        },
    )


class Weights(Mapping[str, np.ndarray]):
    """The weights of a directory by our names, each read when it is asked for, in float32."""

    def __init__(self, directory: Path, config: GPTConfig) -> None:
        """Raises CheckpointError where they are not what the config says."""
        self._places = places(directory, config)
        if config.tied:
            self._places["lm_head.weight"] = self._places["wte.weight"]

    def __getitem__(self, name: str) -> np.ndarray:
        found = self._places[name].read()
        return found.T if name.endswith(CONV1D) else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def places(directory: Path, config: GPTConfig) -> dict[str, Stored]:
    """Where each weight is, by our names, checked against the config's shapes; the head is left out
    where it is the embedding."""
    shapes = matrix_shapes(config) | vector_shapes(config)
    if config.tied:
        shapes["wte.weight"] = shapes.pop("lm_head.weight")
    found: dict[str, Stored] = {}
    for path in weight_files(directory):
        for name, stored in read_arrays(path).items():
            ours = name.removeprefix("transformer.")
            if ours.endswith(IGNORED) or (config.tied and ours == "lm_head.weight"):
                continue
            if ours not in shapes:
                raise CheckpointError(f"{path} holds {name[:80]!r}, which no GPT-2 has.")
            shape = shapes[ours]
            needed = shape[::-1] if ours.endswith(CONV1D) else shape
            if stored.shape != needed:
                raise CheckpointError(
                    f"{path}: {name} is {stored.shape}, and config.json makes it {needed}. "
                    "These files are not of one model."
                )
            found[ours] = stored
    missing = [name for name in shapes if name not in found]
    if missing:
        raise CheckpointError(
            f"{directory} lacks {len(missing)} of the model's tensors, {missing[0]} among them."
        )
    return found


def weight_files(directory: Path) -> Iterator[Path]:
    """The safetensors files of a directory."""
    if (directory / INDEX).is_file():
        yield from indexed_files(directory / INDEX)
    elif (directory / WEIGHTS).is_file():
        yield directory / WEIGHTS
    else:
        raise CheckpointError(
            f"{directory} has no {WEIGHTS}. Other forms of weights are translated by "
            f"python -m storygen import {directory} NAME."
        )


def indexed_files(index: Path) -> Iterator[Path]:
    """The files that an index of shards names, each of its own directory."""
    places = read_json(index).get("weight_map")
    names: list[Any] = list(places.values()) if isinstance(places, dict) else [None]
    if not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{index} does not map tensors to files. {AGAIN}")
    for name in sorted(set(names)):
        if Path(name).name != name or not name.isprintable():
            raise CheckpointError(f"{index} points outside its directory. {AGAIN}")
        yield index.parent / name
