"""python -m storygen.report: measure every model and write docs/models.md with its pictures."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from storygen.catalogue import Catalogue, ModelInfo
from storygen.errors import StorygenError
from storygen.report.copies import TrainingWords
from storygen.report.held_out import read_genres, without_parts, without_wholes
from storygen.report.measure import ModelReport, Sizes, Tell, measure_baselines, measure_model
from storygen.report.page import MATRIX_PNG, TEMPERATURE_PNG, page
from storygen.report.passages import next_tokens
from storygen.report.pictures import draw_matrix, draw_temperatures

QUICK = Sizes(excerpt_bytes=8_000, passages=16, baseline_bytes=2**20)
OPENING = "It was a cold night in November when the inspector knocked at the"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report; 0 when done, 1 with a sentence on standard error."""
    args = _parser().parse_args(argv)
    try:
        catalogue = Catalogue(args.weights)
        models = [catalogue.get(name) for name in args.models] or _all(catalogue)
        write_report(models, args.corpora, args.out, QUICK if args.quick else Sizes(), print)
    except StorygenError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def write_report(
    models: Sequence[ModelInfo], corpora: Path, out: Path, sizes: Sizes, tell: Tell
) -> None:
    """Measure the models on the prepared corpora and write the page `out`, pictures beside it."""
    genres = read_genres(corpora)
    tell("reading the training text")
    training = TrainingWords(genre.training_stories() for genre in without_parts(genres))
    columns = without_wholes(genres)
    measured = [measure_model(info, genres, training, sizes, tell) for info in models]
    baselines = measure_baselines(columns, sizes, tell)
    out.parent.mkdir(parents=True, exist_ok=True)
    matrix = {model.info.name: model.bits_per_byte for model in measured} | baselines
    draw_matrix(matrix, out.parent / MATRIX_PNG)
    best = min(measured, key=_mean).info
    scores = next_tokens(best, OPENING)
    draw_temperatures(best.name, OPENING, scores, out.parent / TEMPERATURE_PNG)
    curves = [f"{model.info.name}-loss.png" for model in measured]
    there = [name for name in curves if (out.parent / name).is_file()]
    out.write_text(page(measured, baselines, columns, sizes, there), encoding="utf-8")
    tell(f"{out} is written.")


def _mean(model: ModelReport) -> float:
    return sum(model.bits_per_byte.values()) / len(model.bits_per_byte)


def _all(catalogue: Catalogue) -> list[ModelInfo]:
    models = catalogue.models()
    if not models:
        catalogue.get("")  # says what is missing, and how to get it
    return models


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m storygen.report", description=__doc__)
    parser.add_argument("--weights", type=Path, default=Path("weights"), metavar="DIR")
    parser.add_argument("--corpora", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("docs/models.md"), metavar="FILE")
    parser.add_argument(
        "--models",
        type=lambda text: text.split(","),
        default=[],
        metavar="A,B",
        help="default: all in --weights",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK.passages} passages a model and little text: to see that it works",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
