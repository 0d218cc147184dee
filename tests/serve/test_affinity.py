"""A story returns to the replica that has read it, and no replica is given too much."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from storygen.serve.affinity import BEGINNING, SLACK, bound, order, ranked, story_key

names = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=12)
loaded = st.dictionaries(
    st.text(min_size=1, max_size=8), st.integers(0, 40), min_size=1, max_size=12
)
STORIES = [story_key("mystery", f"user {n % 7}", f"It was night number {n}.") for n in range(2_000)]


def homes(replicas) -> list[str]:
    """Where each story is at home."""
    return [order(story, replicas)[0] for story in STORIES]


@given(st.text(), st.text(), st.text(min_size=BEGINNING), st.text())
def test_a_story_keeps_its_key_while_it_grows(model, user, prompt, more):
    assert story_key(model, user, prompt) == story_key(model, user, prompt + more)


def test_stories_are_told_apart_by_model_user_and_beginning():
    told = {story_key(m, u, p) for m in ("a", "b") for u in ("", "ada") for p in ("x", "y")}
    assert len(told) == 8


@given(st.text(), names)
def test_everybody_comes_to_the_same_order(key, replicas):
    assert order(key, replicas) == order(key, sorted(replicas, reverse=True))
    assert set(order(key, replicas)) == replicas


def test_the_order_does_not_change_with_the_process():
    # Worked out once: a hash salted for each process would send a story to another replica.
    assert order("a story", ["one", "two", "three", "four"]) == ["one", "four", "three", "two"]


@given(st.text(), names, st.text(min_size=1, max_size=8))
def test_of_a_replica_that_goes_only_its_own_stories_move(key, replicas, gone):
    rest = replicas - {gone}
    before = [replica for replica in order(key, replicas) if replica != gone]
    assert order(key, rest) == before


def test_few_stories_move_when_a_replica_comes():
    before, after = homes(["one", "two", "three"]), homes(["one", "two", "three", "four"])
    moved = [(b, a) for b, a in zip(before, after, strict=True) if b != a]
    assert {a for _, a in moved} == {"four"}
    assert 0.2 < len(moved) / len(STORIES) < 0.3  # a quarter, and none that need not


def test_stories_are_shared_out_evenly():
    counts = Counter(homes(["one", "two", "three", "four", "five"]))
    assert max(counts.values()) < 1.15 * min(counts.values())


@given(st.text(), loaded)
def test_all_replicas_are_tried_and_each_once(key, loads):
    assert sorted(ranked(key, loads)) == sorted(loads)


@given(st.text(), loaded)
def test_the_first_choice_is_within_the_bound(key, loads):
    first = ranked(key, loads)[0]
    assert loads[first] + 1 <= bound(loads.values())


@given(st.text(), loaded)
def test_the_first_choice_is_the_first_of_the_storys_own_that_has_room(key, loads):
    most = bound(loads.values())
    roomy = [replica for replica in order(key, loads) if loads[replica] + 1 <= most]
    assert ranked(key, loads)[: len(roomy)] == roomy


@given(st.lists(st.text(max_size=3), max_size=200), names)
def test_no_replica_is_ever_given_more_than_the_bound(keys, replicas):
    """Also when every story begins alike."""
    loads = dict.fromkeys(sorted(replicas), 0)
    for key in keys:
        loads[ranked(key, loads)[0]] += 1
        assert max(loads.values()) <= SLACK * sum(loads.values()) / len(loads) + 1


def test_without_load_a_story_always_returns():
    loads = {"one": 0, "two": 0, "three": 0}
    assert [ranked(story, loads)[0] for story in STORIES] == homes(loads)


@given(st.text(), st.sets(st.sampled_from("abcdef")))
def test_those_that_hold_the_model_come_first(key, holders):
    tried = ranked(key, dict.fromkeys("abcdef", 0), model="an adapter", holders=holders)
    assert set(tried[: len(holders)]) == holders
    assert tried[: len(holders)] == order(key, holders)


def test_a_model_that_nobody_holds_is_opened_at_one_place():
    loads = dict.fromkeys("abcdef", 0)
    firsts = {ranked(story, loads, model="an adapter", holders=())[0] for story in STORIES}
    assert len(firsts) == 1


def test_a_model_spreads_when_those_that_hold_it_have_too_much():
    tried = ranked("a story", {"a": 3, "b": 0, "c": 0}, model="an adapter", holders={"a"})
    assert tried[-1] == "a"


def test_no_replica_is_no_choice():
    assert ranked("a story", {}) == []


def test_a_lone_surrogate_in_a_draft_is_no_obstacle():
    assert order("\ud800", ["one"]) == ["one"]
