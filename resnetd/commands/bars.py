"""Progress bars on a terminal, and nothing elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext


@contextmanager
def of_bytes(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """What is told the size of each piece that has gone over the wire; nothing is shown where it is `quiet`."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 - a terminal's library, loaded where there is one
    from rich.progress import (  # noqa: PLC0415 - likewise
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.advance(task, size)


@contextmanager
def of_files(title: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[int], AbstractContextManager[None]]]:
    """What stands around the printing of results and is told of how many files they are: `with done(3): print(…)`.

    Only where these are seen on a terminal, too: the bar makes way for them and comes back below, and what goes to a
    file stays whole.
    """
    if quiet or not (sys.stderr.isatty() and sys.stdout.isatty()):
        yield lambda _: nullcontext()
        return
    from rich.console import Console  # noqa: PLC0415 - a terminal's library, loaded where there is one
    from rich.progress import (  # noqa: PLC0415 - likewise
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        task = progress.add_task(title, total=total)

        @contextmanager
        def done(count: int) -> Iterator[None]:
            # While it lives, rich stands in for standard output; what is printed past that leaves old bars standing.
            progress.stop()
            yield
            progress.advance(task, count)
            progress.start()

        yield done
