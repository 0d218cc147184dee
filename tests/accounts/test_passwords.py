import asyncio
from typing import Literal

import pytest
from argon2 import Parameters, PasswordHasher, extract_parameters
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from storygen.accounts import passwords
from storygen.errors import AccountError

GOOD = "rope lantern otter"


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("", "10 to 200 characters, not 0"),
        ("nine char", "10 to 200 characters, not 9"),
        ("x" * 201, "not 201"),
        ("aaaaaaaaaaaa", "among the first"),
        ("1212121212", "among the first"),
        ("QwertyUIOP", "among the first"),
        ("1234567890", "among the first"),
        ("wilhelmina", "the name itself"),
        ("Wilhelmina2026!", "the name itself"),
        ("wilhelminaWILHELMINA", "the name itself"),
    ],
)
def test_password_that_would_be_guessed_is_refused_with_the_rule(password: str, why: str) -> None:
    with pytest.raises(AccountError, match=why):
        passwords.require_good(password, "Wilhelmina")


@pytest.mark.parametrize(
    "password", ["correctly horsed", "ten chars!", "ünïcödë🦦🦦🦦", " " * 4 + "spaces"]
)
def test_length_is_all_that_counts(password: str) -> None:
    passwords.require_good(password, "Ada")


async def test_only_the_password_itself_matches_what_is_kept() -> None:
    kept = await passwords.hashed(GOOD)
    assert kept.startswith("$argon2id$")
    assert GOOD not in kept
    assert await passwords.matches(kept, GOOD)
    assert not await passwords.matches(kept, GOOD + " ")
    assert not await passwords.matches(None, GOOD)
    assert not await passwords.matches("no hash", GOOD)
    assert kept != await passwords.hashed(GOOD)  # each has a salt of its own


async def test_the_same_work_is_done_for_a_name_that_nobody_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So how long it takes tells no name; a clock would say so of a quiet machine alone."""
    done: list[tuple[Parameters, int]] = []

    class Recorded(PasswordHasher):
        def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:
            done.append((extract_parameters(str(hash)), len(password)))
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "_hasher", Recorded(2, 16, 1))
    passwords._nobody.cache_clear()
    kept = await passwords.hashed(GOOD)
    for tried in ("wrong otter rope", "x" * 5000):
        for known in (kept, None):
            assert not await passwords.matches(known, tried)
    assert [n for _, n in done] == [16, 16, 201, 201]
    assert all(parameters == done[0][0] for parameters, _ in done)
    passwords._nobody.cache_clear()


async def test_the_same_characters_match_however_they_were_put_together() -> None:
    assert await passwords.matches(
        await passwords.hashed("cafe\u0301 lantern"), "caf\u00e9 lantern"
    )


@budget(max_examples=8)
@given(st.text())
async def test_any_text_can_be_tried(text: str) -> None:
    assert not await passwords.matches(None, text)


async def test_more_than_can_be_worked_out_are_turned_away() -> None:
    tries = [passwords.matches(None, GOOD) for _ in range(passwords.MOST_WAITING + 5)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(answer, AccountError) for answer in found) == 5
    assert not await passwords.matches(None, GOOD)
