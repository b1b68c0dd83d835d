"""The rules that the world watches over, as far as they can be seen to break from outside: R1 to R7 of docs/ARCHITECTURE.md.

What the application sees is the model's business.
"""

from typing import TYPE_CHECKING

from services.write_cloning.devices.absent import AbsentDevice
from services.write_cloning.host import Host
from services.write_cloning.volume.requests import Kind, Request
from services.write_cloning.volume.volume import Volume
from services.write_cloning.witness import Witness, _open_seal
from shared.bus.memory import Message
from shared.messages.admission import AdmissionReply
from shared.messages.codec import decode_record
from shared.migration.devices import Side
from shared.migration.ledger import Entry, Ledger, fold
from shared.migration.records import FlagClearRecord, StateRecord, digest_of
from shared.migration.refusals import Refusal
from shared.migration.states import CLONING_STATES, IN_SYNC_STATES, Flag
from shared.migration.table import Step, Transition, Trigger
from tests.simulation.disk import Asked, Disk, OpenDisk
from tests.simulation.machine import HostProcess
from tests.simulation.operator import NAME

if TYPE_CHECKING:
    from tests.simulation.world import World

_FILE = f"{NAME}.witness"
_NO_FAULT = frozenset({0, 108, 95})  # none, ESHUTDOWN, ENOTSUP


# Whose caches have to be asked first.
_RELIED_ON = {
    Trigger.COPIED: Side.SOURCE,
    Trigger.SELECT_SOURCE: Side.SOURCE,
    Trigger.SELECT_TARGET: Side.TARGET,
    Trigger.SOURCE_FAULT: Side.TARGET,
    Trigger.COMMIT: Side.TARGET,
}
_TRUSTING_THE_TARGET = frozenset({Trigger.COMMIT, Trigger.SELECT_TARGET, Trigger.SOURCE_FAULT})


class BrokenRuleError(Exception):
    """A rule is broken."""


class Rules:
    """See the module's docstring."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.witness: Witness | None = None  # as a process that reads it now would find it

    # ------------------------------------------------------------------ the witness

    def witness_replaced(self, name: str, content: bytes | None) -> None:
        """A file of the state directory is another one from here on, or gone."""
        if name != _FILE:
            return
        if content is None:
            self.witness = None
            return
        before, self.witness = self.witness, _open_seal(NAME, content)
        witness = self.witness
        self._world.note(
            "witness", str(witness.state), str(witness.authority), str(witness.decision), witness.trigger
        )
        if witness.authority is Side.TARGET:
            self._world.data_disk = witness.devices.target.name
        elif witness.state is not None:
            self._world.data_disk = witness.devices.source.name
        is_new = before is None or (before.uuid, before.decision) != (witness.uuid, witness.decision)
        if is_new and witness.trigger in _TRUSTING_THE_TARGET and witness.fault_count(Side.TARGET):
            raise BrokenRuleError(f"R5: {witness.trigger} is decided over a target fault")

    def step(self, row: Transition, step: Step) -> None:
        """The executor is about to perform a step."""
        source = self._world.disk(Side.SOURCE)
        if row.trigger is Trigger.SYNC and step is Step.RELEASE_WRITES:
            source.attempt += 1
        # One that was asked before, and fails now, has nobody left to hear it; the device fails the next flush for it.
        if (
            row.trigger is Trigger.COPIED
            and step is row.steps[0]
            and source.flush_failed_in == source.attempt
        ):
            raise BrokenRuleError("4.5: in sync, although a flush of the source has failed in this attempt")
        relied_on = _RELIED_ON.get(row.trigger)
        if (
            step is Step.WRITE_WITNESS
            and relied_on is not None
            and self._world.disk(relied_on).has_untold_loss
        ):
            raise BrokenRuleError(
                f"4.5: {row.trigger} relies on a {relied_on} that has lost writes, and was not flushed"
            )

    def look_at_files(self) -> None:
        """After a power cut, or a repair, the file may be another one."""
        content = self._world.witness_files.files.get(_FILE)
        try:
            self.witness = None if content is None else _open_seal(NAME, content)
        except Refusal:
            self.witness = None

    def source_disk(self) -> str:
        """The source of the present migration, or of the next."""
        return self.witness.devices.source.name if self.witness is not None else self._world.data_disk

    def _durable_witness(self) -> Witness | None:
        content = self._world.witness_files.durable.get(_FILE)
        return None if content is None else _open_seal(NAME, content)

    # ------------------------------------------------------------------ I/O

    def reopens(self, disk: Disk) -> None:
        """The host opens a device that it has had before. Its lock would not allow that, but the host must know better."""
        if disk.outstanding:
            self._world.violated(
                BrokenRuleError(
                    f"R6: {disk.name} is opened again with {disk.outstanding} requests outstanding"
                )
            )

    def io(self, handle: OpenDisk, asked: Asked) -> None:
        """A device is about to be asked for something."""
        process = handle.process
        if not process.is_admitted:
            raise BrokenRuleError(f"R1: {asked.operation} on {handle.disk.name} before this run was admitted")
        if handle.disk.left:
            raise BrokenRuleError(
                f"R6: {asked.operation} on {handle.disk.name}, where {len(handle.disk.left)} requests of an old connection may "
                "still land"
            )
        if not handle.has_done_io:
            handle.has_done_io = True
            self._first_io(handle, asked)
        if asked.values is not None and not handle.has_written:
            handle.has_written = True
            self._first_write(handle)

    def landing(self, disk: Disk) -> None:
        """A request of a connection that is no more is about to land."""
        self._world.note("lands late", disk.name)
        for handle in disk.handles:
            if handle.has_done_io and not handle.is_broken:
                raise BrokenRuleError(
                    f"R6: a request of an old connection lands on {disk.name}, which is used again"
                )

    def _first_io(self, handle: OpenDisk, asked: Asked) -> None:
        witness = self._durable_witness()
        if witness is None or witness.run != handle.process.run:
            run = None if witness is None else witness.run
            what = f"{asked.operation} on {handle.disk.name} in run {handle.process.run}"
            raise BrokenRuleError(f"R1: {what}, and the witness on disk is of run {run}")

    def _first_write(self, handle: OpenDisk) -> None:
        witness = self._durable_witness()
        if (
            witness is None
            or witness.authority is Side.TARGET
            or handle.disk.name != witness.devices.target.name
        ):
            return
        ledger = self.ledger()
        if ledger.broken is not None or not ledger.contains(witness.tail_digest):
            return  # the journal has gone back under a host that runs, which goes on with what it knows
        flag = ledger.flag_entry
        if ledger.flag is not Flag.SET or flag is None or flag.digest != witness.flag_digest:
            raise BrokenRuleError(
                f"R2: the target is written while the flag is {ledger.flag}; witness: {witness.flag_digest[:8] or 'none'}"
            )

    # ------------------------------------------------------------------ the journal

    def ledger(self) -> Ledger:
        """What the journal says now."""
        return fold(NAME, [_entry(each) for each in self._world.nats.broker.messages])

    def stored(self, message: Message) -> None:
        """A record was stored."""
        world = self._world
        record = decode_record(message.stored.payload)
        world.note("stored", record.kind, str(record.index), record.operation_id)
        world.count(f"record:{record.kind}")
        if isinstance(record, StateRecord) and record.trigger == Trigger.SETUP:
            world.count("row:None/setup")
        if isinstance(record, StateRecord) and record.trigger == Trigger.COMMIT:
            self._refuse_commit_over_fault()
        if isinstance(record, FlagClearRecord):
            self._refuse_clear_while_cloning()

    def _refuse_commit_over_fault(self) -> None:
        before = fold(NAME, [_entry(each) for each in self._world.nats.broker.messages[:-1]])
        if before.authority is Side.SOURCE and before.fault_count(Side.TARGET):
            raise BrokenRuleError("R5: committed over a recorded target fault")

    def _refuse_clear_while_cloning(self) -> None:
        volume = self._world.application.volume
        if volume is None or not volume._is_open:
            return
        if volume.state in CLONING_STATES and volume.sides_by_authority() == (Side.SOURCE, Side.TARGET):
            raise BrokenRuleError("R2: the flag is cleared while writes are cloned")

    # ------------------------------------------------------------------ admission

    def admitted(self, reply: AdmissionReply) -> None:
        """Startup has answered a host."""
        if NAME in reply.removed:
            self.witness = None

    def stopped_cleanly(self, process: HostProcess, host: Host) -> None:
        """The host says that it has stopped cleanly. Its file may hold a decision that could neither be written nor undone."""
        if self._world.nats.went_back > process.began_on:
            return  # perhaps after the clear was stored
        witness = host.find(NAME).witness
        ledger = self.ledger()
        if (
            witness.state in CLONING_STATES
            and witness.authority is Side.SOURCE
            and ledger.flag is not Flag.CLEAR
        ):
            raise BrokenRuleError(f"the stop was clean, and the flag is {ledger.flag}")

    def untold(self) -> str:
        """What the journal does not tell as the witness does; a flag that was set in vain may stand until the next start."""
        witness, ledger = self.witness, self.ledger()
        if witness is None or witness.state is None:
            return ""
        for fault in witness.faults:
            if ledger.operation(fault.operation_id) is None:
                return f"the journal lacks a fault of the {fault.side} that the witness has"
        if (ledger.state, ledger.authority) != (witness.state, witness.authority):
            return f"the journal says {ledger.state}, and the witness {witness.state}"
        if witness.state in CLONING_STATES and ledger.flag is not Flag.SET:
            return f"writes are cloned, and the flag is {ledger.flag}"
        return ""

    # ------------------------------------------------------------------ data

    def audit(self, process: HostProcess, volume: Volume) -> None:
        """The sides that serve hold what the application may see, and the same where they are in sync."""
        host = process.host
        if host is None:
            return
        migration = host.find(NAME)
        authority, other = volume.sides_by_authority()
        sides = [authority]
        if other is not None and volume.state in IN_SYNC_STATES:
            sides.append(other)
        for side in sides:
            device = migration.apparatus.source if side is Side.SOURCE else migration.apparatus.target
            if isinstance(device, AbsentDevice):
                raise BrokenRuleError(f"the {side} serves in {volume.state}, and is not open")
            disk = self._world.disks[device.identity.name]
            if disk.unseen:
                continue
            # Behind a connection that has broken in use, what it has left may still land.
            self._world.model.audit(f"{side} in {volume.state}", disk.view, is_final=not disk.left)

    def request_answered(self, request: Request, _began_at: float) -> None:
        """The application has an answer."""
        world = self._world
        volume = world.application.volume
        if volume is None:
            return
        authority, other = volume.sides_by_authority()
        is_source_well = authority is Side.SOURCE and not world.disk(Side.SOURCE).failures
        if request.error not in _NO_FAULT and is_source_well:
            raise BrokenRuleError(f"the application is answered {request.error}, and the source is well")
        self._refuse_early_answer(request, volume)
        is_in_sync = volume.state in IN_SYNC_STATES and authority is Side.SOURCE and other is Side.TARGET
        if is_in_sync and world.model.is_quiet:
            self._compare_sides()

    def _refuse_early_answer(self, request: Request, volume: Volume) -> None:
        """From the moment that the target is out of the routing the witness must say so before anything is answered."""
        if request.error or request.kind in {Kind.READ, Kind.CACHE} or not volume.failover.has_dropped_target:
            return
        witness = self._durable_witness()
        if witness is not None and witness.authority is Side.SOURCE and witness.state in CLONING_STATES:
            raise BrokenRuleError(
                f"R3: a {request.kind.name} that the target misses is answered, and the witness says {witness.state}"
            )

    def _compare_sides(self) -> None:
        source, target = self._world.disk(Side.SOURCE), self._world.disk(Side.TARGET)
        if source.outstanding or target.outstanding or not (source.handles and target.handles):
            return
        if source.is_cut_off or target.is_cut_off:
            return  # and the next request will tell
        self._world.count("compared")
        lost = source.quietly_lost | target.quietly_lost
        for sector, (one, other) in enumerate(zip(source.view, target.view, strict=True)):
            if one != other and sector not in lost:
                raise BrokenRuleError(f"R4: the sides are in sync, at rest, and differ in sector {sector}")


def _entry(message: Message) -> Entry:
    payload = message.stored.payload
    return Entry(message.stored.sequence, decode_record(payload), digest_of(payload))
