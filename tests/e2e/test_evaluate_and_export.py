"""A model is measured on a dataset and taken away, by the command line and by HTTP, through the real worker."""

import json
import zipfile

import httpx
import pytest
from samples import mini_test_images, mini_test_labels

from resnetd.errors import Problem

MODEL = "mnist-residual"


def test_an_evaluation_gives_the_figures_of_classifying_the_same_images_and_its_report_is_downloaded(stack, digits):
    job = stack.client.wait(stack.client.evaluate(f"{MODEL}@production", digits)["id"])
    assert job["state"] == "succeeded", job["error"]
    assert job["spec"] == {"model": f"{MODEL}@1", "dataset": digits, "split": "test"}
    made = job["result"]
    assert (made["model"], made["version"], made["dataset"], made["split"]) == (MODEL, 1, digits, "test")

    found, images = [], list(mini_test_images())
    for start in range(0, len(images), 250):
        results = stack.client.classify(images[start : start + 250], model=MODEL, top_k=1)["results"]
        found += [result["top_k"][0] for result in results]
    right = sum(int(one["label"]) == label for one, label in zip(found, mini_test_labels(), strict=True))
    assert (made["metrics"]["correct"], made["metrics"]["total"]) == (right, 1000)

    files = {each["name"]: each for each in stack.client.artifacts(job["id"])}
    assert {"report.json", "metrics.json", "per_class.csv", "confusion.svg", "confusion.png"} <= set(files)
    answer = httpx.get(stack.url + files["report.json"]["href"])
    assert answer.headers["etag"] == f'"{files["report.json"]["sha256"]}"'
    report = answer.json()
    assert report["metrics"]["correct"] == right
    for mistake in report["worst_mistakes"]:
        # Counted as the dataset stores its images, which for IDX files is the order of the file.
        one = found[mistake["index"]]
        assert one["label"] == mistake["predicted"] != mistake["label"]
        assert one["probability"] == pytest.approx(mistake["probability"], abs=1e-4)
    types = [event.type for event in stack.client.events(job["id"])]
    assert "evaluation" in types
    assert types[-1] == "succeeded"


def test_a_dataset_with_other_classes_is_refused_before_anything_is_queued(stack, digits):
    with pytest.raises(Problem, match="'airplane'") as refused:
        stack.client.evaluate("cifar10-resnet20", digits)
    assert (refused.value.status, refused.value.code) == (422, "classes_differ")


def test_the_command_line_measures_and_takes_away(stack, resnetd, digits, tmp_path):
    shown = resnetd("evaluate", MODEL, digits, "--output", str(tmp_path / "report"))
    facts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in shown.stdout.splitlines() if "  " in line}
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert facts["top1"] == f"{report['metrics']['top1']:.2%}"
    assert len([line for line in shown.stdout.splitlines() if line.count("\t") == 4]) == 10
    assert "report.json" in shown.stderr

    taken = resnetd("export", MODEL, "--output", str(tmp_path / "out")).stdout.strip()
    assert taken == str(tmp_path / "out" / "bundle.zip")
    with zipfile.ZipFile(taken) as bundle:
        weights = bundle.read(f"{MODEL}-1/weights.safetensors")
    assert weights == (stack.data / "models" / MODEL / "1" / "weights.safetensors").read_bytes()
    job = stack.client.jobs(kind="export", limit=1)["data"][0]
    again = resnetd("jobs", "download", job["id"], "--output", str(tmp_path / "again")).stdout.strip()
    assert (tmp_path / "again" / "bundle.zip").read_bytes() == (tmp_path / "out" / "bundle.zip").read_bytes()
    assert again.endswith("bundle.zip")
