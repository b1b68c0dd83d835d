"""compose.yaml: what every container of it has, what may wait for what, and what Docker Compose makes of it."""

import grp
import subprocess
from pathlib import Path

import pytest

from shared.config.load import load
from tests.acceptance.deployment.composition import (
    ROOT,
    SECURED,
    Composition,
    commented,
    model,
    read_composition,
)

PROFILES = ((), ("monitoring",), ("tools",), ("monitoring", "tools"))
STOP_MARGIN_S = 10.0  # for the end of the process, beyond the time that it keeps itself
SECURE = read_composition(SECURED, ROOT / "compose.yaml", ROOT / "compose.secure.yaml").services[
    "write_cloning"
]
HOST_ENVIRONMENT = {"CUTOVER_HOST_NAME": "host1", "CUTOVER_HOST_STATE_DIR": "/var/lib/cutover"}


def secured() -> Composition:
    """Both files together."""
    return read_composition(SECURED, ROOT / "compose.yaml", ROOT / "compose.secure.yaml")


@pytest.mark.compose_cli
@pytest.mark.parametrize("profiles", PROFILES)
@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.secure.yaml")])
def test_docker_compose_accepts_every_profile_and_reads_what_the_tests_read(
    compose_cli: Path, files: tuple[str, ...], profiles: tuple[str, ...]
) -> None:
    composition = read_composition(SECURED, *(ROOT / file for file in files))
    services = model(compose_cli, *files, profiles=profiles)["services"]
    assert isinstance(services, dict)
    assert services.keys() == {*composition.started_by(*profiles)}
    for name, judged in services.items():
        service = composition.services[name]
        assert judged["command"] == service.command
        assert judged.get("environment", {}) == service.environment
        assert {*judged.get("depends_on", {})} == {*service.depends_on}
        assert judged["user"] == service.user
        assert [each["target"] for each in judged.get("volumes", ())] == [
            each.partition(":")[2] for each in service.volumes
        ]
        for kind, mounted in (("configs", service.configs), ("secrets", service.secrets)):
            found = {(each["source"], each["target"]) for each in judged.get(kind, ())}
            assert found == {(each.source, each.target) for each in mounted}


@pytest.mark.compose_cli
def test_what_stands_in_comments_is_true_when_it_is_uncommented(compose_cli: Path, tmp_path: Path) -> None:
    """Block devices, TCP with TLS, io_uring: Docker Compose accepts them, and makes of them what the comments promise."""
    override = tmp_path / "compose.override.yaml"
    override.write_text(commented(ROOT / "compose.yaml"))
    services = model(compose_cli, "compose.yaml", "compose.secure.yaml", str(override))["services"]
    assert isinstance(services, dict)
    host = services["write_cloning"]
    assert [each["source"] for each in host["devices"]] == ["/dev/sdb", "/dev/sdc"]
    assert host["group_add"] == [str(grp.getgrnam("disk").gr_gid)]
    assert host["security_opt"] == ["no-new-privileges:true", "seccomp=./io_uring.json"]
    assert [each["published"] for each in host["ports"]] == ["10809"]
    assert {*host["networks"]} == {"bus", "outside"}
    service = secured().services["write_cloning"]
    nbd = load(ROOT / "deploy/compose/hosts/host1.toml", host["environment"]).nbd
    assert nbd.listen[0] == service.environment["CUTOVER_NBD_LISTEN"]
    assert nbd.listen[1].endswith(f":{host['ports'][0]['target']}")
    named = {nbd.tls_certificate_file, nbd.tls_key_file, nbd.tls_client_ca_file}
    assert named <= {each.target for each in (*service.configs, *service.secrets)}


@pytest.mark.compose_cli
def test_the_judge_refuses_what_it_does_not_know(compose_cli: Path, tmp_path: Path) -> None:
    wrong = (ROOT / "compose.yaml").read_text().replace("stop_grace_period: 90s", "stop_grace_periode: 90s")
    (tmp_path / "compose.yaml").write_text(wrong)
    done = subprocess.run(
        [compose_cli, "--file", "compose.yaml", "config", "--quiet"],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "stop_grace_periode" in done.stderr


def test_every_container_is_kept_in_bounds(composition: Composition) -> None:
    for name, service in composition.services.items():
        assert service.read_only, name
        assert service.user == "10001:10001", name
        assert service.cap_drop == ["ALL"], name
        assert "no-new-privileges:true" in service.security_opt, name
        assert "/tmp" in service.tmpfs, name
        assert service.networks[0] == "bus", name
        assert service.logging.options["max-size"], name
        assert all(port.startswith("127.0.0.1:") for port in service.ports), name
    network = composition.networks["bus"]
    assert network is not None
    assert network.internal, "NATS has no credentials here, and could be reached from outside"
    assert network.driver_opts["com.docker.network.bridge.inhibit_ipv4"] == "true", (
        "every user would reach it"
    )
    assert not composition.services["nats"].ports


def test_one_image_is_built_once_and_before_anything_that_needs_it(composition: Composition) -> None:
    """Cause: each service built it. Failing: each has another image, left behind by the next build, and made anew by `up`."""
    services = composition.services
    ours = {name for name, service in services.items() if service.image.startswith("cutover:")}
    builders = {name for name in ours if services[name].build is not None}
    assert builders == {"bootstrap", "cutover"}
    assert builders & {*composition.started_by("monitoring")} == {"bootstrap"}
    assert len({services[name].image for name in ours}) == 1
    assert services["bootstrap"].build == services["cutover"].build
    for name in ours - builders:
        assert services[name].pull_policy == "never", f"{name} would look for the image at a registry"
        assert "bootstrap" in services[name].depends_on
    for name in builders:
        assert services[name].pull_policy == "missing", "what `never` is said of is not built"
    assert not services["cutover"].depends_on, "`docker compose run cutover init` comes before all else"


def test_whatever_runs_for_good_is_checked_and_started_again(composition: Composition) -> None:
    for name in composition.started_by("monitoring"):
        service = composition.services[name]
        if name == "bootstrap":
            assert (service.healthcheck.disable, service.restart) == (True, "no")
            continue
        assert service.restart == "unless-stopped", name
        assert service.healthcheck.test[0] == "CMD", name
        assert service.healthcheck.interval >= 10, f"{name}: a check costs processor time"


def test_the_volumes_start_last_and_stop_first(composition: Composition) -> None:
    order = [*composition.started_by()]
    assert order[:2] == ["nats", "bootstrap"]
    assert order[-1] == "write_cloning"
    needed = composition.services["write_cloning"].depends_on
    assert needed.keys() == {*order} - {"write_cloning"}, (
        "something could be gone before the volumes are closed"
    )


def test_the_host_is_given_longer_to_stop_than_it_takes_itself(composition: Composition) -> None:
    service = composition.services["write_cloning"]
    (config,) = [composition.configs[each.source].file for each in service.configs]
    host = load(ROOT / config, {}).host
    assert host is not None
    assert service.stop_grace_period >= host.shutdown_timeout_s + STOP_MARGIN_S


def test_each_container_has_the_key_of_its_own_role_and_no_other() -> None:
    keys = {
        name: [each.target.rpartition("/")[2] for each in service.secrets if each.target.endswith(".nk")]
        for name, service in secured().services.items()
    }
    assert keys == {
        "nats": [],
        "bootstrap": ["bootstrap.nk"],
        "fault_recording": ["fault_recording.nk"],
        "state_control": ["state_control.nk"],
        "startup": ["startup.nk"],
        "write_cloning": ["write_cloning-host1.nk"],
        "monitoring": ["monitor.nk"],
        "cutover": ["operator.nk"],
        "nats-box": ["operator.nk"],
    }


def test_every_config_that_is_mounted_exists_and_is_the_one_that_the_command_names(
    composition: Composition,
) -> None:
    used = set()
    for name, service in composition.services.items():
        for mounted in service.configs:
            assert (ROOT / composition.configs[mounted.source].file).is_file()
            assert mounted.target in service.command, name
            used.add(mounted.source)
    assert used == composition.configs.keys()
