"""Completions: the answer to one request, whole or in pieces."""

import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from storygen.engine.interface import Engine, FinishReason, Segment, TokenScore
from storygen.serve.asked import Asked
from storygen.serve.choices import seeded, written

# How the ends that OpenAI has no name for are told.
REASONS: dict[FinishReason, str] = {"loop": "stop", "time": "length"}

Event = dict[str, Any] | str  # a piece of an answer, or a comment


class _Choice:
    """One passage as it is told: how long its text is so far, and for a whole answer what it is."""

    def __init__(self, number: int, wants_logprobs: bool, is_kept: bool) -> None:
        """One that is not kept is told in pieces only."""
        self.number, self._wants_logprobs, self._is_kept = number, wants_logprobs, is_kept
        self._offset = 0
        self._text = ""
        self._tokens: list[dict[str, Any]] = []
        self.reason: FinishReason | None = None

    def piece(
        self, text: str, tokens: Sequence[TokenScore], reason: FinishReason | None = None
    ) -> dict[str, Any]:
        """What is new of it."""
        told = [self._token(token) for token in tokens]
        if self._is_kept:
            self._text += text
            self._tokens += told
        self.reason = reason
        return self._told(text, told)

    def echo(self, prompt: str, tokens: Sequence[TokenScore]) -> dict[str, Any]:
        """The prompt, as what comes first; nothing stands before its first token."""
        piece = self.piece(prompt, tokens)
        self._offset = len(prompt)  # the model reads some characters as others
        for name in ("token_logprobs", "top_logprobs"):
            if piece["logprobs"] and piece["logprobs"][name]:
                piece["logprobs"][name][0] = None
                for first in self._tokens[:1]:
                    first[name] = None
        return piece

    def whole(self) -> dict[str, Any]:
        """All of it."""
        return self._told(self._text, self._tokens)

    def _told(self, text: str, tokens: Sequence[dict[str, Any]]) -> dict[str, Any]:
        names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
        lists = {name: [token[name] for token in tokens] for name in names}
        return {
            "index": self.number,
            "text": text,
            "logprobs": lists if self._wants_logprobs else None,
            "finish_reason": REASONS.get(self.reason, self.reason) if self.reason else None,
        }

    def _token(self, token: TokenScore) -> dict[str, Any]:
        offset = self._offset
        self._offset += len(token.text)
        top: dict[str, float] = {}
        for other in token.top:  # two may look the same: halves of characters
            top.setdefault(other.text, other.logprob)
        top.setdefault(token.text, token.logprob)
        return {
            "tokens": token.text,
            "token_logprobs": token.logprob,
            "top_logprobs": top,
            "text_offset": offset,
        }


class Completion:
    """A request being answered; its engine's errors are raised."""

    def __init__(self, engine: Engine, asked: Asked, user: str) -> None:
        self._engine, self._asked, self._user = engine, seeded(asked), user
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": asked.model,
        }
        n = len(asked.prompts) * asked.n
        how = (asked.logprobs is not None, not asked.stream)
        self._choices = [_Choice(number, *how) for number in range(n)]
        self._n_written = 0

    async def whole(self) -> dict[str, Any]:
        """The answer at one go."""
        assert not self._asked.stream, "what is told in pieces is not kept"
        async with aclosing(self._events()) as events:
            async for _ in events:
                pass
        answer = {**self._head, "choices": [choice.whole() for choice in self._choices]}
        answer["usage"] = await self._usage()
        if self._asked.has_extension:
            reasons = [choice.reason for choice in self._choices]
            answer["storygen"] = {"seed": self._asked.params.seed, "finish_reasons": reasons}
        return answer

    async def pieces(self) -> AsyncGenerator[Event, None]:
        """The answer as it is written."""
        async with aclosing(self._events()) as events:
            async for event in events:
                yield event
        if self._asked.with_usage:
            yield {**self._head, "choices": [], "usage": await self._usage()}

    async def _events(self) -> AsyncGenerator[Event, None]:
        asked = self._asked
        if asked.echo:
            async for event in self._echoes():
                yield event
        if asked.max_tokens == 0:
            await self._usage()  # says what is wrong with the model
            for choice in self._choices:
                yield self._event(choice.piece("", (), "length"), Segment("", 0, "length"))
            return
        async with aclosing(written(self._engine, asked, self._user)) as segments:
            async for number, segment in segments:
                if segment.place is not None:
                    yield self._in_line(segment.place)
                    continue
                self._n_written += segment.token_count
                choice = self._choices[number]
                piece = choice.piece(segment.text, segment.tokens, segment.finish_reason)
                yield self._event(piece, segment)

    async def _echoes(self) -> AsyncGenerator[Event, None]:
        """The prompts, each before its own choices."""
        asked = self._asked
        for place, prompt in enumerate(asked.prompts):
            tokens: list[TokenScore] = []
            if asked.logprobs is not None:
                tokens = await self._engine.score(
                    asked.model, prompt, user=self._user, top=asked.logprobs
                )
            for choice in self._choices[place * asked.n : (place + 1) * asked.n]:
                yield self._event(choice.echo(prompt, tokens), Segment(prompt, 0))

    def _in_line(self, place: int) -> Event:
        if not self._asked.marks:
            return str(place)
        return {**self._head, "choices": [], "storygen": {"place": place}}

    def _event(self, piece: dict[str, Any], segment: Segment) -> Event:
        event = {**self._head, "choices": [piece]}
        if self._asked.with_usage:
            event["usage"] = None
        if self._asked.has_extension:
            more: dict[str, Any] = {"tokens": segment.token_count}
            if self._asked.marks and segment.mark:
                more["mark"] = segment.mark
            if segment.finish_reason is not None:
                more |= {"finish_reason": segment.finish_reason, "seed": self._asked.params.seed}
            event["storygen"] = more
        return event

    async def _usage(self) -> dict[str, int]:
        asked = self._asked
        read = [await self._engine.count_tokens(asked.model, prompt) for prompt in asked.prompts]
        total = sum(read) + self._n_written
        return {
            "prompt_tokens": sum(read),
            "completion_tokens": self._n_written,
            "total_tokens": total,
        }
