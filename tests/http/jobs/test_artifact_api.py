"""Evaluations and exports are asked for, and what they made is downloaded; the worker is the test."""

import hashlib
import shutil
from uuid import uuid4

import pytest
from edge_kit import claimed, problem

from jobs.model import JobError, Kind
from models.catalog import STARTERS, Catalog
from models.manifest import Manifest
from store import artifacts
from store.datasets import Dataset, SplitSummary
from worker.publish import publish

DRAWING = '<svg xmlns="http://www.w3.org/2000/svg"/>'
FILES = {"report.json": b'{"metrics": {"top1": 0.5}}', "confusion.svg": DRAWING.encode()}


@pytest.fixture(scope="module")
def model(server) -> str:
    """A model of the ten digits, whose production is its only version."""
    source, name = STARTERS / "mnist-residual", f"digits-{uuid4().hex[:8]}"
    Catalog(server.layout.models).publish(name, source, Manifest.read(source).lineage.job)
    return name


@pytest.fixture
def digits(server, dataset) -> str:
    """A dataset of the ten digits in another order than the model's; its val split is empty."""
    folder = server.layout.dataset(dataset)
    splits = {"test": SplitSummary(images=10, per_class=(1,) * 10), "val": SplitSummary(images=0, per_class=(0,) * 10)}
    classes = tuple(reversed([str(i) for i in range(10)]))
    Dataset.read(folder).model_copy(update={"classes": classes, "splits": splits}).write(folder)
    return dataset


@pytest.fixture
def made(server, idle, model, digits) -> str:
    """An evaluation that has succeeded."""
    job_id = idle.submit(Kind.EVALUATE, {"model": f"{model}@1", "dataset": digits, "split": "test"}).job_id
    claim = claimed(idle, job_id)
    claim_dir = server.layout.job(job_id) / f"claim-{claim.number}"
    with artifacts.writing(claim_dir) as folder:
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
    idle.begin_publishing(claim, {"artifact": "a"})
    idle.succeed(claim, publish(claim, server.layout, {"artifact": "claim-1/artifacts", "metrics": {"top1": 0.5}}))
    return job_id


def evaluate(http, **body):
    return http.post("/v1/jobs", json={"kind": "evaluate", **body})


def test_files_of_a_claim_whose_publishing_another_one_ended_are_there(http, server, idle, made):
    old = server.layout.job(made)
    job_id = idle.submit(Kind.EVALUATE, idle.get(made).spec).job_id
    first = claimed(idle, job_id)
    shutil.copytree(old / "claim-1", server.layout.job(job_id) / "claim-1", dirs_exist_ok=True)
    idle.begin_publishing(first, {"artifact": "claim-1/artifacts", "metrics": {}})
    idle.release(first, crash=None)
    second = claimed(idle, job_id)
    idle.succeed(second, publish(second, server.layout, second.publishing))
    assert second.number == 2
    assert http.get(f"/v1/jobs/{job_id}/artifacts/report.json").content == FILES["report.json"]


def test_an_evaluation_is_pinned_to_the_version_that_is_meant_now(http, model, digits, idle):
    for ref in (model, f"{model}@1", f"{model}@production"):
        answer = evaluate(http, model=ref, dataset=digits)
        assert answer.status_code == 202, answer.text
        job = answer.json()
        assert (job["kind"], job["spec"]) == ("evaluate", {"model": f"{model}@1", "dataset": digits, "split": "test"})
        assert idle.get(job["id"]).spec == job["spec"]


def test_an_evaluation_that_cannot_be_is_refused_at_once(http, server, model, digits):
    refused = evaluate(http, model="nobody", dataset=digits)
    assert problem(refused, 422, "model_not_found")["errors"][0]["pointer"] == "#/model"
    for split in ("train", "val", "../test"):
        told = problem(evaluate(http, model=model, dataset=digits, split=split), 422, "split_not_found")
        assert told["errors"][0]["pointer"] == "#/split"
        assert told["hint"] == "Its splits: test."
    folder = server.layout.dataset(digits)
    Dataset.read(folder).model_copy(update={"classes": ("ten", *map(str, range(1, 10)))}).write(folder)
    told = problem(evaluate(http, model=model, dataset=digits), 422, "classes_differ")
    assert "the dataset alone has 'ten'; the model alone has '0'" in told["detail"]
    assert f"/v1/models/{model}@1/labels" in told["hint"]


def test_a_dataset_to_evaluate_on_may_lack_classes_of_the_model(http, server, model, digits):
    folder = server.layout.dataset(digits)
    splits = {"test": SplitSummary(images=3, per_class=(1, 1, 1))}
    Dataset.read(folder).model_copy(update={"classes": ("7", "0", "4"), "splits": splits}).write(folder)
    assert evaluate(http, model=model, dataset=digits).status_code == 202


def test_a_dataset_stays_while_an_evaluation_needs_it(http, model, digits):
    job_id = evaluate(http, model=model, dataset=digits).json()["id"]
    assert job_id in str(problem(http.delete(f"/v1/datasets/{digits}"), 409, "dataset_in_use")["detail"])
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/datasets/{digits}").status_code == 204


@pytest.mark.parametrize("name", ["bundle", "torch_export", "onnx"])
def test_an_export_is_one_of_three_formats(http, model, name):
    job = http.post("/v1/jobs", json={"kind": "export", "model": model, "format": name}).json()
    assert job["spec"] == {"model": f"{model}@1", "format": name}
    refused = http.post("/v1/jobs", json={"kind": "export", "model": model, "format": "pickle"})
    assert "'bundle', 'torch_export' or 'onnx'" in str(problem(refused, 422, "invalid_request")["detail"])


def test_a_job_lists_its_files_with_their_digests(http, made):
    page = http.get(f"/v1/jobs/{made}/artifacts").json()
    assert (page["has_more"], page["next"]) == (False, None)
    found = {each["name"]: each for each in page["data"]}
    assert set(found) == set(FILES)
    for name, content in FILES.items():
        assert (found[name]["bytes"], found[name]["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert http.get(found[name]["href"]).content == content
    job = http.get(f"/v1/jobs/{made}").json()
    assert http.get(job["links"]["artifacts"]).json() == page
    result = job["result"]
    assert {each["name"] for each in result["artifacts"]} == set(FILES)
    assert result["split"] == "test"


def test_a_download_is_an_attachment_of_its_type_that_runs_nothing(http, made, model):
    answer = http.get(f"/v1/jobs/{made}/artifacts/confusion.svg")
    assert answer.headers["content-type"] == "image/svg+xml"
    assert answer.headers["content-disposition"] == f'attachment; filename="{model}-1-confusion.svg"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["etag"] == f'"{hashlib.sha256(FILES["confusion.svg"]).hexdigest()}"'


def test_a_training_has_its_drawings_also_where_it_registers_no_model(http, server, idle):
    spec = {"dataset": "ds_x", "recipe": "mnist", "overrides": {}, "register_as": None, "alias": None}
    claim = claimed(idle, idle.submit(Kind.TRAIN, spec).job_id)
    with artifacts.writing(server.layout.job(claim.job_id) / "claim-1") as folder:
        (folder / "curves.svg").write_text(DRAWING)
        (folder / "metrics.csv").write_text("epoch,lr\r\n1,0.1\r\n")
    result = {"artifact": "claim-1/model", "metrics": {"top1": 0.5}}
    idle.begin_publishing(claim, result)
    idle.succeed(claim, publish(claim, server.layout, result))
    page = http.get(f"/v1/jobs/{claim.job_id}/artifacts").json()["data"]
    assert [each["name"] for each in page] == ["curves.svg", "metrics.csv"]
    drawing, table = (http.get(each["href"]) for each in page)
    assert drawing.content == DRAWING.encode()
    assert drawing.headers["content-disposition"] == f'attachment; filename="{claim.job_id}-curves.svg"'
    assert "img-src data:" in drawing.headers["content-security-policy"]
    assert table.headers["content-type"].startswith("text/csv")


def test_a_download_goes_on_where_it_broke_and_is_not_repeated(http, made):
    url = f"/v1/jobs/{made}/artifacts/report.json"
    etag = http.get(url).headers["etag"]
    head = http.head(url)
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", etag)
    assert head.headers["content-length"] == str(len(http.get(url).content))
    beyond = http.get(url, headers={"Range": "bytes=9999999-"})
    problem(beyond, 416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{head.headers['content-length']}"
    problem(http.get(url, headers={"Range": "lines=1-2"}), 400, "invalid_range")
    part = http.get(url, headers={"Range": "bytes=5-", "If-Range": etag})
    assert (part.status_code, part.content) == (206, FILES["report.json"][5:])
    other = http.get(url, headers={"Range": "bytes=5-", "If-Range": '"another"'})
    assert (other.status_code, other.content) == (200, FILES["report.json"])
    for known in (f'"other", W/{etag}', etag, "*"):
        same = http.get(url, headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert http.get(url, headers={"If-None-Match": f'"other", {etag[1:-1]}'}).status_code == 200


@pytest.mark.parametrize(
    "name", ["bundle.zip", "spec.json", "..%2Fspec.json", "..%2F..%2Fspec.json", "%2Fetc%2Fpasswd", "%00"]
)
def test_only_files_that_the_job_names_are_ever_sent(http, server, made, name):
    (server.layout.job(made) / "claim-1" / "artifacts" / "bundle.zip").write_bytes(b"not of this job")
    assert http.get(f"/v1/jobs/{made}/artifacts/{name}").status_code == 404


def test_a_file_that_is_gone_says_so(http, server, made):
    (server.layout.job(made) / "claim-1" / "artifacts" / "report.json").unlink()
    problem(http.get(f"/v1/jobs/{made}/artifacts/report.json"), 404, "artifact_gone")


def test_a_job_that_goes_on_has_no_files_yet_and_one_that_failed_has_none(http, idle, model):
    job_id = http.post("/v1/jobs", json={"kind": "evaluate", "model": model, "dataset": "ds_x"}).json().get("id")
    assert job_id is None
    job_id = idle.submit(Kind.EVALUATE, {"model": f"{model}@1", "dataset": "ds_x", "split": "test"}).job_id
    url = f"/v1/jobs/{job_id}/artifacts"
    assert http.get(url).json()["data"] == []
    assert "artifacts" not in http.get(f"/v1/jobs/{job_id}").json()["links"]
    problem(http.get(f"{url}/report.json"), 409, "wrong_state", state="queued")
    idle.fail(claimed(idle, job_id), JobError(code="bad", message="no"))
    assert http.get(url).json()["data"] == []
    problem(http.get(f"{url}/report.json"), 404, "artifact_not_found")
    problem(http.get("/v1/jobs/job_none/artifacts"), 404, "job_not_found")
