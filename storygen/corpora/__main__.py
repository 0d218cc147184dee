"""python -m storygen.corpora: prepare a corpus for training, train a vocabulary."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from storygen.checkpoints.hf import read_tokenizer, write_tokenizer
from storygen.corpora.prepare import prepare, read_works, stories
from storygen.corpora.vocabulary import train_bpe
from storygen.errors import StorygenError
from storygen.files import atomic_directory

VOCABULARY = Path(__file__).parent / "bpe-8192"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 when done, 1 with a sentence on standard error."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m storygen.corpora", description=__doc__)
    commands = parser.add_subparsers(required=True)

    make = commands.add_parser("prepare", help="split, tokenise and write a corpus")
    make.add_argument("name", help="name of the corpus, for its meta.json")
    make.add_argument("--from", dest="source", type=Path, required=True, metavar="PATH")
    make.add_argument("--out", type=Path, required=True, metavar="DIR")
    make.add_argument("--tokenizer", type=Path, default=VOCABULARY, metavar="DIR")
    make.set_defaults(run=_prepare)

    learn = commands.add_parser("vocabulary", help="train a byte-level BPE vocabulary")
    learn.add_argument("--from", dest="source", type=Path, required=True, metavar="PATH")
    learn.add_argument("--out", type=Path, required=True, metavar="DIR")
    learn.add_argument("--size", type=int, default=8192, metavar="N")
    learn.set_defaults(run=_vocabulary)
    return parser


def _prepare(args: argparse.Namespace) -> None:
    works = read_works(args.source)
    with Progress() as bar:
        task = bar.add_task(f"Preparing {args.name}", total=len(works))
        tokenizer = read_tokenizer(args.tokenizer)
        prepare(args.name, works, tokenizer, args.out, lambda _: bar.advance(task))
    print(f"{args.out} is ready: python -m storygen.train RECIPE --corpus {args.out}")


def _vocabulary(args: argparse.Namespace) -> None:
    texts = (story for work in read_works(args.source) for story in stories(work.text))
    tokenizer = train_bpe(texts, args.size)
    with atomic_directory(args.out) as new:
        write_tokenizer(new, tokenizer)
    print(f"{tokenizer.vocab_size:,} tokens in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
