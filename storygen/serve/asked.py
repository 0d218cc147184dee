"""Asked: what a completions request wants, once it is certain that it can be had."""

from dataclasses import dataclass
from typing import Any

from storygen.engine.interface import Details
from storygen.engine.sequence import check_prompt
from storygen.params import MAX_SEED, RANGES, SamplingParams
from storygen.serve.bodies import Fields
from storygen.serve.refusals import Refused

MAX_TOKENS = 16  # as OpenAI has it
MOST_PROMPTS, MOST_CHOICES, MOST_LOGPROBS = 64, 8, 5
MOST_TOKENS = int(RANGES["max_new_tokens"][2])
MOST_TOGETHER = 8 * MOST_TOKENS  # of all passages of a request, which an answer holds at one go
MOST_ECHOED = 1_000_000  # characters of prompts that come back
MOST_SCORED = 100_000  # of them, and of a score's text, each as often as it has scores
LONGEST_MARKS = 100_000
LONGEST_USER = 200

# By the names that OpenAI gives them, and by those that other servers do.
NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
MORE_NUMBERS = (
    *("top_k", "min_p", "repetition_penalty"),
    *("dry_multiplier", "dry_base", "dry_allowed_length"),
)
PLAIN = {"temperature": 1.0, "top_k": 0, "loop_guard": False}  # nothing is done that was not asked


@dataclass(frozen=True)
class Asked:
    """max_tokens 0 writes nothing; params have a seed only where one was given."""

    model: str
    prompts: tuple[str, ...]
    params: SamplingParams
    max_tokens: int
    n: int
    details: Details | None
    echo: bool
    stream: bool
    with_usage: bool
    has_extension: bool
    marks: bool
    user: str

    @property
    def logprobs(self) -> int | None:
        """How many alternatives are named beside each token; None names no tokens."""
        return None if self.details is None else self.details.logprobs


def asked(fields: Fields) -> Asked:
    """What the fields of a body want; raises Refused, ParamsError and PromptError."""
    model = fields.text("model", default=None)
    prompts = _prompts(fields)
    n = fields.whole("n", 1, MOST_CHOICES) or 1
    best_of = fields.whole("best_of", 1, 100)
    if best_of not in (None, n):
        fields.refuse("best_of", f"must be n, which is {n}: passages are not ranked")
    for name in ("suffix", "logit_bias"):
        if value := fields.take(name):
            fields.refuse(name, "cannot be used here: leave it out", value)
    max_tokens = fields.whole("max_tokens", 0, MOST_TOKENS)
    max_tokens = MAX_TOKENS if max_tokens is None else max_tokens
    logprobs = fields.whole("logprobs", 0, MOST_LOGPROBS)
    echo, stream = fields.flag("echo"), fields.flag("stream")
    _check_together(fields, prompts, n, max_tokens)
    if echo:
        _check_echo(fields, n * sum(map(len, prompts)), logprobs)
    options = fields.inner("stream_options")
    with_usage = options is not None and options.flag("include_usage")
    if options is not None:
        options.finish()
        if not stream:
            fields.refuse("stream_options", 'is for "stream": true')
    user = fields.text("user", LONGEST_USER)
    chosen = PLAIN | _chosen(fields, (*NUMBERS, *MORE_NUMBERS))
    chosen |= {"seed": fields.whole("seed", 0, MAX_SEED), "stop": _stops(fields)}
    extension = fields.inner("storygen")
    marks, after = False, ""
    if extension is not None:
        chosen |= _chosen(extension, (*MORE_NUMBERS, "banned", "end_at_sentence", "loop_guard"))
        marks, after = extension.flag("marks"), extension.text("after", LONGEST_MARKS)
        extension.finish()
    fields.finish()
    if after and (n > 1 or len(prompts) > 1 or echo or max_tokens == 0):
        raise Refused(
            400,
            "storygen.after goes on with one passage: give one prompt, n 1, no echo and the "
            "max_tokens that it had.",
            param="storygen.after",
        )
    params = SamplingParams(max_new_tokens=max_tokens or 1, **chosen)
    needs_details = logprobs is not None or marks or after
    details = Details(logprobs, after) if needs_details else None
    return Asked(
        model,
        prompts,
        params,
        max_tokens,
        n,
        details,
        echo,
        stream,
        with_usage,
        extension is not None,
        marks,
        user,
    )


def _chosen(fields: Fields, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of these that are there; SamplingParams says whether they can be used."""
    return {name: value for name in names if (value := fields.take(name)) is not None}


def _prompts(fields: Fields) -> tuple[str, ...]:
    prompt = fields.take("prompt")
    prompt = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompt, list) or not prompt:
        fields.refuse("prompt", "must be text, or a list of texts", prompt)
    if not all(isinstance(one, str) for one in prompt):
        fields.refuse(
            "prompt", "must be text: token ids mean nothing here, where each model may have its own"
        )
    if len(prompt) > MOST_PROMPTS:
        fields.refuse("prompt", f"has {len(prompt):,} texts and may have {MOST_PROMPTS}")
    for text in prompt:
        check_prompt(text)
    return tuple(prompt)


def _check_together(fields: Fields, prompts: tuple[str, ...], n: int, max_tokens: int) -> None:
    """Refuse what is too much for one answer, though each field may be what it is."""
    passages = len(prompts) * n
    if passages * max_tokens > MOST_TOGETHER:
        most = f"may be {MOST_TOGETHER // passages} for each of {passages} passages"
        together = f"one request writes {MOST_TOGETHER:,} tokens at most"
        fields.refuse("max_tokens", f"{most}: {together}")


def _check_echo(fields: Fields, n_echoed: int, logprobs: int | None) -> None:
    most, told = MOST_ECHOED, ""
    if logprobs is not None:
        most, told = MOST_SCORED // (1 + logprobs), f" with logprobs {logprobs}"
    if n_echoed > most:
        told = f"has {n_echoed:,} characters to echo{told}, each n times"
        fields.refuse("prompt", f"{told}, and may have {most:,}")


def _stops(fields: Fields) -> list[Any]:
    stop = fields.take("stop")
    if stop is None or stop == "":
        return []
    return stop if isinstance(stop, list) else [stop]
