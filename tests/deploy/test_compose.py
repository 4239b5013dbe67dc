"""Compose file and Dockerfile without a Docker engine: each service's own command and environment, as processes.

Only what a container would bring is replaced: volumes are folders, the host name `redis` is this machine, and ports are
free ones. Everything else runs as it is written.
"""

import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from redis import AuthenticationError, Redis
from redis.exceptions import NoPermissionError
from running import RESNETD, STOP_SECONDS, Running, environment, own_port, processes_that_name
from samples import photo, png, zip_mini
from waiting import wait_for

from resnetd.client import Client
from resnetd.commands.options import variable
from resnetd.embedded_redis import NOBODY, find_server, rules
from resnetd.errors import Problem, Unreachable
from resnetd.parts import KILLED_SECONDS, Parts
from resnetd.up import serving, worker
from store.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


class Reset:
    """What `!reset` stands for in an override: nothing is left of the value below it."""


class Reader(yaml.SafeLoader):
    """YAML with Compose's own tag."""


Reader.add_constructor("!reset", lambda *_: Reset())


def read(name: str) -> dict[str, Any]:
    found = yaml.load((ROOT / name).read_text(), Reader)  # a safe loader
    assert isinstance(found, dict)
    return found


COMPOSE = read("docker-compose.yml")
WITHOUT_GPU = read("deploy/without_gpu.yml")
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SERVICES = COMPOSE["services"]
REDIS_PASSWORD = "0123456789abcdef" * 4
TINY = {"epochs": 1, "lr": 0.1, "warmup_epochs": 0.2, "batch_size": 64, "image_size": 16, "precision": "fp32"}


@dataclass(frozen=True)
class Here:
    """What stands for the containers' world on this machine."""

    folder: Path
    redis_port: int
    http_port: int

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def place(self, text: str) -> str:
        """A command's word or a variable's value, with this machine's places in it."""
        for volume, target in volumes():
            text = re.sub(rf"{target}(?=/|$)", str(self.folder / volume), text)
        text = re.sub(r"\$\{REDIS_PASSWORD(:\?[^}]+)?\}", REDIS_PASSWORD, text)
        text = text.replace("@redis:", "@127.0.0.1:").replace("6379", str(self.redis_port))
        return re.sub(r"\b8000\b", str(self.http_port), text)

    def environment(self, service: str) -> dict[str, str]:
        image = dict(re.findall(r"(RESNETD_\w+)=(\S+)", DOCKERFILE.split("\nFROM ")[-1]))
        given = {**image, **SERVICES[service].get("environment", {})}
        return environment(**{name: self.place(str(value)) for name, value in given.items()})

    def command(self, service: str, words: list[str] | None = None) -> list[str]:
        """The image's entry point with the service's command, or with other words."""
        words = [self.place(str(word)) for word in words or SERVICES[service]["command"]]
        if service == "redis":
            assert words[0] == "redis-server"
            return [str(find_server()), *words[1:]]
        return [RESNETD, *words]

    def healthy(self, service: str) -> bool:
        """Run the service's own health check, once."""
        kind, program, *arguments = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        programs = {"python": sys.executable, "redis-cli": str(find_server().with_name("redis-cli"))}
        command = [programs[program], *(self.place(argument) for argument in arguments)]
        ended = subprocess.run(command, env=self.environment(service), capture_output=True, timeout=20, check=False)
        return ended.returncode == 0


def volumes() -> list[tuple[str, str]]:
    mounts = [mount for service in SERVICES.values() for mount in service["volumes"]]
    return sorted({tuple(mount.split(":")) for mount in mounts}, reverse=True)


def start_order() -> list[str]:
    order: list[str] = []
    while len(order) < len(SERVICES):
        due = [name for name, service in SERVICES.items() if set(service.get("depends_on", {})) <= set(order)]
        order += [name for name in due if name not in order]
    return order


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    with own_port() as redis, own_port() as http:
        yield Here(tmp_path, redis, http)


def ready(client: Client) -> bool:
    try:
        return client.ready()
    except Unreachable:
        return False


def test_without_a_key_the_api_refuses_to_start_and_says_how_to_make_one(here):
    ended = subprocess.run(
        here.command("api"), env=here.environment("api"), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "resnetd keys create" in ended.stderr


def test_the_whole_flow_passes_against_the_services_of_the_compose_file(here, tmp_path):
    for volume, _ in volumes():
        (tmp_path / volume).mkdir()
    making = here.command("api", ["keys", "create", "--scope", "admin"])
    made = subprocess.run(making, env=here.environment("api"), capture_output=True, text=True, timeout=60, check=True)
    key = made.stdout.strip()

    running: list[Running] = []
    try:
        for name in start_order():
            log = tmp_path / f"{name}.log"
            running.append(Running(here.command(name), log=log, env=here.environment(name)))
            wait_for(lambda name=name: here.healthy(name))
        url = f"http://127.0.0.1:{here.http_port}"
        with Client(url, key) as client:
            wait_for(lambda: ready(client))
            flow(client, tmp_path)
        with Client(url) as stranger, pytest.raises(Problem) as refused:
            stranger.classify([png(photo())])
        assert refused.value.status == 401
    finally:
        for each in reversed(running):
            each.stop(seconds=STOP_SECONDS)
    assert processes_that_name(here.folder) == []


def flow(client: Client, folder: Path) -> None:
    """Classify, upload, train, serve what was trained."""
    assert client.classify([png(photo())])["results"][0]["top_k"]
    accepted = client.upload_dataset(zip_mini(folder / "mini.zip"), name="mini")
    imported = client.wait(accepted["job"]["id"])
    assert imported["state"] == "succeeded", imported["error"]
    job = client.train(
        accepted["id"], recipe="fashion-mnist-small", overrides=TINY, register_as="mini", alias="production"
    )
    trained = client.wait(job["id"])
    assert trained["state"] == "succeeded", trained["error"]
    served = client.classify([png(photo(size=(28, 28)))], model="mini@production")
    assert (served["model"], served["version"]) == ("mini", 1)


def test_every_service_has_a_health_check_and_lasting_volumes_and_no_more_rights_than_it_needs():
    assert set(SERVICES) == {"redis", "api", "worker"}
    for name, service in SERVICES.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["restart"] == "unless-stopped", name
        assert "no-new-privileges:true" in service["security_opt"], name
    assert {volume for volume, _ in volumes()} == set(COMPOSE["volumes"])
    assert all(port.startswith("127.0.0.1:") for service in SERVICES.values() for port in service.get("ports", []))


def test_containers_get_more_time_to_stop_than_resnetd_takes_at_most():
    with socket.socket() as listener:
        parts = {
            "api": serving(settings_of("api"), listener, {}),
            "worker": [worker(settings_of("worker"), {})],
        }
    for name, those in parts.items():
        grace = float(SERVICES[name]["stop_grace_period"].removesuffix("s"))
        assert grace > Parts(those).stop_seconds + KILLED_SECONDS, name


def settings_of(service: str) -> Settings:
    """As the service has them, by its environment alone."""
    fields = {variable(name, field): name for name, field in Settings.model_fields.items()}
    given = SERVICES[service]["environment"]
    return Settings(**{name: given[each] for each, name in fields.items() if each in given})


def test_the_worker_reserves_a_gpu_and_the_others_none():
    (device,) = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["api"]
    assert SERVICES["api"]["environment"]["RESNETD_DEVICE"] == "cpu"


def test_the_override_for_a_machine_without_a_gpu_takes_the_reservation_away_and_nothing_else():
    assert set(WITHOUT_GPU) == {"services"}
    assert {name for name, service in SERVICES.items() if "deploy" in service} == set(WITHOUT_GPU["services"])
    for service in WITHOUT_GPU["services"].values():
        assert set(service) == {"deploy"}
        assert isinstance(service["deploy"], Reset)


def defaults(text: str) -> dict[str, str]:
    """The variables with defaults in a value: `${VARIANT:-cuda}`."""
    return dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))


def test_the_image_is_built_for_cuda_unless_variables_say_otherwise_and_each_variant_has_its_own_name():
    built = {name: service for name, service in SERVICES.items() if "build" in service}
    assert set(built) == {"api", "worker"}
    for service in built.values():
        given = {name: defaults(value) for name, value in service["build"]["args"].items()}
        assert given == {"VARIANT": {"VARIANT": "cuda"}, "CPU_PIP_OPTIONS": {"CPU_PIP_OPTIONS": ""}}
        assert set(given) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
        assert service["image"] == "resnetd:${VARIANT:-cuda}"
    variants = set(re.findall(r"^FROM \w+ AS install-(\w+)$", DOCKERFILE, re.MULTILINE))
    assert variants == {"cuda", "cpu"}


def test_what_is_said_of_a_machine_without_a_gpu_names_files_that_exist_and_arguments_that_are_taken():
    for name in ("docker-compose.yml", "docs/configuration.md"):
        text = (ROOT / name).read_text()
        (files,) = re.findall(r"COMPOSE_FILE=(\S+)", text)
        assert [part for part in files.split(":") if not (ROOT / part).exists()] == []
        said = set(re.findall(r"^#? +(\w+)=", text, re.MULTILINE))
        assert said >= {"COMPOSE_FILE", "VARIANT", "CPU_PIP_OPTIONS"}
        assert set(re.findall(r"VARIANT=(\w+)", text)) == {"cpu"}


def test_settings_of_a_file_that_need_not_be_there_reach_the_services_that_are_resnetd():
    for name, service in SERVICES.items():
        files = service.get("env_file", [])
        assert files == ([] if name == "redis" else [{"path": "resnetd.env", "required": False}])
    assert "resnetd.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_redis_answers_after_the_fsync_and_evicts_nothing():
    options = dict(redis_options())
    assert (options["--appendonly"], options["--appendfsync"], options["--save"]) == (["yes"], ["always"], [""])
    assert (options["--no-appendfsync-on-rewrite"], options["--aof-load-truncated"]) == (["no"], ["yes"])
    assert options["--maxmemory-policy"] == ["noeviction"]


def redis_options() -> list[tuple[str, list[str]]]:
    """Each option of the Redis server with its values, in order."""
    found: list[tuple[str, list[str]]] = []
    for word in SERVICES["redis"]["command"][1:]:
        if word.startswith("--"):
            found.append((word, []))
        else:
            found[-1][1].append(word)
    return found


def test_redis_has_one_user_with_a_password_and_the_rights_of_the_embedded_one():
    default, (_, user) = [option for option in redis_options() if option[0] == "--user"]
    assert default == ("--user", ["default", *NOBODY])
    assert (user[:2], user[3:]) == (["resnetd", "on"], rules())
    assert re.fullmatch(r">\$\{REDIS_PASSWORD:\?.+\}", user[2])  # without it Compose refuses to start


def test_nobody_reaches_redis_without_the_password(here, tmp_path):
    (tmp_path / "redis").mkdir()
    redis = Running(here.command("redis"), log=tmp_path / "redis.log", env=here.environment("redis"))
    try:
        wait_for(lambda: here.healthy("redis"))
        for url in (f"redis://127.0.0.1:{here.redis_port}", f"redis://resnetd:wrong@127.0.0.1:{here.redis_port}"):
            with Redis.from_url(url) as client, pytest.raises(AuthenticationError):
                client.ping()
        with Redis.from_url(here.environment("api")["REDIS_URL"]) as client:
            assert client.ping()
            with pytest.raises(NoPermissionError):
                client.flushall()
    finally:
        redis.stop()


def test_the_image_runs_resnetd_and_not_as_root():
    *_, last = DOCKERFILE.split("\nFROM ")
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE)[-1:] == ["resnetd"]
    assert 'ENTRYPOINT ["resnetd"]' in last
    assert "pip install" not in last


@pytest.mark.parametrize(("options", "status"), [("", 1), ("--index-url wheels.example", 0)])
def test_a_build_without_cuda_that_is_not_told_where_such_wheels_are_stops_and_says_what_is_missing(options, status):
    (check,) = re.findall(r"^RUN (if .+?^ +fi)$", DOCKERFILE, re.MULTILINE | re.DOTALL)
    environment = {"CPU_PIP_OPTIONS": options, "PATH": os.environ["PATH"]}
    ended = subprocess.run(["sh", "-c", check], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert ("CPU_PIP_OPTIONS" in ended.stderr) == bool(status)


def test_the_image_is_built_from_files_that_exist_and_from_locked_packages():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    names = {name for line in copied for name in line.split()}
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"benchmarks"}
    assert packages <= names
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert names <= {line.removeprefix("!") for line in ignored if line.startswith("!")}
    for line in re.findall(r"pip install .+", DOCKERFILE):
        assert "--require-hashes" in line or "--no-deps" in line, line


def test_an_image_has_what_the_package_needs_as_it_was_tested_and_no_tool_of_development():
    tested, built = (locked(ROOT / name) for name in ("requirements.txt", "deploy/requirements.txt"))
    assert {name: tested.get(name) for name in built} == built  # the same versions, for the same files
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {named(each) for each in project["dependencies"]} <= {named(each) for each in built}
    assert not {"pytest", "pytest-xdist", "hypothesis", "ruff", "mypy", "tritonclient"} & set(built)


def named(requirement: str) -> str:
    return re.split(r"[\s=<>;\[]", requirement, maxsplit=1)[0].lower()


def locked(path: Path) -> dict[str, str]:
    """Each package's version, condition and hashes."""
    joined = re.sub(r"\s*\\\n\s*", " ", path.read_text())
    return dict(line.split("==", 1) for line in joined.splitlines())


def test_no_file_names_a_registry():
    compose = ("docker-compose.yml", "deploy/without_gpu.yml")
    locks = ("requirements.txt", "deploy/requirements.txt")
    for name in ("Dockerfile", *compose, *locks, "pyproject.toml", "Makefile", "docs/configuration.md"):
        assert not re.search(r"(index-url|find-links)[ =]+[a-z]+://", (ROOT / name).read_text()), name
