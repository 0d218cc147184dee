"""Guards, one by one; tests/protocol tries them on the running page."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from storygen.chat import guards
from storygen.errors import SettingsError, StoryError
from storygen.hosts import LOOPBACK

ID = "6fd6ba3c-5bb5-4cbf-9d1b-6fd8bb6b22f5"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_no_consent(host: str) -> None:
    guards.require_loopback(host, allow_exposed=False)
    assert guards.allowed_hosts(host, []) == LOOPBACK | {host}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_anything_else_needs_consent(host: str) -> None:
    with pytest.raises(SettingsError, match="STORYGEN_ALLOW_EXPOSED"):
        guards.require_loopback(host, allow_exposed=False)
    guards.require_loopback(host, allow_exposed=True)


@pytest.mark.parametrize(
    ("header", "proxies", "missing"),
    [("", ("10.0.0.1/32",), "PROXY_HEADER"), ("Remote-User", (), "TRUSTED_PROXIES")],
)
def test_a_proxy_that_anybody_could_be_is_refused(
    header: str, proxies: tuple[str, ...], missing: str
) -> None:
    with pytest.raises(SettingsError, match=f"STORYGEN_{missing}"):
        guards.require_known_proxies(header, proxies)
    guards.require_known_proxies("Remote-User", ("10.0.0.1/32",))


@pytest.mark.parametrize("secret", ["", "secret", "x" * 48, "0123456789" * 3])
def test_a_key_that_could_be_guessed_is_refused_and_not_said_again(secret: str) -> None:
    with pytest.raises(SettingsError, match="CHAINLIT_AUTH_SECRET") as refused:
        guards.require_long_secret(secret)
    assert not secret or secret not in str(refused.value)
    guards.require_long_secret(None)
    guards.require_long_secret("kTq3vJ8xZr0LwPn5sYbD1fGhC7mEaU2o")


@pytest.mark.parametrize(
    ("host", "any_address", "status"),
    [
        ("127.0.0.1:8000", False, 200),
        ("evil.example:8000", False, 403),
        ("evil.example:8000", True, 403),  # rebound to this machine's address
        ("192.168.0.7:8000", True, 200),
        ("[fe80::1]:8000", True, 200),
        ("192.168.0.7:8000", False, 403),
        ("write.example.org", True, 200),
        ("[", True, 403),
        ("", True, 403),
    ],
)
async def test_a_host_is_a_known_name_or_an_address(
    host: str, any_address: bool, status: int
) -> None:
    hosts = guards.allowed_hosts("0.0.0.0", ["https://write.example.org"])
    guard = guards.Guard(
        PlainTextResponse("page"),
        hosts=hosts,
        any_address=any_address,
        origins=[],
        content_security_policy="",
    )
    transport = httpx.ASGITransport(app=guard)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.get("/", headers={"host": host})
        assert answer.status_code == status
        foreign = {"host": host, "origin": "http://["}
        assert (await client.get("/", headers=foreign)).status_code == 403


def test_allowed_origins_bring_their_hosts() -> None:
    hosts = guards.allowed_hosts("127.0.0.1", ["https://write.example.org:8443"])
    assert hosts == LOOPBACK | {"write.example.org"}


def test_secret_is_made_once_and_private(tmp_path: Path) -> None:
    first = guards.secret(tmp_path)
    assert guards.secret(tmp_path) == first
    assert len(first) >= 48
    assert (tmp_path / "auth_secret").stat().st_mode & 0o777 == 0o600


def test_secret_cut_off_while_it_was_written_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "auth_secret").write_text("abc")
    assert len(guards.secret(tmp_path)) >= 48


def test_data_directory_is_made_for_its_user_alone(tmp_path: Path) -> None:
    data = guards.writable(tmp_path / "new" / "data")
    assert data.stat().st_mode & 0o777 == 0o700
    assert list(data.iterdir()) == []


def test_data_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="STORYGEN_DATA_DIR"):
        guards.writable(tmp_path / "file")


def features(**opened: Any) -> SimpleNamespace:
    """Chainlit's features, closed but for those given."""
    closed: dict[str, Any] = {
        "unsafe_allow_html": False,
        "allow_thread_sharing": False,
        "mcp": SimpleNamespace(enabled=False, user_servers=SimpleNamespace(enabled=False)),
        "spontaneous_file_upload": SimpleNamespace(enabled=False),
    }
    return SimpleNamespace(**closed | opened)


def test_shipped_config_is_closed(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "copy"):
        guards.require_closed_config(features(), place, tmp_path)


@pytest.mark.parametrize(
    "opened",
    [
        {"unsafe_allow_html": True},
        {"allow_thread_sharing": True},
        {"spontaneous_file_upload": None},  # Chainlit then takes any file of any size
        {"spontaneous_file_upload": SimpleNamespace(enabled=True)},
        {"mcp": SimpleNamespace(enabled=True, user_servers=SimpleNamespace(enabled=False))},
    ],
)
def test_opened_config_is_refused(opened: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"{tmp_path}/.chainlit/config.toml.* set it to false"):
        guards.require_closed_config(features(**opened), tmp_path, tmp_path)


def test_config_of_another_directory_is_refused_with_the_one_to_start_in(tmp_path: Path) -> None:
    here, ours = tmp_path / "here", tmp_path / "storygen"
    with pytest.raises(SettingsError, match=f"{here}/.chainlit.* start storygen in {ours},"):
        guards.require_closed_config(features(unsafe_allow_html=True), here, ours)


@given(st.one_of(st.none(), st.text(), st.integers(), st.dictionaries(st.text(), st.text())))
def test_socket_without_identities_is_refused(auth: object) -> None:
    with pytest.raises(ConnectionRefusedError):
        guards.require_identities(auth)


@pytest.mark.parametrize(
    "claims", [{"threadId": "x' OR '1'='1"}, {"sessionId": "../public"}, {"clientType": "slack"}]
)
def test_socket_with_one_false_claim_is_refused(claims: dict[str, str]) -> None:
    known = {"sessionId": str(uuid4()), "clientType": "webapp", "threadId": str(uuid4())}
    with pytest.raises(ConnectionRefusedError):
        guards.require_identities(known | claims)


def test_socket_with_identities_is_taken() -> None:
    known = {"sessionId": str(uuid4()), "clientType": "webapp"}
    for story_id in ("", None, str(uuid4())):
        guards.require_identities(known | {"threadId": story_id})


@pytest.mark.parametrize("value", ["{" + ID + "}", ID.replace("-", ""), ID.upper(), 7])
def test_uuid_in_another_form_is_none(value: object) -> None:
    assert not guards.is_uuid(value)


def test_of_a_message_only_id_text_and_command_are_taken() -> None:
    message_id = str(uuid4())
    message = {"id": message_id, "output": "\u2060  Fog.", "command": "retry", "type": "run"}
    written = guards.written_message({"message": message})
    assert written == guards.Written(message_id, "  Fog.", "retry")
    assert guards.written_message({"message": message | {"command": {"x": 1}}}).command == ""


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        {},
        {"message": None},
        {"message": {"id": "x", "output": "Fog."}},
        {"message": {"id": str(uuid4())}},
        {"message": {"id": str(uuid4()), "output": 7}},
        {"message": {"id": str(uuid4()), "output": "x" * 1_000_001}},
    ],
)
def test_message_that_cannot_be_taken_is_refused_in_a_sentence(payload: object) -> None:
    with pytest.raises(StoryError, match=r"nothing was added|not added"):
        guards.written_message(payload)


def test_longest_message_is_taken() -> None:
    text = "x" * 1_000_000
    payload = {"message": {"id": str(uuid4()), "output": text}}
    assert guards.written_message(payload).text == text
