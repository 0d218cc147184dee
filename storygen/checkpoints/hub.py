"""Model directories from the Hugging Face hub, or from a mirror that HF_ENDPOINT names."""

from pathlib import Path

import httpx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from storygen.errors import CheckpointError

# Never pickles.
FILES = ("config.json", "*.safetensors", "*.safetensors.index.json", "vocab.json", "merges.txt")


def fetch(name: str, endpoint: str | None = None) -> Path:
    """The directory of a model such as `gpt2` or `owner/name`, downloaded once and then kept in the
    hub's own cache. Raises CheckpointError when it cannot be had."""
    try:
        found = snapshot_download(name, allow_patterns=list(FILES), endpoint=endpoint)
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
