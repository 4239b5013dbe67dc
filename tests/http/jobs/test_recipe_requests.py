"""What a training may be asked with: recipes, and what they start from."""

from uuid import uuid4

import pytest
from edge_kit import problem, train

from models.catalog import STARTERS, Catalog
from models.manifest import Manifest
from models.recipes import RECIPES


@pytest.fixture(scope="module")
def model(server) -> str:
    """A `mnist/residual`."""
    source, name = STARTERS / "mnist-residual", f"digits-{uuid4().hex[:8]}"
    Catalog(server.layout.models).publish(name, source, Manifest.read(source).lineage.job)
    return name


def test_every_recipe_is_told_whole(http):
    told = {each["name"]: each["fields"] for each in http.get("/v1/recipes").json()["data"]}
    assert told == {name: recipe.model_dump(mode="json") for name, recipe in RECIPES.items()}
    assert told["finetune"]["init"] == {"weights": "IMAGENET1K_V2"}


@pytest.mark.parametrize("ref", ["{}", "{}@1", "{}@production"])
def test_a_training_starts_from_the_version_that_is_meant_now(http, dataset, model, ref):
    overrides = {"init": {"model": ref.format(model)}, "freeze_epochs": 0.5, "lr": 0.01}
    answer = train(http, dataset, recipe="mnist", overrides=overrides)
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["overrides"] == {**overrides, "init": {"model": f"{model}@1"}}


def test_the_spec_of_a_job_names_the_fields_that_follow_from_others(http, dataset):
    answer = train(http, dataset, recipe="fashion-mnist", overrides={"epochs": 1, "patience": 2})
    assert answer.status_code == 202, answer.text
    overrides = {"epochs": 1, "patience": 2, "warmup_epochs": 0.2, "keep": "best"}
    assert answer.json()["spec"]["overrides"] == overrides
    again = train(http, dataset, recipe="fashion-mnist", overrides=overrides)
    assert again.json()["spec"] == answer.json()["spec"]


def test_ready_made_weights_are_asked_for_by_name(http, dataset):
    overrides = {"network": "torchvision/resnet18", "init": {"weights": "IMAGENET1K_V1"}, "random_resized_crop": None}
    answer = train(http, dataset, recipe="finetune", overrides=overrides)
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["overrides"] == overrides


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (("mnist", {"schedule": "cosin"}), ("invalid_overrides", "/schedule", "nearest is 'cosine'")),
        (("mnist", {"amp": True}), ("invalid_overrides", "/amp", "nearest is 'precision'")),
        (("mnist", {"batch_size": True}), ("invalid_overrides", "/batch_size", "integer from 1 to 8,192")),
        (("mnist", {"lr": "0.1"}), ("invalid_overrides", "/lr", "number > 0")),
        (("mnist", {"optimizer": "adamw"}), ("invalid_overrides", "/optimizer", "Set lr=0.001 as well")),
        (("cifar10-fast", {"random_resized_crop": [0.3, 1]}), ("invalid_overrides", "", "Set crop_padding=0")),
        (("mnist", {"freeze_epochs": 2}), ("invalid_overrides", "", "needs init")),
        (("imagenet", {"epochs": 10, "step_epochs": [30, 60]}), ("invalid_overrides", "", "step_epochs=[3.33, 6.67]")),
        (("mnist", {"init": {"weights": "V2"}}), ("invalid_overrides", "", "no ready-made weights")),
        (("mnist", {"init": {"modell": "a"}}), ("invalid_overrides", "/init/modell", "nearest is 'model'")),
        (("mnist", {"init": {"model": "nobody"}}), ("model_not_found", "/init/model", "models here")),
        (("finetune", {"random_resized_crop": [2, 3]}), ("invalid_overrides", "/random_resized_crop/0", "equal to 1")),
    ],
)
def test_what_cannot_be_is_refused_at_once(http, dataset, model, asked, expected):
    (recipe, overrides), (code, pointer, said) = asked, expected
    body = problem(train(http, dataset, recipe=recipe, overrides=overrides), 422, code)
    assert [each["pointer"] for each in body["errors"]] == ["#/overrides" + pointer]
    assert said in str(body)
    assert body["hint"]


def test_truths_are_no_numbers_in_a_list_of_them(http, dataset):
    body = problem(train(http, dataset, recipe="mnist", overrides={"mean": [True]}), 422, "invalid_request")
    assert "#/overrides/mean" in str(body["errors"])


def test_a_model_of_another_network_is_refused_with_the_overrides_that_fit(http, dataset, model):
    body = problem(
        train(http, dataset, recipe="mnist-gated", overrides={"init": {"model": model}}), 422, "invalid_overrides"
    )
    assert body["errors"][0]["pointer"] == "#/overrides/init/model"
    assert "Override network with mnist/residual" in str(body["hint"])


def test_a_network_tells_the_ready_made_weights_that_it_can_start_from(http):
    told = {each["name"]: each["weights"] for each in http.get("/v1/architectures").json()["data"]}
    assert told["torchvision/resnet50"] == ["IMAGENET1K_V1", "IMAGENET1K_V2"]
    assert told["cifar/resnet20"] == []


def test_what_each_field_of_a_recipe_takes_and_means_is_told(http):
    told = {each["name"]: each for each in http.get("/v1/recipe-fields").json()["data"]}
    assert set(told) == set(http.get("/v1/recipes").json()["data"][0]["fields"])
    assert told["devices"] == {
        "name": "devices",
        "takes": "integer from 1 to 64",
        "default": "1",
        "description": "Devices that share each batch, on one machine.",
    }
    assert told["network"]["default"] is None
    assert all(each["description"] for each in told.values())
