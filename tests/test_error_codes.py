"""docs/errors.md has every code that the source can give, with its status or its kind of job, and no other."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from app import problems
from app.problems import ProblemError
from app.services.classification import _COME_BACK, all_bad
from jobs.model import Kind

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "errors.md"
CODE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PROBLEMS = {
    name: kind for name, kind in vars(problems).items() if isinstance(kind, type) and issubclass(kind, ProblemError)
}
#: Below /v2 a problem is a text without its code.
WITHOUT_CODES = {
    "app/encoded_bodies.py",
    "app/routes/inference_v2.py",
    "app/services/inference_v2.py",
    "app/services/requests_v2.py",
    "app/services/tensors_v2.py",
}
#: Where a code is no plain text: what it may be, and the status.
COMPUTED = {
    ("app/handlers.py", "phrase.lower().replace(' ', '_')"): {("not_found", 404), ("method_not_allowed", 405)},
    ("app/image_requests.py", "error.code"): {("model_not_found", 422)},
    ("app/services/aliases.py", "f'invalid_{field}'"): {("invalid_canary", 422), ("invalid_shadow", 422)},
    ("app/services/classification.py", "code"): {(code, 503) for _, code, _ in _COME_BACK},
    ("app/services/plans.py", "body['code']"): set(),  # what `refuse` and the planner's process say
    ("app/engine/opening.py", "refused.code"): set(),  # an ImageRejected's
}
MAKERS = {"adopter": Kind.ADOPT, "evaluator": Kind.EVALUATE, "exporter": Kind.EXPORT}
MAKERS |= {"importer": Kind.IMPORT, "trainer": Kind.TRAIN}


def rows(section: str) -> dict[str, str]:
    """Code → the cell behind it, of the table of a section."""
    found = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \|", PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0], re.M
    )
    assert len(dict(found)) == len(found)
    assert [code for code, _ in found] == sorted(code for code, _ in found)
    return dict(found)


def modules(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for room in rooms:
        for path in sorted((ROOT / room).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())


def calls(tree: ast.Module, *names: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of something that is called so, with its name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in names:
                yield name, node


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in call.keywords if each.arg == name), None)


def texts(value: ast.expr | None, tree: ast.Module) -> set[str]:
    """The texts that an expression may be, a name's by what the module assigns to it; none where that is unknown."""
    match value:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.IfExp(body=one, orelse=other):
            return texts(one, tree) | texts(other, tree)
        case ast.Name(id=name):
            given = [each.value for each in ast.walk(tree) if isinstance(each, ast.Assign) and _is(each.targets, name)]
            return {text for each in given for text in texts(each, tree)}
    return set()


def _is(targets: list[ast.expr], name: str) -> bool:
    return [getattr(each, "id", None) for each in targets] == [name]


def codes(file: str, value: ast.expr | None, tree: ast.Module) -> set[str]:
    """The codes that an argument may be. What cannot be told must stand in COMPUTED."""
    assert value is not None, file
    if (file, ast.unparse(value)) in COMPUTED or isinstance(value, ast.Starred):  # `reasons` finds what is handed on
        return set()
    found = texts(value, tree)
    assert found, f"{file}:{value.lineno}: {ast.unparse(value)} is no plain code, and not in COMPUTED"
    return found


def problem_codes() -> dict[str, set[int]]:
    """Code → the statuses that answers have with it."""
    found: defaultdict[str, set[int]] = defaultdict(set)
    for file, tree in modules("app"):
        if file in WITHOUT_CODES:
            continue
        for name, call in calls(tree, *PROBLEMS):
            status = keyword(call, "status")
            number = status.value if isinstance(status, ast.Constant) else PROBLEMS[name].status
            if name == "NotAcceptableError":
                found["not_acceptable"].add(number)
            else:
                for code in codes(file, call.args[0], tree):
                    found[code].add(number)
    for code, status in plan_codes():
        found[code].add(status)
    bad = [{"index": index, "error": {"code": code, "message": "", "hint": ""}} for index, code in enumerate("ab")]
    for code, number in [each for some in COMPUTED.values() for each in some] + [
        (all_bad(bad).code, all_bad(bad).status)
    ]:
        found[code].add(number)
    return found


def plan_codes() -> Iterator[tuple[str, int]]:
    """What a worker refuses a plan with."""
    for file, tree in modules("worker"):
        if file == "worker/plans.py":
            given = [value for _, call in calls(tree, "refuse") if (value := keyword(call, "code")) is not None]
            yield from ((code, 503) for value in given for code in codes(file, value, tree))
        elif file.startswith("worker/planner/"):
            given = [call.args[0] for _, call in calls(tree, "JobRefused")]
            yield from ((code, 422) for value in given for code in codes(file, value, tree))


def image_codes() -> set[str]:
    found = set()
    for file, tree in modules("app", "models"):
        for _, call in calls(tree, "ImageRejected", "ImageError"):
            found |= codes(file, call.args[0] if call.args else keyword(call, "code"), tree)
    return found


def reasons(tree: ast.Module) -> Iterator[str]:
    """The codes of refusals that are handed on as code, message and hint: by functions, and as constants."""
    given = [each.value for each in tree.body if isinstance(each, ast.Assign)]
    for each in ast.walk(tree):
        if isinstance(each, ast.FunctionDef) and each.returns and "tuple[str, str, str]" in ast.unparse(each.returns):
            given += [node.value for node in ast.walk(each) if isinstance(node, ast.Return | ast.Yield) and node.value]
    for value in given:
        match value:
            case ast.Tuple(elts=[ast.Constant(value=str(code)), message, hint]):
                if CODE.fullmatch(code) and all(
                    " " in ast.unparse(each) or isinstance(each, ast.Name) for each in (message, hint)
                ):
                    yield code


def job_codes() -> dict[str, set[Kind]]:
    """Code → the kinds of jobs whose own process gives it; none for what any may end with."""
    found: defaultdict[str, set[Kind]] = defaultdict(set)
    for file, tree in modules("app", "jobs", "worker", "store", "models"):
        room = file.split("/")[1]
        if room == "planner":
            continue
        given = [code for _, call in calls(tree, "JobRefused") for code in codes(file, call.args[0], tree)]
        given += [code for _, call in calls(tree, "JobError") for code in codes(file, keyword(call, "code"), tree)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Dict):
                said = dict(zip(map(ast.unparse, filter(None, node.keys)), node.values, strict=False))
                if said.keys() == {"'code'", "'message'", "'hint'"}:
                    given += texts(said["'code'"], tree)
        for code in [*given, *(reasons(tree) if file.startswith("worker/") else ())]:
            found[code] |= {MAKERS[room]} if room in MAKERS else set()
    for path in sorted((ROOT / "jobs" / "lua").glob("*.lua")):
        for code in re.findall(r"\bcode = '(\w+)'", path.read_text()):
            found[code] |= set()
    return found


def test_the_page_has_every_code_of_a_problem_with_its_statuses_and_no_other():
    told = {code: set(map(int, cell.split(", "))) for code, cell in rows("Problems").items()}
    assert told == problem_codes()


def test_the_page_has_every_code_of_an_image_and_no_other():
    assert set(rows("Images")) == image_codes()


def test_the_page_has_every_code_of_a_job_under_the_kinds_that_give_it_and_no_other():
    told, found = rows("Jobs"), job_codes()
    assert set(told) == set(found)
    assert {"crash_loop", "crashed", "stalled", "worker_lost", "out_of_memory", "too_few_classes"} <= set(found)
    for code, cell in told.items():
        kinds = set(Kind) if cell == "all" else set(map(Kind, cell.split(", ")))
        assert found[code] <= kinds, code


def test_codes_are_words_and_what_is_computed_is_still_there():
    for section in ("Problems", "Images", "Jobs"):
        assert [code for code in rows(section) if not CODE.fullmatch(code)] == []
    sources = {file: ast.unparse(tree) for file, tree in modules("app", "worker")}
    assert [place for place in COMPUTED if place[1] not in sources[place[0]]] == []
