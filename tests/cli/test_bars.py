"""What goes over the wire for long shows a bar on a terminal, and nothing elsewhere."""

import os
import pty
import re
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
            results = b", ".join([RESULT] * body.count(b'filename="'))
            answer = b'{"model": "pets", "version": 1, "results": [' + results + b'], "timings_ms": {}}'
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


def screens(shown: str) -> Iterator[list[str]]:
    """The lines that a terminal shows, after each step; what programs write to it is text and control sequences."""
    lines, row, column = [""], 0, 0
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", shown):
        if piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif piece.startswith("\x1b["):
            if piece.endswith("A"):
                row = max(0, row - int(piece[2:-1]))
            elif piece.endswith("K"):
                assert piece == "\x1b[2K"
                lines[row] = ""
            else:
                assert piece[-1] in "mhl", piece  # colours, and whether the cursor is seen
        else:
            assert "\x1b" not in piece
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece) :]
            column += len(piece)
        yield [line for line in lines if line.strip()]


def test_many_images_show_how_many_are_done_and_their_results_stay(url, pictures):
    shown, _ = on_a_terminal(url, "classify", *pictures)
    done: set[int] = set()
    last: list[str] = []
    for last in screens(shown):
        bars = [line for line in last if "Classifying" in line]
        assert bars in ([], last[-1:]), last  # one, below all results
        done |= {int(count) for line in bars for count in re.findall(r"(\d+)/70", line)}
    assert done == {0, 64, 70}
    rows = [line.split() for line in last]
    assert [row for row in rows if row[0] in pictures] == [[file, "cat", "90.00%"] for file in pictures]
    heads = [row for row in rows if row[0] not in pictures and set(row[0]) != {"─"}]
    assert heads == [["image", "label", "probability", "note"]] * 2


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
    assert (ended.stdout, ended.stderr) == (b"job_1\n", b"Queued; watch it with `resnetd jobs watch job_1`.\n")
