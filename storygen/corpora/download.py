"""Files from public repositories, one at a time: resumed, retried, checked.

Whatever is fetched lies under one folder by repository and path, with its SHA-256 in a list that
`sha256sum -c` reads too. What the list has is not asked for again; what comes back different from
what the list says is an error, because a corpus should not change unnoticed.
"""

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import httpx

from storygen.errors import TrainError
from storygen.files import SUMS, sha256

RAW = "https://raw.githubusercontent.com"
API = "https://api.github.com"
USER_AGENT = "storygen-corpora/0.1 (one request at a time)"
PAUSE = 0.5  # seconds after each request
ATTEMPTS = 6  # waiting 2, 4, 8, 16 and 32 seconds in between, or as long as the server says
LONGEST_WAIT = 600.0
LARGEST_FILE = 100_000_000
LISTING = ".listing.json"


class NotThereError(TrainError):
    """The server has no such file."""


class Downloader:
    """Fetches files of GitHub repositories into a folder."""

    def __init__(
        self,
        folder: Path,
        *,
        raw: str = RAW,
        api: str = API,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._folder, self._raw, self._api, self._sleep = folder, raw, api, sleep
        self._sums = _read_sums(folder / SUMS)
        self._client = httpx.Client(
            # Ranges count the bytes that are sent, so these must be the file's own.
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=httpx.Timeout(30.0),
            follow_redirects=True,
        )

    def __enter__(self) -> "Downloader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def file(self, repository: str, path: str) -> Path:
        """A repository's file as it is at the head of its main branch."""
        url = f"{self._raw}/{quote(repository)}/HEAD/{quote(path)}"
        return self._fetched(url, _inside(self._folder, f"{repository}/{path}"))

    def listing(self, repository: str) -> Path:
        """The names of all files of a repository, as GitHub's JSON."""
        url = f"{self._api}/repos/{quote(repository)}/git/trees/HEAD?recursive=1"
        return self._fetched(url, _inside(self._folder, f"{repository}/{LISTING}"))

    def _fetched(self, url: str, target: Path) -> Path:
        name = target.relative_to(self._folder).as_posix()
        known = self._sums.get(name)
        if target.is_file() and known == sha256(target):
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f"{target.name}.part")
        self._download(url, part)
        digest = sha256(part)
        if known is not None and digest != known:
            part.unlink()
            raise TrainError(
                f"{url} is not what it was when it was first downloaded. To take it as it is now, "
                f"delete the line of {name} in {self._folder / SUMS}."
            )
        part.rename(target)
        _tag(part).unlink(missing_ok=True)
        if known is None:
            self._sums[name] = digest
            with (self._folder / SUMS).open("a", encoding="utf-8") as sums:
                sums.write(f"{digest}  {name}\n")
        return target

    def _download(self, url: str, part: Path) -> None:
        """The whole of url in the file `part`, going on with what is there of it."""
        problem = ""
        for attempt in range(ATTEMPTS):
            try:
                wait = self._attempt(url, part)
            except httpx.HTTPError as error:  # refused, timed out, cut off
                wait, problem = 0.0, str(error) or type(error).__name__
            except OSError as error:
                raise TrainError(f"{part} cannot be written: {error.strerror}.") from None
            else:
                if wait is None:
                    self._sleep(PAUSE)
                    return
                problem = "the server is busy"
            if wait > LONGEST_WAIT:
                raise TrainError(f"{url} asks to be left alone for {wait:,.0f} seconds: try later.")
            if attempt + 1 < ATTEMPTS:
                self._sleep(max(wait, 2.0 ** (attempt + 1)))
        raise TrainError(
            f"{url} could not be fetched in {ATTEMPTS} attempts ({problem}): look at the "
            "connection and run the command again, it goes on where it stopped."
        )

    def _attempt(self, url: str, part: Path) -> float | None:
        """One request. None when the file is whole, else the seconds to wait at least."""
        headers = _resume_headers(part)
        with self._client.stream("GET", url, headers=headers) as response:
            status = response.status_code
            if status == 416:  # there is no rest: what we have is of another file
                part.unlink(missing_ok=True)
                return 0.0
            if status == 429 or status >= 500 or (status == 403 and _is_limit(response)):
                return _retry_after(response)
            if status == 404:
                raise NotThereError(f"{url} is not there any more.")
            if status not in (200, 206):
                raise TrainError(f"{url} answers {status}: run the command again later.")
            goes_on = status == 206 and _starts_at(response) == _size(part)
            if status == 206 and not goes_on:
                part.unlink(missing_ok=True)
                return 0.0
            _tag(part).write_text(response.headers.get("ETag", ""), encoding="utf-8")
            self._write(response, part, "ab" if goes_on else "wb")
        return None

    def _write(self, response: httpx.Response, part: Path, mode: str) -> None:
        with part.open(mode) as file:
            for piece in response.iter_bytes():
                file.write(piece)
                if file.tell() > LARGEST_FILE:
                    raise TrainError(f"{response.url} is larger than any book: left alone.")


def _resume_headers(part: Path) -> dict[str, str]:
    """Headers that ask for the rest of a file, if it is still the same one.

    Without a strong ETag nobody could tell, and the file is fetched from its beginning.
    """
    tag = _tag(part).read_text(encoding="utf-8") if _tag(part).is_file() else ""
    if not _size(part) or not tag.startswith('"'):
        return {}
    return {"Range": f"bytes={_size(part)}-", "If-Range": tag}


def _tag(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _starts_at(response: httpx.Response) -> int:
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdecimal() else -1


def _is_limit(response: httpx.Response) -> bool:
    """Whether a refusal means "too many requests", which GitHub's API says with 403."""
    return "Retry-After" in response.headers or response.headers.get("X-RateLimit-Remaining") == "0"


def _retry_after(response: httpx.Response) -> float:
    """Seconds the server asks to wait: a number, a date, or GitHub's own header; else 0."""
    after = response.headers.get("Retry-After", "")
    if after.isdecimal():
        return float(after)
    reset = response.headers.get("X-RateLimit-Reset", "")
    if response.headers.get("X-RateLimit-Remaining") == "0" and reset.isdecimal():
        return max(0.0, float(reset) - time.time())
    try:
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    except ValueError:
        return 0.0


def _inside(folder: Path, name: str) -> Path:
    """folder / name; a name that a server made up must not lead out of the folder."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise TrainError(f"{name!r} is no file name that can be kept.")
    return folder / name


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    lines = (line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines())
    return {name: digest for digest, _, name in lines if name}
