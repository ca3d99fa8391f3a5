"""Downloads from a server on loopback that cuts, lies, and serves ranges or not; hostile zips."""

import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tasks.corpus import downloads
from tasks.corpus.downloads import Remote, fetch, is_remote, remote
from tasks.errors import InputError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """What it serves and how it misbehaves."""

    content = CONTENT
    tag = '"one"'
    ranges = True
    cuts: list[int]
    """Bytes after which the connection breaks, request by request."""
    claims: int | None = None
    """The length that it says, if not the true one."""
    statuses: list[int]
    shifted = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cuts, self.statuses, self.asked = [], [], []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append({k.lower(): v for k, v in self.headers.items()})
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        asked = server.asked[-1]
        if asked.get("if-none-match") == server.tag:
            self.send_response(304)
            self.end_headers()
            return
        start = 0
        if server.ranges and "range" in asked and asked.get("if-range") == server.tag:
            start = int(asked["range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            last = len(server.content) - 1
            self.send_header("Content-Range", f"bytes {start + server.shifted}-{last}/*")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("ETag", server.tag)
        length = len(body) if server.claims is None else server.claims
        self.send_header("Content-Length", str(length))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else len(body)
        self.wfile.write(body[:cut])
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("TAI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(downloads, "WAIT_S", 0.0)
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_cut_download_goes_on(server: Server, ranges: bool) -> None:
    server.ranges = ranges
    server.cuts = [300_000, 500_000, 100_000] if ranges else [300_000, 500_000]
    file = fetch(Remote(server.url("a.bin"), size=len(CONTENT), sha256=SHA256))
    assert file.name == "a.bin"
    assert file.read_bytes() == CONTENT
    starts = [asked.get("range") for asked in server.asked]
    assert starts[:2] == [None, "bytes=300000-"]
    if ranges:
        assert starts[2:] == ["bytes=800000-", "bytes=900000-"]
    # whole and of a known checksum: the server is not asked again
    asked = len(server.asked)
    assert fetch(Remote(server.url("a.bin"), sha256=SHA256)) == file
    assert len(server.asked) == asked


def test_what_came_before_is_kept_for_the_next_run(server: Server) -> None:
    server.cuts = [100_000] + [0] * downloads.TRIES
    with pytest.raises(InputError, match="run again to go on"):
        fetch(Remote(server.url("a.bin")))
    assert fetch(Remote(server.url("a.bin"))).read_bytes() == CONTENT
    assert server.asked[-1]["range"] == "bytes=100000-"


def test_another_content_is_not_glued_to_the_old(server: Server) -> None:
    server.cuts = [100_000] + [0] * downloads.TRIES
    with pytest.raises(InputError):
        fetch(Remote(server.url("a.bin")))
    server.tag, server.content = '"two"', CONTENT[::-1]
    assert fetch(Remote(server.url("a.bin"))).read_bytes() == CONTENT[::-1]


def test_a_range_that_was_not_asked_for_is_not_taken(server: Server) -> None:
    server.cuts, server.shifted = [100_000], 7
    assert fetch(Remote(server.url("a.bin"))).read_bytes() == CONTENT


def test_a_changed_file_comes_anew_and_an_unchanged_one_does_not(server: Server) -> None:
    file = fetch(Remote(server.url("a.bin")))
    assert fetch(Remote(server.url("a.bin"))) == file
    assert server.asked[-1]["if-none-match"] == '"one"'
    server.tag, server.content = '"two"', b"new"
    assert fetch(Remote(server.url("a.bin"))).read_bytes() == b"new"
    # a server that is gone: the copy here will do
    server.statuses = [503] * 20
    assert fetch(Remote(server.url("a.bin"))).read_bytes() == b"new"


@pytest.mark.parametrize("claims", [len(CONTENT) + 1, 10])
def test_a_false_length_is_found_out(server: Server, claims: int) -> None:
    server.claims = claims
    with pytest.raises(InputError, match=r"expected 1,024,000|bytes came|tries"):
        fetch(Remote(server.url("a.bin"), size=len(CONTENT), sha256=SHA256))


def test_wrong_sizes_checksums_and_answers(server: Server) -> None:
    with pytest.raises(InputError, match=r"1,024,000 bytes there; expected 5"):
        fetch(Remote(server.url("a.bin"), size=5))
    with pytest.raises(InputError, match=r"SHA-256 .*expected 00.*refused"):
        fetch(Remote(server.url("b.bin"), sha256="00"))
    server.statuses = [404]
    with pytest.raises(InputError, match="answers 404"):
        fetch(Remote(server.url("c.bin")))
    server.statuses = [503, 429]
    assert fetch(Remote(server.url("d.bin"))).read_bytes() == CONTENT


def test_an_official_file_must_stay_what_it_was(server: Server) -> None:
    wanted = Remote(server.url("a.bin"), is_official=True)
    file = fetch(wanted)
    assert fetch(wanted) == file
    file.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(InputError, match=f"expected {SHA256}"):
        fetch(wanted)


def test_members_of_zips(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("annotations/captions_x.json", b"{}")
        packed.writestr("bomb", bytes(20_000_000))
    server.content = path.read_bytes()
    file = fetch(remote(server.url("a.zip") + "#annotations/captions_x.json"))
    assert (file.name, file.read_bytes()) == ("captions_x.json", b"{}")
    for member, message in (
        ("nothing", "no member 'nothing'; there are annotations/captions_x.json"),
        ("../x", "inside the archive"),
        ("/etc/passwd", "inside the archive"),
        ("bomb", "unpacks to 20,000,000 bytes"),
    ):
        with pytest.raises(InputError, match=message):
            fetch(Remote(server.url("a.zip"), member))
    server.tag, server.content = '"cut"', server.content[:-30]
    with pytest.raises(InputError, match="no whole zip file"):
        fetch(Remote(server.url("a.zip"), "bomb"))


def test_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_remote("https://x/y.json")
    assert not is_remote("annotations/captions_*.json")
    with pytest.raises(InputError, match="expected one of coco2014"):
        remote("official:coco2015")
    for url in ("https://x/", "https://x/..", "https://x/a%2f..%2fb", "https://x/%00"):
        with pytest.raises(InputError, match="plain file name"):
            remote(url)
    official = remote("official:coco2017-captions-train")
    assert official.member == "annotations/captions_train2017.json"
    assert official.is_official
    monkeypatch.setenv("TAI_HOME", str(tmp_path))
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/a.jsonl", b"one")
    assert fetch(Remote("memory://bucket/a.jsonl")).read_bytes() == b"one"
    memory.pipe("/bucket/a.jsonl", b"three")
    assert fetch(Remote("memory://bucket/a.jsonl")).read_bytes() == b"three"
    with pytest.raises(InputError, match="cannot be read"):
        fetch(Remote("memory://bucket/b.jsonl"))
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"tai-flows\[s3\]"):
            fetch(remote("s3://bucket/a.jsonl"))
