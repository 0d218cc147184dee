"""Text that every encoding can hold, in one typography, and where its sentences end. Knows the
standard library only."""

import re


def whole_characters(text: str) -> str:
    """text with each lone surrogate, which no encoding can hold, as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def plain_typography(text: str) -> str:
    """text as it is typed on a keyboard: straight quotes, "..." for an ellipsis, plain spaces.

    Only the dash stays, as a single em dash. One style for all books spares a small model the
    learning of several, and GPT-2's pattern keeps a contraction in two pieces only where its
    apostrophe is straight. Doing it twice changes nothing.

    >>> print(plain_typography("“I’m here . . .” he said--and left."))
    "I'm here..." he said—and left.
    """
    text = SPACES.sub(" ", text.translate(TRANSLATED))
    return DASH.sub("—", ELLIPSIS.sub("...", text))


TRANSLATED = str.maketrans(
    dict.fromkeys("‘’‚‛′ʼ", "'")
    | dict.fromkeys("“”„‟″", '"')
    | dict.fromkeys("\u00a0\u2002\u2003\u2007\u2009\u200a\u202f", " ")
    | dict.fromkeys("\u200b\u2060\ufeff\u00ad")  # of no width: left out
    | dict.fromkeys("‐‑", "-")
    | dict.fromkeys("―⸺⸻", "—")
    | {"…": "...", "\r": None}
)
ELLIPSIS = re.compile(r" ?\.(?: \.){2,}")
SPACES = re.compile(r"(?<=\S) {2,}(?=\S)")
DASH = re.compile(r"(?<!-)--(?!-)")


def ends_sentence(text: str, stop: int) -> bool:
    """Whether the characters before stop end a sentence, closing quotes included, and are no
    abbreviation or initial.

    >>> [ends_sentence(text, len(text)) for text in ('"Go!"', "Mr.", "so")]
    [True, False, False]
    """
    last = text[max(0, stop - LOOK_BACK) : stop]
    return _END.search(last) is not None and _NO_END.search(last) is None


_END = re.compile(r"[.!?…][\"'”’»)\]*_]*$")
_NO_END = re.compile(
    r"(?:^|\W)(?:[A-Z]|Mr|Mrs|Ms|Dr|St|Mt|Prof|Rev|Hon|Capt|Col|Gen|Lt|Maj|Sgt|Messrs|Mme|Mlle"
    r"|Jr|Sr|vs|viz|cf|e\.g|i\.e)\.$"
)
LOOK_BACK = 16  # longer than any abbreviation with the character before it
