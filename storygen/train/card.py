"""The model card: README.md of a model directory, every figure taken from the run."""

from collections.abc import Sequence
from typing import Any

from storygen.model import GPT
from storygen.train.config import TrainConfig
from storygen.train.evaluate import Score


def model_card(
    name: str,
    config: TrainConfig,
    corpus: dict[str, Any],
    model: GPT,
    score: Score,
    samples: Sequence[tuple[str, str]],
    metrics: Sequence[dict[str, Any]],
) -> str:
    """Markdown with corpus, licence, recipe, held-out score and samples."""
    card, shape = config.card, model.config
    held_out = [work["name"] for work in corpus["works"] if work["split"] == "val"]
    trained_on = {work["name"] for work in corpus["works"] if work["split"] == "train"}
    whole = not trained_on & set(held_out)
    epochs = metrics[-1]["tokens"] / corpus["train_tokens"]
    return "\n".join(
        [
            f"# {card.display_name}",
            "",
            card.description,
            "",
            f"- **Network:** GPT-2 architecture, {shape.n_layer} layers, {shape.n_head} heads, "
            f"width {shape.n_embd}, context {shape.block_size} tokens, vocabulary "
            f"{shape.vocab_size:,}; {model.n_params:,} parameters, stored as fp16",
            f"- **Corpus:** {card.corpus}",
            f"- **Licence:** {card.licence}",
            f"- **Recipe:** `python -m storygen.train {name}`, seed {config.seed}; "
            f"{metrics[-1]['step']:,} steps, {metrics[-1]['tokens']:,} tokens seen "
            f"({epochs:.2f} times the {corpus['train_tokens']:,} of the training split)",
            f"- **Held out** ({'whole works' if whole else 'a tenth of the only file'}): "
            + ", ".join(sorted(n.removesuffix(".txt") for n in held_out)),
            f"- **Score on it:** {score.bits_per_byte:.3f} bits per byte "
            f"(perplexity {score.perplexity:.1f} a token, {score.tokens:,} tokens, "
            f"{score.bytes:,} bytes)",
            "",
            "## Samples",
            "",
            "The recipe's prompts, one try each with the suggested settings and the same seed; "
            "nothing was selected. The prompt is in bold.",
            "",
            *(_sample(prompt, text) for prompt, text in samples),
        ]
    )


def _sample(prompt: str, text: str) -> str:
    lines = f"**{prompt}**{text}".rstrip().splitlines()
    return "".join(f"> {line}\n" if line else ">\n" for line in lines)
