"""Long answers: what is said, while others have their turns."""

import asyncio
import json

from hypothesis import given
from hypothesis import strategies as st

from storygen.serve import answers
from storygen.serve.answers import Answer
from tests.serve.test_requests import FakeHttp

json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), json_value), st.integers(1, 9))
async def test_an_answer_is_json(content, at_once):
    before, answers.AT_ONCE = answers.AT_ONCE, at_once
    try:
        answer = await Answer.of(content)
    finally:
        answers.AT_ONCE = before
    assert json.loads(bytes(answer.body)) == content
    assert bytes(answer.body).isascii()


async def test_others_have_their_turns_while_a_long_answer_is_spelt():
    n_turns, spelling = 0, asyncio.create_task(Answer.of({"tokens": list(range(50_000))}))
    while not spelling.done():
        await asyncio.sleep(0)
        n_turns += 1
    assert n_turns > 100


async def test_as_much_as_is_scored_at_one_go():
    async with FakeHttp() as http:
        long = {"model": "mystery", "text": "a " * 10_000}
        assert (await http.post("/v1/score", json=long | {"top": 4})).status_code == 200
        refused = await http.post("/v1/score", json=long | {"top": 5})
    assert refused.status_code == 400
    told = "text has 20,000 characters and may have 16,666 with top 5: score it in parts."
    assert refused.json()["error"]["message"] == told
