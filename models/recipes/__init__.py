"""Recipes: named, complete sets of training choices that a request may override field by field. Without torch."""

from models.recipes.completing import completed
from models.recipes.named import RECIPES
from models.recipes.overriding import override, resolve
from models.recipes.recipe import Init, Recipe
from models.recipes.refusals import RecipeError

__all__ = ["RECIPES", "Init", "Recipe", "RecipeError", "completed", "override", "resolve"]
