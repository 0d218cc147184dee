"""Settings: what one installation chooses. The only reader of the environment and of .env.

Entry points build Settings once and hand values down; every default works untouched.
"""

import difflib
import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from storygen.errors import SettingsError

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "STORYGEN_"
SHORTEST_SECRET = 16  # characters


class Settings(BaseSettings):
    """Each field is an environment variable STORYGEN_<NAME>, or a line of .env."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=ROOT / ".env", extra="ignore", frozen=True
    )

    data_dir: Path = Field(
        default=ROOT / ".storygen", description="Where stories and secrets are kept."
    )
    weights_dir: Path = Field(
        default=ROOT / "weights", description="Where the models are, one directory each."
    )
    first_model: str = Field(
        default="mystery", description="The model a new story begins with, where it is there."
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL of the story store; empty: SQLite in the data dir."
    )
    engine_url: str = Field(
        default="",
        description="Where a model server is that writes in the place of this process, such as "
        "http://127.0.0.1:8001: ours, vLLM or llama.cpp's.",
    )
    engine_key: SecretStr = Field(
        default=SecretStr(""), description="What that server wants to be shown as a bearer token."
    )
    engine_context: int = Field(
        default=0,
        ge=0,
        le=10**7,
        description="Tokens its models read, where it does not say; 0: as here, or 1024.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where models run; auto takes CUDA when it is there."
    )
    dtype: Literal["auto", "fp32", "bf16", "fp16", "int8", "int4"] = Field(
        default="auto",
        description="Number format of the weights; auto: bf16 or fp16 on CUDA, int8 on a CPU.",
    )
    threads: int = Field(
        default=0,
        ge=0,
        le=1024,
        description="CPU threads of a model; 0: one for each core, at most 8.",
    )
    slots: int = Field(
        default=8, ge=1, le=256, description="Passages written at the same time by one model."
    )
    queue_size: int = Field(
        default=32, ge=0, le=10_000, description="Passages that may wait; more are refused."
    )
    user_queue: int = Field(
        default=8, ge=0, le=10_000, description="Passages of one user that may wait."
    )
    longest_wait: int = Field(
        default=300, ge=1, le=86_400, description="Seconds a passage may wait for its turn."
    )
    longest_passage: int = Field(
        default=600, ge=1, le=86_400, description="Seconds a passage may take to be written."
    )
    stuck_after: int = Field(
        default=120,
        ge=1,
        le=86_400,
        description="Seconds a step or the opening of a model may take; the engine is started anew "
        "then, the model left alone.",
    )
    tokens_per_hour: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Tokens a user may be written in an hour; 0: any number.",
    )
    tokens_per_day: int = Field(
        default=0,
        ge=0,
        le=10**12,
        description="Tokens a user may be written in a day; 0: any number.",
    )
    storage_mb: int = Field(
        default=1000,
        ge=0,
        le=10**9,
        description="Megabytes of stories a user may keep, where people sign in; 0: any number.",
    )
    keep_deleted_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="Days after which a deleted story is gone for good; 0: never.",
    )
    loaded_models: int = Field(
        default=3, ge=1, le=64, description="Models kept in memory; the longest unused goes first."
    )
    memory_mb: int = Field(
        default=0,
        ge=0,
        le=10**9,
        description="Megabytes for models in memory; 0: only their number is limited.",
    )
    host: str = Field(
        default="127.0.0.1", description="Address the page is served on; loopback by default."
    )
    port: int = Field(default=8000, ge=1, le=65535, description="Port the page is served on.")
    auth: Literal["none", "password", "proxy"] = Field(
        default="none",
        description="Who may write: none is one local writer, password the accounts of "
        "`python -m storygen users`, proxy whom a trusted proxy names.",
    )
    proxy_header: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9-]*$",
        description="Header in which the proxy names the user, such as Remote-User.",
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Addresses or networks of the proxies to be believed, separated by commas.",
    )
    allow_exposed: bool = Field(
        default=False,
        description="Serve beyond loopback although there is no login: whoever can reach the "
        "page can read and write every story.",
    )
    allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="Further web origins that may open the page, separated by commas; "
        "the page's own origin always may.",
    )
    log: Literal["text", "json"] = Field(
        default="text", description="Form of the log lines on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important lines to log; debug: each request, too."
    )
    metrics_token: SecretStr = Field(
        default=SecretStr(""),
        description="What reads /metrics from other machines shows as its bearer token; empty: "
        "this machine alone reads them.",
    )

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if value != "localhost":
            ipaddress.ip_address(value)
        return value

    @field_validator("data_dir", "weights_dir")
    @classmethod
    def _is_a_place(cls, value: Path) -> Path:
        if "?" in str(value):
            raise ValueError("a directory with a question mark cannot hold a database")
        return ROOT / value.expanduser()  # the same from whatever directory storygen is started

    @field_validator("engine_url")
    @classmethod
    def _is_a_server(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/@?#\s]+(/[^@?#\s]*)?", value):
            raise ValueError("a model server has an address such as http://127.0.0.1:8001")
        return value.rstrip("/")

    @field_validator("engine_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("a key has letters, digits and marks, and no space")
        return value

    @field_validator("metrics_token")
    @classmethod
    def _is_long_or_empty(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value) < SHORTEST_SECRET:
            raise ValueError(f"a secret has at least {SHORTEST_SECRET} characters")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _are_networks(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        return tuple(str(ipaddress.ip_network(part.strip())) for part in parts if part.strip())

    @field_validator("allow_origins", mode="before")
    @classmethod
    def _are_origins(cls, value: str | tuple[str, ...]) -> tuple[str, ...]:
        parts = value.split(",") if isinstance(value, str) else value
        origins = tuple(part.strip().rstrip("/") for part in parts if part.strip())
        for origin in origins:
            if not re.fullmatch(r"https?://[^/*\s]+", origin):
                raise ValueError(f"{origin!r} is no origin such as https://stories.example")
        return origins

    @property
    def native_dir(self) -> Path:
        """Where the native decoder is compiled to, when it is first needed."""
        return self.data_dir / "native"

    @property
    def store_url(self) -> str:
        """SQLAlchemy URL of the story store."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'stories.db'}"


SECRETS = {
    PREFIX + name.upper()
    for name, field in Settings.model_fields.items()
    if field.annotation is SecretStr
}


def load_settings() -> Settings:
    """Settings from the environment; raises SettingsError naming key, value and rule."""
    _refuse_unknown_keys()
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        key = PREFIX + "_".join(str(part) for part in first["loc"]).upper()
        shown = "" if key in SECRETS else f"={first['input']!r}"
        raise SettingsError(f"{key}{shown} cannot be used: {first['msg']}.") from None


def _refuse_unknown_keys() -> None:
    """A mistyped key would silently leave its default in force."""
    file = Settings.model_config["env_file"]
    assert isinstance(file, Path)
    known = [name.upper() for name in Settings.model_fields]
    for key in [*os.environ, *dotenv_values(file)]:
        prefix, name = key[: len(PREFIX)].upper(), key[len(PREFIX) :].upper()
        if prefix == PREFIX and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else "see .env.example."
            raise SettingsError(f"{key} is no setting of storygen: {hint}")
