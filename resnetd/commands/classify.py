"""`resnetd classify`: what is in these pictures?"""

from collections.abc import Iterable, Iterator, Sequence
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
Answer = dict[str, Any]


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
    """Classify image files. Ends with status 1 when one of them could not be classified.

    Many files go in several requests. --json prints one document for all of
    them, in which `index` counts the files; where another version answers a
    later request (a canary, an alias that was moved) another document follows,
    and `index` goes on.
    """
    wanted = [name.strip() for name in outputs.split(",")] if outputs is not None else []
    in_json = as_json or bool(wanted)
    cut = list(batches(files))
    quiet = in_json or len(cut) == 1
    with connect(server, key) as client, bars.of_files("Classifying", len(files), quiet=quiet) as done:
        answers = (_ask(client, batch, model, top_k, wanted) for batch in cut)
        if in_json:
            failed = _print_json(answers)
        else:
            failed = 0
            for batch, answer in zip(cut, answers, strict=True):
                failed += _failed(answer)
                with done(len(batch)):
                    _show(batch, answer)
    if failed:
        raise typer.Exit(1)


def _failed(answer: Answer) -> int:
    return sum(1 for result in answer["results"] if result["error"])


def _print_json(answers: Iterable[Answer]) -> int:
    """Print the answers, those of one version as one; how many files failed. What came before a failure is printed."""
    whole: Answer | None = None
    files = failed = 0
    try:
        for answer in answers:
            results = [{**result, "index": index} for index, result in enumerate(answer["results"], files)]
            files, failed = files + len(results), failed + _failed(answer)
            numbered = {**answer, "results": results}
            if whole is not None and not _of_one_version(whole, numbered):
                output.as_json(whole)
                whole = None
            whole = numbered if whole is None else joined(whole, numbered)
    finally:
        if whole is not None:
            output.as_json(whole)
    return failed


def _of_one_version(one: Answer, other: Answer) -> bool:
    if one["version"] is None or other["version"] is None:  # all files of a request were refused
        return True
    return (one["model"], one["version"]) == (other["model"], other["version"])


def joined(one: Answer, other: Answer) -> Answer:
    """Two answers of one version as one: the results in order, the times added."""
    times = {
        name: round(one["timings_ms"].get(name, 0.0) + other["timings_ms"].get(name, 0.0), 3)
        for name in one["timings_ms"] | other["timings_ms"]
    }
    of_version = other if one["version"] is None else one
    return {**of_version, "results": one["results"] + other["results"], "timings_ms": times}


def _ask(client: "Client", batch: list[Path], model: str | None, top_k: int | None, outputs: list[str]) -> Answer:
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


def _show(batch: list[Path], answer: Answer) -> None:
    rows = [row for file, result in zip(batch, answer["results"], strict=True) for row in _rows(file, result)]
    output.table(("image", "label", "probability", "note"), rows)
    for file, result in zip(batch, answer["results"], strict=True):
        if result["error"]:
            output.note(f"{file}: {result['error']['message']}")


def _rows(file: Path, result: Result) -> Iterator[tuple[object, ...]]:
    note = "; ".join(str(warning["message"]) for warning in result["warnings"])
    for rank, entry in enumerate(result["top_k"]):
        yield (file, entry["label"], output.percent(entry["probability"]), "" if rank else note)
