"""A health check is told the truth: not ready, ready, in doubt, stopping, hanging, gone."""

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from shared.supervision import check
from shared.supervision.supervisor import Supervisor


@pytest.fixture
def socket_path(short_path: Path) -> Path:
    return short_path / "health.sock"


async def asked(path: Path) -> tuple[bool, str]:
    return await asyncio.to_thread(check.ask, str(path))


async def test_health_follows_the_life_of_the_process(socket_path: Path) -> None:
    supervisor = Supervisor()
    async with supervisor.supervising({"CUTOVER_HEALTH_SOCKET": str(socket_path)}):
        assert await asked(socket_path) == (False, "It is starting.")
        supervisor.status("Waiting for NATS:\nnobody is there.")
        assert await asked(socket_path) == (False, "Waiting for NATS: nobody is there.")
        supervisor.ready("It serves.")
        assert await asked(socket_path) == (True, "It serves.")
        supervisor.stopping("It stops.")
        assert await asked(socket_path) == (False, "It stops.")
    is_ok, sentence = await asked(socket_path)
    assert (is_ok, "Nobody answers at" in sentence) == (False, True)
    assert not socket_path.exists()


async def test_what_stands_against_it_is_looked_at_whenever_someone_asks(socket_path: Path) -> None:
    supervisor = Supervisor()
    trouble: list[str] = []
    async with supervisor.supervising({"CUTOVER_HEALTH_SOCKET": str(socket_path)}):
        supervisor.ready("It serves.", unless=lambda: trouble[0] if trouble else None)
        assert await asked(socket_path) == (True, "It serves.")
        trouble.append("NATS is away.")
        assert await asked(socket_path) == (False, "NATS is away.")
        trouble.clear()
        assert await asked(socket_path) == (True, "It serves.")


async def test_a_process_that_hangs_is_not_well(socket_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "TIMEOUT_S", 0.05)
    supervisor = Supervisor()
    async with supervisor.supervising({"CUTOVER_HEALTH_SOCKET": str(socket_path)}):
        supervisor.ready("It serves.")
        is_ok, sentence = check.ask(str(socket_path))  # in the loop's own thread, which so cannot answer
    assert (is_ok, "timed out" in sentence) == (False, True)


async def test_a_socket_that_cannot_be_had_is_said_and_ends_nothing(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = short_path / "none" / "health.sock"
    with caplog.at_level(logging.WARNING):
        async with Supervisor().supervising({"CUTOVER_HEALTH_SOCKET": str(path)}):
            assert f"Nobody can ask for this process's health: {path}" in caplog.text


async def test_the_check_is_a_program_with_an_exit_status_and_a_sentence(socket_path: Path) -> None:
    supervisor = Supervisor()
    async with supervisor.supervising({"CUTOVER_HEALTH_SOCKET": str(socket_path)}):
        assert await run_check(socket_path) == (1, "It is starting.\n")
        supervisor.ready("It serves.")
        assert await run_check(socket_path) == (0, "It serves.\n")


async def run_check(path: Path) -> tuple[int, str]:
    """With the socket in the environment, and nothing on the way to it but the standard library."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-S", "-m", "shared.supervision.check"],
        env={"CUTOVER_HEALTH_SOCKET": str(path)},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    return done.returncode, done.stdout
