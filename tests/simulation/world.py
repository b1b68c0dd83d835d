"""The world of one seed: disks, server, processes, application; who dies when, and what comes back.

The world also watches: each I/O, each witness and each record passes by it, and is held against the rules of docs/ARCHITECTURE.md
in `tests.simulation.rules`. The first thing that is wrong ends the run.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from services.write_cloning.host import Host
from services.write_cloning.volume.marks import AGING, CLEAN, Marks
from services.write_cloning.volume.requests import Request
from services.write_cloning.volume.volume import Volume
from shared.bus.memory import Message
from shared.messages.admission import AdmissionReply
from shared.migration.devices import Side
from shared.migration.refusals import Refusal
from shared.migration.states import CLONING_STATES, State, routing_of
from shared.migration.table import Step, Transition, Trigger
from tests.simulation.application import Application
from tests.simulation.chaos import Chaos
from tests.simulation.damage import Damage
from tests.simulation.directory import Directory
from tests.simulation.disk import HOLE, OFTEN_SLOW_CHANCE, SLOW_FLUSH_CHANCE, Asked, Disk, OpenDisk, Watchers
from tests.simulation.loop import SimulatedLoop
from tests.simulation.machine import SERVICES, HostProcess, service_main
from tests.simulation.maps import Maps
from tests.simulation.model import Model, WrongDataError, stamp
from tests.simulation.nats import Nats
from tests.simulation.operator import NAME, Operator
from tests.simulation.plan import Plan, point_of
from tests.simulation.process import NOBODY, Process
from tests.simulation.remote import RemoteDisk
from tests.simulation.rules import BrokenRuleError, Rules
from tests.simulation.servers import Servers

SECTORS = 64  # 8 regions of 4 KiB
STALE = 0xFFFFFFFF  # what the target holds before its first day
DEPTH_MAX = 10
SLOW_S = 3.0  # longer than it takes a region to grow clean, where that is looked at
REST_S = 4.0  # longer than the slowest request

Tell = Callable[[float, str], None]


class World:
    """See the module's docstring."""

    def __init__(self, seed: int, loop: SimulatedLoop, tell: Tell | None, *, is_honest: bool = True) -> None:
        self.seed = seed
        self.loop = loop
        self.plan = Plan(_rng(seed, "plan"), seed)
        self.counts: Counter[str] = Counter()
        self.wrong: BaseException | None = None
        self.over = loop.create_future()
        self.is_calm = False
        self._tell = tell
        self._digest = hashlib.sha256()
        self._rng = _rng(seed, "world")
        self._crashes_left = self.plan.crashes_there
        self._depth = 0
        self._ids = 0
        self._deciding: Transition | None = None  # or what was refused last
        self.host_process: HostProcess | None = None
        self._reporting: asyncio.Task[None] | None = None
        self.services: dict[str, Process] = {}
        self.damage = Damage(self)
        self.rules = Rules(self)
        self.nats = Nats(_rng(seed, "nats"), self.point, self.count_fault)
        self.nats.does_sync = self.plan.does_sync
        self.nats.does_delay_words = self.plan.does_delay_words
        self.nats.stored = self._guarded(self.rules.stored)
        self.nats.lost = self.damage.journal_lost
        self.nats.answered = self._answered
        files = _rng(seed, "files")
        self.run_files = Directory(files, self.point, self.count_fault)
        self.witness_files = Directory(files, self.point, self.count_fault)
        self.maps = Maps(_rng(seed, "maps"), self.point, self.count_fault)
        self.witness_files.replaced = self._guarded(self.rules.witness_replaced)
        self.disks = {
            name: self._disk(name, alignment)
            for name, alignment in zip(("disk-a", "disk-b"), self.plan.alignments, strict=True)
        }
        self.servers = Servers(self, _rng(seed, "servers"))
        for disk in self.disks.values():
            disk.is_honest = is_honest
            if self.plan.is_local:
                disk.slow_s, disk.slow_chance = SLOW_S, OFTEN_SLOW_CHANCE
                disk.slow_flush_chance = SLOW_FLUSH_CHANCE
        self.data_disk = "disk-a"
        first = [HOLE if self._rng.random() < 0.2 else stamp(0, sector) for sector in range(SECTORS)]
        self.disks["disk-a"].fill(first)
        self.disks["disk-b"].fill([stamp(STALE, sector) for sector in range(SECTORS)])
        self.model = Model(first)
        self.application = Application(
            _rng(seed, "application"),
            self.model,
            self._request_answered,
            self.show_losses,
            is_local=self.plan.is_local,
            flushes=self.plan.flushes,
        )
        self.operator = Operator(self, _rng(seed, "operator"))
        self.nats.is_outdated = self.operator.is_outdated
        self.chaos = Chaos(self, _rng(seed, "chaos"))

    def _disk(self, name: str, alignment: int) -> Disk:
        watchers = Watchers(self._guarded(self.rules.io), self.count_fault, self.point)
        if name not in self.plan.remote:
            return Disk(name, SECTORS, alignment, _rng(self.seed, name), watchers)
        disk = RemoteDisk(name, SECTORS, alignment, _rng(self.seed, name), watchers)
        disk.landing = self._guarded(self.rules.landing)
        return disk

    # ------------------------------------------------------------------ what is noted

    def note(self, *what: str) -> None:
        """A line of the trace; what two runs of a seed must have in common."""
        line = " ".join(what)
        self._digest.update(f"{self.loop.time():.9f} {line}\n".encode())
        if self._tell is not None:
            self._tell(self.loop.time(), line)

    def digest(self) -> str:
        return self._digest.hexdigest()

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def count_fault(self, what: str) -> None:
        self.counts[f"fault:{what}"] += 1
        self.note("fault", what)

    def violated(self, wrong: BaseException) -> None:
        """Something is wrong: the first thing counts."""
        if self.wrong is None:
            self.wrong = wrong
            self.note("WRONG", f"{type(wrong).__name__}: {wrong}")
        if not self.over.done():
            self.over.set_result(None)

    def _guarded(self, check: Callable[..., None]) -> Callable[..., None]:
        def checked(*what: object) -> None:
            try:
                check(*what)
            except (BrokenRuleError, WrongDataError) as wrong:
                self.violated(wrong)

        return checked

    def new_id(self) -> str:
        self._ids += 1
        return f"00000000-0000-4000-8000-{self._ids:012d}"

    # ------------------------------------------------------------------ how things are

    @property
    def host(self) -> Host | None:
        """The host that is alive and has begun."""
        process = self.host_process
        return process.host if process is not None and not process.is_dead else None

    @property
    def state(self) -> State | None:
        """What the witness says, whether or not its host is alive."""
        witness = self.rules.witness
        return witness.state if witness is not None else None

    def disk(self, side: Side) -> Disk:
        """The disk that has this part in the present migration, or will have in the next."""
        source = self.rules.source_disk()
        return self.disks[source if side is Side.SOURCE else self.other_disk(source)]

    def other_disk(self, name: str) -> str:
        return next(each for each in self.disks if each != name)

    # ------------------------------------------------------------------ lives and deaths

    def spawn(self, process: Process, main: Coroutine[Any, Any, None]) -> None:
        process.start(self._watched(main))
        self.note("start", process.name)

    async def _watched(self, main: Coroutine[Any, Any, None]) -> None:
        try:
            await main
        except Exception as wrong:  # noqa: BLE001 # a process that ends by itself has a bug
            if not self.loop.is_burying:
                self.violated(wrong)

    def start_service(self, name: str) -> None:
        process = self.services.get(name)
        if process is None or process.is_dead:
            self.services[name] = process = Process(name)
            self.spawn(process, service_main(self, process))

    def start_host(self) -> None:
        if self.host_process is None or self.host_process.is_dead:
            self.host_process = process = HostProcess(self)
            self.spawn(process, process.main())
            self._maybe_crash_again()

    def _maybe_crash_again(self) -> None:
        """A crash during the recovery from a crash, up to ten deep."""
        is_deep_enough = self._depth >= DEPTH_MAX or self.plan.is_peaceful
        if self._depth and not self.is_calm and not is_deep_enough and self._rng.random() < 0.5:
            self.loop.call_later(self._rng.random() * 0.15, self._crash_again, context=NOBODY)
        else:
            self._depth = 0

    def _crash_again(self) -> None:
        if self.host_process is not None and not self.host_process.is_dead and not self.is_calm:
            self.counts[f"depth:{self._depth + 1}"] += 1
            self.crash("during recovery", with_power=self._rng.random() < self.plan.power_share)

    def crash(self, where: str, *, with_power: bool) -> None:
        """The host dies, or everything does."""
        if self.is_calm:
            return
        self.note("POWER CUT" if with_power else "KILL", where)
        self.counts[f"crash:{where}"] += 1
        self.counts["power-cut" if with_power else "kill"] += 1
        self._depth += 1
        self._end_host()
        if with_power:
            self.cut_power()
        self.loop.call_later(self._rng.random() * 2, self.start_host, context=NOBODY)

    def cut_power(self) -> None:
        """Everything at one instant; what was not made durable is lost, or not."""
        self._end_host()
        for name in list(self.services):
            self._end_service(name)
        is_everywhere = self.servers.cut_power()
        self.run_files.cut()
        self.witness_files.cut()
        self.maps.cut()
        self.nats.go_down()
        self.nats.cut()
        self.nats.come_up()
        self.model.power_cut(is_everywhere=is_everywhere)
        self.rules.look_at_files()

    def kill_service(self, name: str) -> None:
        if not self.is_calm:
            self.note("KILL", name)
            self.count(f"crash:{name}")
            self._end_service(name)

    def _end_service(self, name: str) -> None:
        process = self.services[name]
        if not process.is_dead:
            process.is_dead = True
            self.nats.drop(process, linger_s=self._linger())
            self.loop.call_later(self._rng.random() * 2, self.start_service, name, context=NOBODY)

    def _end_host(self) -> None:
        process = self.host_process
        if process is None or process.is_dead:
            return
        process.is_dead = True
        self._deciding = None
        loses_cache = any(disk.has_ever_lost_writes for disk in self.disks.values())
        for disk in self.disks.values():
            disk.has_ever_lost_writes = False
            disk.is_hanging = False
            for handle in list(disk.handles):
                handle.die()
        self.servers.host_ended()
        self.nats.drop(process, linger_s=self._linger())
        self.application.lose_volume()
        self.show_losses()
        self.model.end_of_process(loses_cache=loses_cache)

    def _linger(self) -> float:
        return self._rng.random() * 5 if self._rng.random() < 0.2 else 0.0

    def released(self, process: HostProcess) -> None:
        """A host that stops has closed every device."""
        if not process.is_dead:
            self.servers.host_released()

    def stop_host(self) -> None:
        """SIGTERM."""
        if self.host is not None and self.host_process is not None:
            self.host_process.stop.set()

    def host_stopped(self, process: HostProcess, *, is_clean: bool) -> None:
        """It has ended by itself."""
        self.note("stopped", "cleanly" if is_clean else "not cleanly")
        self.count("stop:clean" if is_clean else "stop:unclean")
        if process is not self.host_process or process.is_dead:
            return
        if is_clean and self.application.volume is None:
            is_clean = False  # nothing was open: there was nothing to do
        if is_clean:
            self._guarded(self.rules.stopped_cleanly)(process, process.host)
            self.model.everything_was_flushed()
        self._end_host()
        if is_clean and self._rng.random() < 0.2:
            self._reporting = self.loop.create_task(self.operator.report_target_fault(), context=NOBODY)
        if not self.is_calm or self.damage.is_mended:
            if is_clean and not self.is_calm and self._rng.random() < 0.5:
                self.note("POWER CUT", "after a clean stop")
                self.cut_power()
            self.loop.call_later(self._rng.random() * 2, self.start_host, context=NOBODY)

    # ------------------------------------------------------------------ trouble

    def restart_nats(self, down_s: float, *, with_power: bool) -> None:
        if self.nats.is_up:
            self.count_fault("nats:power-cut" if with_power else "nats:restart")
            self.nats.go_down()
            if with_power:
                self.nats.cut()
            self.loop.call_later(down_s, self.nats.come_up, context=NOBODY)

    def hang(self, side: Side, for_s: float) -> None:
        disk = self.disk(side)
        disk.is_hanging = True
        self.loop.call_later(for_s, disk.let_go, context=NOBODY)

    def lose_device_for(self, for_s: float) -> None:
        """The target is not there for a while, when next it is looked for."""
        disk = self.disk(Side.TARGET)
        disk.is_missing = True
        self.loop.call_later(for_s, setattr, disk, "is_missing", False, context=NOBODY)

    def lose_writeback(self, side: Side) -> bool:
        """Some of what this side's device had cached is lost, and nothing tells before the next flush; whether there was any."""
        disk = self.disk(side)
        # What is lost between the flush for a decision and the decision, nobody could know.
        lost = disk.lose_quietly() if self._deciding is None else set()
        if lost:
            self.count(f"went-back:{side}:{self.state}")
            self.note("went back", disk.name, str(sorted(lost)))
            if self._is_read_from(side):
                self.model.lose_cached(lost)
            else:
                disk.unseen |= lost
                self.model.lose_under_way(lost & disk.being_read)
        return bool(lost)

    def show_losses(self) -> None:
        """What a device lost while reads came from the other one shows from when that has failed, or the host has ended.

        Not where reads change sides by a decision: what would show then the device has to tell before.
        """
        volume = self.application.volume
        if volume is None:
            disk = self.disks[self.data_disk]
        elif volume.failover.has_dropped_target or volume.state in {State.SETUP, State.SYNCING}:
            disk = self.disk(Side.SOURCE)
        else:
            return
        if disk.unseen:
            self.model.lose_cached(disk.unseen)
            disk.unseen.clear()

    def _is_read_from(self, side: Side) -> bool:
        volume = self.application.volume
        if volume is None or volume.state is None:
            return False
        return routing_of(volume.state, volume.sides_by_authority()[0]).reads is side

    def break_connection(self) -> None:
        self.servers.break_connection()

    def cut_server(self) -> None:
        self.servers.cut()

    def damage_journal(self) -> None:
        self.damage.journal()

    def damage_witness(self) -> None:
        self.damage.witness()

    def point(self, name: str, process: Process) -> None:
        """A moment at which it is interesting to die."""
        self.counts[f"point:{name}"] += 1
        if self.is_calm or process.is_dead:
            return
        if self.plan.visits and name == "flush:begun":
            self.chaos.flush_begun()
        elif self.plan.visits and name == "map-write:synced":
            self.chaos.map_written()
        elif self.plan.spoils_maps and name == "setup/sync/write-witness":
            self.chaos.sync_begun()
        if name == self.plan.point and self._crashes_left:
            # A step of the table comes seldom, other moments again and again.
            passed_by = 0.1 if "/" in name else 0.4
            if self._rng.random() < passed_by or (self.plan.is_local and not self._can_be_narrowed):
                return
            self._crashes_left -= 1
        elif self._rng.random() >= self.plan.point_chance:
            return
        if process is self.host_process:
            self.crash(name, with_power=self._rng.random() < self.plan.power_share)
        elif self._rng.random() < 0.5:
            self.crash(name, with_power=True)
        else:
            self.note("KILL", process.name, name)
            self.counts[f"crash:{name}"] += 1
            self._end_service(process.name)

    def step(self, row: Transition, step: Step, process: Process) -> None:
        """The executor is about to perform a step."""
        self.note("step", point_of(row, step))
        self._guarded(self.rules.step)(row, step)
        self._deciding = None if step is row.steps[-1] else row
        if step is Step.START_COPYING:
            self._count_resync()
            self.disk(Side.TARGET).quietly_lost.clear()  # what differs from here on was not copied
        if (
            row.trigger is Trigger.COPIED
            and step is row.steps[-1]
            and self.plan.is_peaceful
            and not self.is_calm
        ):
            self.application.rest(REST_S)
        if step is row.steps[-1]:
            self.count(f"row:{row.before}/{row.trigger}")
        self.point(point_of(row, step), process)

    @property
    def _can_be_narrowed(self) -> bool:
        """Whether a resync would leave something out if the power went now."""
        return self.state in CLONING_STATES and self.has_clean_region

    def region_growing_clean(self) -> int | None:
        """One that will be left out of a resync if nobody writes to it while the devices are flushed."""
        marks = self._marks()
        states = b"" if marks is None else marks.states
        quiet = [at for at, state in enumerate(states) if state == AGING]
        return self._rng.choice(quiet) if quiet else None

    @property
    def clean_regions(self) -> list[int]:
        """Those that a resync would leave out."""
        marks = self._marks()
        return [] if marks is None else [at for at, state in enumerate(marks.states) if state == CLEAN]

    def is_clean(self, region: int) -> bool:
        """Whether a resync would leave this region out."""
        marks = self._marks()
        return marks is not None and marks.states[region] == CLEAN

    @property
    def has_clean_region(self) -> bool:
        """Whether there is something that a resync would leave out."""
        marks = self._marks()
        return marks is not None and CLEAN in marks.states

    def _marks(self) -> Marks | None:
        try:
            return None if self.host is None else self.host.find(NAME).apparatus.volume.marks
        except Refusal:
            return None

    def _count_resync(self) -> None:
        due_regions = self.host.find(NAME).apparatus.due_regions if self.host is not None else None
        if due_regions is not None and 0 in due_regions:
            self.count("resync:narrow")  # there is something that the map says need not be copied

    # ------------------------------------------------------------------ what the product tells

    def volume_opened(self, process: HostProcess, name: str, volume: Volume) -> None:
        self.note("volume opened", name, str(volume.state))
        if process.is_dead:
            return
        if any(disk.has_ever_lost_writes for disk in self.disks.values()):
            self.model.end_of_process(loses_cache=True)
        self.show_losses()
        self._guarded(self.rules.audit)(process, volume)
        self.application.volume = volume

    def volume_withdrawn(self, process: HostProcess) -> None:
        if not process.is_dead:
            self.application.volume = None

    def _request_answered(self, request: Request, began_at: float) -> None:
        self.note("answered", request.kind.name, str(request.offset), str(request.length), str(request.error))
        self._guarded(self.rules.request_answered)(request, began_at)

    def _answered(self, process: Process, subject: str, reply: object) -> None:
        if isinstance(reply, AdmissionReply):
            process.is_admitted = True
            for admission in reply.admitted:
                self.count(f"verdict:{admission.label}")
                self.note("admitted", admission.state, admission.label)
            for closed in reply.closed:
                self.note("closed", closed.code, closed.message)
                self._guarded(self.damage.closed)(closed, process)
            self.rules.admitted(reply)
            self.damage.admitted(reply, process)

    # ------------------------------------------------------------------ from beginning to end

    async def live(self) -> None:
        """The whole run; what is wrong stands in `wrong`."""
        self.loop.set_exception_handler(self._unhandled)
        for name in SERVICES:
            self.start_service(name)
        self.start_host()
        self.application.begin()
        acting = [self.operator.run(), self.chaos.run(), self.chaos.aim()]
        if self.plan.spoils_maps:
            acting.append(self.chaos.spoil_maps())
        if self.plan.gone_back is not None:
            acting.append(self.chaos.fail_writeback(self.plan.gone_back))
        if self.plan.broken_in is not None:
            acting.append(self.chaos.aim_at_connections())
        actors = [self.loop.create_task(actor) for actor in acting]
        await self._until_over(self.plan.duration_s)
        for actor in actors:
            actor.cancel()
        if self.wrong is None and not self.damage.is_final:
            await self._end_well()

    async def _until_over(self, for_s: float) -> None:
        await asyncio.wait([self.over], timeout=for_s)

    def _unhandled(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        if not self.loop.is_burying:
            wrong = context.get("exception")
            self.violated(
                wrong if isinstance(wrong, BaseException) else BrokenRuleError(str(context["message"]))
            )

    async def _end_well(self) -> None:
        """No more trouble: all must come to rest, stop cleanly, survive a last power cut, and come back."""
        self.note("calm")
        self.is_calm = True
        self._heal()
        try:
            async with asyncio.timeout(300), self.servers.looked_after():
                await self._restarted()
                await self._at_rest()
                await self._stopped()
                self.cut_power()
                self.note("POWER CUT", "at the end")
                await self._restarted()
                await self._at_rest()
        except TimeoutError:
            self.violated(BrokenRuleError(f"no rest after five minutes of calm: {self._unrest()}"))

    def _heal(self) -> None:
        self.nats.unluck, self.nats.does_delay_words = 0.0, False
        self.nats.come_up()
        self.witness_files.puts_to_fail = 0
        self.maps.writes_to_fail = 0
        for disk in self.disks.values():
            disk.faults.clear()
            disk.is_missing = False
            disk.let_go()
        for name in SERVICES:
            self.start_service(name)

    async def _restarted(self) -> None:
        """Once more from the beginning: what a running host may only freeze for, a restart repairs."""
        await self._stopped()
        self.start_host()

    async def _stopped(self) -> None:
        process = self.host_process
        if process is not None and not process.is_dead:
            process.stop.set()
            await self._until(lambda: process.is_dead)

    async def _at_rest(self) -> None:
        await asyncio.sleep(3)
        await self._until(lambda: self.damage.is_final or not self._unrest())
        self.application.is_resting = True
        await self._until(lambda: not self.application.outstanding)
        if self.wrong is None and self.host_process is not None and self.application.volume is not None:
            self._guarded(self.rules.audit)(self.host_process, self.application.volume)
        self.application.is_resting = False

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while self.wrong is None and not is_so():  # noqa: ASYNC110 # nothing tells the world
            await asyncio.sleep(0.5)

    def _unrest(self) -> str:
        """What is still to come; empty when nothing is."""
        host = self.host
        if host is None:
            return "no host"
        witness = self.rules.witness
        if witness is None or witness.state is None:
            return ""
        try:
            migration = host.find(NAME)
        except Refusal as refusal:
            return refusal.message
        if not migration.reporter.is_settled:
            return f"not in the journal: {migration.reporter.trouble}"
        return self.rules.untold() if self.application.volume is not None else "no volume"


def _rng(seed: int, of: str) -> random.Random:
    return random.Random(f"{seed}:{of}")


__all__ = ["Asked", "Message", "OpenDisk", "World"]
