"""The catalogue reads JSON only, at every call, and is not stopped by one bad directory."""

import json
import os
import threading

import pytest

from storygen import catalogue as catalogue_module
from storygen.catalogue import Catalogue, Kept, open_to
from storygen.errors import ModelNotFoundError

CONFIG = {"n_positions": 64, "n_layer": 2, "n_embd": 8, "vocab_size": 100}


def add(weights, name, config=CONFIG, extras=None):
    (weights / name).mkdir(parents=True)
    (weights / name / "config.json").write_text(json.dumps(config))
    if extras is not None:
        (weights / name / "storygen.json").write_text(json.dumps(extras))


def test_a_directory_added_later_is_there_at_the_next_call(tmp_path):
    catalogue = Catalogue(tmp_path)
    assert catalogue.models() == []
    add(tmp_path, "owl", extras={"display_name": "Owl", "stop": ["THE END"], "genre": "birds"})
    (info,) = catalogue.models()
    assert (info.name, info.display_name, info.genre, info.stop) == (
        *("owl", "Owl", "birds"),
        ("THE END",),
    )
    assert (info.block_size, info.n_layer, info.n_embd, info.vocab_size) == (64, 2, 8, 100)


def looks():
    """The threads that look for models."""
    return [thread for thread in threading.enumerate() if thread.name == "catalogue"]


def test_who_must_not_wait_is_given_what_was_found_last(tmp_path, monkeypatch):
    """A disk that does not answer stopped the page at every message."""
    monkeypatch.setattr(catalogue_module, "LOOK_EVERY", 0)
    add(tmp_path, "owl")
    add(tmp_path, "ant")
    kept = Kept(Catalogue(tmp_path))
    assert [info.name for info in kept.models()] == ["ant", "owl"]
    config = tmp_path / "ant" / "config.json"
    config.unlink()
    os.mkfifo(config)
    for _ in range(3):
        assert [info.name for info in kept.models()] == ["ant", "owl"]
    (look,) = looks()  # no two at once
    config.write_text("{")  # now it answers
    look.join()
    config.unlink()
    add(tmp_path, "bee")
    kept.models()
    for look in looks():
        look.join()
    assert [info.name for info in kept.models()] == ["bee", "owl"]
    assert kept.get("bee").n_layer == 2


def test_models_are_listed_by_name_and_the_first_one_first(tmp_path):
    for name in ("owl", "ant", "bee"):
        add(tmp_path, name)
    for first, order in (("bee", "bee ant owl"), ("", "ant bee owl"), ("cat", "ant bee owl")):
        assert " ".join(i.name for i in Catalogue(tmp_path, first).models()) == order


def test_what_is_no_model_is_passed_over(tmp_path):
    add(tmp_path, "good")
    add(tmp_path, "no-sizes", config={"n_layer": 2})
    add(tmp_path, "null-sizes", config=dict.fromkeys(CONFIG))
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    (tmp_path / "infinite").mkdir()
    (tmp_path / "infinite" / "config.json").write_text(json.dumps(CONFIG).replace("64", "1e999"))
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "config.json").write_text("[" * 100_000)
    (tmp_path / "README.md").write_text("models")
    assert [info.name for info in Catalogue(tmp_path).models()] == ["good"]


@pytest.mark.parametrize(
    "extras", [[], "owl", {"opening_lines": 3, "stop": "x", "suggested": 1}, {"genre": ["a"]}]
)
def test_extras_of_the_wrong_kind_count_as_none(tmp_path, extras):
    add(tmp_path, "owl", extras=extras)
    (info,) = Catalogue(tmp_path).models()
    assert (info.display_name, info.genre, info.stop, info.suggested) == ("owl", "", (), {})


def test_a_suggestion_that_is_no_parameter_is_left_out(tmp_path):
    add(tmp_path, "owl", extras={"suggested": {"top_k": 7, "mood": "dark"}})
    assert Catalogue(tmp_path).get("owl").suggested == {"top_k": 7}


def test_an_unknown_name_is_answered_with_those_there_are(tmp_path):
    add(tmp_path, "owl")
    with pytest.raises(ModelNotFoundError, match=r"no model 'fox' .* Models there: owl"):
        Catalogue(tmp_path).get("fox")
    with pytest.raises(ModelNotFoundError, match=r"none; train one with"):
        Catalogue(tmp_path / "nowhere").get("fox")


def test_a_model_with_an_owner_is_open_to_no_other(tmp_path):
    add(tmp_path, "mine", extras={"owner": "1d"})
    add(tmp_path, "ours", extras={"owner": ""})
    add(tmp_path, "yours", extras={"owner": "1D"})
    models = Catalogue(tmp_path).models()
    assert [info.name for info in open_to("1d", models)] == ["mine", "ours"]
    assert [info.name for info in open_to("", models)] == ["ours"]
