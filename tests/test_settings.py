"""Settings: defaults that work untouched, and a sentence for every value that cannot."""

from pathlib import Path

import pytest

from storygen.errors import SettingsError
from storygen.settings import ROOT, Settings, load_settings


@pytest.fixture(autouse=True)
def no_dotenv(monkeypatch, tmp_path):
    """A developer's own .env is not what is tested here."""
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    return tmp_path / ".env"


def test_defaults_keep_to_this_machine_and_this_folder():
    settings = load_settings()
    assert settings.host == "127.0.0.1"
    assert not settings.allow_exposed
    assert settings.store_url == f"sqlite+aiosqlite:///{ROOT / '.storygen' / 'stories.db'}"


def test_the_environment_wins_over_the_file(monkeypatch, no_dotenv):
    no_dotenv.write_text("STORYGEN_PORT=9000\nSTORYGEN_SLOTS=2\n")
    monkeypatch.setenv("STORYGEN_PORT", "9001")
    settings = load_settings()
    assert (settings.port, settings.slots) == (9001, 2)


def test_a_relative_place_is_the_same_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("STORYGEN_DATA_DIR", "mine")
    monkeypatch.chdir(tmp_path)
    assert load_settings().data_dir == ROOT / "mine"
    monkeypatch.setenv("STORYGEN_DATA_DIR", "~/stories")
    assert load_settings().data_dir == Path.home() / "stories"


def test_data_and_database_can_lie_elsewhere(monkeypatch):
    monkeypatch.setenv("STORYGEN_DATA_DIR", "/data")
    assert load_settings().store_url == "sqlite+aiosqlite:////data/stories.db"
    monkeypatch.setenv("STORYGEN_DATABASE_URL", "postgresql+asyncpg://db/stories")
    settings = load_settings()
    assert settings.store_url == "postgresql+asyncpg://db/stories"
    assert settings.data_dir == Path("/data")


def test_origins_are_separated_by_commas(monkeypatch):
    assert load_settings().allow_origins == ()
    monkeypatch.setenv("STORYGEN_ALLOW_ORIGINS", "https://a.example, http://b.example:81/")
    assert load_settings().allow_origins == ("https://a.example", "http://b.example:81")


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("PORT", "0", "greater than or equal to 1"),
        ("PORT", "many", "valid integer"),
        ("SLOTS", "1000000", "less than or equal to 256"),
        ("DEVICE", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("DTYPE", "int3", "'auto'"),
        ("DATA_DIR", "/what?", "question mark"),
        ("HOST", "example.org", "IPv4 or IPv6 address"),
        ("AUTH", "oauth", "'none', 'password' or 'proxy'"),
        ("PROXY_HEADER", "Remote User", "match pattern"),
        ("TRUSTED_PROXIES", "my-proxy", "IPv4 or IPv6"),
        ("ALLOW_ORIGINS", "*", "no origin such as"),
        ("ALLOW_ORIGINS", "stories.example", "no origin such as"),
        ("ALLOW_EXPOSED", "perhaps", "boolean"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_rule(monkeypatch, key, value, rule):
    monkeypatch.setenv(f"STORYGEN_{key}", value)
    with pytest.raises(SettingsError, match=rf"^STORYGEN_{key}=") as caught:
        load_settings()
    assert rule in str(caught.value)
    assert value in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistyped_key_is_named_with_its_likeness(no_dotenv, monkeypatch):
    no_dotenv.write_text("STORYGEN_PROT=9000\n")
    with pytest.raises(SettingsError, match=r"^STORYGEN_PROT is no .* did you mean STORYGEN_PORT"):
        load_settings()
    no_dotenv.unlink()
    monkeypatch.setenv("STORYGEN_FAVOURITE_COLOUR", "teal")
    with pytest.raises(SettingsError, match=r"STORYGEN_FAVOURITE_COLOUR .* see \.env\.example"):
        load_settings()


def test_keys_of_others_in_the_file_are_left_alone(no_dotenv):
    no_dotenv.write_text("CHAINLIT_URL=https://stories.example\nFOO=1\nSTORYGEN_PORT=9000\n")
    assert load_settings().port == 9000
