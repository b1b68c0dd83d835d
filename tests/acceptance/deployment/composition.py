"""compose.yaml as typed objects: whatever stands in it and is not known here is an error, so that nothing of it is overlooked."""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

ROOT = Path(__file__).parents[3]
SECURED = {"CUTOVER_FILES": "/srv/cutover/files"}  # what compose.secure.yaml wants to be told
_VARIABLE = re.compile(r"\$\{(?P<name>\w+):(?P<how>[-?])(?P<else>[^}]*)\}")
_SECONDS = {"s": 1.0, "m": 60.0}


def _seconds(text: object) -> float:
    assert isinstance(text, str)
    return float(text[:-1]) * _SECONDS[text[-1]]


Duration = Annotated[float, BeforeValidator(_seconds)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Healthcheck(_Strict):
    test: list[str] = []
    interval: Duration = 0.0
    timeout: Duration = 0.0
    retries: int = 0
    start_period: Duration = 0.0
    start_interval: Duration = 0.0
    disable: bool = False


class Dependency(_Strict):
    condition: Literal["service_healthy", "service_completed_successfully", "service_started"]


class Mounted(_Strict):
    """A config or a secret in a service."""

    source: str
    target: str


class Limits(_Strict):
    cpus: str = ""
    memory: str
    pids: int


class Resources(_Strict):
    limits: Limits


class Deploy(_Strict):
    resources: Resources


class Build(_Strict):
    context: str
    target: str


class Logging(_Strict):
    driver: str
    options: dict[str, str]


class Service(_Strict):
    image: str
    build: Build | None = None
    pull_policy: Literal["", "missing", "never"] = ""
    init: bool
    user: str
    read_only: bool
    tmpfs: list[str]
    cap_drop: list[str]
    security_opt: list[str]
    restart: str
    networks: list[str]
    logging: Logging
    deploy: Deploy
    command: list[str]
    entrypoint: list[str] = []
    healthcheck: Healthcheck = Healthcheck(disable=True)
    stop_grace_period: Duration = 10.0
    environment: dict[str, str] = {}
    configs: list[Mounted] = []
    secrets: list[Mounted] = []
    volumes: list[str] = []
    depends_on: dict[str, Dependency] = {}
    profiles: list[str] = []
    ports: list[str] = []
    ulimits: dict[str, int] = {}
    devices: list[str] = []
    group_add: list[str] = []
    working_dir: str = ""
    stdin_open: bool = False
    tty: bool = False


class SourceFile(_Strict):
    file: str


class Network(_Strict):
    internal: bool = False
    driver_opts: dict[str, str] = {}


class Composition(BaseModel):
    """A whole file. What begins with `x-` only serves to be repeated."""

    model_config = ConfigDict(frozen=True)

    name: str
    services: dict[str, Service]
    configs: dict[str, SourceFile]
    secrets: dict[str, SourceFile] = {}
    volumes: dict[str, None]
    networks: dict[str, Network | None]

    def started_by(self, *profiles: str) -> Iterator[str]:
        """The services that `up` starts, each behind those that it depends on."""
        wanted = [
            name
            for name, service in self.services.items()
            if not service.profiles or {*service.profiles} & {*profiles}
        ]
        started: list[str] = []
        while wanted:
            name = next(name for name in wanted if not self.services[name].depends_on.keys() & {*wanted})
            wanted.remove(name)
            started.append(name)
        yield from started


def read_composition(variables: Mapping[str, str], *files: Path) -> Composition:
    """Read files as Compose does, each over those before: anchors, merges, `${NAME:-default}`, `${NAME:?complaint}`."""
    document: dict[str, Any] = {}
    for file in files:
        document = _merged(document, yaml.safe_load(_interpolated(file.read_text(), variables)))
    unknown = [key for key in document if key not in Composition.model_fields and not key.startswith("x-")]
    assert not unknown, f"keys that nothing here looks at: {unknown}"
    return Composition.model_validate(
        {key: value for key, value in document.items() if not key.startswith("x-")}
    )


def commented(file: Path) -> str:
    """What the comments at `write_cloning` say to put into an override, as that override."""
    lines = re.findall(r"^    #   ( *[\w\[].*)$", file.read_text(), flags=re.MULTILINE)
    return "services:\n  write_cloning:\n" + "".join(f"    {line}\n" for line in lines)


def _interpolated(text: str, variables: Mapping[str, str]) -> str:
    def value(found: re.Match[str]) -> str:
        if found["name"] in variables:
            return variables[found["name"]]
        assert found["how"] == "-", f"{found['name']}: {found['else']}"
        return found["else"]

    return _VARIABLE.sub(value, text)


def _merged(under: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, sequences are joined, anything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merged(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            merged[key] = [*before, *value]
        else:
            merged[key] = value
    return merged


def model(
    compose_cli: Path,
    *files: str,
    profiles: Iterable[str] = (),
    options: Sequence[str] = (),
    variables: Mapping[str, str] = SECURED,
) -> dict[str, Any]:
    """What `docker-compose config` makes of these files, or of those that the variables or the options name."""
    named = [word for file in files for word in ("--file", file)]
    enabled = [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [compose_cli, *named, *enabled, *options, "config", "--format", "json"],
        cwd=ROOT,
        env={**variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made
