"""What Ray Serve is told of which replica; the rule has tests of its own in test_affinity.py."""

import asyncio
import warnings
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from storygen.serve.affinity import order
from storygen.serve.replica import Story

pytest.importorskip("ray", reason="requirements-ray.txt is not installed")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, about pydantic
    from ray.serve._private.common import DeploymentHandleSource, DeploymentID
    from ray.serve.request_router import ReplicaID

    from storygen.serve.ray_router import StoryRouter

STORY = Story("mystery", "It was a dark night.", "ada")
LONG = Story("mystery", "It was a dark night. " * 100, "ada")
MODEL = DeploymentID(name="mystery", app_name="storygen")


@dataclass
class Running:
    """A replica as the router sees it."""

    name: str
    routing_stats: dict[str, Any] = field(default_factory=dict)

    @property
    def replica_id(self) -> ReplicaID:
        return ReplicaID(unique_id=self.name, deployment_id=MODEL)


REPLICAS = [Running(name) for name in ("one", "two", "three")]


@pytest.fixture
def router() -> StoryRouter:
    made = StoryRouter(MODEL, DeploymentHandleSource.REPLICA, use_replica_queue_len_cache=True)
    made.initialize_state()
    return made


def request(number: str, story: Story = STORY) -> Any:
    """A request that waits for a replica."""
    return SimpleNamespace(
        args=[story],
        metadata=SimpleNamespace(internal_request_id=number),
        routing_context=SimpleNamespace(should_backoff=False),
        future=asyncio.get_running_loop().create_future(),
    )


async def names(router: StoryRouter, asked: Any, replicas=REPLICAS) -> list[str]:
    ranks = await router.choose_replicas(replicas, asked)
    assert all(len(rank) == 1 for rank in ranks)
    return [rank[0].name for rank in ranks]


async def test_a_story_is_sent_to_its_own_replica_first(router):
    asked = request("1")
    assert await names(router, asked) == order(STORY.key, ["one", "two", "three"])
    assert asked.routing_context.should_backoff  # it is not tried again at once


async def test_versions_asked_for_at_once_are_spread(router):
    """Evenly where little is to be read; of a long story a replica that has read it has more."""
    for story, most in ((STORY, 2), (LONG, 3)):
        router.initialize_state()
        firsts = [(await names(router, request(str(n), story)))[0] for n in range(6)]
        assert max(firsts.count(name) for name in set(firsts)) == most


async def test_a_request_that_is_over_counts_no_more(router):
    home = order(STORY.key, ["one", "two", "three"])[0]
    for n in range(20):
        asked = request(str(n))
        assert (await names(router, asked))[0] == home
        router.on_request_routed(asked, ReplicaID(home, MODEL), None)
        router.on_request_completed(ReplicaID(home, MODEL), str(n))


async def test_who_leaves_before_a_replica_was_found_counts_no_more(router):
    home = order(STORY.key, ["one", "two", "three"])[0]
    for n in range(20):
        asked = request(str(n))
        assert (await names(router, asked))[0] == home
        asked.future.cancel()
        await asyncio.sleep(0)


async def test_a_request_taken_by_another_replica_counts_there(router):
    first, second, _ = order(STORY.key, ["one", "two", "three"])
    asked = request("1")
    await names(router, asked)
    router.on_request_routed(asked, ReplicaID(second, MODEL), None)
    assert (await names(router, request("2")))[0] == first


async def test_what_a_replica_says_of_its_queue_counts_for_others_requests(router):
    home = order(STORY.key, ["one", "two", "three"])[0]
    router.replica_queue_len_cache.update(ReplicaID(home, MODEL), 9)
    assert (await names(router, request("1")))[0] != home


async def test_replicas_that_hold_the_model_come_first_where_they_share(router):
    router.initialize_state(shared=True)
    holding = [Running(n, {"models": ["mystery"] if n == "two" else []}) for n in ("one", "two")]
    assert await names(router, request("1"), holding) == ["two", "one"]


async def test_without_replicas_there_is_nothing_to_choose(router):
    assert await names(router, request("1"), []) == []
