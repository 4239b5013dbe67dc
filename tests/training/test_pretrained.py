"""Ready-made weights over HTTP: torchvision's own code, against a server of this test's own."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torchvision.models import Weights, WeightsEnum

from worker.job_process import JobRefused, JobStopped
from worker.trainer.pretrained import _download, _read

TENSORS = {"fc.weight": torch.arange(6.0).reshape(2, 3)}


class Shelf(ThreadingHTTPServer):
    """Gives one file, as often as it is asked for; counts, says when somebody `came`, and waits for `go`."""

    def __init__(self, content: bytes) -> None:
        self.content, self.asked = content, 0
        self.came, self.go = threading.Event(), threading.Event()
        self.go.set()
        super().__init__(("127.0.0.1", 0), Answer)

    def weights(self, digest: str) -> Weights:
        """Named as torchvision names its files."""
        url = f"http://127.0.0.1:{self.server_port}/tiny-{digest[:8]}.pth"
        return WeightsEnum("Tiny", {"V1": Weights(url=url, transforms=lambda: None, meta={})})["V1"]


class Answer(BaseHTTPRequestHandler):
    server: Shelf

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.came.set()
        self.server.go.wait(30)
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    torch.save(TENSORS, tmp_path / "made")
    with Shelf((tmp_path / "made").read_bytes()) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield running
        running.go.set()
        for fetching in [each for each in threading.enumerate() if each.name == "download"]:
            fetching.join()
        running.shutdown()
        thread.join()


def nothing() -> None:
    pass


def test_weights_are_fetched_once_and_read_from_then_on(shelf: Shelf, tmp_path: Path):
    chosen = shelf.weights(hashlib.sha256(shelf.content).hexdigest())
    file = tmp_path / "weights" / Path(chosen.url).name
    for _ in range(2):
        if not file.is_file():
            _download(chosen, file, nothing)
        assert torch.equal(_read(chosen, file.parent)["fc.weight"], TENSORS["fc.weight"])
    assert shelf.asked == 1
    assert {each.name for each in file.parent.iterdir()} == {file.name, ".lock"}


def test_two_trainers_fetch_one_after_the_other_so_that_it_is_there_for_the_second(shelf: Shelf, tmp_path: Path):
    chosen = shelf.weights(hashlib.sha256(shelf.content).hexdigest())
    file = tmp_path / Path(chosen.url).name
    shelf.go.clear()
    waited = threading.Event()
    first = threading.Thread(target=_download, args=(chosen, file, nothing))
    first.start()

    def let_go() -> None:
        waited.set()
        shelf.go.set()

    assert shelf.came.wait(30)
    _download(chosen, file, let_go)
    first.join()
    assert waited.is_set()
    assert shelf.asked == 1
    assert file.is_file()


def test_what_is_not_what_its_name_says_is_not_kept(shelf: Shelf, tmp_path: Path):
    chosen = shelf.weights("0123abcd")
    file = tmp_path / "weights" / Path(chosen.url).name
    with pytest.raises(JobRefused, match="invalid hash") as caught:
        _download(chosen, file, nothing)
    assert caught.value.code == "weights_unavailable"
    assert chosen.url in caught.value.hint
    assert [each.name for each in file.parent.iterdir()] == [".lock"]


def test_a_stop_is_heard_while_a_download_lasts(shelf: Shelf, tmp_path: Path):
    chosen = shelf.weights(hashlib.sha256(shelf.content).hexdigest())
    shelf.go.clear()

    def stop() -> None:
        raise JobStopped

    with pytest.raises(JobStopped):
        _download(chosen, tmp_path / Path(chosen.url).name, stop)
