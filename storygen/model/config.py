"""GPTConfig: the shape of a network, saved as JSON beside its weights."""

from dataclasses import dataclass

ACTIVATIONS = ("gelu_new", "gelu", "relu")


@dataclass(frozen=True)
class GPTConfig:
    """Sizes and the three choices in which GPT-2's descendants differ.

    `gelu_new` is GPT-2's tanh approximation, `gelu` the exact function. `tied` shares the token
    embedding with the output head; `output_bias` adds a bias to the head.
    """

    vocab_size: int
    block_size: int
    n_layer: int
    n_head: int
    n_embd: int
    n_inner: int | None = None  # width of the MLP; None is GPT-2's 4 * n_embd
    dropout: float = 0.0
    activation: str = "gelu_new"
    layer_norm_epsilon: float = 1e-5
    tied: bool = True
    output_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if not 0 < self.layer_norm_epsilon < 1:
            raise ValueError(
                f"layer_norm_epsilon must be between 0 and 1, not {self.layer_norm_epsilon!r}"
            )
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    @property
    def mlp_size(self) -> int:
        """Width of the MLP's hidden layer."""
        return self.n_inner or 4 * self.n_embd
