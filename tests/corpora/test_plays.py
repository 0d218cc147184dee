"""Speakers' names as those of a letter; every other text as it is."""

from hypothesis import given
from hypothesis import strategies as st

from storygen.corpora.plays import name_speakers
from storygen.corpora.works import read_works

# The names are of plays in the public domain (Shaw, Chekhov); what is said is made up.
PLAY = """ACT II

[MRS. MCCOMAS's room. COUNT O’DOWDA comes in with ANYA.]
MRS. MCCOMAS: I told Mr. McComas: no tea on the QE2.
COUNT O’DOWDA: [Loudly] NEVER say that again.
ANYA: Oh!
ANYA'S VOICE: Oh!
DE STOGUMBER: The de Stogumbers never do.
THE VOICE OF ANYA (far away): ANYA'S gone, and ANYA’S hat.
KING HENRY IV: I am. THE KING.
B.B: Stimulate the phagocytes.
"""


def test_speakers_are_named_as_in_a_letter() -> None:
    assert name_speakers(PLAY) == (
        """ACT II

[Mrs. McComas's room. Count O’Dowda comes in with Anya.]
Mrs. McComas: I told Mr. McComas: no tea on the QE2.
Count O’Dowda: [Loudly] NEVER say that again.
Anya: Oh!
Anya's Voice: Oh!
De Stogumber: The de Stogumbers never do.
The Voice of Anya (far away): Anya's gone, and Anya’s hat.
King Henry IV: I am. THE KING.
B.B: Stimulate the phagocytes.
"""
    )


def test_a_story_that_quotes_a_scene_is_no_play() -> None:
    story = "She read aloud.\n\nANYA: Oh!\n\nNobody laughed.\n\nHe did not either.\n\nANYA left.\n"
    assert name_speakers(story) == story


def test_a_play_is_read_with_them(tmp_path) -> None:
    (tmp_path / "play.txt").write_text(PLAY)
    (work,) = read_works(tmp_path)
    assert "\nAnya: Oh!\n" in work.text


_LINES = st.text("ABZÉß abz'’.:()[]-IV\n", max_size=60) | st.sampled_from(PLAY.splitlines())


@given(st.lists(_LINES).map("\n".join))
def test_letters_change_only_their_case(text: str) -> None:
    named = name_speakers(text)
    assert named.casefold() == text.casefold()
    assert name_speakers(named).casefold() == text.casefold()
