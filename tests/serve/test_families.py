"""A base and its adapters are served together, and each part of the catalogue knows its own."""

import json

import pytest

from storygen.catalogue import Catalogue
from storygen.errors import ModelNotFoundError
from storygen.serve.families import Part, base_name, families


@pytest.fixture
def weights(tmp_path):
    """Two bases, two adapters over the first, and a folder that is no model."""
    sizes = {"n_positions": 64, "n_layer": 1, "n_embd": 8, "vocab_size": 16}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(sizes))
    for name in ("a-voice", "voice"):
        (tmp_path / name).mkdir()
        config = {"base_model_name_or_path": "../one"}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_adapters_are_served_with_their_base(weights):
    found = families(Catalogue(weights).models())
    assert found == {"one": ("a-voice", "one", "voice"), "two": ("two",)}


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"base_model_name_or_path": 1}', "\xff"])
def test_an_adapter_that_cannot_be_read_is_alone(tmp_path, text):
    (tmp_path / "adapter_config.json").write_bytes(text.encode("latin-1"))
    assert base_name(tmp_path) == tmp_path.name


def test_a_part_knows_its_own_models_alone(weights):
    part = Part(weights, ("two", "voice", "gone"), first="voice")
    assert [info.name for info in part.models()] == ["voice", "two"]
    with pytest.raises(ModelNotFoundError, match="'one'"):
        part.get("one")
