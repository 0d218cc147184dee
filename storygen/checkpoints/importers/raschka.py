"""GPTModel of Sebastian Raschka's "Build a Large Language Model (From Scratch)".

Its own layer norm with scale and shift, a GELU by tanh, separate query, key and value with or
without biases, an output head of its own. The book's later packages have torch's layer norm, or
one matrix for the three; its third chapter has attention modules for each head, and nothing after.
"""

from storygen.checkpoints.importers.network import (
    Asked,
    Checkpoint,
    Network,
    fused,
    heads,
    network,
    renamed,
    separate_heads,
    width,
)
from storygen.checkpoints.weights import Weight, identity

DIALECT = "GPTModel of the book by Raschka"
MARK = r"trf_blocks\.0\..*"
_LAYER = r"trf_blocks\.(\d+)\."
_ATT = _LAYER + r"att\."
RULES = [
    (r"tok_emb\.weight", "wte.weight"),
    (r"pos_emb\.weight", "wpe.weight"),
    *((_LAYER + rf"norm{n}\.(?:scale|weight)", rf"h.\1.ln_{n}.weight") for n in (1, 2)),
    *((_LAYER + rf"norm{n}\.(?:shift|bias)", rf"h.\1.ln_{n}.bias") for n in (1, 2)),
    *(
        (_ATT + rf"(?:heads\.(\d+)\.)?W_{name}\.(weight|bias)", rf"h.\1.attn.{name[0]}.\2.\3")
        for name in ("query", "key", "value")
    ),
    (_ATT + r"qkv\.(weight|bias)", r"h.\1.attn.c_attn.\2"),
    (_ATT + r"(?:out_)?proj\.(weight|bias)", r"h.\1.attn.c_proj.\2"),
    (_LAYER + r"ff\.layers\.0\.(weight|bias)", r"h.\1.mlp.c_fc.\2"),
    (_LAYER + r"ff\.layers\.2\.(weight|bias)", r"h.\1.mlp.c_proj.\2"),
    (r"final_norm\.(?:scale|weight)", "ln_f.weight"),
    (r"final_norm\.(?:shift|bias)", "ln_f.bias"),
    (r"out_head\.(weight|bias)", r"lm_head.\1"),
    (r".*\.(?:mask|cache_k|cache_v)", ""),
]


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    found = renamed(checkpoint, RULES, DIALECT)
    n_head = separate_heads(found)
    notes: tuple[str, ...] = ()
    if n_head:
        found = _projected(found, width(checkpoint, found))
    else:
        n_head, notes = heads(checkpoint, asked, width(checkpoint, found))
    return network(
        checkpoint, DIALECT, fused(found), n_head=n_head, activation="gelu_new", notes=notes
    )


def _projected(weights: dict[str, Weight], n_embd: int) -> dict[str, Weight]:
    """Weights where heads that are just put side by side go through a matrix that changes nothing,
    for GPT-2 has one there."""
    missing = {
        f"{name.partition('.attn.')[0]}.attn.c_proj.weight": identity(n_embd, weight.dtype)
        for name, weight in weights.items()
        if ".attn.q." in name
    }
    return missing | weights
