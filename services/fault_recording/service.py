"""What fault_recording answers, and in which order it stores. What may be stored is decided in `flags` and `faults`."""

from collections.abc import Sequence

from services.fault_recording.faults import decide_fault
from services.fault_recording.flags import decide_clear, decide_set
from shared.bus.appending import append_decided
from shared.bus.interface import Durability, Endpoint, Journal
from shared.clock import Clock
from shared.messages.recording import (
    ClearFlagRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    SetFlagRequest,
    StoredReply,
    record_subject,
)
from shared.messages.standing import refuse_mislabelled
from shared.migration.ledger import Entry

SERVICE_NAME = "cutover-fault-recording"


class FaultRecording:
    """The only writer of flag and fault subjects. Every answer means stored."""

    def __init__(self, journal: Journal, durability: Durability, clock: Clock) -> None:
        self._journal = journal
        self._durability = durability
        self._clock = clock

    def endpoints(self) -> Sequence[Endpoint]:
        """What is served."""
        return (
            Endpoint(
                name="flag-set",
                subject=record_subject("flag-set", "*", "*"),
                request=SetFlagRequest,
                handler=self.set_flag,
            ),
            Endpoint(
                name="flag-clear",
                subject=record_subject("flag-clear", "*", "*"),
                request=ClearFlagRequest,
                handler=self.clear_flag,
            ),
            Endpoint(
                name="fault",
                subject=record_subject("fault", "*", "*"),
                request=RecordFaultRequest,
                handler=self.record_fault,
            ),
        )

    async def set_flag(self, host: str, migration: str, request: SetFlagRequest) -> StoredReply:
        """Set the error flag; only where an acknowledged record outlives a power cut.

        Raises:
            Refusal: `bad-request`; `journal-unsynced`; those of `decide_set` and of the journal.
        """
        refuse_mislabelled(host, migration, request.origin)
        await self._durability.require()
        entry, _ledger = await append_decided(
            self._journal, migration, lambda ledger: decide_set(request, ledger, self._clock)
        )
        await self._durability.require()  # still: the connection may have moved to another server meanwhile
        return StoredReply.of(entry)

    async def clear_flag(self, host: str, migration: str, request: ClearFlagRequest) -> StoredReply:
        """Clear the error flag, after the faults that the request names.

        Raises:
            Refusal: `bad-request`; those of `decide_clear`, `decide_fault` and of the journal.
        """
        refuse_mislabelled(host, migration, request.origin)
        ledger = await self._journal.read(migration)
        decide_clear(request, ledger, self._clock)  # a clear that is refused leaves no faults behind
        for fault in request.faults:
            await self._store_fault(request.origin, fault)
        entry, _ledger = await append_decided(
            self._journal, migration, lambda ledger: decide_clear(request, ledger, self._clock)
        )
        return StoredReply.of(entry)

    async def record_fault(self, host: str, migration: str, request: RecordFaultRequest) -> StoredReply:
        """Append one fault to the log.

        Raises:
            Refusal: `bad-request`; those of `decide_fault` and of the journal.
        """
        refuse_mislabelled(host, migration, request.origin)
        return StoredReply.of(await self._store_fault(request.origin, request.fault))

    async def _store_fault(self, origin: Origin, fault: FaultReport) -> Entry:
        entry, _ledger = await append_decided(
            self._journal,
            origin.migration,
            lambda ledger: decide_fault(origin, fault, ledger, self._clock),
        )
        return entry
