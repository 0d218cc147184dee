"""python -m storygen.corpora: list and download the works we trained on, prepare a corpus, train
a vocabulary."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from storygen.checkpoints.hf import read_tokenizer, write_tokenizer
from storygen.corpora.characters import char_vocabulary
from storygen.corpora.download import Downloader
from storygen.corpora.prepare import prepare
from storygen.corpora.registry import Entry, genres, works_of
from storygen.corpora.sources import can_be_fetched, fetch
from storygen.corpora.vocabulary import train_bpe
from storygen.corpora.works import Work, read_files, read_works, stories
from storygen.errors import StorygenError, TrainError
from storygen.files import atomic_directory
from storygen.tokenizers import END_OF_TEXT

VOCABULARY = Path(__file__).parent / "bpe-8192"
CORPORA = Path("corpora")
SOURCES = ".sources"  # below the corpora: the files as they were downloaded


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 when done, 1 with a sentence on standard error."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; run the command again.", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m storygen.corpora", description=__doc__)
    commands = parser.add_subparsers(required=True)

    show = commands.add_parser("list", help="the genres: works, words, licences")
    show.add_argument("--corpora", type=Path, default=CORPORA, metavar="DIR")
    show.set_defaults(run=_list)

    get = commands.add_parser("download", help="fetch the works of a genre from where they are")
    get.add_argument("name", help="a genre of the list")
    get.add_argument("--corpora", type=Path, default=CORPORA, metavar="DIR")
    get.set_defaults(run=_download)

    make = commands.add_parser("prepare", help="split, tokenise and write a corpus")
    make.add_argument("name", help="name of the corpus, or a genre that was downloaded")
    make.add_argument("--from", dest="source", type=Path, metavar="PATH", help="folder or file")
    make.add_argument("--corpora", type=Path, default=CORPORA, metavar="DIR")
    make.add_argument("--out", type=Path, required=True, metavar="DIR")
    make.add_argument("--separator", default=END_OF_TEXT, metavar="LINE", help="between stories")
    tokens = make.add_mutually_exclusive_group()
    tokens.add_argument("--tokenizer", type=Path, default=VOCABULARY, metavar="DIR")
    tokens.add_argument("--chars", action="store_true", help="one token a character")
    make.set_defaults(run=_prepare)

    learn = commands.add_parser("vocabulary", help="train a byte-level BPE vocabulary")
    learn.add_argument("--from", dest="source", type=Path, required=True, metavar="PATH")
    learn.add_argument("--out", type=Path, required=True, metavar="DIR")
    learn.add_argument("--size", type=int, default=8192, metavar="N")
    learn.set_defaults(run=_vocabulary)
    return parser


def _list(args: argparse.Namespace) -> None:
    row = "{:<13} {:>6} {:>12} {:>8}  {}"
    print(row.format("genre", "works", "words", "here", "licences"))
    for genre in genres():
        works = works_of(genre)
        here = sum((args.corpora / genre / work.file).is_file() for work in works)
        licences = "; ".join(dict.fromkeys(work.licence for work in works))
        words = f"{sum(work.words for work in works):,}"
        print(row.format(genre, len(works), words, here, licences))


def _download(args: argparse.Namespace) -> None:
    works = works_of(args.name)
    folder = args.corpora / args.name
    found = [work for work in works if can_be_fetched(work)]
    exact, failed = 0, []
    with Progress() as bar, Downloader(args.corpora / SOURCES) as downloader:
        task = bar.add_task(args.name, total=len(found))
        for work in found:
            bar.update(task, description=work.title[:40])
            try:
                exact += fetch(work, downloader, folder)
            except TrainError as error:
                failed.append(f"{work.title}: {error}")
                bar.console.print(failed[-1], style="red", markup=False)
            bar.advance(task)
    print(
        f"{len(found) - len(failed)} of {len(works)} works are in {folder}, {exact} of them the "
        f"registered text to the letter. What was downloaded is in {args.corpora / SOURCES}."
    )
    _say_what_is_missing(works, found, failed)


def _say_what_is_missing(works: list[Entry], found: list[Entry], failed: list[str]) -> None:
    if failed:
        raise TrainError(f"{len(failed)} works could not be fetched, the first: {failed[0]}")
    if len(found) < len(works):
        raise TrainError(
            f"{len(works) - len(found)} works were gathered from several places and cannot be "
            "fetched: prepare takes a file of your own with --from."
        )


def _prepare(args: argparse.Namespace) -> None:
    with Progress() as bar:
        task = bar.add_task(f"Reading {args.name}", total=None)
        works = (
            _registered(args) if args.source is None else read_works(args.source, args.separator)
        )
        tokenizer = char_vocabulary if args.chars else read_tokenizer(args.tokenizer)
        bar.update(task, description=f"Preparing {args.name}", total=len(works))
        options = {"separator": args.separator}
        removed = prepare(
            args.name, works, tokenizer, args.out, lambda _: bar.advance(task), options
        )
    print(f"{removed}.")
    print(f"{args.out} is ready: python -m storygen.train RECIPE --corpus {args.out}")


def _registered(args: argparse.Namespace) -> list[Work]:
    """The works of a genre that are there, and a line where some are not."""
    folder, all_works = args.corpora / args.name, works_of(args.name)
    files = [folder / work.file for work in all_works if (folder / work.file).is_file()]
    if not files:
        raise TrainError(
            f"{folder} has no work of {args.name} yet: python -m storygen.corpora download "
            f"{args.name} fetches them, and --from takes books of your own."
        )
    if len(files) < len(all_works):
        print(f"{len(files)} of {len(all_works)} works are in {folder}.")
    return read_files(files, folder, args.separator)


def _vocabulary(args: argparse.Namespace) -> None:
    texts = (story for work in read_works(args.source) for story in stories(work.text))
    tokenizer = train_bpe(texts, args.size)
    with atomic_directory(args.out) as new:
        write_tokenizer(new, tokenizer)
    print(f"{tokenizer.vocab_size:,} tokens in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
