"""Options that several commands share, and the settings as flags."""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import AliasChoices, ValidationError
from pydantic.fields import FieldInfo

from resnetd.errors import Refused
from store.settings import Settings


def server_of(environment: Mapping[str, str]) -> str:
    """Where a `resnetd up` with these variables answers; one that listens on every address is asked on loopback.

    Which port it took for 0 only its own output tells: that is as if none was set.
    """
    host = environment.get("RESNETD_HOST") or str(Settings.model_fields["host"].default)
    port = environment.get("RESNETD_PORT", "").strip()
    port = port if port.strip("0") else str(Settings.model_fields["port"].default)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


DEFAULT_SERVER = server_of(os.environ)

Server = Annotated[str, typer.Option("--server", envvar="RESNETD_SERVER", help="Where the server is.")]
Key = Annotated[
    str | None,
    typer.Option("--key", envvar="RESNETD_KEY", show_default=False, help="API key; not needed on this machine."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the server answered, as JSON.")]
FollowedAsJson = Annotated[
    bool,
    typer.Option("--json", help="Print JSON: the job's events while it is followed, a line each; then the answer."),
]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, show_default="50", help="Most entries to show; 200 at most.")
]
After = Annotated[str | None, typer.Option("--after", show_default=False, help="Go on behind this one.")]
Wait = Annotated[
    float | None,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        show_default="0",
        help="Answer once the job, of a dataset its import, has ended: after so long at the latest, 60 at most.",
    ),
]
Priority = Annotated[str | None, typer.Option("--priority", show_default=False, help="high, normal or low.")]
MaxSeconds = Annotated[
    float | None,
    typer.Option("--max-seconds", show_default=False, help="The job fails when it has run for so long."),
]
Webhook = Annotated[
    str | None,
    typer.Option("--webhook", metavar="URL", show_default=False, help="Tell this address how the job ends."),
]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key", show_default="a new one", help="The same request under the same key counts once."
    ),
]
Data = Annotated[Path, typer.Option("--data", envvar="RESNETD_DATA", help="The data directory.")]


def parse_setting(text: str, *, option: str = "") -> tuple[str, Any]:
    """`epochs=2` → ("epochs", 2); a value that is no JSON is a string. Raises Refused. `option`: what stood before."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise Refused(f"{option}{text}: this is not KEY=VALUE.", f"For instance: {option}epochs=2")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def terms(
    *, priority: str | None, max_seconds: float | None, webhook: str | None, idempotency_key: str | None
) -> dict[str, Any]:
    """What every kind of job may be asked with, for `Client.submit`."""
    return {
        "priority": priority,
        "max_seconds": max_seconds,
        "webhook": {"url": webhook} if webhook else None,
        "idempotency_key": idempotency_key,
    }


def flag(name: str) -> str:
    """`max_engines` → `--max-engines`."""
    return "--" + name.replace("_", "-")


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    if isinstance(field.validation_alias, AliasChoices):
        return str(field.validation_alias.choices[0])
    return "RESNETD_" + name.upper()


def with_settings(command: Callable[[Settings], None]) -> Callable[..., None]:
    """`command` as a function that has every setting as an option. What is not given comes from the environment."""

    def run(**given: Any) -> None:  # noqa: ANN401 - one per setting, each of its own type
        command(read_settings({name: value for name, value in given.items() if value is not None}))

    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(
                None,
                flag(name),
                help=f"{field.description} Environment: {variable(name, field)}.",
                metavar=_words(field),
                show_default=False if field.default is None else str(field.default),
            ),
            annotation=_kind(field) | None,
        )
        for name, field in Settings.model_fields.items()
    ]
    run.__name__ = command.__name__
    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # how Typer learns the options
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def read_settings(given: dict[str, Any]) -> Settings:
    """The settings: `given` over the environment over the defaults. Raises Refused, which names the setting."""
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]).lower()
        field = Settings.model_fields.get(name)
        shown = f"{variable(name, field)} ({flag(name)})" if field else name
        said = first["msg"].removeprefix("Value error, ")
        raise Refused(
            f"{shown}: {said}, not {first['input']!r}.", "`resnetd up --help` shows every setting."
        ) from error


def _kind(field: FieldInfo) -> type:
    """The type that a flag takes; `Path | None` and the like are their first part.

    One of several words is text here: the settings refuse another one, as they do that of the environment.
    """
    kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
    kind = next(kind for kind in kinds if isinstance(kind, type) and kind is not type(None))
    return str if issubclass(kind, StrEnum) else kind


def _words(field: FieldInfo) -> str | None:
    """The words that a setting may be, as `--help` shows them; None where it may be any."""
    kind = field.annotation
    return f"[{'|'.join(kind)}]" if isinstance(kind, type) and issubclass(kind, StrEnum) else None
