"""Model directories from the Hugging Face hub, or from a mirror that HF_ENDPOINT names."""

from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from storygen.errors import CheckpointError

# Never pickles, except for fetch_any().
TEXTS = ("*config.json", "*.index.json", "vocab.json", "merges.txt", "tokenizer.json")
FILES = (*TEXTS, "*.safetensors")
PICKLES = ("pytorch_model*.bin", "adapter_model.bin")


def fetch_any(name: str, endpoint: str | None = None) -> Path:
    """As fetch(), with pickled weights where there are no others: for the importer, which has
    them opened by a limited process."""
    directory = fetch(name, endpoint)
    return directory if any(directory.glob("*.safetensors")) else _fetch(name, endpoint, PICKLES)


def fetch(name: str, endpoint: str | None = None) -> Path:
    """The directory of a model such as `gpt2` or `owner/name`, downloaded once and then kept in the
    hub's own cache. Raises CheckpointError when it cannot be had."""
    return _fetch(name, endpoint, FILES)


def _fetch(name: str, endpoint: str | None, patterns: tuple[str, ...]) -> Path:
    try:
        found = snapshot_download(name, allow_patterns=list(patterns), endpoint=endpoint)
    except HFValidationError:
        raise CheckpointError(
            f"{name!r} is neither a directory here nor a name on the hub, such as owner/name."
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"{name!r} is no directory here, and could not be had from the hub: {reason}"
        ) from None
    return Path(found)
