"""The measurements: every model on every genre, its passages, and the baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storygen import checkpoints
from storygen.catalogue import ModelInfo
from storygen.report.baselines import ByteModel, tail, xz_bits_per_byte
from storygen.report.copies import TrainingWords
from storygen.report.held_out import Genre, Opening, excerpts, openings, without_wholes
from storygen.report.passages import write_passages
from storygen.report.score import score_excerpts
from storygen.report.words import (
    distinct_2,
    ends_at_sentence,
    invented,
    repeated_4,
    words,
)
from storygen.tokenizers import Tokenizer, readable

LONG_RUN = 12  # words

Matrix = dict[str, dict[str, float]]  # bits per byte by row, then genre
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    excerpt_bytes: int = 60_000  # of each genre
    passages: int = 200  # of each model
    baseline_bytes: int = 64 * 2**20  # of training text, at most


@dataclass(frozen=True)
class Quality:
    """What passages are like; at_sentence is None for text that was cut to a length."""

    words: int
    distinct_2: float
    repeated_4: float
    invented: float
    longest_run: int
    long_runs: float
    at_sentence: float | None = None


@dataclass(frozen=True)
class ModelReport:
    """One model: its size, its bits per byte by genre, its passages beside their authors' text."""

    info: ModelInfo
    parameters: int
    bits_per_byte: dict[str, float]
    passages: Quality
    authors: Quality


def measure_baselines(genres: Sequence[Genre], sizes: Sizes, tell: Tell) -> Matrix:
    """Bits per byte of what has learnt each genre's training split, by name and genre."""
    matrix: Matrix = {"order-5 characters": {}, "xz": {}}
    for genre in genres:
        tell(f"{genre.name}: order-5 characters and xz")
        training = tail(genre.training_stories(), sizes.baseline_bytes)
        texts = [text.encode() for text in excerpts(genre, sizes.excerpt_bytes)]
        matrix["order-5 characters"][genre.name] = ByteModel(training).bits_per_byte(texts)
        matrix["xz"][genre.name] = xz_bits_per_byte(training, texts)
    return matrix


def measure_model(
    info: ModelInfo,
    genres: Sequence[Genre],
    training: TrainingWords,
    sizes: Sizes,
    tell: Tell,
) -> ModelReport:
    """Score a model on every genre and let it write."""
    network, tokenizer = checkpoints.load(info.directory)
    scores = {}
    for genre in without_wholes(genres):
        tell(f"{info.name}: bits per byte on {genre.name}")
        found = score_excerpts(network, tokenizer, excerpts(genre, sizes.excerpt_bytes))
        scores[genre.name] = found.bits_per_byte
    parameters = network.n_params
    del network  # the engine loads its own
    tell(f"{info.name}: {sizes.passages} passages")
    begun = _openings_for(info, tokenizer, genres, sizes.passages)
    texts = write_passages(info, [opening.prompt for opening in begun])
    passages = [words(text) for text in texts]
    authors = {  # once each, where there are fewer openings than passages
        opening: words(opening.rest)[: len(passage)]
        for opening, passage in zip(begun, passages, strict=True)
    }
    at_sentence = sum(map(ends_at_sentence, texts)) / len(texts)
    return ModelReport(
        info,
        parameters,
        scores,
        measure_quality(passages, training, at_sentence),
        measure_quality(list(authors.values()), training),
    )


def measure_quality(
    passages: Sequence[Sequence[str]], training: TrainingWords, at_sentence: float | None = None
) -> Quality:
    """The figures of passages given as words."""
    runs = training.longest_runs(passages)
    return Quality(
        words=sum(map(len, passages)),
        distinct_2=distinct_2(passages),
        repeated_4=repeated_4(passages),
        invented=invented(passages, training.known),
        longest_run=max(runs),
        long_runs=sum(run > LONG_RUN for run in runs) / len(runs),
        at_sentence=at_sentence,
    )


def _openings_for(
    info: ModelInfo, tokenizer: Tokenizer, genres: Sequence[Genre], count: int
) -> list[Opening]:
    """Openings of the model's own genre, which is the corpus of its name; of all where it has
    none. What its vocabulary cannot spell is left out."""
    own = [genre for genre in genres if genre.name == info.name] or genres
    shares = [count // len(own) + (n < count % len(own)) for n in range(len(own))]
    found = [o for genre, share in zip(own, shares, strict=True) for o in openings(genre, share)]
    return [Opening(readable(tokenizer, opening.prompt), opening.rest) for opening in found]
