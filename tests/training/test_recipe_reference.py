"""What is said of a recipe's fields is what they take."""

import json

import pytest

from models.recipes import Recipe
from models.recipes.reference import reference

FIELDS = {each.name: each for each in reference()}


@pytest.mark.parametrize(
    ("name", "takes", "default"),
    [
        ("network", "text", None),
        ("init", "object, or null", "null"),
        ("channels", "1 or 3", None),
        ("image_size", "integer from 8 to 512", None),
        ("lr", "number > 0, ≤ 100", None),
        ("momentum", "number ≥ 0, < 1", "0.9"),
        ("optimizer", "sgd, nesterov or adamw", "nesterov"),
        ("step_epochs", "list of numbers > 0", "[]"),
        ("random_resized_crop", "list of 2 numbers > 0, ≤ 1, or null", "null"),
        ("compile", "true or false", "false"),
        ("resize", "integer from 8 to 1,024, or null", "null"),
    ],
)
def test_a_fields_bounds_choices_and_default_are_told(name, takes, default):
    assert (FIELDS[name].takes, FIELDS[name].default) == (takes, default)


def test_every_field_is_there_in_its_order_with_its_meaning_and_its_default_as_set_takes_it():
    assert list(FIELDS) == list(Recipe.model_fields)
    for name, field in Recipe.model_fields.items():
        told = FIELDS[name]
        assert told.description == field.description
        assert told.description
        assert (told.default is None) == field.is_required()
        if told.default is not None:
            value = told.default if isinstance(field.default, str) else json.loads(told.default)
            assert value == (list(field.default) if isinstance(field.default, tuple) else field.default)
