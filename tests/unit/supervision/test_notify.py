"""systemd is told by datagrams, at a path or an abstract name, and only where the environment says so."""

import asyncio
import logging
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.supervision.notify import take_notifier, take_watchdog_interval_s
from shared.supervision.supervisor import Supervisor

PATIENCE_S = 5.0


@contextmanager
def manager(address: str) -> Iterator[socket.socket]:
    """What systemd does: a datagram socket that is read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(PATIENCE_S)
        listening.bind(f"\0{address[1:]}" if address.startswith("@") else address)
        yield listening


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, short_path: Path) -> str:
    return str(short_path / "notify") if request.param == "path" else f"@cutover-test-{uuid.uuid4()}"


async def test_a_life_is_told(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "OTHER": "kept"}
    supervisor = Supervisor()
    with manager(address) as listening:
        async with supervisor.supervising(environment):
            supervisor.status("It waits.")
            supervisor.ready("It serves.")
            supervisor.stopping("It stops.")
            said = [listening.recv(1000).decode() for _ in range(3)]
    assert said == ["STATUS=It waits.", "READY=1\nSTATUS=It serves.", "STOPPING=1\nSTATUS=It stops."]
    assert environment == {"OTHER": "kept"}, "a child could speak for this process"


async def test_a_readiness_that_comes_after_the_stop_is_not_told(address: str) -> None:
    supervisor = Supervisor()
    with manager(address) as listening:
        async with supervisor.supervising({"NOTIFY_SOCKET": address}):
            supervisor.stopping("It stops.")
            supervisor.ready("It serves.")
        listening.setblocking(False)
        assert listening.recv(1000).startswith(b"STOPPING=1")
        with pytest.raises(BlockingIOError):
            listening.recv(1000)


async def test_no_sentence_begins_a_line_of_its_own(address: str) -> None:
    """A refusal may quote what came over the wire."""
    supervisor = Supervisor()
    with manager(address) as listening:
        async with supervisor.supervising({"NOTIFY_SOCKET": address}):
            supervisor.status("It waits:\nMAINPID=1")
        assert listening.recv(1000) == b"STATUS=It waits: MAINPID=1"


async def test_the_watchdog_hears_from_the_loop_until_the_end(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
    with manager(address) as listening:
        async with Supervisor().supervising(environment):
            for _ in range(3):
                assert await asyncio.to_thread(listening.recv, 1000) == b"WATCHDOG=1"
        assert "WATCHDOG_USEC" not in environment


@pytest.mark.parametrize(
    ("environment", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "42"}, 1.5),
        ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "41"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_for_the_process_that_it_names(
    environment: dict[str, str], interval_s: float | None
) -> None:
    assert take_watchdog_interval_s(environment, 42) == interval_s


def test_a_manager_that_is_gone_ends_nothing(short_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        take_notifier({"NOTIFY_SOCKET": str(short_path / "gone")}).send("READY=1")
    assert "systemd was not told READY=1" in caplog.text
