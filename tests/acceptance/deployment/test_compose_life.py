"""What `docker compose up` and `down` do, by hand with the very commands: a migration, a stop in the middle, and its end.

No Docker runs here.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.deployment.composition import Composition, commented, read_composition
from tests.acceptance.deployment.container import Engine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs_root,
    pytest.mark.timeout(600),  # the first builds the image
]

MIB = 1 << 20
READY_TIMEOUT_S = 60.0
SOURCE, TARGET = "/srv/volumes/old.img", "/srv/volumes/new.img"
EngineOf = Callable[[Composition], Engine]


def up(engine: Engine, *profiles: str) -> None:
    """Start every service when what it waits for has come."""
    for name in engine.composition.started_by(*profiles):
        for other, dependency in engine.composition.services[name].depends_on.items():
            wait(engine, other, dependency.condition)
        engine.start(name)
    for name in engine.composition.started_by(*profiles):
        if name != "bootstrap":
            wait(engine, name, "service_healthy")


def wait(engine: Engine, name: str, condition: str) -> None:
    """Wait for a condition. A health check is asked, as an engine asks it: nobody tells."""
    container = engine.running[name]
    if condition == "service_completed_successfully":
        assert container.process.wait(READY_TIMEOUT_S) == 0, container.log.read_text()
        return

    def is_healthy() -> bool:
        assert container.process.poll() is None, f"{name} ended: {container.log.read_text()}"
        return container.is_healthy()

    until(is_healthy, f"{name} is not healthy: see {container.log}")


def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds that nobody tells of; asking takes its time by itself."""
    end = time.monotonic() + READY_TIMEOUT_S
    while not holds():
        assert time.monotonic() < end, otherwise


def down(engine: Engine) -> dict[str, int]:
    """Stop every service, the last first; the exit statuses."""
    order = [name for name in engine.composition.started_by("monitoring", "tools") if name in engine.running]
    return {name: engine.stop(name) for name in reversed(order) if name != "bootstrap"}


def cutover(engine: Engine, *words: str) -> str:
    """`docker compose run --rm cutover WORDS`."""
    done = engine.run("cutover", *words)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def query(engine: Engine) -> dict[str, object]:
    answer: dict[str, object] = json.loads(cutover(engine, "query", "vol1", "--json"))
    return answer


def not_well(engine: Engine, container: str, *words: str) -> dict[str, str]:
    """What doctor finds that is not ok, said in a container of a service."""
    checks = json.loads(engine.run(container, *words).stdout)["checks"]
    return {each["check"]: each["message"] for each in checks if each["outcome"] != "ok"}


def page(engine: Engine, url: str) -> str:
    """What a browser of the machine gets, to whose loopback address the port is published."""
    script = f"import urllib.request; print(urllib.request.urlopen({url!r}, timeout=10).read().decode())"
    done = subprocess.run(
        ["ip", "netns", "exec", engine.network, sys.executable, "-c", script],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fill(uri: str, content: bytes) -> None:
    """Write as an application does that is no part of Cutover."""
    subprocess.run(["nbdcopy", "--flush", "-", uri], input=content, check=True, timeout=60)


def make_devices(engine: Engine) -> None:
    for name in ("old.img", "new.img"):
        with (engine.volume("volumes") / name).open("wb") as file:
            file.truncate(16 * MIB)


def test_a_migration_on_a_fresh_checkout(composition: Composition, engine: EngineOf) -> None:
    this = engine(composition)
    make_devices(this)
    this.volume("state").chmod(0o700)  # which a new volume takes over from the image
    up(this)
    cutover(this, "setup", "vol1", "--source", SOURCE, "--target", TARGET)
    content = os.urandom(16 * MIB)
    uri = f"nbd+unix:///vol1?socket={this.volume('sockets')}/nbd.sock"
    fill(uri, content)
    cutover(this, "sync", "vol1")
    cutover(this, "wait", "vol1", "source-selected")
    cutover(this, "select-target", "vol1")
    status = query(this)
    assert (status["state"], status["error_flag"]) == ("target-selected", True)
    assert status["io_engine"] == "threads", "Docker's filter refuses io_uring, and threads do it unasked"
    assert status["warnings"] == []
    # True without compose.secure.yaml: that nobody but these containers reaches NATS cannot be seen from inside.
    open_to_all = "credentials"
    assert not_well(this, "cutover", "doctor", "--json").keys() == {open_to_all}
    host = ("cutover", "doctor", "--config", "/etc/cutover/hosts/host1.toml", "--json")
    found = not_well(this, "write_cloning", *host)
    if "is in memory" in found.get("state directory", ""):  # of this test's machine
        del found["state directory"]
    assert found.keys() <= {open_to_all, "io engine"}, "io_uring is filtered"

    # A stop in the middle: first the volumes, whose flag is clear when all the others are still there to see it.
    assert this.stop("write_cloning") == 0
    assert query(this)["error_flag"] is False
    assert {*down(this).values()} == {0}

    up(this, "monitoring")
    assert query(this)["state"] == "target-selected"
    assert page(this, "http://127.0.0.1:8321/healthz") == "ok"
    assert "<title>Cutover" in page(this, "http://127.0.0.1:8321/")
    assert 'migration="vol1"' in page(this, "http://127.0.0.1:8321/metrics")
    content = content[: 8 * MIB] + os.urandom(8 * MIB)
    fill(uri, content)
    cutover(this, "commit", "vol1", "--yes")
    cutover(this, "cleanup", "vol1", "--yes")
    assert (this.volume("volumes") / "new.img").read_bytes() == content

    # NATS away: who answers over it is not well; who serves applications is, or an engine that heals would take their volumes.
    assert this.stop("nats") == 0
    until(lambda: not this.running["startup"].is_healthy(), "startup calls itself well without NATS")
    assert this.running["write_cloning"].is_healthy()
    this.start("nats")
    until(this.running["startup"].is_healthy, "startup does not recover")
    assert {*down(this).values()} == {0}


INIT = (
    "init", "/out/files", "--installed-at=/etc/cutover", "--host=host1", "--nats-host=nats", "--nats-monitor=0.0.0.0:8222",
    "--nats-store=/data", "--allow=/srv/volumes/*",
)  # fmt: skip


@pytest.mark.nats_cli
def test_a_migration_with_what_cutover_init_has_written(
    pytestconfig: pytest.Config, composition: Composition, engine: EngineOf, scratch: Path
) -> None:
    """A key and the least privileges for each role, and TLS: every container has what it needs of it, and no more."""
    root, folder = pytestconfig.rootpath, scratch / "secured"
    folder.mkdir()
    made = engine(composition).run("cutover", *INIT, volumes=[f"{folder}:/out"])
    assert made.returncode == 0, made.stdout + made.stderr
    override = folder / "compose.override.yaml"
    override.write_text(commented(root / "compose.yaml"))
    variables = {"CUTOVER_FILES": f"{folder}/files"}
    this = engine(read_composition(variables, root / "compose.yaml", root / "compose.secure.yaml", override))
    make_devices(this)
    up(this)
    cutover(this, "setup", "vol1", "--source", SOURCE, "--target", TARGET)
    cutover(this, "sync", "vol1")
    cutover(this, "wait", "vol1", "source-selected")
    asked = this.run("nats-box", "nats", "req", "--raw", "cutover.control.query.vol1", "")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["error_flag"] is True

    uri = f"nbds://127.0.0.1:10809/vol1?tls-certificates={folder}/files/tls/nbd-client"
    inside = ["ip", "netns", "exec", this.network]
    size = subprocess.run(
        [*inside, "nbdinfo", "--size", uri], capture_output=True, text=True, check=True, timeout=60
    )
    assert size.stdout == f"{16 * MIB}\n"

    stranger = this.run("nats-box", "env", "--unset=NATS_NKEY", "nats", "req", "cutover.control.list", "")
    assert stranger.returncode != 0, "NATS lets in who has no key"

    assert this.stop("write_cloning") == 0
    assert query(this)["error_flag"] is False
    assert {*down(this).values()} == {0}
