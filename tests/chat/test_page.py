"""The page's frame: its own files, nothing from elsewhere, settings that Chainlit knows."""

import base64
import hashlib
import json
import re
import tomllib
from pathlib import Path

import httpx
import pytest
from chainlit import config as chainlits
from chainlit.server import app, router
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from storygen.chat import guards, page
from storygen.chat.doors import LocalDoor
from storygen.errors import DatabaseError

ROOT = Path(__file__).resolve().parents[2]
HTML = """<head><link rel="preconnect" href="https://fonts.example/" crossorigin />
<link
  rel="stylesheet"
  href="https://cdn.example/katex.min.css"
/>
<meta property="og:url" content="https://github.example/">
<link rel="icon" href="/favicon" /><script>const a = 1;</script>
<script src="/assets/x.js"></script></head>"""


def test_page_loses_what_points_elsewhere_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "get_html_template", lambda root: HTML)
    html = page.local_html()
    assert "https://" not in html
    assert '<link rel="icon" href="/favicon" />' in html
    assert '<script src="/assets/x.js">' in html


def test_only_scripts_inside_the_page_are_named_by_their_hash() -> None:
    digest = base64.b64encode(hashlib.sha256(b"const a = 1;").digest()).decode()
    assert page.script_hashes(HTML) == [f"sha256-{digest}"]
    assert f"'sha256-{digest}'" in guards.content_security_policy(page.script_hashes(HTML))


def test_only_routes_the_page_needs_are_kept() -> None:
    kept = guards.needed_routes(app, router)
    found = {
        (method, route.path)
        for route in kept
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert guards.ROUTES <= found  # Chainlit still has all we name
    assert found - guards.ROUTES <= {("HEAD", path) for _, path in guards.ROUTES}
    assert [route.path for route in kept if isinstance(route, Mount)] == [guards.SOCKET_PATH]


def test_config_has_no_key_that_chainlit_would_ignore() -> None:
    config = tomllib.loads((ROOT / ".chainlit" / "config.toml").read_text(encoding="utf-8"))
    assert set(config["project"]) <= set(chainlits.ProjectSettings.model_fields)
    assert set(config["UI"]) <= set(chainlits.UISettings.model_fields)
    features = config["features"]
    assert set(features) <= set(chainlits.FeaturesSettings.model_fields)
    upload = chainlits.SpontaneousFileUploadFeature.model_fields
    assert set(features["spontaneous_file_upload"]) <= set(upload)
    guards.require_closed_config(chainlits.FeaturesSettings(**features), ROOT, ROOT)


def test_translation_says_all_that_chainlit_says() -> None:
    def keys(tree: dict[str, object], path: str = "") -> set[str]:
        return {
            key
            for name, value in tree.items()
            for key in (keys(value, f"{path}.{name}") if isinstance(value, dict) else {path + name})
        }

    ours = ROOT / ".chainlit" / "translations" / "en-US.json"
    theirs = Path(chainlits.TRANSLATIONS_DIR) / "en-US.json"
    assert keys(json.loads(ours.read_text())) == keys(json.loads(theirs.read_text()))


def test_both_themes_name_the_same_colours_and_no_font_from_elsewhere() -> None:
    theme = json.loads((ROOT / "public" / "theme.json").read_text(encoding="utf-8"))
    assert theme["custom_fonts"] == []
    assert set(theme["variables"]["light"]) == set(theme["variables"]["dark"])


def test_public_files_point_nowhere_else() -> None:
    for path in filter(Path.is_file, (ROOT / "public").rglob("*")):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), path


async def test_a_database_that_is_away_is_said_where_chainlit_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(request: Request) -> Response:
        raise DatabaseError("The story database is too busy to answer. Try again later.")

    monkeypatch.setattr(guards, "needed_routes", lambda *_: [])
    monkeypatch.setattr(page, "local_html", lambda root: HTML)
    page.install(ours := FastAPI(), [], [Route("/project/thread/x", away)], LocalDoor())
    transport = httpx.ASGITransport(ours)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/project/thread/x")
    assert answer.status_code == 503
    assert "too busy" in answer.json()["detail"]
    assert int(answer.headers["retry-after"]) > 0
