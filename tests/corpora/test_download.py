"""Downloads go on where they were cut, wait when asked to, and never change unnoticed.

Against a server on loopback that misbehaves as it is told to.
"""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from storygen.corpora import download
from storygen.corpora.download import PAUSE, USER_AGENT, Downloader, NotThereError
from storygen.errors import TrainError
from storygen.files import SUMS

BOOK = bytes(range(256)) * 400


class Server(ThreadingHTTPServer):
    """Serves `files`; before that, each request takes one line of `script`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.script, self.requests = {}, [], []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((unquote(self.path), dict(self.headers)))
        status, headers, cut = server.script.pop(0) if server.script else (200, {}, None)
        content = server.files.get(unquote(self.path).removeprefix("/"))
        if status == 200 and content is None:
            status = 404
        if status != 200:
            self.answer(status, headers | {"Content-Length": "0"}, b"")
            return
        tag = headers.get("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        start = self.start(tag)
        headers = {"ETag": tag, "Content-Length": str(len(content) - start)} | headers
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.answer(206 if start else 200, headers, content[start:][:cut])

    def start(self, tag):
        asked = self.headers.get("Range")
        return int(asked[6:-1]) if asked and self.headers.get("If-Range") == tag else 0

    def answer(self, status, headers, content):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.files["o/books/HEAD/A b/One: two.md"] = BOOK
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def naps():
    return []


@pytest.fixture
def get(server, naps, tmp_path):
    def get(path="A b/One: two.md"):
        with Downloader(tmp_path, raw=server.url, api=server.url, sleep=naps.append) as downloader:
            return downloader.file("o/books", path)

    return get


CUT = (200, {}, 30_000)


def test_a_file_lies_by_repository_and_path_with_its_hash(get, server, naps, tmp_path):
    path = get()
    assert path == tmp_path / "o/books/A b/One: two.md"
    assert path.read_bytes() == BOOK
    digest = hashlib.sha256(BOOK).hexdigest()
    assert (tmp_path / SUMS).read_text() == f"{digest}  o/books/A b/One: two.md\n"
    assert server.requests[0][1]["User-Agent"] == USER_AGENT
    assert naps == [PAUSE]


def test_what_is_there_is_not_asked_for_again(get, server):
    assert get() == get()
    assert len(server.requests) == 1


def test_a_cut_connection_is_taken_up_where_it_broke(get, server, naps):
    server.script = [CUT, CUT]
    assert get().read_bytes() == BOOK
    ranges = [headers.get("Range") for _, headers in server.requests]
    assert ranges == [None, "bytes=30000-", "bytes=60000-"]
    assert naps == [2, 4, PAUSE]


def test_another_run_takes_up_what_a_killed_one_left(get, server):
    server.script = [CUT] * download.ATTEMPTS
    server.files["o/books/HEAD/A b/One: two.md"] = BOOK * 3
    with pytest.raises(TrainError, match="goes on where it stopped"):
        get()
    assert get().read_bytes() == BOOK * 3
    assert server.requests[-1][1]["Range"] == f"bytes={30_000 * download.ATTEMPTS}-"


def test_a_file_that_changed_meanwhile_is_fetched_whole(get, server):
    server.script = [CUT] * download.ATTEMPTS
    server.files["o/books/HEAD/A b/One: two.md"] = BOOK * 3
    with pytest.raises(TrainError):
        get()
    server.files["o/books/HEAD/A b/One: two.md"] = b"A new edition."
    assert get().read_bytes() == b"A new edition."


def test_without_a_strong_tag_nothing_is_joined(get, server):
    server.script = [(200, {"ETag": 'W/"x"'}, 30_000)]
    assert get().read_bytes() == BOOK
    assert "Range" not in server.requests[1][1]


def test_a_rest_that_is_none_begins_again(get, server):
    server.script = [CUT, (416, {}, None)]
    assert get().read_bytes() == BOOK
    assert "Range" not in server.requests[2][1]


def test_a_change_since_the_first_download_is_told(get, server, tmp_path):
    get().unlink()
    server.files["o/books/HEAD/A b/One: two.md"] = b"Other"
    with pytest.raises(TrainError, match="is not what it was when it was first downloaded"):
        get()
    assert [p.name for p in (tmp_path / "o/books/A b").iterdir() if p.suffix == ".md"] == []
    (tmp_path / SUMS).write_text("")
    assert get().read_bytes() == b"Other"


def test_a_damaged_copy_is_fetched_again(get):
    get().write_bytes(b"damaged")
    assert get().read_bytes() == BOOK


def test_a_busy_server_is_waited_for_as_long_as_it_says(get, server, naps):
    server.script = [
        (429, {"Retry-After": "7"}, None),
        (503, {}, None),
        (403, {"Retry-After": "90"}, None),
    ]
    assert get().read_bytes() == BOOK
    assert naps == [7, 4, 90, PAUSE]


def test_hours_are_not_waited_for(get, server, naps):
    server.script = [(429, {"Retry-After": "7200"}, None)]
    with pytest.raises(TrainError, match="left alone for 7,200 seconds"):
        get()
    assert naps == []


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [(404, NotThereError, "not there any more"), (403, TrainError, "answers 403")],
)
def test_a_refusal_is_final_at_once(get, server, status, kind, sentence):
    server.script = [(status, {}, None)]
    with pytest.raises(kind, match=sentence):
        get()
    assert len(server.requests) == 1


def test_no_server_is_one_sentence(tmp_path, naps):
    with Downloader(tmp_path, raw="http://127.0.0.1:9", sleep=naps.append) as downloader:
        with pytest.raises(TrainError, match="could not be fetched in 6 attempts"):
            downloader.file("o/books", "x.md")
    assert naps == [2, 4, 8, 16, 32]


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a//b", "./a"])
def test_no_name_leads_out_of_the_folder(get, server, path):
    with pytest.raises(TrainError, match="no file name that can be kept"):
        get(path)
    assert server.requests == []


def test_more_than_any_book_is_left_alone(get, monkeypatch):
    monkeypatch.setattr(download, "LARGEST_FILE", 1_000)
    with pytest.raises(TrainError, match="larger than any book"):
        get()
