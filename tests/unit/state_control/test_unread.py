"""Where the records of a migration cannot be read its host and its witness are all there is. They are told; nothing is recorded.

Cause: every question stopped at the journal's refusal, `recover`, to which everything else sends the operator, among them.
"""

from dataclasses import replace

import pytest

from services.console.asking import unread_of
from shared.bus.interface import Endpoint
from shared.bus.memory import MemoryBroker
from shared.messages.admission import WitnessView
from shared.messages.control import CommandReply, PlainRequest, control_subject
from shared.messages.host import ClosedView, host_subject
from shared.messages.recovery import (
    AdoptRequest,
    ExamineReply,
    ExamineRequest,
    Finding,
    GiveUpRequest,
    RecoverRequest,
    RecoveryReply,
)
from shared.messages.status import MigrationStatus
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.refusals import Code, Refusal
from shared.migration.states import State
from tests.support import stories
from tests.support.scripted_host import ScriptedHost
from tests.support.services import Services

OOPS = b"oops"
NEWER = b'{"version":99,"kind":"state"}'


class Examined(ScriptedHost):
    """A host that keeps closed what it was started with, and says what it finds."""

    def close(self) -> None:
        self.kept: dict[str, WitnessView] = dict(self.witnesses)
        self.witnesses.clear()
        self.closed = tuple(
            ClosedView(name=name, uuid=each.uuid, code=Code.JOURNAL_UNSOUND, message="It holds no record.")
            for name, each in self.kept.items()
        )

    def endpoints(self) -> list[Endpoint]:
        examine = Endpoint(
            name="examine",
            subject=host_subject(self.name, "examine", "*"),
            request=ExamineRequest,
            handler=self._examine,
        )
        return [*super().endpoints(), examine]

    async def _examine(self, name: str, _request: ExamineRequest) -> ExamineReply:
        usable = Finding(usable=True)
        return ExamineReply(witness=self.kept.get(name), source=usable, target=usable)


@pytest.fixture
def host(services: Services) -> Examined:
    return Examined(services.wire.requests, services.wire.journal, name="h1", run=1)


def up(services: Services, host: ScriptedHost):  # type: ignore[no-untyped-def] # noqa: ANN201
    return services.wire.endpoints.serve(host.description(), host.endpoints())


async def recover(services: Services, name: str = "vol1") -> RecoveryReply:
    subject = control_subject("recover", name)
    return await services.wire.requests.request(subject, RecoverRequest(), RecoveryReply, timeout_s=10)


@pytest.mark.parametrize(("stray", "advice"), [(OOPS, "Bring back the journal"), (NEWER, "Run that version")])
async def test_closed_volume_is_told_of_by_its_witness(
    services: Services, broker: MemoryBroker, host: Examined, stray: bytes, advice: str
) -> None:
    await stories.committed(host)
    host.close()
    broker.store("cutover.journal.vol1.state", stray)
    async with up(services, host):
        told = await recover(services)
    assert (told.host, told.standing, told.why) == ("h1", "closed", "It holds no record.")
    assert told.proved is False
    by_witness = next(each for each in told.tellings if each.by == "witness")
    assert (by_witness.state, by_witness.authority) == (State.COMMITTED, Side.TARGET)
    assert by_witness.doubt == "what the journal holds besides is not known"
    assert next(each.holds for each in told.sides if each.side is Side.TARGET).startswith(
        "every acknowledged"
    )
    assert {each.consent for each in told.choices} == {"refused"}
    reasons = {each.choice: each.reason for each in told.choices}
    assert "misses acknowledged writes" in reasons.pop("adopt-source")
    assert set(reasons.values()) == {"its journal cannot be read, so nothing can be recorded"}
    (warning,) = told.warnings
    assert advice in warning
    assert "`cutover recover vol1 --try-again`" in warning


async def test_volume_that_is_open_is_not_to_be_restarted(
    services: Services, broker: MemoryBroker, host: Examined
) -> None:
    await stories.syncing(host)
    broker.store("cutover.journal.vol1.state", OOPS)
    async with up(services, host):
        told = await recover(services)
    assert (told.standing, told.why) == ("open", "")
    assert "Do not restart host 'h1'" in told.warnings[0]
    assert all("there is nothing to recover" in each.reason for each in told.choices)


async def test_query_goes_on_with_what_its_host_tells(
    services: Services, broker: MemoryBroker, host: Examined
) -> None:
    await stories.syncing(host)
    requests = services.wire.requests
    async with up(services, host):
        with pytest.raises(Refusal) as before:
            await requests.request(
                control_subject("query", "none"), PlainRequest(), MigrationStatus, timeout_s=10
            )
        with pytest.raises(Refusal) as caught:
            await unread_of(requests, "none", before.value)
        assert caught.value.code is Code.UNKNOWN_MIGRATION
        broker.store("cutover.journal.vol1.state", OOPS)
        with pytest.raises(Refusal) as refused:
            await requests.request(
                control_subject("query", "vol1"), PlainRequest(), MigrationStatus, timeout_s=10
            )
        told = await unread_of(requests, "vol1", refused.value)
        assert (told.host, told.state) == ("h1", State.SYNCING)
        assert told.journal_condition is JournalCondition.UNREADABLE
        other = replace(told, name="vol2")
        with pytest.raises(Refusal):
            await unread_of(requests, other.name, refused.value)


@pytest.mark.parametrize(
    ("command", "request_"),
    [
        ("adopt", AdoptRequest(authority=Side.SOURCE, accept=True)),
        ("give-up", GiveUpRequest(accept=True)),
        ("try-again", PlainRequest()),
    ],
)
async def test_no_word_is_taken_and_where_to_look_is_told(
    services: Services, broker: MemoryBroker, host: Examined, command: str, request_: object
) -> None:
    await stories.idle(host)
    host.close()
    broker.store("cutover.journal.vol1.state", OOPS)
    count = len(broker.messages)
    async with up(services, host):
        with pytest.raises(Refusal, match="`cutover recover vol1` shows what its host knows") as caught:
            await services.wire.requests.request(
                control_subject(command, "vol1"), request_, CommandReply, timeout_s=10
            )
    assert caught.value.code is Code.JOURNAL_UNSOUND
    assert len(broker.messages) == count


async def test_what_nobody_has_is_said_to_be_nobody_s(services: Services, broker: MemoryBroker) -> None:
    broker.store("cutover.journal.v.state", OOPS)
    with pytest.raises(Refusal, match="No host that answers has 'v'"):
        await recover(services, "v")
