"""`llm` (llm.datasette.io), which many write with from a command line, asks our models.

It is not installed for development; with it on the path (pip install llm in a place of its own)
this is run.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.test_command import PATIENCE, serving, settings

LLM = shutil.which("llm")
MODEL = """
- model_id: ours
  model_name: letters
  api_base: {url}/v1
  completion: true
"""

pytestmark = pytest.mark.skipif(LLM is None, reason="llm is not installed: pip install llm")


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory, tiny_weights: Path) -> Iterator[dict[str, str]]:
    data = tmp_path_factory.mktemp("data")
    with serving(settings(data, tiny_weights)) as (_, url):
        (data / "extra-openai-models.yaml").write_text(MODEL.format(url=url), encoding="utf-8")
        yield os.environ | {"LLM_USER_PATH": str(data), "OPENAI_API_KEY": "none"}


def ask(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LLM or "", "-m", "ours", "It was a dark night", *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_story_client_writes_with_our_models(env: dict[str, str]) -> None:
    chosen = ["-o", "max_tokens", "30", "-o", "seed", "1", "-o", "temperature", "0.8"]
    streamed, whole = ask(env, *chosen), ask(env, *chosen, "--no-stream")
    assert (streamed.returncode, whole.returncode) == (0, 0), streamed.stderr + whole.stderr
    assert streamed.stdout == whole.stdout
    assert len(streamed.stdout.rstrip("\n")) > 20


def test_a_story_client_shows_our_sentence(env: dict[str, str]) -> None:
    refused = ask(env, "-o", "max_tokens", "9999")
    assert refused.returncode == 1
    assert "max_tokens must be from 0 to 4096, not 9999." in refused.stderr
