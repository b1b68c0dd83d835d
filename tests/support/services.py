"""The three services side by side on one bus, as processes of their own would be."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from services.fault_recording.service import FaultRecording
from services.startup.service import Startup
from services.state_control.service import StateControl
from shared.bus.interface import Endpoint, ServiceDescription
from shared.messages.admission import (
    AdmissionReply,
    AdmissionRequest,
    GivenAway,
    UnreadableWitness,
    WitnessView,
    admission_subject,
)
from shared.migration.ledger import Ledger
from tests.support.buses import Wire, Wiring
from tests.support.scripted_host import AT, ScriptedHost


class StoppedClock:
    def now_rfc3339(self) -> str:
        return AT


@dataclass(frozen=True, slots=True)
class Services:
    """The services, and a connection of one's own to ask them on."""

    wiring: Wiring
    wire: Wire

    def host(self, *, run: int = 1, name: str = "h1", witnesses: Sequence[WitnessView] = ()) -> ScriptedHost:
        return ScriptedHost(self.wire.requests, self.wire.journal, name=name, run=run, witnesses=witnesses)

    async def ledger(self, name: str = "vol1") -> Ledger:
        return await self.wire.journal.read(name)

    async def kinds(self, name: str = "vol1") -> list[str]:
        return [entry.record.kind.value for entry in (await self.ledger(name)).entries]

    async def admit(
        self,
        host: ScriptedHost,
        *,
        run: int | None = None,
        unreadable: Sequence[UnreadableWitness] = (),
        asked_before: bool = False,
        given_away: Sequence[GivenAway] = (),
    ) -> AdmissionReply:
        """Ask as a new run of a host does, with the witnesses that it has."""
        request = AdmissionRequest(
            host=host.name,
            run=host.run + 1 if run is None else run,
            asked_before=asked_before,
            witnesses=tuple(host.witnesses.values()),
            unreadable=tuple(unreadable),
            given_away=tuple(given_away),
        )
        subject = admission_subject(host.name)
        return await self.wire.requests.request(subject, request, AdmissionReply, timeout_s=10)


@asynccontextmanager
async def running_services(wiring: Wiring) -> AsyncIterator[Services]:
    """All three, each on a connection of its own."""
    numbers = count(1)
    clock = StoppedClock()
    async with (
        wiring.connect("fault_recording") as recording,
        wiring.connect("state_control") as control,
        wiring.connect("startup") as startup,
        wiring.connect("test") as own,
        _serving(recording, "fr", FaultRecording(recording.journal, recording.durability, clock).endpoints()),
        _serving(
            control,
            "sc",
            StateControl(
                journal=control.journal,
                requests=control.requests,
                discovery=control.discovery,
                durability=control.durability,
                clock=clock,
                new_id=lambda: f"id-{next(numbers)}",
            ).endpoints(),
        ),
        _serving(
            startup,
            "st",
            Startup(
                journal=startup.journal,
                requests=startup.requests,
                discovery=startup.discovery,
                clock=clock,
            ).endpoints(),
        ),
    ):
        yield Services(wiring, own)


def _serving(wire: Wire, name: str, endpoints: Sequence[Endpoint]):  # type: ignore[no-untyped-def] # noqa: ANN202
    return wire.endpoints.serve(ServiceDescription(name=name, description="of a test"), endpoints)
