"""Which key may ask what: the table of docs/configuration.md is what the routes declare."""

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from edge_kit import IMAGE, Server, dataset_on_disk, problem, serving
from fastapi.routing import iter_route_contexts
from samples import tiny_zip

from app.auth import scope_of
from app.main import create_app
from store.keys import Scope, create_key
from store.settings import Settings

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"


def table() -> dict[str, list[str]]:
    """Scope, or `none` → what its row names in code."""
    _, section = PAGE.read_text().split("| Scope |")
    rows = re.findall(r"^\| (?:`(\w+)`|(none)) \| (.+) \|$", section.split("\n\n")[0], re.MULTILINE)
    return {scope or none: re.findall(r"`([^`]*/[^`]*)`", routes) for scope, none, routes in rows}


def fits(named: str, method: str, path: str) -> bool:
    """Whether `GET /v1/models` or `/v1/jobs…` means this route."""
    verb, _, address = named.rpartition(" ")
    beginning = address.removesuffix("…")
    return verb in ("", method) and (path.startswith(beginning) if address.endswith("…") else path == beginning)


def routes(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """The method, the address and the scope of every route, `none` where it asks for none."""
    for each in iter_route_contexts(create_app(settings).routes):
        for method in (each.methods or set()) - {"HEAD"}:
            yield method, str(each.path), str(scope_of(each) or "none")


def test_the_table_gives_every_route_the_scope_that_it_declares_and_names_nothing_else(settings: Settings) -> None:
    rows = table()
    assert list(rows) == ["none", *Scope]
    used = set()
    for method, path, scope in routes(settings):
        found = {(row, named) for row, those in rows.items() for named in those if fits(named, method, path)}
        assert {row for row, _ in found} == {scope}, f"{method} {path}"
        used |= found
    assert used == {(row, named) for row, those in rows.items() for named in those}


@pytest.mark.parametrize(
    ("scope", "included"),
    [
        (Scope.PREDICT, {Scope.PREDICT}),
        (Scope.TRAIN, {Scope.PREDICT, Scope.TRAIN}),
        (Scope.METRICS, {Scope.METRICS}),
        (Scope.ADMIN, set(Scope)),
    ],
)
def test_a_scope_includes(scope: Scope, included: set[Scope]) -> None:
    assert {each for each in Scope if scope.includes(each)} == included


@pytest.fixture
def guarded(alone: Settings) -> Iterator[Server]:
    """A server on an address that others can reach (as it believes)."""
    with serving(alone.model_copy(update={"host": "0.0.0.0"})) as server:
        yield server


def test_a_key_for_metrics_reads_them_and_nothing_else(guarded: Server) -> None:
    headers = {"Authorization": f"Bearer {create_key(guarded.layout, 'metrics', 'prometheus')}"}
    assert "http_requests_total" in guarded.http.get("/metrics", headers=headers).text
    for method, path, scope in routes(guarded.state.settings):
        if scope not in ("none", "metrics"):
            address = path.replace("{", "").replace("}", "")
            assert guarded.http.request(method, address, headers=headers).status_code == 403, f"{method} {path}"
    problem(guarded.http.post("/v1/classify", content=IMAGE, headers=headers), 403, "scope_missing")


@pytest.mark.parametrize("path", ["/v1/models/absent:{}", "/v2/repository/models/absent/{}"])
@pytest.mark.parametrize("verb", ["load", "unload"])
def test_twins_of_loading_and_unloading_ask_for_the_same_scope(guarded: Server, path: str, verb: str) -> None:
    statuses = {}
    for scope in Scope:
        headers = {"Authorization": f"Bearer {create_key(guarded.layout, scope)}"}
        statuses[scope] = guarded.http.post(path.format(verb), headers=headers).status_code
    assert statuses == {Scope.PREDICT: 403, Scope.TRAIN: 404, Scope.METRICS: 403, Scope.ADMIN: 404}


def test_an_idempotency_key_is_each_api_keys_own(guarded: Server) -> None:
    """Else two clients that count their jobs would share one, and the secret of its webhook."""
    dataset = dataset_on_disk(guarded.layout, f"ds_{uuid4().hex}")
    same = uuid4().hex

    def asked(secret: str, path: str, **body: object) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": same}
        answer = guarded.http.post(path, headers=headers, **body)
        return answer.status_code, str(answer.json().get("id"))

    one, other = (create_key(guarded.layout, Scope.TRAIN) for _ in range(2))
    training = {"json": {"kind": "train", "dataset": dataset, "recipe": "mnist"}}
    for path, body in (
        ("/v1/jobs", training),
        ("/v1/datasets", {"content": tiny_zip()}),
        ("/v1/models?name=mine", {"content": b"bytes"}),
    ):
        first, again, others = (asked(secret, path, **body) for secret in (one, one, other))
        assert first == again
        assert (first[0], others[0]) == (202, 202)
        assert first != others, path
