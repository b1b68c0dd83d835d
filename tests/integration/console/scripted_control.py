"""State control as a script: it answers the operator's commands over a real NATS server from statuses that a test sets."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from shared.bus.connection import Bus
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import Endpoint, ServiceDescription
from shared.messages.control import (
    CONTROL_COMMANDS,
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
    control_subject,
)
from shared.messages.status import MigrationStatus
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support.statuses import status

_REQUESTS = {
    "setup": SetupRequest,
    "throttle": ThrottleRequest,
    "cleanup": CleanupRequest,
    "commit": CommitRequest,
}
_AFTER = {
    "sync": State.SYNCING, "select-target": State.TARGET_SELECTED, "select-source": State.SOURCE_SELECTED,
    "commit": State.COMMITTED, "abort": State.SETUP,
}  # fmt: skip


@dataclass
class ScriptedControl:
    """What exists, what was asked for, and what happens besides."""

    bus: Bus
    existing: dict[str, MigrationStatus] = field(default_factory=dict)
    asked: list[tuple[str, str, object]] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)  # by command
    replies: dict[str, State] = field(
        default_factory=dict
    )  # the state after a command, where it is another one
    then: dict[str, Callable[[str], Awaitable[None]]] = field(default_factory=dict)  # after a command

    def has(self, name: str = "vol1", **fields: object) -> MigrationStatus:
        """Let a migration exist, as it is said; nobody is told."""
        self.existing[name] = status(name=name, **fields)
        return self.existing[name]

    async def becomes(self, name: str = "vol1", **fields: object) -> None:
        """Change a migration and tell, as a journal would."""
        before = self.existing[name]
        kept = {key: getattr(before, key) for key in ("uuid", "state", "attempt", "connections", "faults")}
        self.has(name, **(kept | fields))
        await self.tell(name)

    async def tell(self, name: str = "vol1") -> None:
        """Say on the journal's subject that something was recorded."""
        now = self.existing.get(name)
        record = {"kind": "state", "state": now.state if now else "gone", "trigger": "test", "attempt": 1}
        await self.bus.publish(f"cutover.journal.{name}.state", record)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answer."""
        endpoints = [
            Endpoint(
                name=command,
                subject=control_subject(command, "*"),
                request=_REQUESTS.get(command, PlainRequest),
                handler=self._handler(command),
            )
            for command in CONTROL_COMMANDS
        ]
        endpoints += [
            Endpoint(name="list", subject=LIST_SUBJECT, request=PlainRequest, handler=self._list),
            Endpoint(name="faults", subject=FAULTS_SUBJECT, request=PlainRequest, handler=self._faults),
            Endpoint(
                name="faults-of", subject=f"{FAULTS_SUBJECT}.*", request=PlainRequest, handler=self._faults
            ),
        ]
        service = ServiceDescription(name="cutover-state-control", description="a script")
        async with NatsEndpoints(self.bus).serve(service, endpoints):
            yield

    def _handler(self, command: str) -> Callable[[str, object], Awaitable[object]]:
        async def handle(name: str, request: object) -> object:
            if command != "query":
                self.asked.append((command, name, request))
            if command in self.refusals:
                raise self.refusals[command]
            if name not in self.existing and command != "setup":
                raise Refusal(Code.UNKNOWN_MIGRATION, f"There is no migration {name}.")
            reply = self.existing[name] if command == "query" else self._carry_out(command, name, request)
            if command in self.then:
                await self.then[command](name)
            return reply

        return handle

    def _carry_out(self, command: str, name: str, request: object) -> CommandReply:
        if isinstance(request, SetupRequest):
            self.has(name, source=request.source, target=request.target)
        now = self.existing[name]
        if command == "cleanup":
            del self.existing[name]
            return CommandReply(
                name=name, uuid=now.uuid, state=None, authority=now.authority, attempt=now.attempt, decision=9
            )
        attempt = now.attempt + (command == "sync")
        after = self.replies.get(command, _AFTER.get(command, now.state))
        fields = {"state": after, "attempt": attempt, "connections": now.connections, "faults": now.faults}
        fields |= {"verification": now.verification}
        now = self.has(name, source=now.source, target=now.target, **fields)
        return CommandReply(
            name=name,
            uuid=now.uuid,
            state=now.state,
            authority=now.authority,
            attempt=now.attempt,
            decision=1,
            export_uri=now.export_uri,
            verification=now.verification if command == "verify" else None,
        )

    async def _list(self, _: str, __: object) -> ListReply:
        return ListReply(migrations=tuple(self.existing.values()))

    async def _faults(self, name: str, _: object) -> FaultsReply:
        if name and name not in self.existing:
            raise Refusal(Code.UNKNOWN_MIGRATION, f"There is no migration {name}.")
        chosen = [self.existing[name]] if name else self.existing.values()
        return FaultsReply(faults=tuple(fault for each in chosen for fault in each.faults))

    def requests(self, command: str) -> list[object]:
        """What was asked for with one command."""
        return [request for asked, _, request in self.asked if asked == command]


def without_operation(request: object) -> object:
    """A request without the name of its operation, which no test foresees."""
    return replace(request, operation_id=None)  # type: ignore[type-var]
