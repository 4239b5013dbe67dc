"""The command line. `up`, `serve`, `work` and `keys` act on this machine; all others speak HTTP with a server."""

import os
import sys
from typing import Annotated

import typer

from resnetd.commands import datasets, jobs, keys, models, output, servers
from resnetd.commands.choices import architectures, recipes
from resnetd.commands.classify import classify
from resnetd.commands.evaluate import evaluate
from resnetd.commands.explain import explain
from resnetd.commands.export import export
from resnetd.commands.plan import plan
from resnetd.commands.status import status
from resnetd.commands.train import train
from resnetd.errors import Problem, Refused, Unreachable
from store.version import code_version

app = typer.Typer(
    name="resnetd",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130  # what a shell says of a command that Ctrl-C ended


def _print_version(wanted: bool) -> None:
    if wanted:
        print(code_version())
        raise typer.Exit


@app.callback()
def root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train residual networks and serve them over HTTP."""


servers.register(app)
app.command(rich_help_panel="Use")(status)
app.command(rich_help_panel="Use")(classify)
app.command(rich_help_panel="Use")(explain)
app.add_typer(datasets.app, name="datasets", rich_help_panel="Use")
app.command(rich_help_panel="Use")(plan)
app.command(rich_help_panel="Use")(train)
app.command(rich_help_panel="Use")(recipes)
app.command(rich_help_panel="Use")(architectures)
app.command(rich_help_panel="Use")(evaluate)
app.command(rich_help_panel="Use")(export)
app.add_typer(jobs.app, name="jobs", rich_help_panel="Use")
app.add_typer(models.app, name="models", rich_help_panel="Use")
app.add_typer(keys.app, name="keys", rich_help_panel="Manage")


def main() -> None:
    """The entry point. Ends with 0, with 1 after a refusal, with 2 where the command line is wrong."""
    try:
        app()
    except (Problem, Unreachable, Refused) as error:
        output.failure(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `resnetd jobs list | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
