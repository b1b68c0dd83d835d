"""What docs/OPERATING.md says of Docker Compose, as far as it can be tried without Docker."""

import re
import stat
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.deployment.composition import ROOT, Composition, model

PAGE = (ROOT / "docs/OPERATING.md").read_text(encoding="utf-8")
DEPLOYING = PAGE.partition("### With Docker Compose\n")[2].partition("\n### ")[0]
UPGRADING = PAGE.partition("### Upgrading\n")[2].partition("\n### ")[0]


def block(section: str, words: str) -> list[str]:
    """The lines of the one block of commands that has these words."""
    (found,) = [
        each for each in re.findall(r"^```\n(.*?)^```$", section, re.MULTILINE | re.DOTALL) if words in each
    ]
    return [line.partition("   ")[0] for line in found.splitlines()]


def dot_env(folder: Path) -> dict[str, str]:
    """The file that the page's commands write, and what stands in it."""
    lines = "\n".join(block(DEPLOYING, "cutover init"))
    (command,) = re.findall(r"^cat >>.*?^EOF$", lines, re.MULTILINE | re.DOTALL)
    subprocess.run(["sh", "-euc", command], cwd=folder, check=True, timeout=60)
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


@pytest.mark.compose_cli
def test_a_shell_that_knows_nothing_finds_the_same_containers_with_credentials(
    compose_cli: Path, tmp_path: Path
) -> None:
    """Cause: variables of one shell said what runs. Failing: `up` in another makes everything anew, without credentials."""
    told = dot_env(tmp_path)
    options = ("--project-directory", str(ROOT), "--env-file", str(tmp_path / ".env"))
    services = model(compose_cli, options=options, variables={})["services"]
    assert ("monitoring" in services) == ("COMPOSE_PROFILES" in told)
    assert [each["target"] for each in services["startup"]["secrets"]] == ["/etc/cutover/secrets/startup.nk"]
    comment = re.sub("^#   ", "", (ROOT / "compose.secure.yaml").read_text(), flags=re.MULTILINE)
    for line in (tmp_path / ".env").read_text().splitlines():
        assert f"\n{line}\n" in comment


def test_what_is_made_anew_is_stopped_in_order_before() -> None:
    """Cause: `up --build` stops the services before the host, which then cannot stop cleanly. Failing, the attempt is lost."""
    commands = [
        line.removeprefix("docker compose ").split()[0] for line in block(UPGRADING, "docker compose build")
    ]
    assert commands == ["build", "stop", "ps", "down", "up"]
    assert [line.split()[2] for line in block(DEPLOYING, "docker compose stop")] == ["stop", "ps"]


def test_what_an_installation_without_credentials_leaves_is_named_and_no_device_is(
    composition: Composition,
) -> None:
    _, remove = block(DEPLOYING, "docker volume rm")
    kept = {
        f"{composition.name}_{volume.partition(':')[0]}"
        for name, folder in (("nats", "/data"), ("write_cloning", "/var/lib/cutover"))
        for volume in composition.services[name].volumes
        if volume.endswith(f":{folder}")
    }
    assert {*remove.removeprefix("docker volume rm ").split()} == kept
    assert {each.partition("_")[2] for each in kept} <= composition.volumes.keys()


@pytest.mark.needs_root
def test_the_folder_of_the_socket_is_made_at_each_boot_for_the_user_of_the_containers(
    composition: Composition, tmp_path: Path
) -> None:
    """Cause: /run is empty then, and Docker made the folder for root. Failing: the host may not listen there."""
    (tmp_path / "etc/tmpfiles.d").mkdir(parents=True)
    install, create = block(DEPLOYING, "systemd-tmpfiles")
    subprocess.run(install.replace(" /etc/", f" {tmp_path}/etc/").split(), cwd=ROOT, check=True, timeout=60)
    subprocess.run([*create.split(), f"--root={tmp_path}"], check=True, timeout=60)
    service = composition.services["write_cloning"]
    socket = Path(service.environment["CUTOVER_NBD_LISTEN"].removeprefix("unix://"))
    made = (tmp_path / socket.parent.relative_to("/")).stat()
    assert f"{made.st_uid}:{made.st_gid}" == service.user
    assert stat.S_IMODE(made.st_mode) == 0o750
    assert f"CUTOVER_SOCKETS={socket.parent}`" in DEPLOYING
