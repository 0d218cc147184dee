"""The shapes of a network's weights, by their names in GPT. Numbers alone."""

from storygen.model.config import GPTConfig


def matrix_shapes(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """(n_out, n_in) of each matrix by its name in GPT, in the order of their use."""
    C, inner, head = config.n_embd, config.mlp_size, (config.vocab_size, config.n_embd)
    of_layer = {
        "attn.c_attn": (3 * C, C),
        "attn.c_proj": (C, C),
        "mlp.c_fc": (inner, C),
        "mlp.c_proj": (C, inner),
    }
    shapes = {
        f"h.{n}.{name}.weight": shape
        for n in range(config.n_layer)
        for name, shape in of_layer.items()
    }
    return shapes | {"lm_head.weight": head} | ({} if config.tied else {"wte.weight": head})


def vector_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """The shape of everything else: norms, biases, positions."""
    C = config.n_embd
    of_layer = {f"ln_{n}.{kind}": (C,) for n in (1, 2) for kind in ("weight", "bias")}
    biases = {
        name.removesuffix("weight") + "bias": (n_out,)
        for name, (n_out, _) in matrix_shapes(config).items()
        if name.startswith("h.") or (config.output_bias and name == "lm_head.weight")
    }
    norms = {f"h.{n}.{name}": of for n in range(config.n_layer) for name, of in of_layer.items()}
    ends = {"wpe.weight": (config.block_size, C), "ln_f.weight": (C,), "ln_f.bias": (C,)}
    return norms | biases | ends
