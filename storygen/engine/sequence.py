"""Sequence: one passage being written, from its prompt to its finish reason. Knows no torch."""

import re

from storygen.engine.interface import FinishReason, Segment
from storygen.errors import PromptError
from storygen.params import SamplingParams
from storygen.tokenizers import StreamDecoder, Tokenizer

MAX_PROMPT_CHARACTERS = 1_000_000
CHARACTERS_PER_TOKEN = 16  # far above the four or so of prose: what is cut was out of reach


class Sequence:
    """The tokens of one request and the text that has become of them.

    ids are the prompt's tokens and those written since. window_start is the index of the first
    one the model sees; the runner moves it.
    """

    def __init__(
        self, model: str, prompt: str, params: SamplingParams, stop: tuple[str, ...] = ()
    ) -> None:
        """params.seed is drawn; stop are the texts that end a passage of this model anyway."""
        assert params.seed is not None
        self.model, self.prompt, self.params = model, prompt, params
        self.ids: list[int] = []
        self.window_start = 0
        self._n_prompt = 0
        self._n_unsent = 0  # tokens since the last segment
        self._stop = StopFilter((*params.stop, *stop))

    def begin(self, tokenizer: Tokenizer, block_size: int) -> None:
        """Read the prompt. Raises PromptError where the vocabulary cannot spell it."""
        self.ids = tokenizer.encode(prompt_tail(self.prompt, block_size))
        self._n_prompt = len(self.ids)
        self._eot_id = tokenizer.eot_id
        self._decoder = StreamDecoder(tokenizer)

    def take(self, token: int) -> Segment | None:
        """Add a token; the text it completes, if any, or the last segment of the passage."""
        if token == self._eot_id:
            return self.finish("stop")
        self.ids.append(token)
        self._n_unsent += 1
        text, stopped = self._stop.push(self._decoder.push(token))
        if stopped:
            return self._segment(text, "stop")
        if len(self.ids) - self._n_prompt == self.params.max_new_tokens:
            return self.finish("length", text)
        return self._segment(text) if text else None

    def finish(self, reason: FinishReason, text: str = "") -> Segment:
        """The last segment: text and what was held back, less an unfinished character."""
        return self._segment(text + self._stop.flush(), reason)

    def _segment(self, text: str, reason: FinishReason | None = None) -> Segment:
        count, self._n_unsent = self._n_unsent, 0
        return Segment(text, count, reason)


class StopFilter:
    """Text up to the first stop string, holding back what may become one.

    The stop string completed first ends the text; of several completed by the same character the
    longest does. So the result is the same however the text is divided into pieces.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that is safe to show, and whether it ends here."""
        if not self._stops:
            return text, False
        text = self._held + text
        found = [(text.find(s) + len(s), text.find(s)) for s in self._stops if s in text]
        if found:
            _, start = min(found)
            self._held = ""
            return text[:start], True
        safe = self._beginning(text)
        self._held = text[safe:]
        return text[:safe], False

    def flush(self) -> str:
        """What was held back: the text is over, so it begins no stop string."""
        held, self._held = self._held, ""
        return held

    def _beginning(self, text: str) -> int:
        """Index from which text may be the beginning of a stop string."""
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if any(stop.startswith(text[start:]) for stop in self._stops):
                return start
        return len(text)


def check_prompt(prompt: str) -> None:
    """Raises PromptError for a prompt that is not worth a place in the queue."""
    if not prompt:
        raise PromptError("The prompt is empty: write the beginning of a story.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"The prompt has {len(prompt):,} characters: at most {MAX_PROMPT_CHARACTERS:,} are "
            "read. Leave out its beginning."
        )


def prompt_tail(prompt: str, block_size: int) -> str:
    """The end of a prompt that can matter to a model with this context.

    At most 16 characters per token of context, from the first space between two words on, so that
    the tail has the tokens it has within the whole. Positions count from there.
    """
    start = len(prompt) - CHARACTERS_PER_TOKEN * block_size
    if start <= 0:
        return prompt
    space = _SPACE.search(prompt, start, start + 4 * block_size)
    return prompt[space.start() + 1 if space else start :]


_SPACE = re.compile(r"\S (?=\S)")
