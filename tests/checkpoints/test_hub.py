"""Models from a hub: a stand-in server on loopback, and none."""

import hashlib
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from storygen.checkpoints import load, save
from storygen.checkpoints.hub import fetch, fetch_any
from storygen.checkpoints.importers import Asked, import_model
from storygen.errors import CheckpointError

COMMIT = "a" * 40


@pytest.fixture
def hub(tmp_path, tiny_model, tiny_tokenizer, monkeypatch):
    """Address of a server that answers as the hub does for one model, owner/tiny."""
    served = tmp_path / "served"
    save(served, tiny_model, tiny_tokenizer)
    (served / "pytorch_model.bin").write_bytes(b"a pickle")
    names = sorted(path.name for path in served.iterdir())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(send=False)

        def do_GET(self):
            self.answer(send=True)

        def answer(self, send):
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/owner/tiny/tree/"):
                files = [
                    {
                        "type": "file",
                        "path": n,
                        "size": (served / n).stat().st_size,
                        "oid": hashlib.sha1((served / n).read_bytes()).hexdigest(),
                    }
                    for n in names
                ]
                body = json.dumps(files).encode()
            elif path.startswith("/api/models/owner/tiny"):
                siblings = [{"rfilename": n} for n in names]
                body = json.dumps(
                    {"id": "owner/tiny", "sha": COMMIT, "siblings": siblings}
                ).encode()
            elif path.startswith("/owner/tiny/resolve/"):
                body = (served / path.rpartition("/")[2]).read_bytes()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if send:
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_comes_from_the_hub_without_its_pickle(hub, tiny_tokenizer):
    directory = fetch("owner/tiny", endpoint=hub)
    assert load(directory)[1].vocab == tiny_tokenizer.vocab
    assert not (directory / "pytorch_model.bin").exists()


def test_the_importer_takes_a_pickle_only_where_there_is_nothing_else(hub):
    assert not (fetch_any("owner/tiny", endpoint=hub) / "pytorch_model.bin").exists()


def test_a_model_of_the_hub_is_imported_in_one_command(hub, tmp_path, tiny_tokenizer):
    fetching = partial(fetch_any, endpoint=hub)
    import_model("hf:owner/tiny", "tiny", tmp_path / "weights", Asked(), fetching)
    assert load(tmp_path / "weights" / "tiny")[1].vocab == tiny_tokenizer.vocab
    card = (tmp_path / "weights" / "tiny" / "README.md").read_text()
    assert "Imported from `hf:owner/tiny`" in card


def test_a_model_the_hub_lacks_is_a_sentence(hub):
    with pytest.raises(CheckpointError, match="'owner/other' is no directory here, and could not"):
        fetch("owner/other", endpoint=hub)


def test_a_hub_that_does_not_answer_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CheckpointError, match="could not be had from the hub"):
        fetch("owner/tiny", endpoint="http://127.0.0.1:9")
