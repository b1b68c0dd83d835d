"""Commands from the page, as comments in the unit and in compose.secure.yaml show them: off, and true when uncommented."""

import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from shared.config.load import load
from tests.acceptance.deployment.composition import ROOT, model
from tests.support.installations import run_init

UNIT = ROOT / "deploy/systemd/cutover-monitoring.service"
COMPOSE = ("compose.yaml", "compose.secure.yaml")
SEED = "/etc/cutover/secrets/operator.nk"


def commented(file: Path, indent: str = "") -> list[str]:
    """The lines that a comment about commands from the page shows."""
    text = file.read_text().partition("# Commands from the page")[2]
    return re.findall(rf"^{indent}#   (.*)$", text.partition("\n\n")[0], flags=re.MULTILINE)


def drop_in(folder: Path, lines: list[str]) -> Path:
    """The unit in a folder, with a drop-in beside it."""
    unit = folder / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/cutover/bin", sysconfig.get_path("scripts")))
    beside = folder / f"{UNIT.name}.d"
    beside.mkdir()
    (beside / "override.conf").write_text("\n".join([*lines, ""]))
    return unit


def verified(unit: Path) -> str:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    assert verified(drop_in(tmp_path, commented(UNIT))) == ""


def test_systemd_does_look_at_the_drop_in(tmp_path: Path) -> None:
    assert "Unknown key" in verified(drop_in(tmp_path, [*commented(UNIT), "LoadCredentials=x:/y"]))


def test_drop_in_hands_the_operator_s_seed_to_the_page_and_keeps_the_token_in_reach(tmp_path: Path) -> None:
    section, *lines = commented(UNIT)
    assert section == "[Service]"
    settings = [line.split("=", 1) for line in lines]
    assigned = [
        value.replace("%d", "/d").replace("%t", "/run") for key, value in settings if key == "Environment"
    ]
    environment = dict(each.split("=", 1) for each in assigned)
    monitoring = load(None, environment | {"CUTOVER_NATS_URL": "nats://127.0.0.1:4222"}).monitoring
    others = dict(each for each in settings if each[0] != "Environment")
    credential, file = others["LoadCredential"].split(":")
    assert monitoring.operator_nkey_seed_file == f"/d/{credential}"
    assert monitoring.access_token_file == f"/run/{others['RuntimeDirectory']}/access-token"
    assert others["RuntimeDirectoryMode"] == "0700"
    assert file == SEED
    assert f"cat {monitoring.access_token_file}" in UNIT.read_text()
    assert run_init(tmp_path / "etc", "--host=h1").returncode == 0
    assert (tmp_path / "etc/secrets/operator.nk").is_file()


def test_page_has_no_commands_unless_somebody_wants_them() -> None:
    for file in (UNIT, *(ROOT / name for name in COMPOSE)):
        in_force = [line for line in file.read_text().splitlines() if not line.lstrip().startswith("#")]
        assert not any("OPERATOR_NKEY_SEED_FILE" in line for line in in_force), file


@pytest.mark.compose_cli
def test_compose_takes_the_override_and_mounts_the_seed_where_it_is_looked_for(
    compose_cli: Path, tmp_path: Path
) -> None:
    override = tmp_path / "compose.override.yaml"
    lines = commented(ROOT / "compose.secure.yaml", indent="    ")
    override.write_text("\n".join(["services:", "  monitoring:", *(f"    {line}" for line in lines), ""]))
    service: dict[str, Any] = model(compose_cli, *COMPOSE, str(override), profiles=["monitoring"])[
        "services"
    ]["monitoring"]
    monitoring = load(ROOT / "deploy/compose/services/monitoring.toml", service["environment"]).monitoring
    mounted = {each["target"] for each in service["secrets"]}
    assert mounted == {"/etc/cutover/secrets/monitor.nk", SEED}
    assert monitoring.operator_nkey_seed_file == SEED
    assert str(Path(str(monitoring.access_token_file)).parent) in service["tmpfs"]
