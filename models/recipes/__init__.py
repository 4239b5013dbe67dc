"""Recipes: named, complete sets of training choices that a request may override field by field. Without torch."""

from models.recipes.named import RECIPES
from models.recipes.overriding import RecipeError, override, resolve
from models.recipes.recipe import Init, Recipe

__all__ = ["RECIPES", "Init", "Recipe", "RecipeError", "override", "resolve"]
