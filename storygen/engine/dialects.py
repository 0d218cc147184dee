"""Dialects: how model servers are asked for what we want, and how what they say is read.

All speak OpenAI's completions; each has names of its own for what that leaves out. Ours can do all
that the engine can, vLLM and llama.cpp most of it, and of any other nothing more is taken for
granted.
"""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from storygen.catalogue import EXTRAS, ModelInfo
from storygen.engine.interface import TokenScore, WordScore
from storygen.errors import EngineError
from storygen.params import RANGES, SamplingParams
from storygen.text import whole_characters

Kind = Literal["storygen", "vllm", "llama.cpp", "openai"]
NAMES: dict[Kind, str] = {
    "storygen": "storygen's server",
    "vllm": "vLLM",
    "llama.cpp": "llama.cpp's server",
    "openai": "this server",
}
CONTEXT = 1024  # tokens, where neither the server nor STORYGEN_ENGINE_CONTEXT says
LOOK_BACK = 4096  # tokens that penalties count, of those that a model reads
MOST_MODELS = 256
MOST_LETTERS = 4_000  # of a text about a model
MOST_CONTEXT = 10**7
MOST_LIKELY = {"storygen": 1000, "vllm": 20, "llama.cpp": 1000, "openai": 5}

# Ours, and what llama.cpp calls it.
_OF_LLAMA = {"repetition_penalty": "repeat_penalty"}
_BEYOND_OPENAI = ("top_k", "min_p", "repetition_penalty")
_DRY = ("dry_multiplier", "dry_base", "dry_allowed_length")


@dataclass(frozen=True)
class Piece:
    """One event of a stream: what it adds to a passage."""

    text: str = ""
    token_count: int = 0
    finish_reason: str | None = None
    place: int | None = None
    mark: str = ""
    tokens: tuple[TokenScore, ...] = ()


def kind_of(answer: Mapping[str, Any]) -> Kind:
    """Which server answers so to /v1/models."""
    for entry in _entries(answer):
        if isinstance(entry.get("storygen"), dict):
            return "storygen"
        if entry.get("owned_by") == "vllm":
            return "vllm"
        if entry.get("owned_by") == "llamacpp":
            return "llama.cpp"
    return "openai"


def models_in(
    answer: Mapping[str, Any], context: int, known: Callable[[str], ModelInfo | None]
) -> list[ModelInfo]:
    """The models of an answer to /v1/models. context counts where the server does not say; what is
    known of a model of the same name here tells how to show it, and what it reads where that is
    not told at all."""
    kind = kind_of(answer)
    found = {}
    for entry in _entries(answer)[:MOST_MODELS]:
        name = entry.get("id")
        if isinstance(name, str) and 0 < len(name) <= 300 and name == whole_characters(name):
            size = _context_of(entry) or context
            info = _info(name, size, entry) if kind == "storygen" else _shown_as(name, size, known)
            found[name] = info if info.block_size else replace(info, block_size=CONTEXT)
    return list(found.values())


def _entries(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = answer.get("data")
    if not isinstance(data, list):
        raise EngineError(
            "The model server lists no models: STORYGEN_ENGINE_URL has no /v1/models."
        )
    return [entry for entry in data if isinstance(entry, dict)]


def _context_of(entry: Mapping[str, Any]) -> int:
    """How many tokens a model reads, 0 where that is not told."""
    meta = entry.get("meta")
    told = [entry.get("max_model_len"), *(meta.get(n) for n in _METAS if isinstance(meta, dict))]
    return next((size for value in told if (size := _whole(value, MOST_CONTEXT))), 0)


_METAS = ("n_ctx", "n_ctx_train")


def _info(name: str, context: int, entry: Mapping[str, Any]) -> ModelInfo:
    """One of our own server's models, with all that it tells."""
    told = entry.get("storygen")
    told = told if isinstance(told, dict) else {}
    layers, width, words = (
        _whole(told.get(size), 10**9) for size in ("n_layer", "n_embd", "vocab_size")
    )
    extras: dict[str, Any] = {"display_name": name}
    for field, kind in EXTRAS.items():
        value = told.get(field)
        if isinstance(value, str) and kind is str:
            extras[field] = whole_characters(value[:MOST_LETTERS])
        elif isinstance(value, list) and kind is list:
            texts = [text for text in value[:100] if isinstance(text, str) and text]
            extras[field] = tuple(whole_characters(text[:MOST_LETTERS]) for text in texts)
        elif isinstance(value, kind) and kind not in (str, list):
            extras[field] = value
    suggested = extras.get("suggested", {})
    extras["suggested"] = {name: suggested[name] for name in RANGES if name in suggested}
    return ModelInfo(name, Path(), context, layers, width, words, **extras)


def _shown_as(name: str, context: int, known: Callable[[str], ModelInfo | None]) -> ModelInfo:
    """A model of another server; one of the same name here lends it its looks."""
    short = re.sub(r"\.gguf$", "", name.rstrip("/").rpartition("/")[2]) or name
    local = known(short)
    if local is not None:
        context = context or local.block_size
        return replace(local, name=name, directory=Path(), block_size=context)
    return ModelInfo(name, Path(), context, 0, 0, 0, display_name=short[:100])


def completion(
    kind: Kind, model: str, prompt: str, params: SamplingParams, stop: tuple[str, ...]
) -> dict[str, Any]:
    """The body that asks for a passage, as a stream. params.max_new_tokens and params.seed count
    for this request."""
    assert params.seed is not None
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": params.max_new_tokens,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "frequency_penalty": params.frequency_penalty,
        "presence_penalty": params.presence_penalty,
        "seed": params.seed,
        "stream": True,
    }
    if stop:
        body["stop"] = list(stop if kind != "openai" else stop[:4])
    if kind == "storygen":
        body |= {name: getattr(params, name) for name in (*_BEYOND_OPENAI, *_DRY)}
    elif kind == "vllm":
        body |= {name: getattr(params, name) for name in _BEYOND_OPENAI}
        body["top_k"] = params.top_k or -1
        body["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    elif kind == "llama.cpp":
        names = (*_BEYOND_OPENAI, *_DRY)
        body |= {_OF_LLAMA.get(name, name): getattr(params, name) for name in names}
        # As far back as the model reads, and in our order.
        body |= {"repeat_last_n": LOOK_BACK, "dry_penalty_last_n": LOOK_BACK}
        body["seed"] = params.seed % (2**32 - 1)
        body["samplers"] = ["penalties", "dry", "temperature", "top_k", "top_p", "min_p"]
    else:
        body["seed"] = params.seed % 2**31
    return body


class Reader:
    """Reads the events of one stream."""

    def __init__(self) -> None:
        self._half = ""  # of a character
        self._n_told = 0  # tokens, by the usage so far

    def read(self, event: Mapping[str, Any]) -> Piece:
        """What an event adds. Raises EngineError for one that makes no sense."""
        choices, ours = event.get("choices", []), event.get("storygen") or {}
        if not (isinstance(choices, list) and isinstance(ours, dict)):
            raise _senseless("an event without choices")
        if not choices:
            place = ours.get("place")
            return Piece(place=None if place is None else _whole(place, 10**6))
        choice = choices[0]
        if not isinstance(choice, dict):
            raise _senseless("a choice that is no object")
        text, reason = choice.get("text"), choice.get("finish_reason")
        if not isinstance(text, str | None) or not isinstance(reason, str | None):
            raise _senseless("a piece that is no text")
        text = self._whole_text(text or "", is_last=reason is not None)
        mark, told = ours.get("mark", ""), ours.get("finish_reason")
        if not isinstance(mark, str):
            raise _senseless("a mark that is no text")
        return Piece(
            text,
            self._count(event, ours, text),
            told if isinstance(told, str) else reason,
            mark=mark,
            tokens=tuple(likely(choice)) if choice.get("logprobs") else (),
        )

    def _whole_text(self, text: str, is_last: bool) -> str:
        """Text of whole characters; JSON may bring them in halves."""
        text, self._half = self._half + text, ""
        if text[-1:] and "\ud800" <= text[-1] <= "\udbff" and not is_last:
            text, self._half = text[:-1], text[-1]
        return whole_characters(text)

    def _count(self, event: Mapping[str, Any], ours: Mapping[str, Any], text: str) -> int:
        """How many tokens a piece is: as it is told, or one."""
        if "tokens" in ours:
            return _whole(ours["tokens"], 10**6)
        usage = event.get("usage")
        told = _whole(usage.get("completion_tokens"), 10**6) if isinstance(usage, dict) else 0
        if told > self._n_told:
            told, self._n_told = told - self._n_told, told
            return told
        return 1 if text else 0


def asker(user: str) -> dict[str, str]:
    """For whom our own server is asked, so that it shares out by writer what is short: not who
    that is, but the same from every page."""
    return {"user": hashlib.sha256(user.encode()).hexdigest()[:16]} if user else {}


def token_count(kind: Kind, model: str, text: str) -> list[tuple[str, dict[str, Any]]]:
    """The routes that may count the tokens of a text, the likeliest first."""
    of_vllm = ("/tokenize", {"model": model, "prompt": text, "add_special_tokens": False})
    of_llama = ("/tokenize", {"model": model, "content": text, "add_special": False})
    of_its_python = ("/extras/tokenize/count", {"model": model, "input": text})
    match kind:
        case "storygen":
            return [("/tokenize", {"model": model, "prompt": text})]
        case "vllm":
            return [of_vllm]
        case "llama.cpp":
            return [of_llama]
        case _:
            return [of_its_python]


def count_in(answer: Mapping[str, Any]) -> int:
    """The number that a route of token_count answers with."""
    count, tokens = answer.get("count"), answer.get("tokens")
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return count
    if isinstance(tokens, list):
        return len(tokens)
    raise _senseless("a count of tokens that is no number")


def estimated_tokens(text: str) -> int:
    """How many tokens text is at most, nearly always, to a vocabulary of pieces of words: twice
    what prose comes to."""
    return math.ceil(len(text.encode("utf-8", "replace")) / 2)


def likely(choice: Mapping[str, Any]) -> list[TokenScore]:
    """The tokens of a choice with their log-probabilities and those in their place, in OpenAI's
    form for completions, or in the one for chats, which llama.cpp takes for both."""
    told = choice.get("logprobs")
    try:
        if isinstance(told, dict) and isinstance(told.get("content"), list):
            return [_score(entry, entry.get("top_logprobs") or []) for entry in told["content"]]
        if isinstance(told, dict) and isinstance(told.get("tokens"), list):
            tops = told.get("top_logprobs") or [None] * len(told["tokens"])
            rows = zip(told["tokens"], told["token_logprobs"], tops, strict=True)
            return [_score(row[:2], _pairs(row[2])) for row in rows]
    except (TypeError, ValueError, KeyError, AttributeError):
        pass
    raise _senseless("log-probabilities in no known form")


def _pairs(top: Any) -> list[Any]:
    return sorted(top.items(), key=lambda pair: -pair[1]) if isinstance(top, dict) else []


def _score(entry: Any, top: list[Any] = []) -> TokenScore:  # noqa: B006 - it is only read
    """A token; the first of a text has no log-probability, and counts as certain."""
    text, logprob = (entry["token"], entry["logprob"]) if isinstance(entry, dict) else entry
    logprob = 0.0 if logprob is None else min(float(logprob), 0.0)
    if not isinstance(text, str) or math.isnan(logprob):
        raise ValueError(text)
    others = tuple(_score(other) for other in top)
    return TokenScore(whole_characters(text), logprob, others)


def scores_in(answer: Mapping[str, Any]) -> list[TokenScore]:
    """What our server answers with to /v1/score and /v1/next_tokens."""
    try:
        return [_scored(entry) for entry in answer["tokens"]]
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError):
        raise _senseless("scores that are none") from None


def _scored(entry: Mapping[str, Any]) -> TokenScore:
    top = tuple(_scored(other) for other in entry.get("top", ()))
    return TokenScore(_text(entry["text"]), min(float(entry["logprob"]), 0.0), top)


def words_in(answer: Mapping[str, Any]) -> list[WordScore]:
    """What our server answers with to /v1/next_words."""
    try:
        return [
            WordScore(_text(entry["text"]), min(max(float(entry["probability"]), 0.0), 1.0))
            for entry in answer["words"]
        ]
    except (TypeError, ValueError, KeyError):
        raise _senseless("words that are none") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return whole_characters(value)


def _whole(value: Any, most: int) -> int:
    """A number of things: 0 for what is none."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return min(max(value, 0), most) if is_number else 0


def _senseless(what: str) -> EngineError:
    return EngineError(f"The model server sent {what}, so nothing more was read of it.")
