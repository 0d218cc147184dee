import asyncio
import re
import tracemalloc
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storygen.story import prompt as prompt_module
from storygen.story.prompt import (
    CountTokens,
    Part,
    Prompt,
    build_prompt,
    fit_prompt,
    glue,
    prompt_budget,
    sentence_starts,
)
from storygen.story.steering import Lore, Steering, StoryEnd
from storygen.story.tree import Passage, Role
from storygen.tokenizers import BPETokenizer


async def count_characters(text: str) -> int:
    return len(text)


async def count_words(text: str) -> int:
    return len(text.split())


async def count_pieces(text: str) -> int:
    """Words, and each mark of punctuation by itself, as a tokenizer sees them."""
    return len(re.findall(r"\w+|[^\w\s]", text))


async def count_long_tokens(text: str) -> int:
    """Twenty characters a token, more than the search first reckons with."""
    return -(-len(text) // 20)


COUNTERS = [count_characters, count_words, count_pieces, count_long_tokens]


def passage(role: Role, text: str) -> Passage:
    return Passage("id", "story", None, role, text, datetime(2026, 1, 1, tzinfo=UTC))


def of_story(text: str, left_out: int = 0, trailing: str = "") -> Prompt:
    return Prompt((Part("story", text),), left_out, trailing)


def fit(text: str, budget: int, count_tokens: CountTokens = count_words) -> Prompt:
    return asyncio.run(fit_prompt([text], budget=budget, count_tokens=count_tokens))


@pytest.mark.parametrize(
    "sentences",
    [
        ["He ran. ", "She did not! ", "Why? ", "Well… ", "Perhaps."],
        ["“Never!” ", "he said. ", "(Not so.) ", "‘Yes.’ ", '"No."\n', "Silence."],
        ["Mr. Holmes met Dr. J. H. Watson in St. James's Street. ", "They spoke."],
        ["J.R.R. Tolkien, e.g., knew Mrs. Hyde. ", "It was No. ", "She left."],
        ["A title\n\n", "A line without an end\n  \n  ", "indented, said\nand wrapped. ", "End"],
        ["It cost 3.50 at 10.30 or so... ", "Then 1984. ", "Then more."],
        ["*It rained.* ", "_So._ ", "What?! ", "Yes."],
        ["one sentence without an end"],
        ["an end with a space. "],
    ],
)
def test_sentences_start_where_a_reader_would_say(sentences: list[str]) -> None:
    text = "".join(sentences)
    cuts = [0, *sentence_starts(text), len(text)]
    assert [text[a:b] for a, b in pairwise(cuts)] == sentences


def test_a_story_that_fits_is_read_whole() -> None:
    assert fit("One two. Three four.", budget=4) == of_story("One two. Three four.")
    assert fit("", budget=4) == of_story("")


def test_a_long_story_is_cut_at_the_start_of_a_sentence() -> None:
    prompt = fit("One two. Three four. Five six", budget=5)
    assert (prompt.text, prompt.left_out, prompt.cut) == ("Three four. Five six", 2, True)
    assert fit("One two. Three four. Five six", budget=3).text == "Five six"


def test_a_sentence_that_would_waste_half_of_the_budget_is_cut_at_a_word() -> None:
    text = "one two three four five six. Seven eight."
    assert fit(text, budget=4) == of_story("Seven eight.", left_out=6)  # half is used
    assert fit(text, budget=5) == of_story("four five six. Seven eight.", left_out=3)
    assert fit("one two three four", budget=3) == of_story("two three four", left_out=1)


def test_a_word_longer_than_the_budget_is_cut_anywhere() -> None:
    prompt = fit("Start. " + "a" * 100, budget=10, count_tokens=count_characters)
    assert prompt == of_story("a" * 10, left_out=2)


def test_the_search_goes_far_back_where_tokens_are_long() -> None:
    text = "Out of reach. " + "It rained. " * 20  # 220 characters; 10 tokens of 12 would be 120
    prompt = fit(text, budget=11, count_tokens=count_long_tokens)
    assert prompt == of_story("It rained. " * 19 + "It rained.", left_out=3, trailing=" ")


def test_spaces_at_the_end_are_held_back_and_line_ends_are_not() -> None:
    assert fit("Once upon \t ", budget=9) == of_story("Once upon", trailing=" \t ")
    assert fit("Once.\n\n", budget=9) == of_story("Once.\n\n")
    assert fit("   ", budget=9) == of_story("", trailing="   ")


@given(st.lists(st.text("ab \n\u2003\x1c", max_size=20), max_size=6), st.integers(1, 9))
def test_words_are_counted_piece_by_piece_as_all_at_once(texts: list[str], piece: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prompt_module, "PIECE", piece)
        assert asyncio.run(prompt_module._count_words(texts)) == len("".join(texts).split())


def test_the_words_left_out_are_those_of_the_missing_text() -> None:
    text = "It was a dark and stormy night. " * 200
    prompt = fit(text, budget=100)
    assert text == "It was a dark and stormy night. " * (prompt.left_out // 7) + prompt.text + " "
    assert prompt.left_out == 200 * 7 - 98


def test_a_prompt_is_made_of_the_manuscript() -> None:
    told = [
        passage("writer", "Once upon"),
        passage("model", " a time."),
        passage("writer", "Then "),
    ]
    prompt = asyncio.run(build_prompt(told, budget=9, count_tokens=count_words))
    assert prompt == of_story("Once upon a time.\n\nThen", trailing=" ")


PIECES = ["a", "bb", "ccc" * 7, "Mr.", "X.", "!", "…", "”", "“", " ", "  ", "\n", "\n\n", "\t"]
PIECES += [". ", "? ", ".” ", " word", " another", "z" * 40, " " * 50]
PIECE = st.sampled_from(PIECES)
TEXTS = (st.lists(PIECE, max_size=10) | st.lists(PIECE, min_size=30, max_size=60)).map("".join)


async def slowly_fit(text: str, budget: int, count_tokens: CountTokens) -> Prompt:
    """The prompt by trying every start there is, from the first on."""
    body = text.rstrip(" \t")
    words = [m.start() for m in re.finditer(r"(?<!\S)\S", body)]
    for starts in (sentence_starts(body), words, range(len(body))):
        for start in [0, *starts, len(body)]:
            tokens = await count_tokens(body[start:])
            if tokens <= budget:
                break
        if start == 0 or 2 * tokens >= budget:
            break
    return of_story(body[start:], len(body[:start].split()), text[len(body) :])


@given(TEXTS, st.integers(1, 40), st.sampled_from(COUNTERS))
def test_the_prompt_is_the_longest_that_fits(text: str, budget: int, count: CountTokens) -> None:
    assert fit(text, budget, count) == asyncio.run(slowly_fit(text, budget, count))


@given(
    st.lists(st.lists(PIECE, max_size=8).map("".join), min_size=5, max_size=40),
    st.integers(1, 6),
    st.sampled_from(COUNTERS),
)
def test_a_story_in_pieces_is_read_as_if_it_were_in_one(
    pieces: list[str], budget: int, count: CountTokens
) -> None:
    in_pieces = asyncio.run(fit_prompt(pieces, budget=budget, count_tokens=count))
    assert in_pieces == fit("".join(pieces), budget, count)


@given(text=st.text(), budget=st.integers(1, 30))
def test_a_real_tokenizer_reads_a_prompt_within_the_budget(
    tiny_tokenizer: BPETokenizer, text: str, budget: int
) -> None:
    async def count(text: str) -> int:
        return len(tiny_tokenizer.encode(text))

    prompt = fit(text, budget, count)
    assert len(tiny_tokenizer.encode(prompt.text)) <= budget
    assert text.endswith(prompt.text + prompt.trailing)


def test_a_prompt_has_what_the_passage_leaves_but_half_of_the_context_at_least() -> None:
    assert prompt_budget(1024, 200) == 824
    assert prompt_budget(1024, 600) == 512
    assert prompt_budget(256, 4096) == 128
    assert prompt_budget(1, 1) == 1


LONG = {
    "sentences": "It was a dark and stormy night. " * 60_000,
    "words": "word " * 400_000,
    "one word": "a" * 2_000_000,
    "line ends": "\n" * 2_000_000 + "x",
    "spaces": "x" + " " * 2_000_000 + "x",
}


@pytest.mark.parametrize("text", LONG.values(), ids=LONG)
def test_a_long_manuscript_takes_few_and_short_counts(text: str) -> None:
    counted: list[int] = []

    async def count(text: str) -> int:
        counted.append(len(text))
        return -(-len(text) // 4)

    fit(text, 800, count)
    assert len(counted) <= 40
    assert max(counted) <= 12 * 800
    assert sum(counted) <= 150_000


def test_of_a_long_branch_only_the_end_is_put_together() -> None:
    branch = [passage("model", f"{'a' * 999} " * 50)] * 400  # as copies of one passage are
    turns = 0

    async def count(text: str) -> int:
        return -(-len(text) // 4)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def build() -> Prompt:
        waiting = asyncio.create_task(others())
        try:
            return await build_prompt(branch, budget=800, count_tokens=count)
        finally:
            waiting.cancel()

    tracemalloc.start()
    try:
        prompt = asyncio.run(build())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(prompt.text), prompt.left_out, prompt.trailing) == (2999, 19_997, " ")
    assert peak < 2_000_000  # of 20,000,000 characters
    assert turns >= 20_000_000 // (2 * prompt_module.PIECE)


@pytest.mark.parametrize(
    ("before", "addition", "glued"),
    [
        ("upon ", " a time", "a time"),
        ("upon\t", " a time", "a time"),
        ("upon", " a time", " a time"),
        ("upon ", "a time", "a time"),
        ("upon ", "  a time", " a time"),
        ("upon ", "", ""),
        ("", " a time", " a time"),
        ("upon\n", " a time", " a time"),
    ],
)
def test_glue_leaves_one_space_between(before: str, addition: str, glued: str) -> None:
    assert glue(before, addition) == glued


# What stands beside the story


def built(story: str, steering: Steering, budget: int = 1000, template: str = "") -> Prompt:
    return asyncio.run(
        build_prompt(
            [passage("writer", story)] if story else [],
            budget=budget,
            count_tokens=count_pieces,
            steering=steering,
            template=template,
        )
    )


ANN = Lore("Ann", ("Ann", "the pilot"), "Ann flies a red Moth.")
RAIN = Lore("Rain", (), "It never rains here.")


def test_parts_come_in_their_order() -> None:
    steering = Steering(
        memory="Ann is dead.", note="[Sad.]", note_depth=1, lore=(ANN, RAIN), title="Moth"
    )
    prompt = built("He ran.\n\nThe PILOT saw.", steering, template="The film '{title}':\n")
    assert prompt.parts == (
        Part("title", "The film 'Moth':\n"),
        Part("memory", "Ann is dead.\n\n"),
        Part("lore", "Ann flies a red Moth.\n\n", "Ann"),
        Part("lore", "It never rains here.\n\n", "Rain"),
        Part("story", "He ran.\n\n"),
        Part("note", "[Sad.]\n\n"),
        Part("story", "The PILOT saw."),
    )
    assert prompt.dropped == ()


@pytest.mark.parametrize(
    ("depth", "text"),
    [
        (0, "One.\n\nTwo.\n\nN\n\n"),
        (1, "One.\n\nN\n\nTwo."),
        (2, "N\n\nOne.\n\nTwo."),
        (9, "N\n\nOne.\n\nTwo."),
    ],
)
def test_a_note_stands_so_many_paragraphs_before_the_end(depth: int, text: str) -> None:
    assert built("One.\n\nTwo.", Steering(note="N", note_depth=depth)).text == text


@pytest.mark.parametrize(
    ("keys", "story", "comes_up"),
    [
        (("Ann",), "So ANN said", True),
        (("Ann",), "Annabel said", False),
        (("red moth",), "a red moth.", True),
        (("C++", "a.b"), "in C++ then", True),
        (("a.b",), "aXb", False),
        (("", " "), "anything", True),
    ],
)
def test_lore_comes_up_with_its_keys(keys: tuple[str, ...], story: str, comes_up: bool) -> None:
    end = StoryEnd(story)
    assert Lore("x", keys, "told").comes_up_in(end) == comes_up
    assert not Lore("x", keys, "told", on=False).comes_up_in(end)
    assert not Lore("x", keys, " ").comes_up_in(end)


def test_others_have_their_turn_while_a_long_lorebook_is_gone_through() -> None:
    lore = tuple(Lore(str(n), (f"key {n}",), "told") for n in range(300))
    turns = 0

    async def build() -> None:
        nonlocal turns
        building = asyncio.create_task(
            build_prompt([], budget=9, count_tokens=count_words, steering=Steering(lore=lore))
        )
        while not building.done():
            turns += 1
            await asyncio.sleep(0)

    asyncio.run(build())
    assert turns >= 300


def test_a_title_is_found_across_the_passages_it_was_written_in() -> None:
    told = [passage("model", ""), passage("model", "The film "), passage("model", "'Moth':\nAnn")]
    steering, template = Steering(title="Moth"), "The film '{title}':\n"
    prompt = asyncio.run(
        build_prompt(
            told, budget=100, count_tokens=count_words, steering=steering, template=template
        )
    )
    assert prompt == of_story("The film 'Moth':\nAnn")


def test_a_title_written_out_is_not_said_twice() -> None:
    story = "The film 'Moth':\nAnn flies."
    prompt = built(story, Steering(title="Moth"), template="The film '{title}':\n")
    assert prompt == of_story(story)


def test_a_title_alone_begins_an_empty_story() -> None:
    assert built("", Steering(title="Moth"), template="Film '{title}'.\n").text == "Film 'Moth'.\n"
    assert built("", Steering(title="Moth")).text == ""


def test_what_has_no_room_is_said_and_the_story_has_its_share() -> None:
    story = " ".join(f"Ann {n}." for n in range(200))
    steering = Steering(memory="Long memory. " * 50, note="Long note. " * 50, lore=(ANN, RAIN))
    prompt = built(story, steering, budget=40)
    assert prompt.dropped == (
        "Of the memory only the first 4 words have room.",
        "The lore entry 'Rain' has no room in this model's context.",
        "Of the author's note only the first 2 words have room.",
    )
    assert asyncio.run(count_pieces(prompt.text)) <= 40
    assert prompt.text.endswith("Ann 199.")


@given(
    st.text(alphabet="ab. \n", max_size=120),
    st.text(alphabet="cd. \n", max_size=60),
    st.text(alphabet="ef. \n", max_size=60),
    st.integers(0, 5),
    st.integers(1, 60),
)
def test_no_prompt_exceeds_its_budget(
    story: str, memory: str, note: str, depth: int, budget: int
) -> None:
    lore = (Lore("x", (), note), Lore("y", ("a",), memory))
    steering = Steering(memory=memory, note=note, note_depth=depth, lore=lore)
    prompt = built(story, steering, budget)
    assert asyncio.run(count_pieces(prompt.text)) <= budget
    told = "".join(part.text for part in prompt.parts if part.source == "story")
    assert (story + "\n\n").rstrip(" ").find(told.rstrip()) >= 0
