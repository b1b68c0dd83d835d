"""A host without devices: it decides by the table, keeps its witness in memory, and reports as a real one does.

What a test wants to go wrong it says: refuse the next command, hang, or stop reporting.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from shared.bus.interface import Endpoint, Journal, Requests, ServiceDescription
from shared.messages.admission import Admission, WitnessView
from shared.messages.control import PlainRequest
from shared.messages.host import (
    HOST_SERVICE_NAME,
    ClosedView,
    DecidedReply,
    EnterRequest,
    HostCommand,
    HostSetupRequest,
    HostStatusReply,
    host_status_subject,
    host_subject,
)
from shared.messages.recording import (
    ClearFlagRequest,
    DecisionRequest,
    FaultReport,
    Origin,
    RecordFaultRequest,
    SetFlagRequest,
    StoredReply,
    decision_subject,
    record_subject,
)
from shared.messages.status import HostView, JournalWait, RoutingView
from shared.migration.devices import DeviceIdentity, DeviceKind, Side
from shared.migration.records import DevicePair
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag, State, routing_of
from shared.migration.table import Facts, Trigger, decide, with_faults

AT = "2026-01-31T12:00:00.000000Z"
TIMEOUT_S = 5.0


def device(name: str) -> DeviceIdentity:
    return DeviceIdentity(name=name, kind=DeviceKind.FILE, token=f"inode:1:{name}", size_bytes=1 << 20)


class ScriptedHost:
    """One run of one host."""

    def __init__(
        self,
        requests: Requests,
        journal: Journal,
        *,
        name: str = "h1",
        run: int = 1,
        witnesses: Sequence[WitnessView] = (),
    ) -> None:
        self.requests = requests
        self.journal = journal
        self.name = name
        self.run = run
        self.witnesses: dict[str, WitnessView] = {each.migration: each for each in witnesses}
        self.refusing: Refusal | None = None
        self.hanging: asyncio.Event | None = None
        self.reports = True
        self.journal_wait: JournalWait | None = None
        self.outstanding = 0
        self.clients: tuple[str, ...] = ()
        self.closed: tuple[ClosedView, ...] = ()
        self.opening: tuple[str, ...] = ()  # waits for startup's word on them
        self.asked: list[str] = []
        self._faults = 0

    # ------------------------------------------------------------------ as a service

    def description(self) -> ServiceDescription:
        metadata = {"host": self.name, "run": str(self.run)}
        return ServiceDescription(name=HOST_SERVICE_NAME, description="A scripted host", metadata=metadata)

    def endpoints(self) -> list[Endpoint]:
        handlers = {
            "setup": (HostSetupRequest, self._setup),
            "enter": (EnterRequest, self._enter),
            "status": (PlainRequest, self._status),
            **{command: (HostCommand, self._command(command)) for command in (
                "select-target", "select-source", "commit", "abort", "cleanup", "pause", "resume", "throttle",
            )},
        }  # fmt: skip
        endpoints = [
            Endpoint(name=name, subject=host_subject(self.name, name, "*"), request=request, handler=handler)
            for name, (request, handler) in handlers.items()
        ]
        status = Endpoint(
            name="all", subject=host_status_subject(self.name), request=PlainRequest, handler=self._status
        )
        return [*endpoints, status]

    async def _misbehave(self, command: str) -> None:
        self.asked.append(command)
        if self.hanging is not None:
            await self.hanging.wait()
        if self.refusing is not None:
            raise self.refusing

    async def _setup(self, name: str, request: HostSetupRequest) -> DecidedReply:
        await self._misbehave("setup")
        await self.set_up(
            name, request.uuid, request.operation_id, source=request.source, target=request.target
        )
        return self._decided(name)

    async def _enter(self, name: str, request: EnterRequest) -> DecidedReply:
        await self._misbehave("enter")
        if request.operation_id != self.witnesses[name].operation_id:
            await self.enter(name, request.flag_digest, request.operation_id)
        return self._decided(name)

    def _command(self, command: str):  # type: ignore[no-untyped-def] # noqa: ANN202
        async def handle(name: str, request: HostCommand) -> DecidedReply:
            await self._misbehave(command)
            if command in {"pause", "resume", "throttle"}:
                return self._decided(name)
            if command == "cleanup" and self.clients and not request.disconnect:
                raise Refusal(Code.CLIENTS_CONNECTED, f"Connected: {', '.join(self.clients)}.")
            await self.move(name, Trigger(command), request.operation_id)
            decided = self._decided(name)
            if command == "cleanup":
                del self.witnesses[name]
            return decided

        return handle

    async def _status(self, name: str, _request: PlainRequest) -> HostStatusReply:
        self.asked.append("status")
        if self.hanging is not None:
            await self.hanging.wait()
        asked = [each for each in self.witnesses.values() if name in {"", each.migration}]
        views = tuple(self.view(each) for each in asked if each.migration not in self.opening)
        closed = tuple(each for each in self.closed if name in {"", each.name})
        opening = tuple(each for each in self.opening if name in {"", each})
        return HostStatusReply(host=self.name, run=self.run, migrations=views, closed=closed, opening=opening)

    def _decided(self, name: str) -> DecidedReply:
        witness = self.witnesses[name]
        return DecidedReply(
            state=witness.state,
            authority=witness.authority,
            attempt=witness.attempt,
            decision=witness.decision,
            journal=self.reports,
            message="" if self.reports else "not in the journal yet",
        )

    def view(self, witness: WitnessView) -> HostView:
        state = witness.state or State.SETUP
        routing = routing_of(state, witness.authority)
        size_bytes = witness.devices.source.size_bytes
        return HostView(
            name=witness.migration,
            uuid=witness.uuid,
            host=self.name,
            run=self.run,
            state=state,
            authority=witness.authority,
            attempt=witness.attempt,
            decision=witness.decision,
            journal_pending=not self.reports,
            journal_wait=self.journal_wait,
            size_bytes=size_bytes,
            synced_bytes=size_bytes // 2,
            remaining_bytes=size_bytes // 2,
            rate_bytes_per_s=0.0,
            eta_s=None,
            paused=False,
            throttle_bytes_per_s=None,
            export_uri="nbd+unix:///vol1",
            io_engine="none",
            outstanding_target_requests=self.outstanding,
            routing=RoutingView(
                reads=routing.reads, writes=tuple(routing.writes), flushes=tuple(routing.flushes)
            ),
            tail_digest=witness.tail_digest,
            at=AT,
        )

    # ------------------------------------------------------------------ what it decides

    async def set_up(
        self,
        name: str = "vol1",
        uuid: str = "u1",
        operation: str = "op-setup",
        *,
        source: str = "/a",
        target: str = "/b",
    ) -> None:
        self.witnesses[name] = WitnessView(
            migration=name,
            uuid=uuid,
            host=self.name,
            run=self.run,
            state=State.SETUP,
            authority=Side.SOURCE,
            attempt=0,
            decision=1,
            operation_id=operation,
            trigger="setup",
            detail="",
            tail_digest="",
            flag_digest="",
            opened_run=self.run,
            faults=(),
            devices=DevicePair(source=device(source), target=device(target)),
        )
        await self.report(name)

    async def set_flag(self, name: str = "vol1", operation: str = "op-flag") -> str:
        witness = self.witnesses[name]
        origin = replace(self.origin(name, operation), attempt=witness.attempt + 1)
        tail = (await self.journal.read(name)).tail
        request = SetFlagRequest(origin=origin, tail_digest=tail.digest)
        return (await self._ask(record_subject("flag-set", self.name, name), request)).digest

    async def enter(self, name: str, flag_digest: str, operation: str = "op-sync") -> None:
        ledger = await self.journal.read(name)
        flag = ledger.flag_entry
        if flag is None or flag.digest != flag_digest or ledger.flag is not Flag.SET:
            raise Refusal(Code.STALE, "Not the last flag.")
        witness = self.witnesses[name]
        decide(replace(self._facts(witness), flag=Flag.SET), Trigger.SYNC)
        await self._decide(
            name,
            operation,
            "sync",
            state=State.SYNCING,
            attempt=witness.attempt + 1,
            flag_digest=flag_digest,
            tail_digest=ledger.tail.digest,
            faults=(),
        )

    async def sync(self, name: str = "vol1") -> None:
        await self.enter(name, await self.set_flag(name, f"op-flag-{self.witnesses[name].attempt + 1}"))

    async def move(self, name: str, trigger: Trigger, operation: str | None = None) -> None:
        witness = self.witnesses[name]
        row = decide(self._facts(witness), trigger)
        await self._decide(
            name,
            operation or f"{witness.uuid}:decision:{witness.decision + 1}",
            trigger,
            state=row.after,
            authority=row.authority,
        )
        if row.after in {State.SETUP, State.COMMITTED} and self.reports:
            await self.clear_flag(name)

    async def fail(self, name: str = "vol1", side: Side = Side.TARGET) -> None:
        """A device fails: into the witness, and to the journal."""
        witness = self.witnesses[name]
        self._faults += 1
        fault = FaultReport(
            operation_id=f"{witness.uuid}:fault:{self.run}:{self._faults}",
            side=side,
            state=witness.state or State.SETUP,
            attempt=witness.attempt,
            operation="write",
            cause="EIO",
            errno=5,
            offset=4096,
            length=4096,
            detected_at=AT,
        )
        self.witnesses[name] = replace(witness, faults=(*witness.faults, fault))
        if self.reports:
            request = RecordFaultRequest(origin=self.origin(name, fault.operation_id), fault=fault)
            stored = await self._ask(record_subject("fault", self.name, name), request)
            self.witnesses[name] = replace(self.witnesses[name], tail_digest=stored.digest)

    async def clear_flag(self, name: str = "vol1") -> None:
        """As at a clean shutdown, or after cloning."""
        ledger = await self.journal.read(name)
        if ledger.flag is not Flag.SET or ledger.flag_entry is None:
            return
        set_digest = ledger.flag_entry.digest
        self.witnesses[name] = replace(self.witnesses[name], flag_digest="", spent_flag_digest=set_digest)
        request = ClearFlagRequest(
            origin=self.origin(name, f"clear:{set_digest}"),
            set_digest=set_digest,
            tail_digest=ledger.tail.digest,
            faults=self.witnesses[name].faults,
        )
        stored = await self._ask(record_subject("flag-clear", self.name, name), request)
        self.witnesses[name] = replace(self.witnesses[name], tail_digest=stored.digest)

    def adopt(self, admission: Admission) -> None:
        """Step 4 of admission: the witness is written before the volume opens."""
        earlier = self.witnesses.get(admission.migration)
        same = earlier is not None and earlier.attempt == admission.attempt
        self.witnesses[admission.migration] = WitnessView(
            migration=admission.migration,
            uuid=admission.uuid,
            host=self.name,
            run=self.run,
            state=admission.state,
            authority=admission.authority,
            attempt=admission.attempt,
            decision=admission.decision,
            operation_id=f"{admission.uuid}:admitted:{self.run}",
            trigger=admission.label,
            detail=admission.reason,
            tail_digest=admission.tail_digest,
            flag_digest=admission.flag_digest,
            spent_flag_digest=earlier.spent_flag_digest if earlier is not None else "",
            opened_run=self.run,
            faults=earlier.faults if earlier is not None and same else (),
            devices=admission.devices,
        )

    async def report(self, name: str) -> None:
        """Have the last decision recorded."""
        if not self.reports:
            return
        witness = self.witnesses[name]
        request = DecisionRequest(
            origin=self.origin(name, witness.operation_id),
            state=witness.state,
            authority=witness.authority,
            trigger=witness.trigger,
            devices=witness.devices if witness.trigger == "setup" else None,
        )
        stored = await self._ask(decision_subject(self.name, name), request)
        self.witnesses[name] = replace(witness, tail_digest=stored.digest)

    def origin(self, name: str, operation: str) -> Origin:
        witness = self.witnesses[name]
        return Origin(
            migration=name,
            uuid=witness.uuid,
            attempt=witness.attempt,
            host=self.name,
            run=self.run,
            decision=witness.decision,
            operation_id=operation,
            relies_on=witness.tail_digest,
        )

    async def _decide(self, name: str, operation: str, trigger: str, **changes: object) -> None:
        witness = self.witnesses[name]
        decided = {
            "run": self.run,
            "opened_run": self.run,
            "decision": witness.decision + 1,
            "operation_id": operation,
            "trigger": trigger,
        }
        self.witnesses[name] = replace(witness, **decided, **changes)  # type: ignore[arg-type]
        await self.report(name)

    def _facts(self, witness: WitnessView) -> Facts:
        facts = Facts(state=witness.state, authority=witness.authority, flag=Flag.CLEAR)
        return with_faults(facts, witness.faults)

    async def _ask(self, subject: str, request: object) -> StoredReply:
        return await self.requests.request(subject, request, StoredReply, timeout_s=TIMEOUT_S)
