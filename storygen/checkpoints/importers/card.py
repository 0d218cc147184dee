"""What an imported model says of itself: its card, README.md, and what the chat shows of it."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from storygen.checkpoints.importers.network import Network
from storygen.files import sha256


def card(name: str, source: str, network: Network, files: Sequence[Path], when: datetime) -> str:
    """Markdown: where the model came from, what it was, and the hashes of its files."""
    config = network.config
    return "\n".join(
        [
            f"# {name}",
            "",
            f"Imported from `{source}` on {when:%Y-%m-%d at %H:%M} UTC. Its own licence applies.",
            "",
            f"- **Was:** {network.dialect}",
            f"- **Network:** {config.n_layer} layers, {config.n_head} heads, width "
            f"{config.n_embd:,}, context {config.block_size:,} tokens, vocabulary "
            f"{config.vocab_size:,}, activation {config.activation}, "
            f"{'one matrix' if config.tied else 'separate matrices'} for embedding and output",
            *(f"- **Taken for granted:** {note}" for note in network.notes),
            "",
            "SHA-256 of the files it was made from:",
            "",
            "```",
            *(f"{sha256(path)}  {path.name}" for path in files),
            "```",
            "",
        ]
    )


def extras(name: str, source: str, said: Mapping[str, object]) -> str:
    """storygen.json; said are the extras that the source had itself."""
    ours = {"display_name": name, "genre": "imported", "description": f"Imported from {source}."}
    return json.dumps(ours | dict(said), indent=2, ensure_ascii=False) + "\n"
