"""A host with one migration, the services around it, and nothing but memory below: for tests of the decision point.

Devices do what they are asked as soon as they can, unless they are told to fail or to hang. The bus, the journal and the
services that own it are the real ones over the in-memory bus.
"""

import asyncio
import contextlib
import errno
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

from services.fault_recording.service import SERVICE_NAME as RECORDING
from services.fault_recording.service import FaultRecording
from services.state_control.service import SERVICE_NAME as CONTROL
from services.state_control.service import StateControl
from services.write_cloning.devices.buffers import BufferPool
from services.write_cloning.devices.interface import Device
from services.write_cloning.endpoints import endpoints_of
from services.write_cloning.host import Host
from services.write_cloning.migration import Migration
from services.write_cloning.surroundings import Limits, Surroundings
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from services.write_cloning.witness import Witness, Witnesses
from shared.bus.chain import ChainJournal
from shared.bus.interface import ServiceDescription
from shared.bus.memory import AcceptedDurability, MemoryBroker, MemoryBus, MemoryStream
from shared.clock import SystemClock
from shared.messages.control import CleanupRequest, CommandReply, PlainRequest, SetupRequest, control_subject
from shared.messages.host import HOST_SERVICE_NAME
from shared.messages.status import ConnectionView
from shared.migration.devices import DeviceIdentity
from shared.migration.ledger import Ledger
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, InvariantError, Refusal
from shared.migration.states import State
from shared.migration.table import Step, Transition
from tests.support.memory_device import MemoryDevice, Pending
from tests.support.volatile import PromptMaps

SIZE = 64 * 1024
REGION = 16 * 1024
NAME = "vol1"
HOST = "h1"
PATIENCE_S = 5.0


class _Doing(list[Pending]):
    """Requests that are done on the loop's next turn, unless their operation hangs."""

    def __init__(self, device: "PromptDevice") -> None:
        super().__init__()
        self._device = device

    def append(self, request: Pending, /) -> None:
        super().append(request)
        asyncio.get_running_loop().call_soon(self._device.do_what_may_go_on)


class PromptDevice(MemoryDevice):
    """`failing` maps operations to errnos; those in `hanging` stay undone."""

    def __init__(self, name: str, content: bytes, alignment_bytes: int = 1) -> None:
        super().__init__(name, content, alignment_bytes)
        self.pending = _Doing(self)
        self.failing: dict[str, int] = {}
        self.hanging: set[str] = set()

    def do_what_may_go_on(self) -> None:
        for request in [each for each in self.pending if each.operation not in self.hanging]:
            self.pending.remove(request)
            error = self.failing.get(request.operation, 0)
            if self.is_closed:
                raise InvariantError(f"{request.operation} on a closed device")
            if not error:
                request.act()
            self.log.append(request.operation)
            request.done(request.context, error)

    def let_go(self) -> None:
        self.hanging.clear()
        self.do_what_may_go_on()

    async def close(self) -> None:
        await _until(lambda: not self.pending)
        self.is_closed = True


class MemoryStorage:
    """Implements `Storage`; a put may fail, or be waited for by a test before it is done."""

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.puts_to_fail = 0
        self.before_put: Callable[[], Awaitable[None]] | None = None
        self.before_remove: Callable[[], Awaitable[None]] | None = None

    async def put(self, name: str, content: bytes) -> None:
        await asyncio.sleep(0)
        if self.before_put is not None:
            once, self.before_put = self.before_put, None
            await once()
        if self.puts_to_fail:
            self.puts_to_fail -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        self.content[name] = content

    async def get(self, name: str) -> bytes | None:
        return self.content.get(name)

    async def remove(self, name: str) -> None:
        if self.before_remove is not None:
            once, self.before_remove = self.before_remove, None
            await once()
        self.content.pop(name, None)

    async def names(self) -> Sequence[str]:
        return sorted(self.content)


class Exported:
    """Implements `Exports`."""

    def __init__(self) -> None:
        self.volumes: dict[str, Volume] = {}
        self.peers: tuple[ConnectionView, ...] = ()

    def add(self, name: str, volume: Volume) -> None:
        self.volumes[name] = volume

    async def remove(self, name: str) -> None:
        del self.volumes[name]

    def uri(self, name: str) -> str:
        return f"memory:{name}"

    def connections(self, _name: str) -> tuple[ConnectionView, ...]:
        return self.peers


class Drawer:
    """Implements `DeviceOpener` over two devices that keep their contents."""

    def __init__(self, target_block_bytes: int) -> None:
        self.source = PromptDevice("source", bytes(range(256)) * (SIZE // 256))
        self.target = PromptDevice("target", bytes(SIZE), target_block_bytes)
        self.target_is_renamed = False
        self.target_refused: Code | None = None
        self.changed = {"source": 1000, "target": 1000}

    async def open_pair(
        self, source: str, target: str, *, overwrite_target: bool
    ) -> tuple[Device, Device, DevicePair]:
        del source, target, overwrite_target
        return self.source, self.target, DevicePair(source=self.source.identity, target=self.target.identity)

    def alignment_bytes(self, identity: DeviceIdentity) -> int:
        del identity
        return self.target.alignment_bytes

    async def written_ns(self, identity: DeviceIdentity) -> int:
        return self.changed[identity.name]

    async def check_name(self, identity: DeviceIdentity) -> None:
        if self.target_is_renamed:
            raise Refusal(Code.DEVICE_CHANGED, f"{identity.name} leads elsewhere.")

    async def is_same(self, uri: str, other_uri: str) -> bool:
        return uri == other_uri

    async def open_recorded(self, identity: DeviceIdentity, *, is_target: bool) -> Device:
        if is_target and self.target_refused is not None:
            raise Refusal(self.target_refused, f"{identity.name} cannot be opened.")
        old = self.target if is_target else self.source
        new = PromptDevice(old.identity.name, bytes(old.content), old.alignment_bytes)
        if is_target:
            self.target = new
        else:
            self.source = new
        return new


class StandingHost:
    """What a test looks at and meddles with."""

    def __init__(self, tasks: asyncio.TaskGroup, limits: Limits, target_block_bytes: int = 1) -> None:
        self.broker = MemoryBroker()
        self.operator = MemoryBus(self.broker, "operator")
        self.bus = MemoryBus(self.broker, "host")
        self.storage = MemoryStorage()
        self.maps = PromptMaps()
        self.drawer = Drawer(target_block_bytes)
        self.exports = Exported()
        self.steps: list[tuple[str, Step]] = []
        self.before: dict[tuple[str, Step], Callable[[], Awaitable[None]]] = {}
        self.answered: list[Request] = []
        self.states_when_answered: list[State | None] = []  # of the writes: what the witness held
        self.tasks = tasks
        self.pool = BufferPool(8 << 20)
        self.around = Surroundings(
            host=HOST,
            run=1,
            clock=SystemClock(),
            tasks=tasks,
            witnesses=Witnesses(self.storage),
            journal=ChainJournal(MemoryStream(self.bus)),
            requests=self.bus,
            opener=self.drawer,
            exports=self.exports,
            limits=limits,
            maps=self.maps,
            hook=self._hook,
        )
        self.host = Host(self.around)

    async def _hook(self, row: Transition, step: Step) -> None:
        self.steps.append((row.trigger.value, step))
        meddle = self.before.pop((row.trigger.value, step), None)
        if meddle is not None:
            await meddle()

    @property
    def migration(self) -> Migration:
        return self.host.find(NAME)

    @property
    def witness(self) -> Witness:
        return self.migration.witness

    @property
    def source(self) -> PromptDevice:
        return self.drawer.source

    @property
    def target(self) -> PromptDevice:
        return self.drawer.target

    async def fill_the_disk(self) -> None:
        """Have the witness not written, nor what was written of it undone."""
        self.storage.puts_to_fail = 2

    def steps_of(self, trigger: str) -> list[Step]:
        return [step for of, step in self.steps if of == trigger]

    async def ask(self, command: str, payload: object | None = None) -> CommandReply:
        return await self.operator.request(
            control_subject(command, NAME), payload or PlainRequest(), CommandReply, timeout_s=PATIENCE_S
        )

    async def ledger(self) -> Ledger:
        return await ChainJournal(MemoryStream(self.operator)).read(NAME)

    async def bring_to(self, state: State) -> None:
        """From `setup` to a later state."""
        ways = [State.SYNCING, State.SOURCE_SELECTED, State.TARGET_SELECTED, State.COMMITTED]
        for way in ways[: ways.index(state) + 1] if state is not State.SETUP else []:
            if way is State.SYNCING:
                if state is State.SYNCING:
                    await self.ask("pause")
                await self.ask("sync")
            elif way is State.SOURCE_SELECTED:
                await self.until(lambda: self.witness.state is State.SOURCE_SELECTED)
            else:
                await self.ask("select-target" if way is State.TARGET_SELECTED else "commit")
        await self.until(lambda: self.migration.reporter.is_settled)
        assert self.witness.state is state
        self.steps.clear()

    def write(self, value: int = 1, *, offset: int = 0, length: int = 4096, durable: bool = False) -> Request:
        request = Request(Kind.WRITE, offset, length, self._written)
        request.durable = durable
        request.buffer = self.pool.take(length)
        request.buffer.view[:length] = bytes([value]) * length
        self.exports.volumes[NAME].submit(request)
        return request

    def _written(self, request: Request) -> None:
        self.answered.append(request)
        self.states_when_answered.append(self.witness.state)

    def flush(self) -> Request:
        request = Request(Kind.FLUSH, 0, 0, self.answered.append)
        self.exports.volumes[NAME].submit(request)
        return request

    def read(self, *, offset: int = 0, length: int = 4096) -> Request:
        request = Request(Kind.READ, offset, length, self.answered.append)
        request.buffer = self.pool.take(length + 2 * self.target.alignment_bytes)
        self.exports.volumes[NAME].submit(request)
        return request

    async def answer(self, request: Request) -> int:
        await self.until(lambda: request in self.answered)
        return request.error

    async def read_byte(self, offset: int = 0) -> int:
        request = self.read(offset=offset)
        assert await self.answer(request) == 0
        assert request.buffer is not None
        return request.buffer.view[request.start]

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await _until(is_so)

    async def settled(self, state: State) -> Ledger:
        """The journal, once it holds that the migration is in this state."""
        await self.until(
            lambda: (
                self.witness.state is state
                and self.migration.reporter.is_settled
                and not self.migration.unstored_faults
            )
        )
        return await self.ledger()


async def _until(is_so: Callable[[], object]) -> None:
    while not is_so():  # noqa: ASYNC110 # nothing tells a test
        await asyncio.sleep(0.001)


class _OverError(Exception):
    """Ends the tasks of a test."""


@contextlib.asynccontextmanager
async def standing_host(
    state: State = State.SETUP, *, target_block_bytes: int = 1, **limits: float
) -> AsyncIterator[StandingHost]:
    """A host that has set a migration up and brought it to a state. The source takes any bytes, the target whole blocks."""
    wanted = replace(Limits(io_timeout_s=5.0, journal_wait_s=3.0, region_size_bytes=REGION), **limits)  # type: ignore[arg-type]
    numbers = itertools.count(1)
    try:
        async with asyncio.TaskGroup() as tasks:
            house = StandingHost(tasks, wanted, target_block_bytes)
            async with _services(house, numbers):
                await house.ask("setup", SetupRequest(source="source", target="target"))
                await house.bring_to(state)
                yield house
                house.source.let_go()
                house.target.let_go()
                await house.host.release()
            raise _OverError
    except* _OverError:
        pass


@contextlib.asynccontextmanager
async def _services(house: StandingHost, numbers: "itertools.count[int]") -> AsyncIterator[None]:
    bus = MemoryBus(house.broker, "services")
    journal, durability, clock = ChainJournal(MemoryStream(bus)), AcceptedDurability(), SystemClock()
    recording = FaultRecording(journal, durability, clock)
    control = StateControl(
        journal=journal,
        requests=bus,
        discovery=bus,
        durability=durability,
        clock=clock,
        new_id=lambda: f"00000000-0000-4000-8000-{next(numbers):012d}",
    )
    async with contextlib.AsyncExitStack() as stack:
        for name, endpoints in ((RECORDING, recording.endpoints()), (CONTROL, control.endpoints())):
            service = ServiceDescription(name=name, description=name)
            await stack.enter_async_context(bus.serve(service, endpoints))
        host = ServiceDescription(
            name=HOST_SERVICE_NAME, description="host", metadata={"host": HOST, "run": "1"}
        )
        await stack.enter_async_context(house.bus.serve(host, endpoints_of(house.host, HOST)))
        yield


DISCONNECT = CleanupRequest(disconnect=True)
