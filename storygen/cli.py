"""The command line: models, writing, scoring, other programs' models. Thin on purpose."""

import argparse
import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from storygen.accounts import command as accounts
from storygen.accounts import key_command as api_keys
from storygen.catalogue import Catalogue, ModelInfo
from storygen.decode.build import described
from storygen.errors import CheckpointError, PromptError, SettingsError, StorygenError
from storygen.params import RANGES, SamplingParams
from storygen.serve import command as serving
from storygen.settings import Settings, load_settings

DIALECTS = ("auto", "hf", "raschka", "char", "nanogpt", "gguf")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command: 0 done, 1 a sentence on standard error, 2 wrong usage."""
    args = _parser().parse_args(argv)
    try:
        args.run(args, load_settings())
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever reads this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m storygen", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    models = commands.add_parser("models", help="list the models in the weights directory")
    models.add_argument("--json", action="store_true", help="print a JSON list")
    models.set_defaults(run=_models)

    write = commands.add_parser("write", help="continue a text")
    write.add_argument("--model", required=True, metavar="M")
    write.add_argument("--prompt", required=True, metavar="TEXT")
    for name, (kind, low, high) in RANGES.items():
        option = "--" + name.replace("_", "-")
        write.add_argument(option, type=kind, metavar="N", help=f"{low:g} to {high:g}")
    write.add_argument("--stop", action="append", metavar="TEXT", help="end before this text")
    write.add_argument(
        "--banned", action="append", metavar="TEXT", help="never write this word or phrase"
    )
    write.add_argument(
        "--end-at-sentence", action="store_true", help="end with a sentence, after two thirds"
    )
    write.add_argument("--no-loop-guard", action="store_true", help="go on with what only repeats")
    write.add_argument("--json", action="store_true", help="print one JSON object at the end")
    write.set_defaults(run=_write)

    score = commands.add_parser("score", help="how well a model predicts a text file")
    score.add_argument("--model", required=True, metavar="M")
    score.add_argument("file", type=Path, metavar="FILE")
    score.add_argument("--json", action="store_true", help="print a JSON object")
    score.set_defaults(run=_score)

    importing = commands.add_parser("import", help="make a model of another program's checkpoint")
    importing.add_argument("path", metavar="PATH", help="a file, a directory, or hf:owner/name")
    importing.add_argument("name", metavar="NAME", help="what the model is to be called")
    importing.add_argument("--dialect", choices=DIALECTS, default="auto")
    vocabulary = importing.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="vocab.json and merges.txt of its vocabulary"
    )
    vocabulary.add_argument(
        "--chars", type=Path, metavar="FILE", help="training text, or JSON list of its characters"
    )
    importing.add_argument("--n-head", type=int, metavar="N", help="attention heads")
    importing.add_argument(
        "--attention-scale",
        choices=("head", "embd"),
        help="width that attention scores are divided by the root of",
    )
    importing.set_defaults(run=_import)

    exporting = commands.add_parser("export", help="write a model for other programs")
    exporting.add_argument("model", metavar="NAME")
    exporting.add_argument("--format", choices=("hf", "gguf"), required=True)
    exporting.add_argument("--out", type=Path, required=True, metavar="PATH")
    exporting.add_argument(
        "--type", choices=("f16", "q8_0", "q4_0"), help="numbers of a GGUF file; f16"
    )
    exporting.add_argument(
        "--merge", action="store_true", help="adapter and base as one model, as GGUF always is"
    )
    exporting.set_defaults(run=_export)

    serving.add_serve(commands, _serve)
    accounts.add_users(commands, _users)
    api_keys.add_keys(commands, _keys)

    quantizing = commands.add_parser(
        "quantize",
        help="keep a model's rounded weights, so that it opens sooner and in less memory",
    )
    quantizing.add_argument("model", metavar="NAME")
    quantizing.add_argument("--type", choices=("int8", "int4", "bf16"), default="int8")
    quantizing.set_defaults(run=_quantize)

    speculating = commands.add_parser(
        "speculate",
        help="count which words follow which, so that a large model writes the same sooner",
    )
    speculating.add_argument("model", metavar="NAME")
    speculating.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="PATH", help="texts like its own"
    )
    speculating.set_defaults(run=_speculate)

    backup = commands.add_parser("backup", help="write all stories and accounts into one file")
    backup.add_argument("file", type=Path, metavar="FILE", help="a file that is not there yet")
    backup.set_defaults(run=_backup)

    restoring = commands.add_parser("restore", help="put a backup in the place of what there is")
    restoring.add_argument("file", type=Path, metavar="FILE")
    restoring.set_defaults(run=_restore)

    doctor = commands.add_parser("doctor", help="check this installation")
    doctor.set_defaults(run=_doctor)
    return parser


def _doctor(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.doctor import examine  # as below

    bad = 0
    for finding in examine(settings):
        print(finding, flush=True)
        bad += finding.state == "bad"
    if bad:
        raise SettingsError(f"{bad} thing{'' if bad == 1 else 's'} to put right: see above.")


def _models(args: argparse.Namespace, settings: Settings) -> None:
    models = Catalogue(settings.weights_dir).models()
    if args.json:
        print(json.dumps([_described(info) for info in models], ensure_ascii=False, indent=2))
        return
    for info in models:
        bpb = f"{info.bits_per_byte:.3f} bits per byte" if info.bits_per_byte else "not measured"
        print(f"{info.name:16} {info.genre:14} {info.block_size:5} tokens  {bpb}")
    if not models:
        print(f"No models in {settings.weights_dir}. Train one: python -m storygen.train RECIPE")
    print(described(settings.native_dir), file=sys.stderr)


def _described(info: ModelInfo) -> dict[str, Any]:
    return asdict(info) | {"directory": str(info.directory)}


def _write(args: argparse.Namespace, settings: Settings) -> None:
    catalogue = Catalogue(settings.weights_dir)
    info = catalogue.get(args.model)
    names = (*RANGES, "stop", "banned")
    chosen = {name: value for name in names if (value := getattr(args, name)) is not None}
    chosen |= {"end_at_sentence": True} if args.end_at_sentence else {}
    chosen |= {"loop_guard": False} if args.no_loop_guard else {}
    params = SamplingParams(**{**info.suggested, **chosen})
    if params.seed is None:
        params = replace(params, seed=secrets.randbelow(2**31))
    show = (lambda text: None) if args.json else _print_now
    written = asyncio.run(_continued(settings, info, args.prompt, params, show))
    print(json.dumps(written, ensure_ascii=False) if args.json else "")


async def _continued(
    settings: Settings,
    info: ModelInfo,
    prompt: str,
    params: SamplingParams,
    show: Callable[[str], None],
) -> dict[str, Any]:
    """Continue a text, showing it as it comes; the result as `write --json` prints it."""
    from storygen.engine.local import LocalEngine  # takes seconds: not for `models` or --help
    from storygen.story.prompt import fit_prompt, glue, prompt_budget

    engine = LocalEngine(
        Catalogue(settings.weights_dir),
        device=settings.device,
        dtype=settings.dtype,
        threads=settings.threads,
        slots=1,
        native=settings.native_dir,
    )
    await engine.start()
    try:
        read = await fit_prompt(
            [prompt],
            budget=prompt_budget(info.block_size, params.max_new_tokens),
            count_tokens=partial(engine.count_tokens, info.name),
        )
        if read.cut:
            words = f"{read.left_out:,} word{'' if read.left_out == 1 else 's'}"
            print(
                f"{info.name} does not see the beginning of the prompt ({words}).", file=sys.stderr
            )
        text, tokens, reason = "", 0, None
        await engine.next_tokens(info.name, read.text, 1)  # so that loading is not timed
        began = time.perf_counter()
        async with aclosing(engine.stream(info.name, read.text, params)) as segments:
            async for segment in segments:
                piece = segment.text if text else glue(read.trailing, segment.text)
                show(piece)
                text += piece
                tokens += segment.token_count
                reason = segment.finish_reason
        seconds = time.perf_counter() - began
    finally:
        await engine.close()
    return {
        "text": text,
        "finish_reason": reason,
        "tokens": tokens,
        "seed": params.seed,
        "tokens_per_second": round(tokens / seconds, 1),
    }


def _print_now(text: str) -> None:
    print(text, end="", flush=True)


def _score(args: argparse.Namespace, settings: Settings) -> None:
    info = Catalogue(settings.weights_dir).get(args.model)
    text = _read(args.file)

    from storygen import checkpoints  # as above
    from storygen.train.evaluate import score_text

    score = score_text(*checkpoints.load(info.directory), text)
    if args.json:
        print(json.dumps(score.as_dict()))
    else:
        print(
            f"{score.bits_per_byte:.4f} bits per byte, perplexity {score.perplexity:.2f} "
            f"({score.tokens:,} tokens, {score.bytes:,} bytes)"
        )


def _import(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.checkpoints.importers import Asked, import_model  # as above

    asked = Asked(args.dialect, args.tokenizer, args.chars, args.n_head, args.attention_scale)
    network = import_model(args.path, args.name, settings.weights_dir, asked)
    config = network.config
    print(
        f"{args.name}: {network.dialect}, {config.n_layer} layers, {config.n_head} heads, width "
        f"{config.n_embd:,}, context {config.block_size:,} tokens"
    )
    for note in network.notes:
        print(f"Taken for granted: {note}.")


def _export(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.checkpoints.export import export_gguf, export_hf  # as above

    info = Catalogue(settings.weights_dir).get(args.model)
    if args.format == "gguf":
        export_gguf(info.directory, args.out, args.type or "f16", info.name)
    elif args.type is None:
        export_hf(info.directory, args.out, args.merge)
    else:
        raise CheckpointError(
            "--type is for GGUF files: a directory keeps its numbers. Omit it, or take --format "
            "gguf."
        )
    print(f"{info.name} is now in {args.out}.")


def _quantize(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.engine.opening import quantize  # as above

    info = Catalogue(settings.weights_dir).get(args.model)
    path = quantize(info.directory, args.type)
    print(f"{info.name} opens from {path} now ({path.stat().st_size / 1e6:,.1f} MB).")


def _speculate(args: argparse.Namespace, settings: Settings) -> None:
    import numpy as np  # as above

    from storygen.checkpoints import load_tokenizer, ngrams
    from storygen.corpora.works import read_works, stories
    from storygen.text import plain_typography
    from storygen.tokenizers import readable

    info = Catalogue(settings.weights_dir).get(args.model)
    tokenizer = load_tokenizer(info.directory)
    if tokenizer.vocab_size > ngrams.NONE:
        raise CheckpointError(
            f"{info.name} has {tokenizer.vocab_size:,} tokens: up to {ngrams.NONE:,} are counted."
        )
    found = []
    for story in chain.from_iterable(stories(work.text) for work in read_works(args.source)):
        text = plain_typography(story) if tokenizer.plain else story
        found.append(tokenizer.encode(readable(tokenizer, text)))
    ids = np.fromiter(chain.from_iterable(found), np.uint16)
    path = ngrams.count(tokenizer, ids).save(info.directory)
    print(
        f"{len(ids):,} tokens are counted in {path}. Where native code writes, {info.name} guesses "
        "by them when it is opened next."
    )


def _backup(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.story.backup import back_up  # as above

    with _ended_by_signals():
        manifest = asyncio.run(back_up(settings.store_url, args.file.absolute()))
    size = args.file.stat().st_size
    print(f"{manifest['stories']:,} stories are in {args.file} now ({size / 1e6:,.1f} MB).")


def _restore(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.story.backup import restore  # as above

    with _ended_by_signals():
        before = asyncio.run(restore(settings.store_url, args.file.absolute()))
    print(f"{args.file} is in place." + (f" What was there is in {before}." if before else ""))


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Ctrl+C and SIGTERM end what is done within at once, and have it clean up behind itself."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, leave) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _users(args: argparse.Namespace, settings: Settings) -> None:
    print(accounts.run(args, settings.store_url, settings.weights_dir))


def _keys(args: argparse.Namespace, settings: Settings) -> None:
    print(api_keys.run(args, settings.store_url))


def _serve(args: argparse.Namespace, settings: Settings) -> None:
    from storygen.engines import engine_of  # as above
    from storygen.launch import require_free_port, require_models

    host = args.host or settings.host
    require_free_port(host, args.port, "--port")
    require_models(settings)
    if args.ray is None:
        serving.run(settings, engine_of(settings, "quotas-serve.json"), host, args.port)
        return
    from storygen.serve.ray_start import engine_on

    replicas = {"replicas": args.replicas, "max_replicas": args.max_replicas}
    with engine_on(args.ray, settings, **replicas) as engine:
        serving.run(settings, engine, host, args.port)


def _read(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")  # line ends as they are
    except OSError as error:
        raise PromptError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PromptError(f"{path} is not UTF-8 text: convert it first.") from None
    if not text:
        raise PromptError(f"{path} is empty: there is nothing to score.")
    return text
