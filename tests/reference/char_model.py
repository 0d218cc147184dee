"""A character model of order k, the baseline that a GPT has to leave behind."""

import math
from collections import Counter, defaultdict


class CharModel:
    """Counts of the character after each context of up to k, blended as Witten and Bell 1991 do:
    the more different characters a context has been followed by, the more weight goes to the
    next shorter one, down to all of Unicode's characters that UTF-8 can hold."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)

    def learn(self, text: str, i: int) -> None:
        """Count character i of text after every context."""
        for k in range(min(self.order, i) + 1):
            self.counts[text[i - k : i]][text[i]] += 1

    def probability(self, text: str, i: int) -> float:
        """Probability of character i of text, given those before it."""
        p = 1 / 1_112_064
        for k in range(min(self.order, i) + 1):
            seen = self.counts.get(text[i - k : i])
            if seen is None:
                break
            total, kinds = seen.total(), len(seen)
            p = (seen[text[i]] + kinds * p) / (total + kinds)
        return p


def bits_per_byte(model: CharModel, text: str, *, adapt: bool) -> float:
    """Bits per UTF-8 byte of text; with adapt the model learns each character after paying."""
    bits = 0.0
    for i in range(len(text)):
        bits -= math.log2(model.probability(text, i))
        if adapt:
            model.learn(text, i)
    return bits / len(text.encode("utf-8"))
