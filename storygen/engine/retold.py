"""Passages that a server elsewhere writes: what has come of each, and how to ask for the rest.

Ours marks where it is, and goes on exactly there. Of another it is asked to go on from the prompt
and the text so far; what else a passage needs (stop strings, banned phrases, the loop guard, an end
with a sentence) is seen to here, with the pieces it sends as tokens.
"""

from dataclasses import replace
from typing import Any, Protocol, get_args

from storygen.catalogue import ModelInfo
from storygen.engine.dialects import Kind, Piece, asker, completion
from storygen.engine.interface import Details, FinishReason, Segment
from storygen.engine.sequence import Sequence
from storygen.errors import EngineError
from storygen.params import SamplingParams
from storygen.tokenizers import BPETokenizer

MAX_MARKS = 1_000_000  # characters of all marks
CHARACTERS_PER_TOKEN = 400  # far above what any vocabulary has
BROKEN_OFF = ("abort", "cancelled", "error")  # reasons to ask for the rest


class BrokenOffError(Exception):
    """The server ended a passage that was not over."""


class Retold(Protocol):
    """A passage while a server elsewhere writes it."""

    def body(self) -> dict[str, Any]:
        """What to ask for now: all of it, or what is missing."""
        ...

    def take(self, piece: Piece) -> list[Segment]:
        """What a piece adds. Raises BrokenOffError where the server has to be asked again."""
        ...

    @property
    def left(self) -> int:
        """How many tokens may still come."""
        ...

    def finish(self, reason: FinishReason) -> Segment:
        """The last segment where the server sends none."""
        ...


class Marked:
    """A passage of our own server."""

    def __init__(
        self,
        info: ModelInfo,
        prompt: str,
        params: SamplingParams,
        details: Details | None,
        user: str = "",
    ) -> None:
        """params.seed is drawn."""
        self._params, self._details = params, details
        self._body = completion("storygen", info.name, prompt, params, params.stop) | asker(user)
        if details is not None and details.logprobs is not None:
            self._body["logprobs"] = details.logprobs
        self._marks = details.after if details is not None else ""
        self._room = CHARACTERS_PER_TOKEN * params.max_new_tokens
        self.left = params.max_new_tokens  # what an earlier engine wrote is not known here

    def body(self) -> dict[str, Any]:
        """See Retold."""
        told: dict[str, Any] = {
            "banned": list(self._params.banned),
            "end_at_sentence": self._params.end_at_sentence,
            "loop_guard": self._params.loop_guard,
            "marks": True,
        }
        if self._marks:
            told["after"] = self._marks
        return self._body | {"storygen": told}

    def take(self, piece: Piece) -> list[Segment]:
        """See Retold."""
        if piece.finish_reason in BROKEN_OFF:
            raise BrokenOffError
        self._marks += piece.mark
        self._room -= len(piece.text)
        self.left -= piece.token_count
        if self._room < 0 or len(self._marks) > MAX_MARKS:
            raise EngineError("The model server sent more than it was asked for.")
        reason = _reason(piece.finish_reason)
        if not (piece.text or piece.token_count or reason or piece.place is not None):
            return []
        segment = Segment(piece.text, piece.token_count, reason, piece.place)
        if self._details is not None:
            segment = replace(segment, mark=piece.mark, tokens=piece.tokens)
        return [segment]

    def finish(self, reason: FinishReason) -> Segment:
        """See Retold."""
        return Segment("", 0, reason)


class Continued:
    """A passage of any other server."""

    def __init__(self, kind: Kind, info: ModelInfo, prompt: str, params: SamplingParams) -> None:
        """params.seed is drawn."""
        self._kind, self._params, self._prompt = kind, params, prompt
        self.info = info
        self._n_cut = 0  # characters at the beginning that the model no longer sees
        self._stop = (*params.stop, *info.stop)
        self._pieces = _Pieces()
        self._sequence = Sequence(info.name, prompt, params, info.stop)
        self._sequence.begin(self._pieces, info.block_size)
        self._n_prompt = len(self._sequence.ids)
        self._counts: list[int] = []  # tokens of each piece
        self._n_shown = 0  # pieces
        self._n_asked = 0
        self._is_part = False  # whether the model could not read all that is to come
        self._seam = _Seam("")
        self._room = CHARACTERS_PER_TOKEN * params.max_new_tokens

    @property
    def story(self) -> str:
        """What the model goes on from. It begins a word with its space, so that a space at the end
        would lead it astray: that stays here."""
        return (self._prompt + self._text.rstrip())[self._n_cut :]

    def cut(self, share: float) -> bool:
        """Leave out the beginning, for the model to have room; False where too little is left."""
        story = self.story
        start = len(story) - int(share * len(story))
        space = story.find(" ", start, start + 100)
        start = space + 1 if space >= 0 else start
        if not 0 < start < len(story):
            return False
        self._n_cut += start
        return True

    @property
    def _text(self) -> str:
        """What has been written, shown or not."""
        ids = self._sequence.ids[self._n_prompt :]
        return "".join(self._pieces.texts[piece] for piece in ids)

    @property
    def left(self) -> int:
        """See Retold."""
        return self._params.max_new_tokens - sum(self._counts)

    def body(self, most: int | None = None) -> dict[str, Any]:
        """See Retold; for so many tokens at most."""
        written = self._text
        self._seam = _Seam(written[len(written.rstrip()) :])
        assert self._params.seed is not None
        # A part has a seed of its own: what was banned would only come again.
        seed = self._params.seed + self._n_asked
        self._n_asked += 1
        tokens = max(1, min(self.left, most or self.left))
        self._is_part = tokens < self.left
        params = replace(self._params, seed=seed % 2**62, max_new_tokens=tokens)
        return completion(self._kind, self.info.name, self.story, params, self._stop)

    def take(self, piece: Piece) -> list[Segment]:
        """See Retold."""
        if piece.finish_reason in BROKEN_OFF:
            raise BrokenOffError
        segments = []
        text = self._seam.take(piece.text)
        self._room -= len(piece.text)
        if self._room < 0:
            raise EngineError("The model server sent more than it was asked for.")
        if text:
            before = len(self._sequence.ids)
            self._counts.append(max(piece.token_count, 1))
            segment = self._sequence.take(self._pieces.add(text))
            has_gone_back = len(self._sequence.ids) <= before
            del self._counts[len(self._sequence.ids) - self._n_prompt :]
            if segment is not None:
                segments.append(self._counted(segment))
                if segment.finish_reason is not None:
                    return segments
            if has_gone_back:
                raise BrokenOffError
        if piece.finish_reason is not None:
            if piece.finish_reason == "length" and self._is_part and self.left > 0:
                raise BrokenOffError  # its window moves
            reason = _reason(piece.finish_reason) or "stop"
            segments.append(self._counted(self._sequence.finish(reason)))
        return segments

    def finish(self, reason: FinishReason) -> Segment:
        """See Retold."""
        return self._counted(self._sequence.finish(reason))

    def _counted(self, segment: Segment) -> Segment:
        """A segment with its tokens in place of its pieces."""
        n = self._n_shown + segment.token_count
        count = sum(self._counts[self._n_shown : n])
        self._n_shown = n
        return Segment(segment.text, count, segment.finish_reason)


class _Pieces:
    """A Tokenizer whose tokens are the texts that came."""

    def __init__(self) -> None:
        self.vocab_size, self.tokens_per_word, self.plain = (
            2**31,
            BPETokenizer.tokens_per_word,
            False,
        )
        self.eot_id: int | None = None
        self.texts: list[str] = []
        self._ids: dict[str, int] = {}

    def add(self, text: str) -> int:
        """The id of a text: the same for the same, as the loop guard wants it."""
        if text not in self._ids:
            self._ids[text] = len(self.texts)
            self.texts.append(text)
        return self._ids[text]

    def encode(self, text: str) -> list[int]:
        """A text as one token."""
        return [self.add(text)]

    def decode(self, ids: Any) -> str:
        """Text of tokens."""
        return "".join(self.texts[piece] for piece in ids)

    def token_bytes(self, token: int) -> bytes:
        """UTF-8 of a token."""
        return self.texts[token].encode()


class _Seam:
    """Where a passage goes on: white space that stands there is not written twice.

    >>> seam = _Seam(" ")
    >>> seam.take(" the"), seam.take(" end")
    ('the', ' end')
    >>> seam = _Seam("\\n\\n")
    >>> seam.take("\\n"), seam.take(" The")
    ('', 'The')
    """

    def __init__(self, before: str) -> None:
        self._before = before
        self._begins_paragraph = before.endswith("\n")  # with a word, not with its space

    def take(self, text: str) -> str:
        """What text adds to what there is."""
        for at, character in enumerate(text):
            if self._before.startswith(character) and character.isspace():
                self._before = self._before[1:]
            elif not (self._begins_paragraph and character == " "):
                self._before, self._begins_paragraph = "", False
                return text[at:]
        return ""


def _reason(told: str | None) -> FinishReason | None:
    """A reason in our words; others' are ends like any."""
    if told is None:
        return None
    return told if told in get_args(FinishReason) else "stop"  # type: ignore[return-value]  # it is one
