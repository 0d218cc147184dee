"""What tests/serve/test_ray.py has played: models under Ray, of which replicas are killed.

What came of it is told in a line each.

python -m tests.serve.ray_play WEIGHTS NATIVE
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Awaitable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx

from benchmarks.scale.ray_serve import replica_pids
from storygen.catalogue import Catalogue
from storygen.engine.interface import Details, Engine
from storygen.engine.local import LocalEngine
from storygen.errors import StorygenError
from storygen.params import SamplingParams
from storygen.serve.ray_start import load
from storygen.settings import Settings

MODEL = "tiny"
PROMPTS = [f"It was night number {n}, and the rain fell." for n in range(6)]
PARAMS = SamplingParams(seed=1, max_new_tokens=2000, top_k=0, loop_guard=False)


async def write(engine: Engine, prompt: str, kill: asyncio.Event | None = None) -> str:
    """A passage; sets kill when a tenth of it is there."""
    text = ""
    async with aclosing(engine.stream(MODEL, prompt, PARAMS, user="ada")) as segments:
        async for segment in segments:
            text += segment.text
            if kill is not None and len(text) > 200:
                kill.set()
    return text


async def error_of(work: Awaitable[Any]) -> str:
    """What is said when something cannot be done."""
    try:
        await work
    except StorygenError as error:
        return f"{type(error).__name__}, {error}"
    return "nothing"


async def killed_while_writing(engine: Engine) -> list[str]:
    """The passages of all prompts, while one of two replicas is killed."""
    some = asyncio.Event()
    writing = [asyncio.create_task(write(engine, prompt, some)) for prompt in PROMPTS]
    await some.wait()
    os.kill(replica_pids(MODEL)[0], signal.SIGKILL)
    return await asyncio.gather(*writing)


async def play_engine(engine: Engine, alone: Engine) -> None:
    """What an engine over replicas does."""
    await engine.start()
    await alone.start()
    try:
        whole = [await write(alone, prompt) for prompt in PROMPTS]
        say("written", [await write(engine, prompt) for prompt in PROMPTS] == whole)
        say("killed", await killed_while_writing(engine) == whole)
        say(
            "words",
            await engine.next_words(MODEL, "It was", 2)
            == await alone.next_words(MODEL, "It was", 2),
        )
        bad = anext(engine.stream(MODEL, "x", PARAMS, details=Details(after="no mark")))
        say("mark", await error_of(bad))
        left = engine.stream(MODEL, PROMPTS[0], PARAMS)
        await anext(left)
        await left.aclose()
        say("running", engine.health().running)
    finally:
        await alone.close()
        await engine.close()


def play_api(ray: Any, settings: Settings, alone: Engine) -> None:
    """What `serve run storygen.serve.ray:app` serves."""
    from ray import serve

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(ray.app(ray.Options(replicas=1, models=MODEL)))
    asked = {"model": MODEL, "prompt": PROMPTS[0], "max_tokens": 50, "seed": 1, "stream": True}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        say("models", [m["id"] for m in client.get("/v1/models").json()["data"]])
        lines = client.post("/v1/completions", json=asked).text.splitlines()
        pieces = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        text = "".join(piece["choices"][0]["text"] for piece in pieces)
        say("text", text == asyncio.run(_first_50(alone)))
        say("refused", client.post("/v1/completions", json=asked | {"model": "x"}).status_code)


async def _first_50(alone: Engine) -> str:
    await alone.start()
    params = SamplingParams(seed=1, max_new_tokens=50, temperature=1.0, top_k=0, loop_guard=False)
    text = ""
    async for segment in alone.stream(MODEL, PROMPTS[0], params):
        text += segment.text
    await alone.close()
    return text


def say(name: str, value: Any) -> None:
    """A line for the test."""
    sys.stdout.write(f"{name}: {json.dumps(value)}\n")
    sys.stdout.flush()


def main(weights: Path, native: Path) -> None:
    """Both, one after the other."""
    os.environ |= {
        "STORYGEN_WEIGHTS_DIR": str(weights),
        "STORYGEN_DATA_DIR": str(native.parent),
        "STORYGEN_DTYPE": "fp32",
        "STORYGEN_SLOTS": "4",
    }
    settings = Settings()

    def alone() -> LocalEngine:
        return LocalEngine(
            Catalogue(weights), device="cpu", dtype="fp32", threads=1, native=settings.native_dir
        )

    ray = load()
    with ray.started(settings, ray.Options(replicas=2, models=MODEL)) as engine:
        asyncio.run(play_engine(engine, alone()))
    with ray.connected(cpus=2):
        play_api(ray, settings, alone())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
