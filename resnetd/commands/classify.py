"""`resnetd classify`: what is in these pictures?"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetd.commands import bars, output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server
from resnetd.errors import Problem

if TYPE_CHECKING:
    from resnetd.client import Client

MAX_FILES, MAX_BYTES = 64, 32_000_000  # of one request: far below the server's limits, large enough for full batches

Result = dict[str, Any]


def batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in order, cut into requests of a bounded number of files and bytes."""
    batch: list[Path] = []
    size = 0
    for file in files:
        length = file.stat().st_size
        if batch and (len(batch) == MAX_FILES or size + length > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(file)
        size += length
    if batch:
        yield batch


def classify(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Image files.")],
    *,
    model: Annotated[
        str | None, typer.Option(show_default=False, help="`name`, `name@3` or `name@alias`; else the server's own.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=1, show_default="5", help="How many labels for each image.")] = None,
    outputs: Annotated[
        str | None,
        typer.Option(
            show_default=False,
            help="What else of the forward pass, with commas: embedding, logits, probabilities. Implies --json.",
        ),
    ] = None,
    server: Server = DEFAULT_SERVER,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Classify image files. Ends with status 1 when one of them could not be classified."""
    failed = 0
    wanted = [name.strip() for name in outputs.split(",")] if outputs is not None else []
    cut = list(batches(files))
    quiet = as_json or bool(wanted) or len(cut) == 1
    with connect(server, key) as client, bars.of_files("Classifying", len(files), quiet=quiet) as done:
        for batch in cut:
            answer = _ask(client, batch, model, top_k, wanted)
            failed += sum(1 for result in answer["results"] if result["error"])
            with done(len(batch)):
                if as_json or wanted:
                    output.as_json(answer)
                else:
                    _show(batch, answer)
    if failed:
        raise typer.Exit(1)


def _ask(
    client: "Client", batch: list[Path], model: str | None, top_k: int | None, outputs: list[str]
) -> dict[str, Any]:
    """The answer; where each of several images was refused, the refusal as a result for each of them."""
    try:
        return client.classify(batch, model=model, top_k=top_k, outputs=outputs)
    except Problem as problem:
        if len(batch) == 1 or len(problem.errors) != len(batch):
            raise
        results = [
            {"index": index, "top_k": [], "warnings": [], "error": {"code": problem.code, "message": wrong["detail"]}}
            for index, wrong in enumerate(problem.errors)
        ]
        return {"model": model, "version": None, "results": results, "timings_ms": {}}


def _show(batch: list[Path], answer: dict[str, Any]) -> None:
    rows = [row for file, result in zip(batch, answer["results"], strict=True) for row in _rows(file, result)]
    output.table(("image", "label", "probability", "note"), rows)
    for file, result in zip(batch, answer["results"], strict=True):
        if result["error"]:
            output.note(f"{file}: {result['error']['message']}")


def _rows(file: Path, result: Result) -> Iterator[tuple[object, ...]]:
    note = "; ".join(str(warning["message"]) for warning in result["warnings"])
    for rank, entry in enumerate(result["top_k"]):
        yield (file, entry["label"], output.percent(entry["probability"]), "" if rank else note)
