"""docs/models.md: the figures as Markdown. Nothing in it depends on when or where it was made."""

from collections.abc import Sequence

from storygen.report.held_out import PIECE, PROMPT_WORDS, Genre, excerpts
from storygen.report.measure import LONG_RUN, Matrix, ModelReport, Quality, Sizes

MATRIX_PNG = "models-matrix.png"
TEMPERATURE_PNG = "models-temperature.png"


def page(
    models: Sequence[ModelReport],
    baselines: Matrix,
    genres: Sequence[Genre],
    sizes: Sizes,
    curves: Sequence[str],
) -> str:
    """The whole page; curves are the names of the loss pictures beside it."""
    parts = [
        "# What the models can do",
        "Written by `python -m storygen.report`, every figure in one run; do not edit it.",
        _models(models),
        "## Bits per byte on held-out text",
        _reading(genres, sizes),
        _matrix(models, baselines, genres),
        f"![The same as a picture]({MATRIX_PNG})",
        *_verdicts(models, genres),
        f"## {sizes.passages} passages of each model",
        _passages(sizes),
        _quality(models),
        _definitions(),
        "## What temperature does",
        f"![The next token's probabilities at three temperatures]({TEMPERATURE_PNG})",
        *(["## How the losses fell"] if curves else []),
        *(f"![Loss over steps]({name})" for name in curves),
    ]
    return "\n\n".join(parts) + "\n"


def _models(models: Sequence[ModelReport]) -> str:
    return _table(
        ("model", "genre", "parameters", "context", "bits per byte of its held-out text"),
        [
            (
                f"`{model.info.name}`",
                model.info.genre,
                f"{model.parameters:,}",
                f"{model.info.block_size:,} tokens",
                f"{model.info.bits_per_byte:.3f} (its card)" if model.info.bits_per_byte else "–",
            )
            for model in models
        ],
    )


def _reading(genres: Sequence[Genre], sizes: Sizes) -> str:
    held = [
        f"{sum(len(text.encode()) for text in texts):,} bytes of `{genre.name}` "
        f"({_counted(len(texts), 'excerpt')} of {_counted(len(genre.works), 'work')})"
        for genre in genres
        if (texts := excerpts(genre, sizes.excerpt_bytes))
    ]
    passed = sorted({name for genre in genres for name in genre.passed_over})
    return " ".join(
        [
            "How many bits a byte of unseen text takes, coded with a model's probabilities: lower "
            "is better, and vocabularies do not matter.",
            f"Read were {'; '.join(held)}: as much of every held-out work, in pieces of about "
            f"{PIECE:,} characters at even distances, each from its beginning. Cold beginnings "
            "make these figures higher than those of whole books.",
            "What a character model's alphabet lacks is paid for as naming its place and its "
            "character takes.",
            *(
                [f"Passed over, as another genre trains on them: {', '.join(passed)}."]
                if passed
                else []
            ),
            "The baselines learn the training split of the genre they are measured on "
            f"(at most its last {sizes.baseline_bytes / 2**20:g} MiB): order-5 characters are "
            "counted bytes with Witten-Bell smoothing, xz (preset 9) is by how much the excerpts "
            "lengthen the compressed training text.",
            "The best model of each genre is in bold.",
        ]
    )


def _matrix(models: Sequence[ModelReport], baselines: Matrix, genres: Sequence[Genre]) -> str:
    best = _best(models, genres)
    rows = []
    for model in models:
        cells = [
            f"**{model.bits_per_byte[name]:.3f}**"
            if best[name] == model.info.name
            else f"{model.bits_per_byte[name]:.3f}"
            for name in best
        ]
        rows.append((f"`{model.info.name}`", *cells))
    for name, scores in baselines.items():
        rows.append((name, *(f"{scores[genre]:.3f}" for genre in best)))
    return _table(("", *(f"on {name}" for name in best)), rows)


def _verdicts(models: Sequence[ModelReport], genres: Sequence[Genre]) -> list[str]:
    """Whether each model that has a genre of its own is the best on it."""
    best = _best(models, genres)
    own = [model.info.name for model in models if model.info.name in best]
    first = [f"`{name}`" for name in own if best[name] == name]
    behind = [f"`{name}` (`{best[name]}` is better)" for name in own if best[name] != name]
    told = [f"Best on their own genre: {', '.join(first)}."] if first else []
    return told + ([f"Not best on their own genre: {', '.join(behind)}."] if behind else [])


def _best(models: Sequence[ModelReport], genres: Sequence[Genre]) -> dict[str, str]:
    """The model with the fewest bits on each genre."""
    return {
        genre.name: min(models, key=lambda m: m.bits_per_byte[genre.name]).info.name
        for genre in genres
    }


def _passages(sizes: Sizes) -> str:
    return (
        f"Each goes on with the first {PROMPT_WORDS} words of a paragraph of a held-out work of "
        "its own genre (of all genres where it has none; a film plot's title is its opening), as "
        "many from each work, at the model's suggested settings with the seeds 0 to "
        f"{sizes.passages - 1}. Below each model stands how the authors themselves went on, cut "
        "to as many words."
    )


def _quality(models: Sequence[ModelReport]) -> str:
    rows = []
    for model in models:
        rows.append((f"`{model.info.name}`", *_figures(model.passages)))
        rows.append(("its authors", *_figures(model.authors)))
    head = (
        "",
        "words",
        "distinct-2",
        "repeated 4-grams",
        "invented words",
        "longest copied run",
        f"copied runs over {LONG_RUN} words",
        "ends at a sentence",
    )
    return _table(head, rows)


def _figures(quality: Quality) -> tuple[str, ...]:
    at_sentence = "–" if quality.at_sentence is None else f"{quality.at_sentence:.1%}"
    return (
        f"{quality.words:,}",
        f"{quality.distinct_2:.3f}",
        f"{quality.repeated_4:.2%}",
        f"{quality.invented:.2%}",
        f"{quality.longest_run} words",
        f"{quality.long_runs:.1%}",
        at_sentence,
    )


def _definitions() -> str:
    return "\n".join(
        [
            "- **words:** letters with apostrophes between them, case-folded; of a hyphenated "
            "word each part.",
            "- **distinct-2:** different pairs of neighbouring words among all of them, over all "
            "passages.",
            "- **repeated 4-grams:** runs of four words that stood in the same passage before.",
            "- **invented words:** those that occur in no training split of any genre. The "
            "authors' are mostly names.",
            "- **copied run:** words of a passage that stand in a row in a story of any training "
            "split; the share is of passages.",
            "- **ends at a sentence:** the last character, but for quotes and brackets, is a full "
            "stop, a question or an exclamation mark, or an ellipsis.",
        ]
    )


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
