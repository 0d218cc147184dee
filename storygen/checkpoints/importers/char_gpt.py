"""The character-level GPT of Andrej Karpathy's lecture, and what people have made of it.

One query, key and value matrix for each head and none with a bias, ReLU, an output head with a
bias. The lecture divides the attention scores by the root of the model's width, later versions by
that of a head's, as GPT-2 does; the weights do not show which.
"""

from storygen.checkpoints.importers.network import (
    Asked,
    Checkpoint,
    Network,
    fused,
    network,
    renamed,
    separate_heads,
)
from storygen.checkpoints.weights import flat
from storygen.errors import CheckpointError

DIALECT = "character GPT of the lecture by Karpathy"
MARK = r"blocks\.0\.\w+\.heads\.0\.query\.weight"
_LAYER = r"blocks\.(\d+)\."
_ATT = _LAYER + r"(?:sa|attn|attention|self_attention|mha|sa_heads?)\."
_MLP = _LAYER + r"(?:ffwd|ffw|ffn|ff|feed_?forward|mlp)\.(?:net\.)?"
RULES = [
    (r"token_embedding(?:_table)?\.weight", "wte.weight"),
    (r"position(?:al)?_embedding(?:_table)?(?:\.weight)?", "wpe.weight"),
    *(
        (_ATT + rf"heads\.(\d+)\.{name}\.(weight|bias)", rf"h.\1.attn.{name[0]}.\2.\3")
        for name in ("query", "key", "value")
    ),
    (_ATT + r"proj(?:ection)?\.(weight|bias)", r"h.\1.attn.c_proj.\2"),
    (_MLP + r"0\.(weight|bias)", r"h.\1.mlp.c_fc.\2"),
    (_MLP + r"2\.(weight|bias)", r"h.\1.mlp.c_proj.\2"),
    (_LAYER + r"ln_?([12])\.(weight|bias)", r"h.\1.ln_\2.\3"),
    (r"ln_f\.(weight|bias)", r"ln_f.\1"),
    (r"blocks\.\d+\.(weight|bias)", r"ln_f.\1"),  # early in the lecture: the last of the blocks
    (r"lm_head\.(weight|bias)", r"lm_head.\1"),
    (r".*\.tril", ""),
]


def translate(checkpoint: Checkpoint, asked: Asked) -> Network:
    """The checkpoint as a Network."""
    found = renamed(checkpoint, RULES, DIALECT)
    found |= {name: flat(weight) for name, weight in found.items() if name == "wpe.weight"}
    n_head = separate_heads(found)
    if asked.attention_scale is None and n_head > 1:
        raise CheckpointError(
            f"{checkpoint.path} does not say how its attention is scaled: add --attention-scale "
            "embd where the code of class Head has C**-0.5, as in the lecture and MoviePlotGPT, "
            "or --attention-scale head where it has k.shape[-1]**-0.5 or head_size**-0.5."
        )
    # GPT-2 divides by the root of a head's width. Dividing by that of all heads' instead makes the
    # scores smaller by the root of their number.
    factor = n_head**-0.5 if asked.attention_scale == "embd" else 1.0
    return network(checkpoint, DIALECT, fused(found, factor), n_head=n_head, activation="relu")
