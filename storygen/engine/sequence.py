"""Sequence: one passage being written, from its prompt to its finish reason. Knows no torch."""

import math
import re
import secrets
from collections import Counter
from collections.abc import Callable, Collection, Set
from dataclasses import replace

from storygen.engine import marks
from storygen.engine.draft import Draft
from storygen.engine.interface import Details, FinishReason, Segment, TokenScore
from storygen.engine.loops import loops
from storygen.errors import ParamsError, PromptError
from storygen.params import MAX_SEED, SamplingParams
from storygen.penalties import penalised, penalties
from storygen.tokenizers import BPETokenizer, Tokenizer

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_RETURNS = 50  # to one place, for banned phrases
CHARACTERS_PER_TOKEN = 16  # far above the four or so of prose: what is cut was out of reach


# The score of the token that was drawn, once it is known which text it adds.
Scorer = Callable[[str], TokenScore]


class Sequence:
    """The tokens of one request and the text that has become of them.

    ids are the prompt's tokens and those written since. window_start is the index of the first
    one the model sees; the runner moves it. After a banned phrase ids are those before it: the
    token with which it began is forbidden there, and another one drawn.
    """

    def __init__(
        self,
        model: str,
        prompt: str,
        params: SamplingParams,
        stop: tuple[str, ...] = (),
        details: Details | None = None,
    ) -> None:
        """params.seed is drawn; stop are the texts that end a passage of this model anyway."""
        assert params.seed is not None
        self.model, self.prompt, self.params, self.details = model, prompt, params, details
        self.ids: list[int] = []
        self.window_start = 0
        self._n_prompt = 0
        self._draft = Draft(prompt, (*params.stop, *stop), params.banned)
        self._forbidden: dict[int, set[int]] = {}  # by the index that the token would have
        self._returns = Counter[int]()
        self._returned: list[Counter[int]] = []  # those when each number of tokens was first there
        self._n_counted = 0  # tokens, in the segments so far
        self._scores: list[TokenScore] = []  # of the tokens since
        self._penalised = penalised(params)

    def begin(
        self, tokenizer: Tokenizer, block_size: int, breakers: Set[int] = frozenset()
    ) -> None:
        """Read the prompt. Raises PromptError where the vocabulary cannot spell it. DRY does not
        look across breakers."""
        self.ids = prompt_ids(tokenizer, self.prompt, block_size)
        self._n_prompt = len(self.ids)
        self._eot_id, self._vocab_size = tokenizer.eot_id, tokenizer.vocab_size
        self._breakers = breakers
        self._scale = tokenizer.tokens_per_word // BPETokenizer.tokens_per_word
        self._draft.begin(tokenizer)
        if self.details is not None and self.details.after:
            self._resume(marks.read(self.details.after))
        self._note_returns()

    @property
    def n_left(self) -> int:
        """How many tokens there may still be."""
        return self.params.max_new_tokens - (len(self.ids) - self._n_prompt)

    def adjustments(self, guesses: Collection[int] = ()) -> list[tuple[int, float]]:
        """What is added to the logits of some tokens where the one after the guesses is drawn."""
        if not self._penalised and not self._forbidden:
            return []
        window = self.ids[self.window_start :] + list(guesses)
        length = len(self.ids) + len(guesses)
        n_written = length - max(self._n_prompt, self.window_start)
        added = penalties(self.params, window, n_written, self._breakers)
        added |= dict.fromkeys(self._forbidden.get(length, ()), -math.inf)
        return list(added.items())

    def take(self, token: int, scorer: Scorer | None = None) -> Segment | None:
        """Add a token; the text that may be shown now, if any, or the passage's last segment.
        scorer is there where the details want scores."""
        over = token == self._eot_id
        if not over:
            self.ids.append(token)
            text = self._draft.add(token)
            self._note_returns()
            if scorer is not None:
                self._scores.append(scorer(text))
        length, reason = self._ending(over)
        place = self._draft.banned(length, over=reason is not None)
        if place is not None:
            return self._go_back(place)
        if reason is not None:
            return self._segment(*self._draft.show_last(length), reason)
        text, count = self._draft.show()
        return self._segment(text, count) if text else None

    def finish(self, reason: FinishReason) -> Segment:
        """The last segment: what was held back, less an unfinished character."""
        return self._segment(*self._draft.show_last(self._draft.clean()), reason)

    def _segment(self, text: str, count: int, reason: FinishReason | None = None) -> Segment:
        if self.details is None:
            return Segment(text, count, reason)
        before = self._n_counted
        self._n_counted += count
        tokens, self._scores = tuple(self._scores[:count]), self._scores[count:]
        if reason is not None:
            return Segment(text, count, reason, tokens=tokens)
        ids = self.ids[self._n_prompt + before : self._n_prompt + self._n_counted]
        mark = marks.written(marks.Mark(ids, self._draft.hidden, self._returns_ahead()))
        return Segment(text, count, mark=mark, tokens=tokens)

    def _resume(self, mark: marks.Mark) -> None:
        """Go on where a passage was; raises PromptError where none of these could have been."""
        n = len(mark.tokens)
        if n >= self.params.max_new_tokens:
            raise PromptError(
                f"The passage to go on with has {n} tokens already and max_new_tokens is "
                f"{self.params.max_new_tokens}: it counts from the passage's beginning."
            )
        known = all(i < self._vocab_size and i != self._eot_id for i in mark.tokens)
        if not known or not n or not self._draft.resume(mark.tokens, mark.hidden):
            raise PromptError(
                f"The marks to go on after are of no passage of {self.model}. Give those of a "
                "passage that the same model began."
            )
        self.ids += mark.tokens
        self._n_counted = n
        self._returned = [Counter()] * n
        self._returns.update({len(self.ids) + at: count for at, count in mark.returns.items()})

    def _note_returns(self) -> None:
        if self.params.banned:
            self._returned.append(self._returns.copy())

    def _returns_ahead(self) -> dict[int, int]:
        """How often it had gone back to places beyond the segments so far, by their distance."""
        if not self.params.banned:
            return {}
        end = self._n_prompt + self._n_counted
        returned = self._returned[self._n_counted]
        return {at - end: count for at, count in returned.items() if at >= end}

    def _ending(self, over: bool) -> tuple[int, FinishReason | None]:
        """Where the text ends, and why if the passage does with its last token."""
        p, n = self.params, len(self.ids) - self._n_prompt
        end = self._draft.stop_string()
        if p.end_at_sentence and 3 * n >= 2 * p.max_new_tokens and not over:
            sentence = self._draft.sentence_end()
            end = sentence if end is None or (sentence is not None and sentence < end) else end
        if end is not None or over:
            return self._draft.length if end is None else end, "stop"
        if p.loop_guard and loops(self.ids, self._n_prompt, self._scale):
            return self._draft.length, "loop"
        return self._draft.length, "length" if n == p.max_new_tokens else None

    def _go_back(self, place: int) -> Segment | None:
        """Return to a token that was written, and forbid it there."""
        at = self._n_prompt + place
        self._forbidden = {i: tokens for i, tokens in self._forbidden.items() if i <= at}
        forbidden = self._forbidden.setdefault(at, set())
        forbidden.add(self.ids[at])
        self._returns[at] += 1
        del self.ids[at:], self._returned[place + 1 :]
        del self._scores[max(0, place - self._n_counted) :]
        self._draft.undo(place)
        if self._returns[at] == MAX_RETURNS or len(forbidden) == self._vocab_size:
            return self.finish("stop")
        return None


def check_prompt(prompt: str) -> None:
    """Raises PromptError for a prompt that is not worth a place in the queue."""
    if not prompt:
        raise PromptError("The prompt is empty: write the beginning of a story.")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise PromptError(
            f"The prompt has {len(prompt):,} characters: at most {MAX_PROMPT_CHARACTERS:,} are "
            "read. Leave out its beginning."
        )


def with_seed(params: SamplingParams, details: Details | None) -> SamplingParams:
    """The parameters with a seed, drawn where none is given. Raises ParamsError for marks without
    the seed of their passage, which would go on in other words."""
    if params.seed is not None:
        return params
    if details is not None and details.after:
        raise ParamsError("seed is missing: a passage goes on after its marks with the one it had.")
    return replace(params, seed=secrets.randbelow(MAX_SEED + 1))


def prompt_ids(tokenizer: Tokenizer, prompt: str, block_size: int) -> list[int]:
    """Tokens of the end of a prompt. Raises PromptError where there is nothing to read."""
    ids = tokenizer.encode(prompt_tail(prompt, block_size))
    if not ids:  # characters without width are left out of plain typography
        raise PromptError("The prompt has no visible character: write the beginning of a story.")
    return ids


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
