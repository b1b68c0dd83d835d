"""`cutover doctor` on an installation with keys: a host that NATS refuses, a file that is mixed up, a service that is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.system.background import Background
from tests.acceptance.system.pairs import make_pair
from tests.acceptance.system.secured import SecuredSystem, secured_system
from tests.acceptance.system.test_doctor import Lines, of, read, run_doctor
from tests.acceptance.system.whole_system import CLONING, HOST, READY_TIMEOUT_S
from tests.support.installations import run_init


@pytest.fixture
def system(background: Background) -> Iterator[SecuredSystem]:
    with secured_system(background) as system:
        yield system


def doctor(file: Path) -> tuple[int, Lines]:
    return read(run_doctor("--config", str(file), "--json"))


def test_a_host_that_nats_refuses_is_told_though_nats_takes_its_file(system: SecuredSystem) -> None:
    """Its key was replaced under it: whoever asks with the new one is answered, and the host that has the old one is not.

    Failing: everything is ok. Passing: it is told that the host has had no NATS, since when, and where to read on.
    """
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    done = run_init(system.etc, "--new-key", f"write_cloning-{HOST}")
    assert done.returncode == 0, done.stderr
    system.reload_nats()
    system.until_log(CLONING, "is lost", timeout_s=READY_TIMEOUT_S)
    status, lines = doctor(system.config_of(CLONING))
    assert status == 1
    (told,) = of(lines, "hosts", "failure")
    assert told.startswith(f"this machine's host, {HOST}, serves its volumes, but has had no NATS since 2")
    assert of(lines, "hosts", "ok") == of(lines, "journal", "ok") == []
    _status, lines = doctor(system.etc / "operator.toml")
    (told,) = of(lines, "hosts", "failure")
    assert told == (
        f"Host '{HOST}' is away: its write cloning service does not run, or NATS refuses it. It has vol1"
    )


def test_without_state_control_nothing_is_told_of_volumes(system: SecuredSystem) -> None:
    pair = make_pair(system)
    system.set_up("vol1", pair.source, pair.target)
    system.kill_service("state_control")
    status, lines = doctor(system.etc / "operator.toml")
    assert status == 1
    assert of(lines, "volumes", "ok") == of(lines, "journal", "ok") == []
    (told,) = [line for line in lines if line["check"] == "services" and line["outcome"] == "failure"]
    assert (
        told["todo"]
        == f"start: python -P -m services.state_control --config {system.etc}/services/state_control.toml"
    )


def test_a_file_with_the_seed_of_another_host_is_told(system: SecuredSystem, tmp_path: Path) -> None:
    done = run_init(system.etc, "--add-host", "h3", "--allow", f"{system.data}/**")
    assert done.returncode == 0, done.stderr
    system.reload_nats()
    theirs = (system.etc / "hosts/h3.toml").read_text()
    mixed = tmp_path / "h1.toml"
    mixed.write_text(theirs.replace('name = "h3"', f'name = "{HOST}"'))
    _status, lines = doctor(mixed)
    (told,) = of(lines, "permissions", "failure")
    assert f"are of the role write_cloning-h3, which may not ask for the admission of {HOST}" in told
    own = system.config_of(CLONING).read_text()
    mixed.write_text(own.replace(f"write_cloning-{HOST}.nk", "write_cloning-h3.nk"))
    _status, lines = doctor(mixed)
    (refused,) = [line for line in lines if line["check"] == "nats"]
    assert "of one role" in refused["todo"]
