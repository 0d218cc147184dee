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

DIALECT = "nanoGPT model"
GELU = "the exact GELU that nanoGPT has had since June 2023, before it was GPT-2's by tanh"
USUAL = {"n_layer", "n_head", "n_embd", "block_size", "vocab_size", "bias", "dropout"}
MARK = r"(?:transformer\.)?h\.0\.attn\.c_attn\.weight"
RULES = [
    (r"(?:transformer\.)?h\.\d+\.attn\.(?:masked_)?bias", ""),  # the causal mask
    (r"(?:transformer\.)?((?:wte|wpe|ln_f|h\.\d+\..*)\.(?:weight|bias))", r"\1"),
    (r"(lm_head\.(?:weight|bias))", r"\1"),
]


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    weights = renamed(checkpoint, RULES, DIALECT)
    said = checkpoint.values.get("model_args")
    args = said if isinstance(said, dict) else {}
    notes = [GELU]
    n_head = args.get("n_head")
    if type(n_head) is not int:
        n_head, assumed = heads(checkpoint, asked, width(checkpoint, weights))
        notes += assumed
    if unusual := ", ".join(sorted(str(k) for k in args if args[k] and k not in USUAL)):
        notes.append(f"that {unusual[:200]} of model_args change nothing that is computed")
    return network(
        checkpoint, DIALECT, weights, n_head=n_head, activation="gelu", notes=tuple(notes)
    )
