"""The operator: commands at random, but with a goal, so that the row of the table that the seed aims at is reached."""

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING

import orjson

from services.write_cloning.reporter import origin_of
from shared.messages.control import (
    FAULTS_SUBJECT,
    LIST_SUBJECT,
    CleanupRequest,
    CommandReply,
    CommitRequest,
    FaultsReply,
    ListReply,
    PlainRequest,
    SetupRequest,
    ThrottleRequest,
    VouchRequest,
    control_subject,
)
from shared.messages.host import host_subject
from shared.messages.recording import FaultReport, RecordFaultRequest, StoredReply, record_subject
from shared.messages.recovery import AdoptRequest, GiveUpRequest
from shared.messages.status import MigrationStatus
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, State
from shared.migration.table import COMMANDS, Trigger
from tests.simulation.clock import VirtualClock
from tests.simulation.machine import HOST_NAME
from tests.simulation.nats import SimulatedBus
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

NAME = "vol1"
ANSWER_TIMEOUT_S = 70.0
AT_ONCE_MAX = 3
WORD_CHANCE = 0.2  # of an operator who sees that one is due
UNASKED_CHANCE = 0.3
BEGINS_ANEW_CHANCE = 0.2  # of an operator whose volume has nothing but errors

_ORDER = (None, *State)
_ONWARD: dict[State | None, str] = {
    None: "setup",
    State.SETUP: "sync",
    State.SYNCING: "resume",
    State.SOURCE_SELECTED: "select-target",
    State.TARGET_SELECTED: "commit",
    State.COMMITTED: "cleanup",
}
_ANY = (
    "sync",
    "pause",
    "resume",
    "throttle",
    "select-target",
    "select-source",
    "commit",
    "abort",
    "cleanup",
    "query",
    "verify",
    "list",
    "faults",
)


class Operator:
    """One person, sometimes impatient."""

    def __init__(self, world: "World", rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._under_way = 0
        self._last: tuple[str, object] | None = None
        self._was_refused = False
        self.process = Process("operator")
        self.bus = SimulatedBus(world.nats, self.process)

    async def run(self) -> None:
        """Command for ever."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                rng = self._rng
                await asyncio.sleep(rng.random() * self._patience_s())
                if self._under_way < AT_ONCE_MAX:
                    tasks.create_task(self._do(self._choose()))

    async def _do(self, command: str) -> None:
        servers = self._world.servers
        is_word_given = servers.are_any and self._rng.random() < WORD_CHANCE
        if is_word_given and (servers.seem_in_doubt() or self._rng.random() < UNASKED_CHANCE):
            await self.vouch()
            return
        if servers.are_any and servers.is_volume_cut_off and self._rng.random() < BEGINS_ANEW_CHANCE:
            command = "cleanup"
        await self.command(command)

    async def vouch(self) -> None:
        """See to it at the servers that the old connections are gone, and say so once: this operator never lies."""
        world = self._world
        self._under_way += 1
        try:
            status = await self.bus.request(
                control_subject("query", NAME), PlainRequest(), MigrationStatus, timeout_s=9
            )
            world.servers.end_old_connections()
            world.note("command", "vouch", str(world.state))
            request = VouchRequest(doubt=status.doubt or "")
            await self.bus.request(
                control_subject("vouch", NAME), request, CommandReply, timeout_s=ANSWER_TIMEOUT_S
            )
        except Refusal as refusal:
            world.note("refused", "vouch", refusal.code.value, refusal.message)
            world.count("refused:vouch")
        else:
            world.note("done", "vouch")
            world.count("command:vouch")
            world.servers.word_taken()
        finally:
            self._under_way -= 1

    def _patience_s(self) -> float:
        plan = self._world.plan
        if self._world.state is plan.row.before:
            return 3.0
        if plan.is_local and not (plan.spoils_maps and self._world.state is State.SETUP):
            return 2.0  # in which regions grow clean; but in setup all are written soon
        return 0.3

    def _choose(self) -> str:
        state, row, rng = self._world.state, self._world.plan.row, self._rng
        if self._world.plan.is_peaceful and state in IN_SYNC_STATES:
            return "query"  # until the power goes
        if rng.random() < 0.15:
            return rng.choice(_ANY)
        if state is row.before and row.trigger in COMMANDS:
            return row.trigger.value
        if state is not None and row.before is not None and _ORDER.index(state) > _ORDER.index(row.before):
            if state is State.COMMITTED:
                return "cleanup"
            return "select-source" if rng.random() < 0.3 else "abort"
        if state in IN_SYNC_STATES and rng.random() < 0.1:
            return "verify"
        if state is row.before and row.trigger is not Trigger.COPIED and rng.random() < 0.8:
            return "query"
        return _ONWARD[state]

    async def command(self, command: str) -> CommandReply | None:
        """Ask, and take a no for an answer."""
        self._under_way += 1
        try:
            return await self._ask(command)
        except Refusal as refusal:
            self._was_refused = True
            self._world.note("refused", command, refusal.code.value, refusal.message)
            self._world.count(f"refused:{refusal.code.value}")
            if refusal.code is Code.DEVICE_BUSY and self._world.servers.are_any:
                self._world.stop_host()  # which has an export open that is in no migration of its
            return None
        finally:
            self._under_way -= 1

    async def _ask(self, command: str) -> CommandReply | None:
        self._world.note("command", command, str(self._world.state))
        if command in {"query", "list", "faults"}:
            await self._look(command)
            return None
        payload = self._payload(command)
        if self._last is not None and self._rng.random() < (0.2 if self._was_refused else 0.05):
            command, payload = self._last  # again, with the same operation id
        self._was_refused = False
        self._last = (command, payload)
        reply = await self.bus.request(
            control_subject(command, NAME), payload, CommandReply, timeout_s=ANSWER_TIMEOUT_S
        )
        self._world.note("done", command, str(reply.state), str(reply.journal))
        self._world.count(f"command:{command}")
        return reply

    def is_outdated(self, subject: str, payload: bytes) -> bool:
        """Whether a set-up, his to the services or theirs to the host, names as source what the data has left meanwhile."""
        is_set_up = subject in {control_subject("setup", NAME), host_subject(HOST_NAME, "setup", NAME)}
        return is_set_up and orjson.loads(payload)["source"] != self._world.data_disk

    async def adopt(self, authority: Side) -> bool:
        """Say which side is right, knowing it."""
        return await self._recover(
            "adopt", AdoptRequest(authority=authority, accept=True), f"adopted:{authority}"
        )

    async def give_up(self) -> bool:
        """End what is closed; where its data is he knows."""
        return await self._recover("give-up", GiveUpRequest(accept=True), "given-up")

    async def _recover(self, choice: str, request: object, counter: str) -> bool:
        world = self._world
        world.note("command", choice)
        try:
            await self.bus.request(
                control_subject(choice, NAME), request, CommandReply, timeout_s=ANSWER_TIMEOUT_S
            )
        except Refusal as refusal:
            world.note("refused", choice, refusal.code.value, refusal.message)
            return False
        world.note("done", choice)
        world.count(counter)
        return True

    async def report_target_fault(self) -> None:
        """Have a fault of the target recorded while its host is down, as whoever looks after the device may."""
        witness = self._world.rules.witness
        if witness is None or witness.state not in CLONING_STATES or witness.authority is Side.TARGET:
            return
        fault = FaultReport(
            operation_id=self._world.new_id(),
            side=Side.TARGET,
            state=witness.state,
            attempt=witness.attempt,
            operation="read",
            cause="reported",
            detected_at=VirtualClock().now_rfc3339(),
        )
        request = RecordFaultRequest(origin=origin_of(witness), fault=fault)
        with contextlib.suppress(Refusal):
            await self.bus.request(
                record_subject("fault", witness.host, NAME), request, StoredReply, timeout_s=5
            )

    async def _look(self, command: str) -> None:
        if command == "query":
            await self.bus.request(
                control_subject("query", NAME), PlainRequest(), MigrationStatus, timeout_s=9
            )
        elif command == "list":
            await self.bus.request(LIST_SUBJECT, PlainRequest(), ListReply, timeout_s=9)
        else:
            await self.bus.request(FAULTS_SUBJECT, PlainRequest(), FaultsReply, timeout_s=9)

    def _payload(self, command: str) -> object:
        rng, world = self._rng, self._world
        operation = world.new_id() if rng.random() < 0.5 else None
        if command == "setup":
            source = world.data_disk
            target = next(name for name in sorted(world.disks) if name != source)
            return SetupRequest(source=source, target=target, overwrite_target=True, operation_id=operation)
        if command == "throttle":
            rate = rng.choice((None, 4096, 65536))
            return ThrottleRequest(bytes_per_s=rate, operation_id=operation)
        if command == "commit":
            return CommitRequest(verified=rng.choice((None, False, False, True)), operation_id=operation)
        if command == "cleanup":
            return CleanupRequest(disconnect=True, operation_id=operation)
        return PlainRequest(operation_id=operation)
