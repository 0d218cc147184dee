"""Whatever a writer trains on: a model of finite numbers comes of it, or one sentence why not."""

import json
import math

import pytest

from storygen.checkpoints import load
from storygen.corpora.prepare import Work, prepare
from storygen.errors import StorygenError
from storygen.tokenizers import CharTokenizer
from storygen.train.__main__ import main
from storygen.train.metrics import read_metrics

from .conftest import RECIPE

DRAFTS = {
    "three words": "It was dark.",
    "one character": "a" * 3000,
    "one line a thousand times": "He said nothing.\n" * 1000,
    "emoji alone": "👩\u200d🚀🦊🌧️🕯️\n" * 200,
    "white space alone": " \n\t" * 1000,
    "no vowel and no end": "".join(chr(33 + n * n % 90) for n in range(3000)),
}


@pytest.mark.parametrize("draft", DRAFTS)
def test_any_draft_is_learnt_or_refused_in_a_sentence(draft, tmp_path, capsys):
    text, out = DRAFTS[draft], tmp_path / "corpus"
    values = {k: v for k, v in RECIPE.items() if k not in {"card", "prompts"}}
    lines = [f"{k} = {json.dumps(v)}" for k, v in values.items()]
    card = [f"{k} = {json.dumps(v)}" for k, v in RECIPE["card"].items()]
    prompts = json.dumps([text[:3]], ensure_ascii=False)
    recipe = "\n".join([*lines, f"prompts = {prompts}", "[card]", *card])
    (tmp_path / "odd.toml").write_text(recipe, encoding="utf-8")
    refusal = ""
    try:
        prepare("odd", [Work("draft.txt", text)], CharTokenizer.from_text(text), out)
    except StorygenError as error:
        refusal = str(error)
    if refusal:
        assert "\n" not in refusal
        return
    code = main([str(tmp_path / "odd.toml"), "--corpus", str(out), "--out", str(tmp_path / "run")])
    if code != 0:
        assert code == 1
        assert capsys.readouterr().err.count("\n") == 1
        return
    numbers = [v for row in read_metrics(tmp_path / "run") for v in row.values() if v is not None]
    assert all(math.isfinite(v) for v in numbers if isinstance(v, float))
    load(tmp_path / "run" / "model")
