"""The arrows and invariants of ARCHITECTURE.md, held by the imports as they stand in the source and as they happen."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("app", "jobs", "models", "resnetd", "store", "worker")

# Who may import whom. `resnetd` starts app and worker as processes.
ARROWS = {
    "app": {"jobs", "models", "store"},
    "worker": {"jobs", "models", "store"},
    "models": {"store"},
    "jobs": {"store"},
    "resnetd": {"store"},
    "store": set(),
}

TORCH = ("torch", "torchvision", "safetensors.torch")
# Where torch may be imported; a folder stands for everything below it.
TORCH_PLACES = (
    "app/engine",
    "worker/trainer",
    "worker/adopter",
    "worker/evaluator/evaluating.py",
    "worker/exporter/exporting.py",
    "worker/exporter/onnx_model.py",
    "worker/exporter/program.py",
    "worker/planner/measuring.py",
    "worker/planner/memory.py",
    "worker/planner/network.py",
    "worker/planner/rehearsal.py",
    "models/networks/cifar.py",
    "models/networks/d2l.py",
    "models/networks/resnet.py",
    "models/networks/resnet9.py",
    "models/networks/torchvision_resnets.py",
    "models/networks/mnist.py",
    "models/runtime.py",
    "models/checkpoint.py",
    "models/golden.py",
)

MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def may_use_torch(name: str) -> bool:
    return any(name == place or name.startswith(place + "/") for place in TORCH_PLACES)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imports(path: Path, *, typing_only: bool = True) -> set[str]:
    """Dotted names of everything that the module imports, anywhere in it; `from a import b` counts as a and a.b."""
    found: set[str] = set()
    hidden = set() if typing_only else {id(inner) for node in _typing_blocks(tree(path)) for inner in ast.walk(node)}
    for node in ast.walk(tree(path)):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _typing_blocks(module: ast.Module) -> list[ast.If]:
    return [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]


def within(imported: set[str], package: str) -> bool:
    return any(name == package or name.startswith(package + ".") for name in imported)


def unpickles(call: ast.Call) -> bool:
    arguments = {(keyword.arg, ast.unparse(keyword.value)) for keyword in call.keywords}
    unsafe = {("weights_only", "False"), ("allow_pickle", "True")}
    return ast.unparse(call.func) in ("torch.load", "torch.save") or bool(arguments & unsafe)


def filtered_in_its_own_process(path: Path, call: ast.Call) -> bool:
    """The one place for a stranger's pickle: with torch's filter, in a process that ends after it."""
    filtered = ("weights_only", "True") in {(keyword.arg, ast.unparse(keyword.value)) for keyword in call.keywords}
    return name_of(path) == "worker/adopter/unpickling.py" and ast.unparse(call.func) == "torch.load" and filtered


def loaded_by(*modules: str) -> tuple[set[str], float]:
    """The modules in a fresh interpreter that has imported `modules`, and the CPU seconds that it took."""
    code = (
        "import json, sys, time; before = time.process_time(); import importlib; "
        "[importlib.import_module(name) for name in sys.argv[1:]]; "
        "print(json.dumps([sorted(sys.modules), time.process_time() - before]))"
    )
    command = [sys.executable, "-c", code, *modules]
    ended = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    loaded, seconds = json.loads(ended.stdout.splitlines()[-1])
    return set(loaded), seconds


def test_every_folder_with_modules_is_a_room_with_arrows():
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert packages == set(ARROWS) == set(ROOMS)


def test_a_room_imports_only_where_its_arrows_point():
    wrong = {
        (name_of(path), other)
        for path in MODULES
        for other in ROOMS
        if other not in ARROWS[room_of(path)] | {room_of(path)} and within(imports(path), other)
    }
    assert not wrong


def test_torch_is_imported_by_engine_and_trainer_and_what_they_use_in_models_only():
    wrong = {
        (name_of(path), library)
        for path in MODULES
        for library in TORCH
        if not may_use_torch(name_of(path)) and within(imports(path, typing_only=False), library)
    }
    assert not wrong


@pytest.mark.parametrize("place", TORCH_PLACES)
def test_every_place_that_may_import_torch_exists(place):
    assert (ROOT / place).exists()


def test_the_package_models_says_nothing_by_itself():
    assert (ROOT / "models" / "__init__.py").read_text() == ""


def test_services_know_no_web_framework():
    services = sorted((ROOT / "app" / "services").rglob("*.py"))
    frameworks = ("fastapi", "starlette", "uvicorn")
    assert len(services) > 1
    assert not {(name_of(path), name) for path in services for name in frameworks if within(imports(path), name)}


def test_routes_cut_no_lists():
    routes = sorted((ROOT / "app" / "routes").rglob("*.py"))
    assert len(routes) > 1
    assert not [name_of(path) for path in routes if within(imports(path), "app.services.pages")]


def test_what_is_behind_the_edge_does_not_speak_of_its_clients():
    modules = [path for path in MODULES if room_of(path) in ("jobs", "store", "worker")]
    assert len(modules) > 1
    assert not [name_of(path) for path in modules if "curl" in path.read_text()]


def wraps_requests(module: ast.Module) -> list[int]:
    """The lines that make a middleware of Starlette's, which stands between an endpoint and its client's messages: a
    disconnect does not reach it, and bodies are read in advance.
    """
    found = []
    for node in ast.walk(module):
        base = isinstance(node, (ast.Name, ast.Attribute, ast.alias)) and "BaseHTTPMiddleware" in ast.dump(node)
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        if base or (called and node.func.attr == "middleware"):
            found.append(node.lineno)
    return found


def test_middleware_is_pure_asgi():
    modules = [path for path in MODULES if room_of(path) == "app"]
    assert len(modules) > 1
    assert not [(name_of(path), line) for path in modules for line in wraps_requests(tree(path))]


@pytest.mark.parametrize(
    "source",
    [
        "from starlette.middleware.base import BaseHTTPMiddleware",
        "class Timed(base.BaseHTTPMiddleware): ...",
        "@app.middleware('http')\nasync def timed(request, call_next): ...",
        "app.middleware('http')(timed)",
    ],
)
def test_the_check_for_pure_asgi_sees_what_is_not(source):
    assert wraps_requests(ast.parse(source))


def test_nothing_is_ever_unpickled():
    picklers = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
    wrong = {(name_of(path), name) for path in MODULES for name in picklers if within(imports(path), name)}
    for path in MODULES:
        calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
        calls = [call for call in calls if not filtered_in_its_own_process(path, call)]
        wrong |= {(f"{name_of(path)}:{call.lineno}", ast.unparse(call)) for call in calls if unpickles(call)}
    assert not wrong


def test_nobody_imports_the_process_that_reads_pickles():
    assert not [name_of(path) for path in MODULES if within(imports(path), "worker.adopter.unpickling")]


def test_the_check_for_unpickling_sees_it():
    sources = ("torch.load(path)", "load(path, weights_only=False)", "np.load(path, allow_pickle=True)")
    for source in sources:
        call = ast.parse(source, mode="eval").body
        assert isinstance(call, ast.Call)
        assert unpickles(call), source


@pytest.mark.parametrize(
    "module",
    ["app.main", "app.fleet.__main__", "worker.celery", "worker.importer.job", "resnetd.cli", "resnetd.up"],
)
def test_processes_that_compute_nothing_start_at_once_and_never_load_torch(module):
    loaded, seconds = loaded_by(module)
    assert "torch" not in loaded
    assert seconds < 1.5


def test_a_jobs_own_process_knows_neither_celery_nor_redis():
    """One interpreter for all of them: what it has not loaded, none of them has."""
    loaded, _ = loaded_by(
        "worker.trainer.train",
        "worker.importer.job",
        "worker.evaluator.evaluating",
        "worker.exporter.exporting",
        "worker.planner.planning",
        "worker.adopter.adopting",
    )
    assert not loaded & {"celery", "kombu", "redis", "jobs"}


def test_the_engine_knows_neither_redis_nor_the_web_framework():
    loaded, _ = loaded_by("app.engine.__main__")
    assert not loaded & {"openvino", "nncf", "torch._inductor"}  # slow to load: only where one of them computes
    assert not loaded & {"celery", "kombu", "redis", "fastapi", "jobs"}


def test_the_command_line_loads_http_and_drawing_only_when_a_command_needs_them():
    loaded, _ = loaded_by("resnetd.cli")
    assert not loaded & {"httpx", "rich.progress", "redis", "celery", "app", "worker"}


def test_the_ledger_knows_no_models():
    loaded, _ = loaded_by("jobs.reconciler")
    assert not loaded & {"torch", "models", "app", "worker"}


def test_no_test_module_imports_another():
    """What several share is a kit: else a file of tests cannot be split, moved or run by itself."""
    modules = sorted((ROOT / "tests").rglob("*.py"))
    borrowed = {(name_of(path), name) for path in modules for name in imports(path) if name.startswith("test_")}
    assert not borrowed
