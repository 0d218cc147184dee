"""TrainConfig: one run, from a recipe (TOML) and what the command line changes. Saved with it."""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from storygen.errors import TrainError
from storygen.model import GPTConfig

RECIPES = Path(__file__).parent / "recipes"


class Card(BaseModel):
    """What is told of the trained model: its storygen.json and its card."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    display_name: str
    genre: str
    description: str
    corpus: str
    licence: str
    opening_lines: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    prompt_template: str = Field(default="", description="how a title is asked for, {title} in it")
    suggested: dict[str, float | int] = {}


class TrainConfig(BaseModel):
    """Numbers of one run; names as nanoGPT and PyTorch have them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # the network: a new one, or that of a model directory or hub name
    init: str = ""
    n_layer: int = Field(default=12, ge=1)
    n_head: int = Field(default=12, ge=1)
    n_embd: int = Field(default=768, ge=1)
    block_size: int = Field(default=1024, ge=2)
    activation: Literal["gelu_new", "gelu", "relu"] = "gelu_new"
    tied: bool = True
    output_bias: bool = False
    dropout: float = Field(default=0.0, ge=0, lt=1)
    lora_rank: int = Field(default=0, ge=0, description="0: all weights are trained")
    lora_alpha: float = Field(default=16.0, gt=0)

    # the steps: as many as max_steps says, or as the epochs come to
    max_steps: int = Field(default=0, ge=0)
    epochs: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1, description="windows of one forward pass, in all processes")
    accumulate: int = Field(default=1, ge=1, description="forward passes of one step")
    window: int = Field(default=0, ge=0, description="tokens of a window; 0: block_size")
    stride: int = Field(default=0, ge=0, description="0: the window, no overlap")
    seed: int = 1337

    # the optimizers; up to the rate in a line, level, and down in a line
    learning_rate: float = Field(gt=0)
    muon_learning_rate: float | None = Field(
        default=None, gt=0, description="of the matrices inside the blocks; None: AdamW for all"
    )
    warmup_steps: int = Field(default=0, ge=0)
    decay_share: float = Field(default=1.0, ge=0, le=1, description="of all steps; 0: never down")
    final_share: float = Field(default=0.0, ge=0, le=1, description="of the rate, at the end")
    weight_decay: float = Field(default=0.1, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = Field(default=1.0, ge=0, description="largest norm of all gradients; 0: any")

    # the reports
    eval_every: int = Field(default=100, ge=1)
    eval_windows: int = Field(default=20, ge=1)
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    prompts: tuple[str, ...] = ()
    sample_tokens: int = Field(default=120, ge=0)

    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool = Field(default=False, description="by torch.compile, which needs a C++ compiler")
    card: Card

    @model_validator(mode="after")
    def _agrees(self) -> "TrainConfig":
        if self.n_embd % self.n_head:
            raise ValueError(f"n_embd {self.n_embd} is not a multiple of n_head {self.n_head}")
        if bool(self.max_steps) == bool(self.epochs):
            raise ValueError("one of max_steps and epochs must be given, and not both")
        if self.window > self.block_size:
            raise ValueError(f"window {self.window} is above block_size {self.block_size}")
        if self.lora_rank and not self.init:
            raise ValueError("lora_rank needs a model to adapt: give init")
        if self.lora_rank and self.muon_learning_rate:
            raise ValueError("an adapter is trained with AdamW: leave muon_learning_rate out")
        return self

    def model_config_for(self, vocab_size: int) -> GPTConfig:
        """GPTConfig of this run's new network over a vocabulary."""
        return GPTConfig(
            vocab_size=vocab_size,
            block_size=self.block_size,
            n_layer=self.n_layer,
            n_head=self.n_head,
            n_embd=self.n_embd,
            dropout=self.dropout,
            activation=self.activation,
            tied=self.tied,
            output_bias=self.output_bias,
        )

    def with_steps(self, windows: int) -> "TrainConfig":
        """This run with its epochs, over so many windows each, turned into steps."""
        if not self.epochs:
            return self
        steps = math.ceil(self.epochs * windows / (self.batch_size * self.accumulate))
        return self.model_copy(update={"max_steps": steps, "epochs": 0.0})

    @property
    def window_size(self) -> int:
        """Tokens of a training window."""
        return self.window or self.block_size

    @property
    def tokens_per_step(self) -> int:
        """Tokens predicted in one optimizer step."""
        return self.batch_size * self.accumulate * self.window_size


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """A recipe by name, or by the path of its .toml file, with some values changed.

    Raises TrainError naming the recipes there are, or the value that cannot be.
    """
    path = Path(name) if name.endswith(".toml") else RECIPES / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(recipe_names())
        raise TrainError(f"There is no recipe {name!r}. Recipes: {known}, or a .toml file.")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        return TrainConfig.model_validate(content | dict(changes or {}))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        raise TrainError(f"{path}: {key}: {first['msg']}.") from None


def recipe_names() -> list[str]:
    """Names of the recipes that come with storygen."""
    return sorted(str(p.relative_to(RECIPES).with_suffix("")) for p in RECIPES.rglob("*.toml"))
