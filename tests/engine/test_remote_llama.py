"""RemoteEngine and llama.cpp's own server, with a model that we exported to it."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import httpx
import pytest

from storygen.catalogue import Catalogue
from storygen.checkpoints import load_tokenizer
from storygen.checkpoints.export import export_gguf
from storygen.engine.local import LocalEngine
from storygen.engine.remote import RemoteEngine
from storygen.params import SamplingParams
from tests.engine.stub import engine_at
from tests.engine.test_remote_own import cutting
from tests.protocol.conftest import free_port
from tests.serve.api import until

PROGRAM = shutil.which("llama-server")
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="llama-server is not on the PATH")
PROMPT = "It was a dark and stormy night, and the rain fell on the roofs of the town."
SHIPPED = Catalogue(Path(__file__).resolve().parents[2] / "weights")
MODEL = next((info for info in SHIPPED.models() if info.name == "mystery"), None)
CONTEXT = 256  # less than the model could read, so that a passage is longer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes prose."""
    if MODEL is None:
        pytest.skip("The shipped models are not here.")
    file = tmp_path_factory.mktemp("llama") / "mystery.gguf"
    export_gguf(MODEL.directory, file, "f16", MODEL.name)
    return file


@pytest.fixture
async def url(model: Path) -> AsyncIterator[str]:
    """Where llama.cpp's server is: two slots, the whole context in each."""
    assert PROGRAM is not None
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port), "--alias", "mystery", "-t", "1"]
    sizes = ["-np", "2", "-c", str(2 * CONTEXT)]
    with model.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - at once
            [PROGRAM, "-m", str(model), *address, *sizes], stdout=log, stderr=log
        )
    where = f"http://127.0.0.1:{port}"
    await until(lambda: _answers(where))
    yield where
    process.kill()
    process.wait()


def _answers(where: str) -> bool:
    try:
        return httpx.get(f"{where}/health").status_code == 200
    except httpx.TransportError:
        return False


async def written(engine: RemoteEngine, **params: object) -> str:
    chosen = SamplingParams(**{"seed": 1, "loop_guard": False} | params)  # type: ignore[arg-type]  # as given
    return "".join([s.text async for s in engine.stream("mystery", PROMPT, chosen)])


async def test_it_is_asked_counted_and_stopped_as_ours_is(url: str) -> None:
    assert MODEL is not None
    async with engine_at(url, known={"mystery": MODEL}.get) as engine:
        (info,) = engine.models()
        assert (info.block_size, info.display_name) == (CONTEXT, MODEL.display_name)
        ids = load_tokenizer(MODEL.directory).encode(PROMPT)
        assert await engine.count_tokens("mystery", PROMPT) == len(ids)
        likely = await engine.next_tokens("mystery", PROMPT, 5)
        assert len(likely) == 5
        assert likely[0].logprob >= likely[-1].logprob
        text = await written(engine, max_new_tokens=40)
        assert len(text) > 60
        assert await written(engine, max_new_tokens=40) == text
        stop = text[30:35]
        assert await written(engine, max_new_tokens=40, stop=(stop,)) == text[: text.index(stop)]
        endless = SamplingParams(max_new_tokens=4000, loop_guard=False)
        async with aclosing(engine.stream("mystery", PROMPT, endless)) as segments:
            await anext(segments)
        await until(lambda: not any(slot["is_processing"] for slot in _slots(url)))


async def test_its_next_words_are_those_of_our_engine(url: str) -> None:
    ours = LocalEngine(SHIPPED, device="cpu")
    await ours.start()
    async with engine_at(url) as engine:
        found = {
            word.text: word.probability for word in await engine.next_words("mystery", PROMPT, 8)
        }
    expected = await ours.next_words("mystery", PROMPT, 5)
    await ours.close()
    assert {w.text: found.get(w.text) for w in expected} == pytest.approx(
        {w.text: w.probability for w in expected}, abs=0.02
    )


def _slots(url: str) -> list[dict[str, bool]]:
    found: list[dict[str, bool]] = httpx.get(f"{url}/slots").json()
    return found


async def test_a_passage_longer_than_its_context_is_written_on(url: str) -> None:
    async with engine_at(url) as engine:
        text = await written(engine, max_new_tokens=CONTEXT + 50, temperature=1.0)
        assert await engine.count_tokens("mystery", text) > CONTEXT


async def test_lost_connections_lose_and_double_nothing(url: str) -> None:
    async with engine_at(url) as engine:
        whole = await written(engine, max_new_tokens=60, temperature=0.0)
    for seed in range(3):
        async with cutting(url, seed) as line, engine_at(line) as engine:
            await until(engine.models)
            assert await written(engine, max_new_tokens=60, temperature=0.0) == whole
