"""Downloads against a server on this machine: whole, resumed, broken, wrong."""

import http.server
import threading
from pathlib import Path

import pytest

from diffreward.data.download import download

CONTENT = bytes(range(256)) * 400


class Server:
    """Serves CONTENT; ``break_at`` cuts that many first answers short."""

    def __init__(self):
        outer = self
        self.requests, self.break_times, self.ranges, self.content = [], 0, True, CONTENT

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(self.headers.get("Range"))
                if self.path != "/data.hdf5":
                    self.send_error(404)
                    return
                start = 0
                if outer.ranges and self.headers.get("Range"):
                    start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                if start and start >= len(outer.content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(outer.content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if outer.break_times:
                    outer.break_times -= 1
                    body = body[: len(body) // 2]
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}/data.hdf5"
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.httpd.shutdown()
    server.httpd.server_close()


def accept(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise ValueError("not the content")


def fetch(server, path, **options):
    return download(server.url, path, check=accept, progress=False, **options)


def test_a_file_arrives_whole(server, tmp_path):
    path = fetch(server, tmp_path / "deep" / "data.hdf5")
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "data.hdf5",
        "data.hdf5.sha256",
    ]


def test_a_broken_connection_is_taken_up_again(server, tmp_path):
    server.break_times = 2
    assert fetch(server, tmp_path / "data.hdf5").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=51200-", "bytes=76800-"]


def test_a_later_call_continues_an_earlier_one(server, tmp_path):
    server.break_times = 1
    path = tmp_path / "data.hdf5"
    with pytest.raises(ConnectionError, match=r"broke off after 51,200 of 102,400.*again"):
        fetch(server, path, attempts=1)
    assert not path.exists()
    assert fetch(server, path, attempts=1).read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=51200-"


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.break_times, server.ranges = 1, False
    assert fetch(server, tmp_path / "data.hdf5").read_bytes() == CONTENT


def test_a_partial_file_that_is_whole_needs_no_bytes(server, tmp_path):
    (tmp_path / "data.hdf5.partial").write_bytes(CONTENT)
    assert fetch(server, tmp_path / "data.hdf5").read_bytes() == CONTENT


def test_wrong_content_is_refused_and_deleted(server, tmp_path):
    server.content = b"<html>not the file</html>"
    with pytest.raises(ValueError, match="not the content; the copy was deleted"):
        fetch(server, tmp_path / "data.hdf5")
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_servers_are_said_in_one_line(server, tmp_path):
    with pytest.raises(ConnectionError, match="404") as caught:
        download(server.url + "x", tmp_path / "a", check=accept, progress=False)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConnectionError, match=r"refused.*put the file at .*/a yourself"):
        download("http://127.0.0.1:9/x", tmp_path / "a", check=accept, progress=False)
