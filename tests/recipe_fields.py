"""The table of a recipe's fields in docs/training.md, from the fields themselves.

`.venv/bin/python tests/recipe_fields.py` writes it anew; tests/test_docs.py fails where that would change the page.
"""

from pathlib import Path

from models.recipes.reference import reference

PAGE = Path(__file__).resolve().parents[1] / "docs" / "training.md"
BEGIN = "<!-- Written by `.venv/bin/python tests/recipe_fields.py`; a test compares. -->\n\n"
END = "\n<!-- End of what is written. -->\n"


def table() -> str:
    """Markdown, a line a field."""
    rows = [
        f"| `{each.name}` | {each.takes} | {'' if each.default is None else f'`{each.default}`'} | {each.description} |"
        for each in reference()
    ]
    return "\n".join(["| Field | Takes | Default | Meaning |", "|---|---|---|---|", *rows]) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it should be. Raises ValueError where its place is not marked."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"docs/training.md lacks {BEGIN if not begin else END}")
    return before + begin + table() + end + after


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text()))
