"""Ray Serve's side of the choice among replicas; the rule itself is in affinity.py."""

import asyncio
from collections import defaultdict
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from storygen.serve.affinity import SLACK, ranked, slack_for
from storygen.serve.replica import Story


class StoryRouter(RequestRouter):
    """Sends a story to the replica that has read it, as far as that has no more to do than the
    others. A request's first argument is its Story."""

    def initialize_state(self, slack: float = SLACK, shared: bool = False) -> None:
        """shared says that replicas hold some of several models each."""
        self._slack, self._shared = slack, shared
        self._given: dict[ReplicaID, set[str]] = defaultdict(set)  # requests that are not over

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Each replica alone, in the order to try."""
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        story: Story = pending_request.args[0]
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        names = ranked(
            story.key,
            {name: self._load(replica) for name, replica in replicas.items()},
            model=story.model,
            holders=self._holders(story.model, replicas) if self._shared else None,
            slack=slack_for(story.prompt, self._slack),
        )
        if names:
            self._give(replicas[names[0]].replica_id, pending_request)
        return [[replicas[name]] for name in names]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """It may have become another than the first choice."""
        self._give(replica_id, pending_request)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """It is over, however it ended."""
        self._take(internal_request_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Forget what was given to replicas that are gone."""
        super().update_replicas(replicas)
        for replica_id in self._given.keys() - {replica.replica_id for replica in replicas}:
            del self._given[replica_id]

    def _load(self, replica: RunningReplica) -> int:
        """How many requests it has: ours, or what it said itself lately if others ask it, too."""
        said = self.replica_queue_len_cache.get(replica.replica_id) or 0
        return max(said, len(self._given.get(replica.replica_id, ())))

    def _holders(self, model: str, replicas: dict[str, RunningReplica]) -> set[str]:
        return {
            name
            for name, replica in replicas.items()
            if model in replica.routing_stats.get("models", ())
        }

    def _give(self, replica_id: ReplicaID, request: PendingRequest) -> None:
        """Count a request at once: those that come with it must see it."""
        number = request.metadata.internal_request_id
        self._take(number)
        self._given[replica_id].add(number)
        request.future.add_done_callback(lambda future: self._take_if_cancelled(future, number))

    def _take_if_cancelled(self, future: asyncio.Future[Any], number: str) -> None:
        """Who left before a replica was found is never completed."""
        if future.cancelled():
            self._take(number)

    def _take(self, number: str) -> None:
        for given in self._given.values():
            given.discard(number)
