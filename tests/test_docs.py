"""What the documents say is so: settings, commands, paths and routes."""

import re
import shlex
import tomllib
from functools import cache
from pathlib import Path

import pytest
from recipe_fields import PAGE, with_table
from typer.testing import CliRunner

from app.main import create_app
from models.recipes import RECIPES, Recipe
from resnetd.cli import app as command_line
from resnetd.commands.options import flag, variable
from store.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Variables that are no settings of a server: the command line's, the tests', and one between processes.
OTHER_VARIABLES = {
    "RESNETD_SERVER",
    "RESNETD_KEY",
    "RESNETD_TEST_DATA",
    "RESNETD_LEDGER_EXAMPLES",
    "RESNETD_CHURN_JOBS",
    "RESNETD_FAULT",
    "RESNETD_FAULT_ONCE",
}

ROW = re.compile(r"^\| `([A-Z_]+)` \|(?: `(--[a-z-]+)` \| ([^|]+) \|)? ([^|]+) \|$", re.MULTILINE)


@cache
def text(name: str) -> str:
    return (ROOT / name).read_text()


def documented() -> dict[str, tuple[str, str]]:
    """Variable → (flag, default), from the tables of docs/configuration.md."""
    return {name: (option, default.strip()) for name, option, default, _ in ROW.findall(text("docs/configuration.md"))}


def settings() -> dict[str, tuple[str, str]]:
    """Variable → (flag, default), from the settings themselves."""
    return {
        variable(name, field): (flag(name), {None: "unset", "": "empty"}.get(field.default, f"`{field.default}`"))
        for name, field in Settings.model_fields.items()
    }


def test_every_setting_is_documented_with_its_flag_and_default_and_nothing_else_is():
    found = documented()
    assert {name: row for name, row in found.items() if name not in OTHER_VARIABLES} == settings()
    assert set(found) & OTHER_VARIABLES == OTHER_VARIABLES


def test_every_variable_that_a_document_or_a_deployment_names_exists():
    known = set(settings()) | OTHER_VARIABLES
    for path in [*DOCUMENTS, ROOT / "Dockerfile", ROOT / "docker-compose.yml"]:
        named = set(re.findall(r"\bRESNETD_[A-Z_]+\b", path.read_text()))
        assert named <= known, path.name


def test_the_commands_of_the_readme_are_targets_of_the_makefile():
    named = set(re.findall(r"^ +make (\w+)", text("README.md"), re.MULTILINE))
    assert named == {"up", "test", "chaos"}
    targets = set(re.findall(r"^(\w+):", text("Makefile"), re.MULTILINE))
    assert named <= targets


def documented_commands() -> set[tuple[str, ...]]:
    """The words of every `resnetd …` in a document, from code blocks and from code in a sentence."""
    found: set[tuple[str, ...]] = set()
    for path in DOCUMENTS:
        content = path.read_text()
        lines = re.findall(r"^(?:    |\$ )+(?:\.venv/bin/)?resnetd (.+)$", content, re.MULTILINE)
        lines += re.findall(r"`(?:\.venv/bin/)?resnetd ([a-z-][^`]*)`", content)
        lines += re.findall(r"docker compose run --rm api (keys [^\n#]+)", content)
        found |= {tuple(shlex.split(line, comments=True)) for line in lines}
    return found


@pytest.mark.parametrize("words", sorted(documented_commands()), ids=" ".join)
def test_every_documented_command_is_one_with_these_options(words):
    path = [word for word in words[:2] if re.fullmatch(r"[a-z]+", word)]
    path = path if path and path[0] in ("datasets", "jobs", "models", "keys") else path[:1]
    shown = CliRunner().invoke(command_line, [*path, "--help"], terminal_width=200, env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for option in (word for word in words if word.startswith("--")):
        assert option in re.findall(r"--[a-z-]+", shown.output), f"{option} of resnetd {' '.join(words)}"


def test_the_documents_name_commands():
    assert {words[0] for words in documented_commands()} >= {"up", "classify", "datasets", "train", "jobs", "keys"}


def tree_paths() -> list[str]:
    """The paths of the README's annotated tree."""
    block = text("README.md").split("## The tree")[1].split("```")[1]
    paths, parent = [], ""
    for line in block.strip().splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if line.startswith("  "):
            paths += [parent + name for name in names]
        else:
            paths += names
            parent = names[0]
    return paths


def test_every_path_of_the_readmes_tree_exists_and_every_folder_stands_in_it():
    paths = tree_paths()
    assert [path for path in paths if not (ROOT / path).exists()] == []
    rooms = {path.parent.name + "/" for path in ROOT.glob("*/__init__.py")}
    assert rooms <= set(paths)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_between_documents_leads_somewhere(path):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text())
    dead = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not dead


@pytest.fixture(scope="module")
def routes(tmp_path_factory) -> dict[str, set[str]]:
    """Path → methods, from the OpenAPI document."""
    app = create_app(Settings(data=tmp_path_factory.mktemp("data")))
    return {path: {method.upper() for method in methods} for path, methods in app.openapi()["paths"].items()}


def requests_of(name: str) -> set[tuple[str, str]]:
    """(method, path) of every curl line in a document."""
    found = set()
    for line in re.findall(r"curl .+", text(name)):
        path = re.search(r"localhost:8000(/[^\s'?]*)", line)
        assert path, line
        method = re.search(r"-X ([A-Z]+)", line)
        if method:
            verb = method[1]
        elif " -T " in line:
            verb = "PUT"
        else:
            verb = "POST" if re.search(r" (-d|-F) ", line) else "GET"
        found.add((verb, path[1]))
    return found


def matches(pattern: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/:]+", re.escape(pattern)), path) is not None


@pytest.mark.parametrize("name", ["README.md", "docs/api.md"])
def test_every_curl_line_asks_a_route_that_exists(name, routes):
    asked = requests_of(name)
    assert len(asked) >= 3
    for verb, path in asked:
        fitting = {method for pattern, methods in routes.items() if matches(pattern, path) for method in methods}
        assert verb in fitting, f"{verb} {path}"


def test_every_route_is_shown_in_the_api_page(routes):
    shown = {path for _, path in requests_of("docs/api.md")}
    missing = [pattern for pattern in routes if pattern != "/" and not any(matches(pattern, path) for path in shown)]
    assert not missing


def first_column(section: str) -> set[str]:
    """Everything in code in the first column of a section's table."""
    return {
        name
        for cell in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE)
        for name in re.findall(r"`([\w-]+)`", cell)
    }


def test_the_training_page_names_every_recipe_and_only_fields_that_exist():
    recipes, fields = text("docs/training.md").split("### Fields")
    assert first_column(recipes) == set(RECIPES)
    named = re.findall(r"^- (`.*?)(?::| is| are| holds)", fields.split("### ")[0], re.MULTILINE)
    assert len(named) > 5
    found = {name for each in named for name in re.findall(r"`(\w+)`", each)}
    assert found | set(re.findall(r"--set '?(\w+)=", text("docs/training.md"))) <= set(Recipe.model_fields)


def test_the_training_page_says_of_each_field_what_the_field_says_of_itself():
    page = PAGE.read_text()
    assert with_table(page) == page, "write the table anew: .venv/bin/python tests/recipe_fields.py"
    assert [name for name, field in Recipe.model_fields.items() if not field.description] == []


def test_a_table_of_fields_that_is_not_theirs_is_noticed():
    page = PAGE.read_text()
    stale = page.replace("| `lr` | number > 0, ≤ 100 |", "| `lr` | number > 0, ≤ 10 |")
    assert page != stale
    assert with_table(stale) == page
    with pytest.raises(ValueError, match="lacks"):
        with_table(page.replace("<!-- Written", "<!-- Made"))


def test_the_changelog_and_the_package_agree_on_the_version():
    version = tomllib.loads(text("pyproject.toml"))["project"]["version"]
    released = re.findall(r"^## \[([^\]]+)\]", text("CHANGELOG.md"), re.MULTILINE)
    if released[0] == "Unreleased":
        assert released[1:2] in ([], [version])
    else:
        assert released[0] == version
