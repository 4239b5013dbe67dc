"""What goes over the wire for long shows a bar on a terminal, and nothing elsewhere."""

import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from running import RESNETD

RESULT = b'{"top_k": [{"label": "cat", "probability": 0.9}], "warnings": [], "error": null}'


class Handler(BaseHTTPRequestHandler):
    """Every image is a cat; a model becomes a job."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/models":
            answer = b'{"id": "job_1"}'
        else:
            answer = b'{"results": [' + b", ".join([RESULT] * body.count(b'filename="')) + b"]}"
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def on_a_terminal(url: str, *words: str, piped: bool = False) -> tuple[str, str]:
    """What a command shows on its terminal, and what goes into the pipe that its output is `piped` into."""
    ours, terminal = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # nobody has the terminal any more
                return
            shown.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        ended = subprocess.run(
            [RESNETD, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else terminal,
            stderr=terminal,
            env={**os.environ, "RESNETD_SERVER": url, "TERM": "xterm", "COLUMNS": "200"},
            timeout=120,
            check=False,
        )
    finally:
        os.close(terminal)
        reader.join()
        os.close(ours)
    assert ended.returncode == 0, shown
    return shown.decode(), (ended.stdout or b"").decode()


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    files = [tmp_path / f"{n}.png" for n in range(70)]
    for file in files:
        file.write_bytes(b"an image")
    return [str(file) for file in files]


def test_many_images_show_how_many_are_done_and_their_results_stay(url, pictures):
    shown, _ = on_a_terminal(url, "classify", *pictures)
    assert "Classifying" in shown
    assert "70/70" in shown
    assert shown.count("90.00%") == 70


def test_images_of_one_request_and_output_for_programs_show_no_bar(url, pictures):
    shown, _ = on_a_terminal(url, "classify", *pictures[:3])
    assert (shown.count("cat"), "Classifying" in shown) == (3, False)
    shown, piped = on_a_terminal(url, "classify", *pictures, piped=True)
    assert (shown, len(piped.splitlines())) == ("", 70)
    shown, _ = on_a_terminal(url, "classify", *pictures, "--json")
    assert "Classifying" not in shown


def test_a_model_on_its_way_shows_a_bar_unless_json_is_asked_for(url, tmp_path):
    file = tmp_path / "net.safetensors"
    file.write_bytes(bytes(3_000_000))
    words = ("models", "import", str(file), "--name", "mine", "--no-follow")
    shown, _ = on_a_terminal(url, *words)
    assert "Uploading net.safetensors" in shown
    assert "3.0/3.0 MB" in shown
    assert "Uploading" not in on_a_terminal(url, *words, "--json")[0]


def test_where_nothing_is_a_terminal_there_is_no_bar(url, tmp_path):
    file = tmp_path / "net.safetensors"
    file.write_bytes(bytes(1000))
    command = [RESNETD, "models", "import", str(file), "--name", "mine", "--no-follow"]
    ended = subprocess.run(
        command, env={**os.environ, "RESNETD_SERVER": url}, capture_output=True, timeout=120, check=True
    )
    assert (ended.stdout, ended.stderr) == (b"job_1\n", b"")
