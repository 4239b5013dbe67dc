"""Aliases, versions and their files over HTTP, by requests and by the client."""

import hashlib
import io
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
from edge_kit import Server, problem
from typer.testing import CliRunner

from app.inference.routes import EngineState, Route, Routes
from benchmarks.manifests import lineage, write_hollow
from models import bundle
from models.catalog import STARTERS, Catalog
from models.manifest import WEIGHTS, Origin
from resnetd.cli import app as command_line
from resnetd.client import Client
from resnetd.errors import Problem

CONTENT = b"weights"
CLASSES = ("cat", "<b>dog</b>")
METRICS = {"top1": 0.8, "total": 100, "split": "test", "per_class": "odd"}
ORIGIN = Origin(filename="a|b.pth", sha256="0" * 64, format="torch")


@pytest.fixture
def name(server: Server, tmp_path: Path) -> str:
    """A model with three versions."""
    chosen = f"toy-{uuid4().hex[:8]}"
    catalog = Catalog(server.layout.models)
    for number in (1, 2, 3):
        job = f"job_{chosen}_{number}"
        made = lineage(job, dataset="", dataset_name="", dataset_digest="", recipe="", origin=ORIGIN)
        folder = write_hollow(tmp_path / str(number), made, weights=CONTENT, classes=CLASSES, metrics=METRICS)
        catalog.publish(chosen, folder, job)
    return chosen


@pytest.mark.parametrize("other", [{"canary": {"version": 2, "percent": 10}}, {"shadow": {"version": 2}}])
def test_a_version_is_not_its_own_canary_or_shadow(http, name, other):
    (field,) = other
    answer = http.put(f"/v1/models/{name}/aliases/production", json={"version": 2, **other})
    body = problem(answer, 422, f"invalid_{field}")
    assert (body["errors"][0]["pointer"], f"`{field}`" in str(body["hint"])) == (f"#/{field}/version", True)


def test_aliases_are_a_models_and_not_a_versions(http, name):
    problem(http.get(f"/v1/models/{name}@1/aliases"), 404, "model_not_found")


def test_aliases_are_changed_by_whoever_knows_them_as_they_are(http, name):
    url = f"/v1/models/{name}/aliases"
    seen = http.get(url)
    assert seen.json()["aliases"]["production"]["version"] == 3
    etag = seen.headers["etag"]
    put = http.put(f"{url}/production", json={"version": 1}, headers={"If-Match": etag})
    assert put.status_code == 200
    problem(http.put(f"{url}/production", json={"version": 2}, headers={"If-Match": etag}), 412, "aliases_changed")
    for known in (f'"other", {put.headers["etag"]}', "*"):
        answer = http.put(f"{url}/production", json={"version": 2}, headers={"If-Match": known})
        assert answer.status_code == 200
    assert http.get(url).headers["etag"] == answer.headers["etag"]
    weak = {"If-Match": f"W/{answer.headers['etag']}"}
    problem(http.delete(f"{url}/production", headers=weak), 412, "aliases_changed")
    bad = http.put(f"{url}/production", json={"version": 1}, headers={"If-Match": "no quotes"})
    problem(bad, 400, "invalid_if_match")


def test_an_alias_is_moved_only_or_made_only_where_a_star_says_so(http, name):
    url = f"/v1/models/{name}/aliases"
    made, moved = {"If-None-Match": "*"}, {"If-Match": "*"}
    problem(http.put(f"{url}/nightly", json={"version": 1}, headers=moved), 412, "aliases_changed")
    assert list(http.get(url).json()["aliases"]) == ["production"]
    assert http.put(f"{url}/nightly", json={"version": 1}, headers=made).status_code == 200
    problem(http.put(f"{url}/nightly", json={"version": 2}, headers=made), 412, "aliases_changed")
    problem(http.put(f"{url}/nightly", json={"version": 2}, headers={**made, **moved}), 412, "aliases_changed")
    assert http.get(f"{url}/nightly").json()["version"] == 1
    assert http.put(f"{url}/nightly", json={"version": 2}, headers=moved).status_code == 200
    problem(http.put(f"{url}/production", json={"version": 1}, headers=made), 412, "aliases_changed")
    assert http.put(f"{url}/production", json={"version": 1}, headers=moved).status_code == 200  # which nobody had set
    etag = http.get(url).headers["etag"]
    for known in (etag, f'"other", W/{etag}'):
        refused = http.put(f"{url}/nightly", json={"version": 3}, headers={"If-None-Match": known})
        problem(refused, 412, "aliases_changed")
    others = {"If-None-Match": '"other", "*"'}
    assert http.put(f"{url}/nightly", json={"version": 3}, headers=others).status_code == 200
    bad = http.put(f"{url}/nightly", json={"version": 1}, headers={"If-None-Match": "no quotes"})
    assert problem(bad, 400, "invalid_if_match")["errors"][0]["pointer"] == "/header/If-None-Match"
    for verb in (http.delete(f"{url}/nobody", headers=moved), http.post(f"{url}/nobody:rollback", headers=moved)):
        problem(verb, 404, "model_not_found")


def test_a_canary_a_shadow_and_the_way_back(http, name):
    url = f"/v1/models/{name}/aliases/production"
    http.put(url, json={"version": 1})
    asked = {"version": 2, "canary": {"version": 3, "percent": 12.5}, "shadow": {"version": 1}}
    assert http.put(url, json=asked).json() | asked == http.put(url, json=asked).json()
    back = http.post(f"{url}:rollback").json()
    assert (back["version"], back["canary"], back["shadow"]) == (1, None, None)
    assert [(past["version"], past["left_by"]) for past in back["history"]] == [(1, "set"), (2, "rollback")]
    problem(http.post(f"{url}:rollback"), 409, "nothing_to_roll_back")
    assert http.delete(url).status_code == 204
    problem(http.delete(url), 404, "model_not_found")
    problem(http.post(f"/v1/models/{name}/aliases/nobody:rollback"), 404, "model_not_found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"version": 1, "canary": {"version": 2, "percent": 101}}, "#/canary/percent"),
        ({"version": 1, "canary": {"version": 2}}, "#/canary/percent"),
        ({"version": 1, "canary": {"version": 1, "percent": 5}}, "#/canary/version"),
        ({"version": 1, "shadow": {"version": 1}}, "#/shadow/version"),
        ({"version": 1, "shaddow": {"version": 2}}, "#/shaddow"),
    ],
)
def test_an_alias_that_makes_no_sense_is_refused_at_its_field(http, name, body, pointer):
    answer = http.put(f"/v1/models/{name}/aliases/production", json=body)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"version": 9}, ["#/version"]),
        ({"version": 1, "canary": {"version": 9, "percent": 5}}, ["#/canary/version"]),
        (
            {"version": 1, "canary": {"version": 9, "percent": 5}, "shadow": {"version": 9}},
            ["#/canary/version", "#/shadow/version"],
        ),
    ],
)
def test_a_version_in_the_body_that_is_not_there_is_a_wrong_field(http, name, body, pointers):
    refused = problem(http.put(f"/v1/models/{name}/aliases/production", json=body), 422, "model_not_found")
    assert [each["pointer"] for each in refused["errors"]] == pointers
    assert f"{name}@9" in refused["errors"][0]["detail"]
    problem(http.put("/v1/models/none/aliases/production", json=body), 404, "model_not_found")


def test_one_alias_is_shown_as_its_put_showed_it_with_the_etag_of_all(http, name):
    url = f"/v1/models/{name}/aliases"
    put = http.put(f"{url}/nightly", json={"version": 1, "canary": {"version": 2, "percent": 10}})
    shown = http.get(f"{url}/nightly")
    assert (shown.status_code, shown.json(), shown.headers["etag"]) == (200, put.json(), put.headers["etag"])
    assert (shown.json()["model"], shown.json()["alias"]) == (name, "nightly")
    assert http.get(f"{url}/production").json() == http.get(url).json()["aliases"]["production"]  # which nobody set
    same = http.get(f"{url}/nightly", headers={"If-None-Match": put.headers["etag"]})
    assert (same.status_code, same.content) == (304, b"")
    refused = problem(http.get(f"{url}/nobody"), 404, "model_not_found")
    assert refused["hint"] == f"aliases of {name}: nightly, production"
    problem(http.get(f"{url}/1"), 404, "model_not_found")
    problem(http.get(f"/v1/models/{name}@1/aliases/nightly"), 404, "model_not_found")


def test_a_version_is_shown_under_its_own_address_too(http, name):
    shown = http.get(f"/v1/models/{name}/versions/2")
    assert (shown.status_code, shown.json()) == (200, http.get(f"/v1/models/{name}@2").json())
    assert [each["version"] for each in shown.json()["versions"]] == [2]
    problem(http.get(f"/v1/models/{name}/versions/9"), 404, "model_not_found")
    problem(http.get(f"/v1/models/{name}@1/versions/2"), 404, "model_not_found")
    assert (
        problem(http.get(f"/v1/models/{name}/versions/0"), 422, "invalid_request")["errors"][0]["pointer"]
        == "/path/version"
    )


def test_a_card_is_markdown_in_which_names_mean_nothing(http, name):
    answer = http.get(f"/v1/models/{name}@2/card")
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    assert answer.text.startswith(f"# {name}, version 2\n")
    assert "cat, \\<b\\>dog\\</b\\>." in answer.text
    assert "- Adopted from: a\\|b.pth, torch" in answer.text
    assert "| Top-1 accuracy | 0.8000 |" in answer.text
    assert "<b>" not in answer.text.replace("\\<b\\>", "")
    problem(http.get(f"/v1/models/{name}@9/card"), 404, "model_not_found")


def test_labels_and_figures_are_told_by_version(http, name):
    assert http.get(f"/v1/models/{name}@1/labels").json() == {
        "model": name,
        "version": 1,
        "labels": ["cat", "<b>dog</b>"],
    }
    told = http.get(f"/v1/models/{name}/metrics").json()
    assert (told["version"], told["metrics"]["top1"], told["temperature"]) == (3, 0.8, None)


def test_a_version_is_taken_away_whole_or_its_weights_alone(http, server, name):
    whole = http.get(f"/v1/models/{name}/versions/2/download")
    with zipfile.ZipFile(io.BytesIO(whole.content)) as archive:
        assert archive.read(f"{name}-2/{WEIGHTS}") == CONTENT
    assert f'filename="{name}-2.zip"' in whole.headers["content-disposition"]
    again = http.get(f"/v1/models/{name}/versions/2/download")
    assert (again.content, again.headers["etag"]) == (whole.content, whole.headers["etag"])
    part = http.get(f"/v1/models/{name}/versions/2/download", headers={"Range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, whole.content[2:6])
    weights = http.get(f"/v1/models/{name}/versions/2/download?format=weights")
    assert (weights.content, weights.headers["etag"]) == (CONTENT, f'"{hashlib.sha256(CONTENT).hexdigest()}"')
    assert http.head(f"/v1/models/{name}/versions/2/download").headers["content-length"] == str(len(whole.content))
    problem(http.get(f"/v1/models/{name}/versions/7/download"), 404, "model_not_found")
    assert http.get(f"/v1/models/{name}/versions/2/download?format=onnx").status_code == 422
    assert not list(server.layout.uploads.glob("bundle-*"))


@pytest.mark.parametrize("form", ["bundle", "weights"])
def test_what_a_client_has_already_is_neither_sent_nor_zipped_again(http, name, form, monkeypatch):
    url, query = f"/v1/models/{name}/versions/2/download", {"format": form}
    etag = http.get(url, params=query).headers["etag"]
    monkeypatch.setattr(bundle, "write_zip", None)  # from here on a zip is a 500
    for ask in (http.get, http.head):
        for known in (etag, f'"other", W/{etag}', "*"):
            same = ask(url, params=query, headers={"If-None-Match": known})
            assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    monkeypatch.undo()
    assert http.get(url, params=query, headers={"If-None-Match": '"other"'}).status_code == 200


def test_aliases_that_a_client_knows_are_not_sent_again_until_they_change(http, name):
    url = f"/v1/models/{name}/aliases"
    known = {"If-None-Match": http.get(url).headers["etag"]}
    same = http.get(url, headers=known)
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", known["If-None-Match"])
    assert http.put(f"{url}/production", json={"version": 1}).status_code == 200
    assert http.get(url, headers=known).json()["aliases"]["production"]["version"] == 1


def test_a_version_is_deleted_once_nobody_needs_it(http, server, ledger, name):
    url = f"/v1/models/{name}"
    problem(http.delete(f"{url}/versions/3"), 409, "version_in_use")
    http.put(f"{url}/aliases/production", json={"version": 1, "shadow": {"version": 2}})
    problem(http.delete(f"{url}/versions/2"), 409, "version_in_use")
    route = Route(model=name, version=3, state=EngineState.DRAINING, socket="s", device="cpu")
    Routes(engines=(route,)).write(server.layout.routes)
    try:
        told = problem(http.delete(f"{url}/versions/3"), 409, "version_in_use")
        assert "it has an engine, which is draining" in str(told["detail"])
        assert http.get(url).json()["loaded"][0]["state"] == "draining"
    finally:
        server.layout.routes.unlink()
    assert http.delete(f"{url}/versions/3").status_code == 204
    problem(http.delete(f"{url}/versions/3"), 404, "model_not_found")
    assert [each["version"] for each in http.get(url).json()["versions"]] == [2, 1]


def test_without_a_fleet_loading_is_told_to_come_back(http, name):
    answer = http.post(f"/v1/models/{name}:load")
    problem(answer, 503, "engine_unavailable")
    assert answer.headers["retry-after"]
    problem(http.post(f"/v1/models/{name}:unload"), 503, "engine_unavailable")
    problem(http.post("/v1/models/nothing:load"), 404, "model_not_found")


def test_the_client_says_all_of_it(server, name, tmp_path):
    with Client(server.url) as client:
        _, etag = client.aliases(name)
        put = client.set_alias(name, "production", 1, canary=(2, 10), shadow=3, if_match=etag)
        assert (put["canary"], put["shadow"]) == ({"version": 2, "percent": 10.0}, {"version": 3})
        with pytest.raises(Problem, match="aliases_changed"):
            client.set_alias(name, "production", 2, if_match=etag)
        client.set_alias(name, "production", 3)
        assert client.roll_back(name, "production")["version"] == 1
        assert client.card(name).startswith("# ")
        assert client.labels(name)["labels"][0] == "cat"
        assert client.model_metrics(name)["metrics"]["top1"] == 0.8
        client.download_model(name, 1, tmp_path / "m.safetensors", form="weights")
        assert (tmp_path / "m.safetensors").read_bytes() == CONTENT
        with pytest.raises(Problem, match="model_not_found"):
            client.download_model(name, 9, tmp_path / "none.zip")
        client.delete_version(name, 2)
        client.delete_alias(name, "production")
    assert [each.name for each in tmp_path.iterdir() if "none" in each.name or each.name.startswith(".")] == []


def test_the_command_line_says_all_of_it(server, name, tmp_path):
    def run(*words: str) -> str:
        done = CliRunner().invoke(command_line, ["models", *words, "--server", server.url])
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.output

    assert "version 2 answers 12.5 %" in run("alias", name, "production", "1", "--canary", "2:12.5", "--shadow", "3")
    assert "12.5 %" in run("aliases", name)
    run("alias", name, "production", "3")
    assert f"{name}@production is version 1." in run("rollback", name, "production")
    assert f"# {name}, version 1" in run("card", name)
    assert "adopted from" in run("show", name)
    run("download", f"{name}@1", "--output", str(tmp_path / "out"))
    assert (tmp_path / "out" / f"{name}-1.zip").is_file()
    run("delete", f"{name}@3")


def test_what_a_starter_says_of_itself_is_its_card(http, server):
    assert (STARTERS / "mnist-residual").is_dir()
    Catalog(server.layout.models).seed()
    text = http.get("/v1/models/mnist-residual/card").text
    assert "| Class | Precision | Recall | F1 | Images |" in text
