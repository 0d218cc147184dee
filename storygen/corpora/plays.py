"""Plays: who speaks is named as in a letter, not in capitals.

A small vocabulary has one or two tokens for "Margaret" and five for "MARGARET", and where letters
run loose a model invents names. The Office's lines, an ancestor's corpus, are written so already.
"""

import re
from collections import Counter

_SPEECH = re.compile(r"^([^\W\d_a-z][^\n:()\[\]]{0,40}?)(?=(?: ?[(\[][^\n)\]]*[)\]])?: )", re.M)
_WORD = re.compile(r"[^\W\d_]+")
_SMALL = frozenset(("a", "and", "de", "from", "in", "of", "the", "to"))
_NUMERAL = re.compile(r"[IVX]+")
_IS_PLAY = 0.25  # of the lines are speeches


def name_speakers(text: str) -> str:
    """A play's text with its speakers in the letters of names: "MRS. MCCOMAS: Oh!" becomes
    "Mrs. McComas: Oh!", where the play has McComas somewhere; wherever a speaker's whole name
    stands in capitals it is changed alike. Any other text comes back as it is."""
    names = {match[1] for match in _SPEECH.finditer(text) if match[1].isupper()}
    speeches = sum(match[1] in names for match in _SPEECH.finditer(text))
    lines = sum(map(bool, map(str.strip, text.split("\n"))))
    if speeches < _IS_PLAY * lines or not names:
        return text
    spelt = _spellings(text)
    known = {name: _as_name(name, spelt) for name in names}
    longest = sorted(map(re.escape, names), key=len, reverse=True)
    anywhere = re.compile(rf"(?<![^\W\d_])(?:{'|'.join(longest)})(?:(?P<s>['’])S)?(?![^\W\d_])")

    def named(match: re.Match[str]) -> str:
        own = match["s"] and match[0] not in known
        return f"{known[match[0][:-2]]}{match['s']}s" if own else known[match[0]]

    return anywhere.sub(named, text)


def _spellings(text: str) -> dict[str, str]:
    """The commonest spelling of each word with a capital and small letters."""
    counts = Counter(
        word for word in _WORD.findall(text) if word[0].isupper() and not word.isupper()
    )
    return {word.casefold(): word for word, _ in reversed(counts.most_common())}


def _as_name(name: str, spelt: dict[str, str]) -> str:
    def word(match: re.Match[str]) -> str:
        letters, start = match[0], match.start()
        if _NUMERAL.fullmatch(letters) or len(letters) == 1:
            return letters.lower() if name[start - 1 : start] in ("'", "’") else letters
        if start and letters.casefold() in _SMALL:
            return letters.lower()
        return spelt.get(letters.casefold(), letters.capitalize())

    return _WORD.sub(word, name)
