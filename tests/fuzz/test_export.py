"""Mutated sessions and hostile clients against the running service, in the middle of write cloning.

While they rage, an honest application on another volume is served without an error; the process lives, its memory stays within
what its configuration allows, nothing is reported as an error of ours, and in the end both sides of the volume are equal.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.console.local_nats import any_port
from tests.acceptance.system.background import Background
from tests.acceptance.system.devices import MIB
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Json
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System, running_system
from tests.crashes.writing import Writing, fill
from tests.fuzz.budget import seeds
from tests.fuzz.vandals import Hung, TlsDoor, glutton, visit
from tests.integration.export.tls_client import client_context
from tests.support.certificates import Pki

SIZE_BYTES = 4 * MIB
BLOCKS = SIZE_BYTES // 4096
VANDALS = 8
GLUTTONS = 100
BUDGET_BYTES = 64 * MIB  # of each of two volumes
MEMORY_BYTES_MAX = (
    2 * BUDGET_BYTES + 128 * MIB
)  # the pools, a reserve for each connection, and the program itself


@dataclass(frozen=True, slots=True)
class Besieged:
    """A system with two volumes in write cloning: one for honest clients, one for the others."""

    system: System
    pair: Pair
    calm: Pair
    tls: TlsDoor

    def memory_bytes(self) -> int:
        """The most that the service has ever had in memory."""
        status = Path(f"/proc/{self.system.pid(CLONING)}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))

    def check(self) -> None:
        """What must hold when all clients are gone."""
        system = self.system
        assert system.is_running(CLONING)
        system.client.until("vol1", lambda status: not status["connections"], what="no clients")
        status = system.client.query("vol1")
        assert (status["state"], status["faults"]) == ("target-selected", [])
        assert self.pair.source.read_bytes() == self.pair.target.read_bytes()
        assert "Traceback" not in system.log(CLONING)
        assert "ERROR" not in system.log(CLONING)
        assert self.memory_bytes() < MEMORY_BYTES_MAX


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    loop = Background()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsDoor, Json]:
    """Where vandals are served under TLS, and how the host is told of it."""
    pki = Pki(Path(tmp_path_factory.mktemp("pki")))
    door = TlsDoor(any_port(), client_context(pki.good))
    section = {
        "listen": [f"tcp://127.0.0.1:{door.port}"],
        "tls_certificate_file": str(pki.certificate),
        "tls_key_file": str(pki.key),
        "tls_client_ca_file": str(pki.ca),
    }
    return door, section


@pytest.fixture(scope="module")
def besieged(background: Background, tls: tuple[TlsDoor, Json]) -> Iterator[Besieged]:
    with running_system(background, tls[1], inflight_budget_bytes=BUDGET_BYTES) as system:
        pair, calm = make_pair(system, size_bytes=SIZE_BYTES), make_pair(system, size_bytes=SIZE_BYTES)
        fill(calm.source, BLOCKS)
        for name, each in (("vol1", pair), ("calm", calm)):
            system.set_up(name, each.source, each.target)
            bring_to(system, name, "target-selected")
        yield Besieged(system, pair, calm, tls[0])


@pytest.fixture
def honest(besieged: Besieged) -> Iterator[Writing]:
    """An application on the calm volume, which notices nothing."""
    fill(besieged.calm.source, BLOCKS)
    fill(besieged.calm.target, BLOCKS)
    with Writing(besieged.system.export("calm"), BLOCKS) as writing:
        writing.until_operations(10)
        yield writing
        writing.until_operations(100)
        report = writing.stop()
    assert (report.wrong, report.errors, report.lives) == ([], [], 1)


@pytest.mark.timeout(0)
@pytest.mark.slow
def test_mutated_sessions_neither_crash_nor_hang_the_service(besieged: Besieged, honest: Writing) -> None:
    turn = threading.Lock()
    seeds_left = seeds(share=0.6)

    def rage(_: int) -> int:
        visits = 0
        while True:
            with turn:
                seed = next(seeds_left, None)
            if seed is None:
                return visits
            try:
                visit(besieged.system.socket, besieged.tls, "vol1", SIZE_BYTES, seed)
            except Hung as hung:
                raise AssertionError(f"FUZZ_SEED={seed}: {hung}") from hung
            visits += 1

    with ThreadPoolExecutor(VANDALS) as threads:
        visits = sum(threads.map(rage, range(VANDALS)))
    besieged.check()
    print(f"{visits} sessions; at most {besieged.memory_bytes() // MIB} MiB")


@pytest.mark.parametrize("length", [4096, 256 << 10, 8 * MIB])
def test_many_clients_that_never_read_are_bounded(besieged: Besieged, honest: Writing, length: int) -> None:
    """A hundred at once, each with a window of reads and the beginning of a payload: others are served, memory is bounded."""
    length = min(length, SIZE_BYTES)
    clients = [glutton(besieged.system.socket, "vol1", length=length, reads=64) for _ in range(GLUTTONS)]
    honest.until_operations(300)
    assert besieged.memory_bytes() < MEMORY_BYTES_MAX
    for client in clients:
        client.close()
    besieged.check()
