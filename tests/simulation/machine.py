"""The processes of the simulation: the services' own logic, wired as their `__main__`s wire it, over what is simulated."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from services.fault_recording.service import SERVICE_NAME as RECORDING
from services.fault_recording.service import FaultRecording
from services.startup.service import SERVICE_NAME as STARTUP
from services.startup.service import Startup
from services.state_control.service import SERVICE_NAME as CONTROL
from services.state_control.service import StateControl
from services.write_cloning.devices.interface import Device
from services.write_cloning.endpoints import Waiting, endpoints_of
from services.write_cloning.host import Host
from services.write_cloning.journal_watch import watch_journal
from services.write_cloning.last_changes import NO_FILE_NS
from services.write_cloning.openings import Openings
from services.write_cloning.progress import tell_progress
from services.write_cloning.run_number import next_run
from services.write_cloning.service import _admitted
from services.write_cloning.surroundings import Limits, Surroundings
from services.write_cloning.volume.volume import Volume
from services.write_cloning.witness import Witnesses
from shared.bus.chain import ChainJournal
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.memory import AcceptedDurability
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import ConnectionView
from shared.migration.devices import DeviceIdentity
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.table import Step, Transition
from tests.simulation.clock import VirtualClock
from tests.simulation.directory import OpenDirectory
from tests.simulation.disk import OpenDisk
from tests.simulation.maps import OpenMaps
from tests.simulation.nats import SimulatedBus, SimulatedStream
from tests.simulation.process import Process, sleep_for_ever
from tests.simulation.remote import Connection, RemoteDisk

if TYPE_CHECKING:
    from tests.simulation.world import World

HOST_NAME = "h1"
SERVICES = (RECORDING, CONTROL, STARTUP)
REGION_BYTES = 4096
IO_TIMEOUT_S = 4.0
SHUTDOWN_TIMEOUT_S = 30.0

LIMITS = Limits(
    io_timeout_s=IO_TIMEOUT_S, target_flush_interval_s=3.0, journal_wait_s=6.0, region_size_bytes=REGION_BYTES
)

# Where the application keeps to few regions: the others grow clean before it is elsewhere.
LOCAL_LIMITS = replace(LIMITS, target_flush_interval_s=0.5)


class HostProcess(Process):
    """One life of the write cloning service."""

    def __init__(self, world: "World") -> None:
        super().__init__("host")
        self.world = world
        self.began_on = world.nats.went_back
        self.host: Host | None = None
        self.life = f"life {world.counts['life']}"
        world.count("life")
        self._tokens = 0
        self.stop = asyncio.Event()
        self.exports_in_use: set[str] = set()

    async def main(self) -> None:
        """Live until told to stop."""
        world = self.world
        self.run = await next_run(OpenDirectory(world.run_files, self))
        bus = SimulatedBus(world.nats, self)
        async with asyncio.TaskGroup() as tasks:
            self.host = host = Host(self._surroundings(bus, Exports(self), tasks))
            await connection(bus)
            await _admitted(host, Waiting(HOST_NAME, self.run), self.stop)
            endless = [tasks.create_task(each) for each in (tell_progress(host, bus), watch_journal(host))]
            service = ServiceDescription(
                name=HOST_SERVICE_NAME,
                description="simulated",
                metadata={"host": HOST_NAME, "run": str(self.run), "life": self.life},
            )
            await connection(bus)
            async with bus.serve(service, endpoints_of(host, HOST_NAME)):
                await self.stop.wait()
            for task in endless:
                task.cancel()
            await self._stop_cleanly(host)
            await sleep_for_ever()  # the world has ended this process

    async def _stop_cleanly(self, host: Host) -> None:
        is_clean = False
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT_S):
                is_clean = await host.stop()
                await host.release()
                self.world.released(self)
        except TimeoutError:
            is_clean = False
        self.world.host_stopped(self, is_clean=is_clean)

    def _new_token(self) -> str:
        self._tokens += 1
        return f"{self.life}, question {self._tokens}"

    def _surroundings(self, bus: SimulatedBus, exports: "Exports", tasks: asyncio.TaskGroup) -> Surroundings:
        return Surroundings(
            host=HOST_NAME,
            run=self.run,
            life=self.life,
            new_token=self._new_token,
            clock=VirtualClock(),
            tasks=tasks,
            witnesses=Witnesses(
                OpenDirectory(self.world.witness_files, self),
                Openings(OpenDirectory(self.world.run_files, self)),
            ),
            journal=ChainJournal(SimulatedStream(bus)),
            requests=bus,
            opener=Opener(self),
            exports=exports,
            limits=LOCAL_LIMITS if self.world.plan.is_local else LIMITS,
            maps=OpenMaps(self.world.maps, self) if self.world.plan.has_maps else None,
            hook=self._hook,
        )

    async def _hook(self, row: Transition, step: Step) -> None:
        self.world.step(row, step, self)
        if self.is_dead:
            await sleep_for_ever()


async def connection(bus: SimulatedBus) -> None:
    while not bus.is_connected:  # noqa: ASYNC110 # as connecting is tried again and again
        await asyncio.sleep(0.2)


class Exports:
    """Implements `Exports`: the application connects as soon as there is something to connect to."""

    def __init__(self, process: HostProcess) -> None:
        self._process = process

    def add(self, name: str, volume: Volume) -> None:
        self._process.world.volume_opened(self._process, name, volume)

    async def remove(self, _name: str) -> None:
        self._process.world.volume_withdrawn(self._process)

    def uri(self, name: str) -> str:
        return f"simulated:{name}"

    def connections(self, _name: str) -> tuple[ConnectionView, ...]:
        return ()


class Opener:
    """Implements `DeviceOpener`."""

    def __init__(self, process: HostProcess) -> None:
        self._process = process
        self._world = process.world

    async def open_pair(
        self, source: str, target: str, *, overwrite_target: bool
    ) -> tuple[Device, Device, DevicePair]:
        del overwrite_target
        opened_source = await self._open(source)
        try:
            opened_target = await self._open(target)
        except Refusal:
            await opened_source.close()
            raise
        return (
            opened_source,
            opened_target,
            DevicePair(source=opened_source.identity, target=opened_target.identity),
        )

    async def open_recorded(self, identity: DeviceIdentity, *, is_target: bool) -> Device:
        del is_target
        self._world.rules.reopens(self._world.disks[identity.name])
        device = await self._open(identity.name)
        if not device.identity.is_same_device(identity):
            await device.close()
            raise Refusal(Code.DEVICE_CHANGED, f"{identity.name} is another device now.")
        return device

    def alignment_bytes(self, identity: DeviceIdentity) -> int:
        return self._world.disks[identity.name].alignment_bytes

    async def written_ns(self, identity: DeviceIdentity) -> int:
        del identity
        return NO_FILE_NS

    async def check_name(self, identity: DeviceIdentity) -> None:
        await asyncio.sleep(0)
        self._require(identity.name)

    async def is_same(self, uri: str, other_uri: str) -> bool:
        await asyncio.sleep(0)
        return uri == other_uri

    async def _open(self, name: str) -> OpenDisk:
        await asyncio.sleep(0.001)
        if self._process.is_dead:
            await sleep_for_ever()
        disk = self._world.disks[name]
        if isinstance(disk, RemoteDisk):
            disk.is_opened = True  # or would be, and the host's witness makes no difference
            self._require(name)
            return self._connect(disk)
        self._require(name)
        if disk.handles:
            raise Refusal(Code.DEVICE_BUSY, f"{name} is in use.")
        return OpenDisk(disk, self._process)

    def _connect(self, disk: RemoteDisk) -> Connection:
        """No lock, but that a process has an export open once until everything of it is answered or vouched for."""
        in_use = self._process.exports_in_use
        if disk.name in in_use:
            raise Refusal(Code.DEVICE_BUSY, f"{disk.name} is in use: this process has it open.")
        in_use.add(disk.name)
        return Connection(disk, self._process, lambda: in_use.discard(disk.name))

    def _require(self, name: str) -> None:
        if self._world.disks[name].is_missing:
            self._world.count("fault:device:missing")
            raise Refusal(Code.DEVICE_MISSING, f"There is no {name}.")


async def service_main(world: "World", process: Process) -> None:
    """Life of one of the three services that own the journal's subjects."""
    bus = SimulatedBus(world.nats, process)
    async with _serving(world, process, bus):
        await sleep_for_ever()


@contextlib.asynccontextmanager
async def _serving(world: "World", process: Process, bus: SimulatedBus) -> AsyncIterator[None]:
    await connection(bus)
    async with bus.serve(
        ServiceDescription(name=process.name, description="simulated"), _endpoints(world, process, bus)
    ):
        yield


def _endpoints(world: "World", process: Process, bus: SimulatedBus) -> Sequence[Endpoint]:
    journal, clock = ChainJournal(SimulatedStream(bus)), VirtualClock()
    if process.name == RECORDING:
        return FaultRecording(journal, AcceptedDurability(), clock).endpoints()
    if process.name == STARTUP:
        return Startup(journal=journal, requests=bus, discovery=bus, clock=clock).endpoints()
    return StateControl(
        journal=journal,
        requests=bus,
        discovery=bus,
        durability=AcceptedDurability(),
        clock=clock,
        new_id=world.new_id,
    ).endpoints()
