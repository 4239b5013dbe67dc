"""A new user's first hour, by HTTP and by the command line, on real images."""

import base64
import json

import httpx
import numpy as np
import pytest
from samples import mini_test_images, mini_test_labels, photo, png, zip_mini

from resnetd.errors import Problem

TINY = {
    "epochs": 1,
    "lr": 0.1,
    "warmup_epochs": 0.2,
    "batch_size": 32,
    "image_size": 16,
    "ema_decay": None,
    "precision": "fp32",
}


@pytest.fixture(scope="session")
def dataset(stack, tmp_path_factory) -> dict:
    """The subset of Fashion-MNIST, uploaded and imported."""
    archive = zip_mini(tmp_path_factory.mktemp("upload") / "fashion-mini.zip")
    sent: list[int] = []
    accepted = stack.client.upload_dataset(archive, on_bytes=sent.append)
    assert sum(sent) == archive.stat().st_size
    job = stack.client.wait(accepted["job"]["id"])
    assert job["state"] == "succeeded", job["error"]
    return stack.client.dataset(accepted["id"])


@pytest.fixture(scope="session")
def trained(stack, dataset) -> dict:
    """A short training on it, ended and registered as `fashion`."""
    job = stack.client.train(
        dataset["id"], recipe="fashion-mnist-small", overrides=TINY, register_as="fashion", alias="production"
    )
    assert job["state"] in ("queued", "running")
    job = stack.client.wait(job["id"])
    assert job["state"] == "succeeded", job["error"]
    return job


def test_an_image_is_classified_however_it_is_sent(stack):
    image = png(photo())
    raw = httpx.put(f"{stack.url}/v1/classify", params={"top_k": 3}, content=image)
    form = httpx.post(f"{stack.url}/v1/classify", data={"top_k": "3"}, files=[("a", ("1.png", image))])
    encoded = {"images": [{"b64": base64.b64encode(image).decode()}], "top_k": 3}
    answers = [raw, form, httpx.post(f"{stack.url}/v1/classify", json=encoded)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    labels = [answer.json()["results"][0]["top_k"] for answer in answers]
    assert len(labels[0]) == 3
    assert labels[0] == labels[1] == labels[2]
    body = raw.json()
    assert (body["model"], body["version"]) == ("cifar10-resnet20", 1)
    assert set(body["timings_ms"]) == {"decode", "queue", "compute", "total"}
    assert {"label", "class_index", "probability"} == set(labels[0][0])


def test_one_bad_image_fails_alone_and_only_bad_images_are_a_problem(stack):
    answer = stack.client.classify([png(photo()), b"not an image"])
    assert [result["error"] is None for result in answer["results"]] == [True, False]
    with pytest.raises(Problem) as refused:
        stack.client.classify([b"not an image"])
    assert refused.value.status == 422
    assert refused.value.hint


def test_a_dataset_tells_its_digest_classes_and_sizes(dataset):
    assert dataset["status"] == "ready"
    assert dataset["digest"].startswith("sha256:")
    assert dataset["splits"]["train"] == {"images": 2000, "per_class": [200] * 10}
    assert dataset["splits"]["test"] == {"images": 1000, "per_class": [100] * 10}
    assert dataset["image"]["sizes"] == {"28x28": 3000}


def test_a_training_leaves_its_curves_plan_and_confusion_matrix_by_url(stack, trained):
    files = {each["name"]: each for each in stack.client.artifacts(trained["id"])}
    for name in ("curves", "learning_rate", "confusion", "reliability", "mistakes"):
        drawing, image = (httpx.get(stack.url + files[f"{name}.{kind}"]["href"]) for kind in ("svg", "png"))
        assert drawing.headers["content-type"].startswith("image/svg+xml")
        assert drawing.text.rstrip().endswith("</svg>")
        assert image.content.startswith(b"\x89PNG")
    figures = httpx.get(stack.url + files["metrics.json"]["href"]).json()
    assert len(figures.pop("history")) == 1
    assert figures == trained["result"]["metrics"]


def test_a_training_is_watched_by_events_that_resume_behind_any_one_of_them(stack, trained):
    events = list(stack.client.events(trained["id"]))
    assert [event.type for event in events][-1] == "succeeded"
    assert {"queued", "running", "progress", "epoch", "evaluation"} <= {event.type for event in events}
    middle = events[len(events) // 2]
    assert list(stack.client.events(trained["id"], after=middle.id)) == events[len(events) // 2 + 1 :]
    assert list(stack.client.events(trained["id"], after=events[-1].id)) == []


def test_what_was_trained_is_served_and_gives_the_accuracy_that_the_job_reported_to_the_image(stack, dataset, trained):
    evaluation = next(event.data for event in stack.client.events(trained["id"]) if event.type == "evaluation")
    predicted = []
    images = list(mini_test_images())
    for start in range(0, len(images), 250):
        results = stack.client.classify(images[start : start + 250], model="fashion", top_k=1)["results"]
        predicted += [result["top_k"][0]["class_index"] for result in results]
    correct = int((np.array(predicted) == mini_test_labels()).sum())
    assert correct == round(evaluation["top1"] * 1000)
    assert correct > 300  # it learned: chance is 100

    model = stack.client.model("fashion")
    version = model["versions"][0]
    assert model["aliases"]["production"] == version["version"]
    assert version["lineage"]["job"] == trained["id"]
    assert version["lineage"]["dataset_digest"] == dataset["digest"]
    assert len(version["weights_sha256"]) == 64


def test_a_training_is_cancelled_and_registers_nothing(stack, dataset):
    job = stack.client.train(
        dataset["id"], recipe="fashion-mnist-small", overrides={**TINY, "epochs": 1000}, register_as="never"
    )
    types = []
    for event in stack.client.events(job["id"]):
        types.append(event.type)
        if event.type == "progress" and "cancelling" not in types:
            stack.client.cancel(job["id"])
            types.append("cancelling")
    assert types[-1] == "cancelled"
    with pytest.raises(Problem) as unknown:
        stack.client.model("never")
    assert unknown.value.status == 404


@pytest.fixture
def said(resnetd):
    """What the command line answers, or where it refuses says of that."""

    def run(*arguments: str, code: int = 0) -> str:
        ended = resnetd(*arguments, code=code)
        return ended.stdout if code == 0 else ended.stderr

    return run


def test_the_command_line_does_all_of_it(said, tmp_path):
    picture = tmp_path / "cat.png"
    picture.write_bytes(png(photo()))
    rows = [line.split("\t") for line in said("classify", str(picture), "--top-k", "2").splitlines()]
    assert [row[0] for row in rows] == [str(picture)] * 2
    assert json.loads(said("classify", str(picture), "--json"))["model"] == "cifar10-resnet20"

    archive = zip_mini(tmp_path / "mini.zip")
    *events, last = said("datasets", "upload", str(archive), "--name", "by-hand", "--json").splitlines()
    assert json.loads(events[-1])["type"] == "succeeded"
    uploaded = json.loads(last)
    assert uploaded["name"] == "by-hand"
    assert uploaded["status"] == "ready"
    assert uploaded["id"] in said("datasets", "list")
    assert uploaded["digest"] in said("datasets", "show", uploaded["id"])

    settings = [word for name, value in TINY.items() for word in ("--set", f"{name}={json.dumps(value)}")]
    shown = said("train", uploaded["id"], "--recipe", "fashion-mnist-small", *settings, "--register-as", "by-hand")
    job = next(line.split()[1] for line in shown.splitlines() if line.startswith("job "))
    assert json.loads(said("jobs", "show", job, "--json"))["state"] == "succeeded"
    assert job in said("jobs", "list", "--kind", "train")
    events = [json.loads(line) for line in said("jobs", "events", job, "--json").splitlines()]
    assert events[-1]["type"] == "succeeded"

    assert "by-hand" in said("models", "list")
    assert job in said("models", "show", "by-hand")
    said("models", "alias", "by-hand", "candidate", "1")
    test_image = tmp_path / "shirt.png"
    test_image.write_bytes(next(mini_test_images()))
    served = json.loads(said("classify", str(test_image), "--model", "by-hand@candidate", "--json"))
    assert (served["model"], served["version"]) == ("by-hand", 1)

    assert "Hint:" in said("jobs", "cancel", job, code=1)
    assert "cifar10-resnet20" in said("recipes").splitlines()
    assert ["patience", "null"] in [line.split("\t")[:2] for line in said("recipes", "mnist").splitlines()]
    assert "d2l/resnet18" in said("architectures")
    said("datasets", "delete", uploaded["id"])
    assert "Not Found" in said("datasets", "show", uploaded["id"], code=1)
