"""Which replica writes a story on: the one that has read it, unless that has too much to do.

Every replica is given a weight for a story by a hash of both, and the story goes to the heaviest
(rendezvous hashing): whoever asks comes to the same answer, and when a replica comes or goes, only
the stories move that were its own or become so. No replica gets more than a bound above the mean
(consistent hashing with bounded loads): what is beyond goes to the next in the story's own order. A
story of which little is written is soon read anew, so of those none gets more than the mean.
"""

import math
from collections.abc import Collection, Mapping
from hashlib import blake2b

BEGINNING = 128  # characters: about an opening line, and it stays while the story grows
SLACK = 1.25  # times the mean load
SHORT = 1000  # characters, which are read in the time that some forty tokens are written


def story_key(model: str, user: str, prompt: str) -> str:
    """What stays the same while a writer goes on with a story."""
    return "\0".join((model, user, prompt[:BEGINNING]))


def slack_for(prompt: str, slack: float = SLACK) -> float:
    """How much more than the mean a replica may have, for a story's sake.

    >>> slack_for("It was a dark and stormy night"), slack_for("It was so. " * 1000)
    (1.0, 1.25)
    """
    return slack if len(prompt) > SHORT else 1.0


def order(key: str, replicas: Collection[str]) -> list[str]:
    """The replicas, the heaviest for this key first."""
    return sorted(replicas, key=lambda replica: _weight(key, replica), reverse=True)


def bound(loads: Collection[int], slack: float = SLACK) -> int:
    """How many a replica may have at most when one more is given out.

    >>> bound([0, 0]), bound([8, 8]), bound([1, 2, 3])
    (1, 11, 3)
    """
    return math.ceil(slack * (sum(loads) + 1) / len(loads))


def ranked(
    key: str,
    loads: Mapping[str, int],
    *,
    model: str = "",
    holders: Collection[str] | None = None,
    slack: float = SLACK,
) -> list[str]:
    """The replicas in the order to try. loads is how many requests each has.

    holders are those that have the model in memory, None where all do. They come first; the others
    follow in the model's own order, so that all its stories meet at the same next one.
    """
    if not loads:
        return []
    at_hand = [replica for replica in loads if holders is None or replica in holders]
    tried = order(key, at_hand) + order(model, loads.keys() - set(at_hand))
    most = bound(loads.values(), slack)
    return sorted(tried, key=lambda replica: max(0, loads[replica] + 1 - most))


def _weight(key: str, replica: str) -> bytes:
    return blake2b(f"{replica}\0{key}".encode(errors="surrogatepass"), digest_size=8).digest()
