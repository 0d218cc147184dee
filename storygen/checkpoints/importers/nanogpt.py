"""nanoGPT's ckpt.pt: GPT-2's names with matrices as torch.nn.Linear has them, the exact GELU, and
biases only if asked for; model_args beside the weights has the sizes."""

from storygen.checkpoints.importers.network import (
    Asked,
    Checkpoint,
    Network,
    heads,
    network,
    renamed,
    width,
)
from storygen.errors import CheckpointError

DIALECT = "nanoGPT model"
GELU = "the exact GELU of nanoGPT, not GPT-2's by tanh: the weights do not show which"
MARK = r"(?:transformer\.)?h\.0\.attn\.c_attn\.weight"
RULES = [
    (r"(?:transformer\.)?h\.\d+\.attn\.(?:masked_)?bias", ""),  # the causal mask
    (r"(?:transformer\.)?((?:wte|wpe|ln_f|h\.\d+\..*)\.(?:weight|bias))", r"\1"),
    (r"(lm_head\.(?:weight|bias))", r"\1"),
]


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    weights = renamed(checkpoint, RULES, DIALECT)
    args = checkpoint.values.get("model_args")
    said = args.get("n_head") if isinstance(args, dict) else None
    n_head = said if type(said) is int else 0
    notes: tuple[str, ...] = ()
    if not n_head:
        n_head, assumed = heads(checkpoint, asked, width(checkpoint, weights))
        notes = (*assumed, GELU)
    elif asked.n_head not in (None, n_head):
        raise CheckpointError(
            f"{checkpoint.path} says that it has {n_head} attention heads: leave --n-head out."
        )
    return network(checkpoint, DIALECT, weights, n_head=n_head, activation="gelu", notes=notes)
