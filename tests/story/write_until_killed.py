"""Adds passages to a story and lets some grow, printing each one that the store has acknowledged.

For each line on standard input a child process begins, which prints its id and then goes on until
somebody kills it. The parent imports everything once, so that a child is at work at once.

    writer ID TEXT     a writer's passage was added
    model ID TEXT      a model's passage was added or has grown to this text
"""

import asyncio
import os
import sys
from itertools import count

from storygen.story.store import StoryStore


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def write(url: str, story_id: str) -> None:
    store = await StoryStore.open(url)
    say("open")
    for n in count():
        told = await store.add_passage("me", story_id, "writer", f"told-{n}")
        say("writer", told.id, told.text)
        half = await store.add_passage("me", story_id, "model", "", state="streaming")
        for m in range(n % 4):
            half = await store.grow_passage("me", half.id, f"{half.text}{m}.")
            say("model", half.id, half.text)
        await store.grow_passage("me", half.id, half.text, state="complete", finish_reason="stop")


for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        say("pid", os.getpid())
        asyncio.run(write(*sys.argv[1:]))
    os.waitpid(child, 0)
    say("killed")
