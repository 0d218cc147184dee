"""kill -9 at random moments of a page; benchmarks/reliability/kill.py does it many more times."""

from pathlib import Path

from benchmarks.reliability.kill import run


async def test_three_kills_lose_no_answered_message_and_a_second_of_reply_at_most(
    tmp_path: Path,
) -> None:
    wrong, lost, answered = await run(3, tmp_path)
    assert wrong == []
    assert answered > 0
    assert len(lost) == 9
