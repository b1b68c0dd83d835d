"""Who may do what: every role against every subject that matters, on a real server with what `cutover init` wrote.

The tables here are written down by hand, and not taken from the data that the server's file is made of: what they do
not name has to be denied.
"""

import asyncio
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_bytes as random_bytes

import orjson
import pytest

from services.fault_recording.service import FaultRecording
from shared.bus.bootstrap import bootstrap
from shared.bus.chain import ChainJournal
from shared.bus.connection import DEAF_TOLD_AFTER_S, Bus
from shared.bus.endpoints import NatsEndpoints
from shared.bus.interface import Endpoint, ServiceDescription
from shared.bus.jetstream import JetStreamStream
from shared.bus.memory import AcceptedDurability
from shared.bus.permissions import cloning_role, meet, roles
from shared.clock import SystemClock
from shared.messages.control import PlainRequest
from shared.messages.recording import (
    ClearFlagRequest,
    Origin,
    StoredReply,
    record_subject,
    repair_subject,
)
from shared.migration.ledger import Tail
from shared.migration.refusals import Code, Refusal
from shared.migration.states import Flag
from tests.support.installations import FILES, Installation, make_installation
from tests.support.records import NAME, UUID, flag_set, state_record

ROLES = tuple(FILES)
RECORDING, CONTROL, STARTUP, MONITOR, OPERATOR = (
    "fault_recording", "state_control", "startup", "monitor", "operator",
)  # fmt: skip
H1, H2 = "write_cloning-h1", "write_cloning-h2"
HOSTS = {H1, H2}
CORE = {RECORDING, CONTROL, STARTUP}
READERS = CORE | HOSTS
LOOKERS = {MONITOR, OPERATOR}
EVERYONE = set(ROLES)
NOBODY: set[str] = set()

COMMANDS = (
    "setup", "sync", "pause", "resume", "throttle", "select-target", "select-source", "commit", "abort", "cleanup",
    "verify", "vouch", "adopt", "try-again", "give-up",
)  # fmt: skip

MAY_PUBLISH: dict[str, set[str]] = {
    "cutover.journal.v1.state": {CONTROL},
    "cutover.journal.v1.flag": {RECORDING},
    "cutover.journal.v1.fault.source": {RECORDING},
    "cutover.journal.v1.fault.target": {RECORDING},
    "cutover.journal.v1.other": NOBODY,
    "cutover.progress.v1": HOSTS,
    **{f"cutover.control.{command}.v1": {OPERATOR} for command in COMMANDS},
    **{f"cutover.control.{looking}.v1": LOOKERS for looking in ("query", "faults", "recover")},
    "cutover.control.list": LOOKERS,
    "cutover.control.faults": LOOKERS,
    "cutover.decision.h1.v1": {STARTUP, H1},
    "cutover.decision.h2.v1": {STARTUP, H2},
    "cutover.decision.v1": NOBODY,
    "cutover.decision.repair.h1.v1": {STARTUP},
    "cutover.record.flag-set.h1.v1": {CONTROL, STARTUP},
    "cutover.record.flag-clear.h1.v1": {CONTROL, STARTUP, H1},
    "cutover.record.flag-clear.h2.v1": {CONTROL, STARTUP, H2},
    "cutover.record.flag-clear.v1": NOBODY,
    "cutover.record.fault.h1.v1": {CONTROL, STARTUP, H1},
    "cutover.record.fault.h2.v1": {CONTROL, STARTUP, H2},
    "cutover.record.fault.v1": NOBODY,
    "cutover.startup.admit.h1": {H1},
    "cutover.startup.admit.h2": {H2},
    "cutover.host.h1.commit.v1": {CONTROL},
    "cutover.host.h1.status": {CONTROL},
    "cutover.anything": NOBODY,
    "anything": NOBODY,
    "$SRV.PING": {OPERATOR, MONITOR, "bootstrap"},
    "$SRV.STATS.cutover-startup": {OPERATOR, MONITOR, "bootstrap"},
    "$SRV.INFO.cutover-write-cloning": {OPERATOR, MONITOR, "bootstrap", CONTROL, STARTUP},
    "$SRV.INFO.cutover-startup": {OPERATOR, MONITOR, "bootstrap"},
    "$JS.API.INFO": {OPERATOR},
    "$JS.API.STREAM.NAMES": {OPERATOR},
    "$JS.API.STREAM.LIST": {OPERATOR},
    "$JS.API.STREAM.INFO.CUTOVER_JOURNAL": {"bootstrap", CONTROL, STARTUP, *LOOKERS},
    "$JS.API.STREAM.INFO.CUTOVER_PROGRESS": {"bootstrap", *LOOKERS},
    "$JS.API.STREAM.MSG.GET.CUTOVER_JOURNAL": READERS | LOOKERS,
    "$JS.API.STREAM.MSG.GET.CUTOVER_PROGRESS": LOOKERS,
    "$JS.API.DIRECT.GET.CUTOVER_PROGRESS": NOBODY,
    "$JS.API.STREAM.CREATE.CUTOVER_JOURNAL": {"bootstrap"},
    "$JS.API.STREAM.UPDATE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.STREAM.UPDATE.CUTOVER_PROGRESS": NOBODY,
    "$JS.API.STREAM.CREATE.OTHER": NOBODY,
    "$JS.API.STREAM.DELETE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.STREAM.PURGE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.STREAM.MSG.DELETE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.STREAM.SNAPSHOT.CUTOVER_JOURNAL": {OPERATOR},
    "$JS.API.STREAM.SNAPSHOT.CUTOVER_PROGRESS": NOBODY,
    "$JS.SNAPSHOT.ACK.CUTOVER_JOURNAL.x": {OPERATOR},
    "$JS.SNAPSHOT.RESTORE.CUTOVER_JOURNAL.x": NOBODY,
    "$JS.API.STREAM.RESTORE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.STREAM.DELETE.CUTOVER_PROGRESS": NOBODY,
    "$JS.API.STREAM.PURGE.CUTOVER_PROGRESS": NOBODY,
    "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL.c": NOBODY,
    "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL.c.cutover.journal.v1.>": READERS | {OPERATOR},
    "$JS.API.CONSUMER.CREATE.CUTOVER_PROGRESS.c.cutover.progress.v1": NOBODY,
    "$JS.API.CONSUMER.DURABLE.CREATE.CUTOVER_JOURNAL.c": NOBODY,
    "$JS.API.CONSUMER.MSG.NEXT.CUTOVER_JOURNAL.c": READERS | {OPERATOR},
    "$JS.API.CONSUMER.DELETE.CUTOVER_JOURNAL.c": READERS | {OPERATOR},
    "$JS.API.CONSUMER.LIST.CUTOVER_JOURNAL": NOBODY,
    "$JS.API.CONSUMER.NAMES.CUTOVER_JOURNAL": NOBODY,
    "$SYS.REQ.SERVER.PING": NOBODY,
    # Answers: to those alone that may ask.
    "_INBOX.x": READERS,  # the operator's
    "_INBOX_monitor.x": READERS,
    "_INBOX_bootstrap.x": READERS,
    "_INBOX_state_control.x": {RECORDING, *HOSTS},
    "_INBOX_startup.x": {RECORDING, CONTROL, *HOSTS},
    "_INBOX_write_cloning.h1.x": CORE,
    "_INBOX_fault_recording.x": NOBODY,
}

MAY_SUBSCRIBE: dict[str, set[str]] = {
    "cutover.>": LOOKERS,
    "cutover.journal.>": LOOKERS,
    "cutover.progress.*": LOOKERS,
    "cutover.control.>": LOOKERS | {CONTROL},
    "cutover.control.commit.*": LOOKERS | {CONTROL},
    "cutover.decision.>": LOOKERS | {CONTROL},
    "cutover.record.>": LOOKERS | {RECORDING},
    "cutover.startup.admit.*": LOOKERS | {STARTUP},
    "cutover.host.h1.>": LOOKERS | {H1},
    "cutover.host.h2.status": LOOKERS | {H2},
    "cutover.host.>": LOOKERS,
    ">": NOBODY,
    "*.>": NOBODY,
    "_INBOX.>": {OPERATOR},
    "_INBOX.*": {OPERATOR},
    "_INBOX_monitor.>": {MONITOR},
    "_INBOX_bootstrap.>": {"bootstrap"},
    "_INBOX_fault_recording.>": {RECORDING},
    "_INBOX_state_control.>": {CONTROL},
    "_INBOX_startup.>": {STARTUP},
    "_INBOX_write_cloning.>": NOBODY,
    "_INBOX_write_cloning.h1.>": {H1},
    "_INBOX_write_cloning.h2.*": {H2},
    "$SRV.>": NOBODY,
    "$SRV.PING": READERS,
    "$SRV.INFO.cutover-startup": {STARTUP},
    "$SRV.INFO.cutover-state-control.abc": {CONTROL},
    "$SRV.STATS.cutover-fault-recording": {RECORDING},
    "$SRV.INFO.cutover-write-cloning": HOSTS,
    "$JS.>": NOBODY,
    "$JS.API.>": NOBODY,
    "$JS.EVENT.ADVISORY.>": NOBODY,
    "$SYS.>": NOBODY,
}

# With a queue group a subscriber takes messages away from others.
MAY_TAKE_AWAY: dict[str, set[str]] = {
    "cutover.>": NOBODY,
    "cutover.journal.>": NOBODY,
    "cutover.control.>": {CONTROL},
    "cutover.record.>": {RECORDING},
    "cutover.host.h1.>": {H1},
}


@dataclass(frozen=True, slots=True)
class Running:
    installation: Installation
    buses: dict[str, Bus]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return make_installation(tmp_path_factory.mktemp("init") / "etc")


@pytest.fixture
async def running(installation: Installation) -> AsyncIterator[Running]:
    """The server, its streams, and every role's connection."""
    async with installation.server(), AsyncExitStack() as stack:
        buses = {role: await stack.enter_async_context(installation.connect(role)) for role in ROLES}
        await bootstrap(buses["bootstrap"])
        yield Running(installation, buses)


def table(found: Iterable[tuple[str, str]], subjects: Iterable[str]) -> dict[str, set[str]]:
    permitted: dict[str, set[str]] = {subject: set() for subject in subjects}
    for subject, role in found:
        permitted[subject].add(role)
    return permitted


async def permitted(bus: Bus, subjects: Iterable[str], *, publish: bool) -> set[str]:
    """Those that the server has said nothing against."""
    await bus.settle()
    denied = {each.subject.lower() for each in bus.denials if each.is_publish is publish}
    return {subject for subject in subjects if subject.lower() not in denied}


async def test_every_role_may_publish_what_it_has_to_and_nothing_else(running: Running) -> None:
    found = []
    for role, bus in running.buses.items():
        for subject in MAY_PUBLISH:
            await bus.client.publish(subject, b"")
        found += [(subject, role) for subject in await permitted(bus, MAY_PUBLISH, publish=True)]
    assert table(found, MAY_PUBLISH) == MAY_PUBLISH


async def test_every_role_may_hear_what_it_has_to_and_nothing_else(running: Running) -> None:
    found = []
    for role, bus in running.buses.items():
        for subject in MAY_SUBSCRIBE:
            await bus.client.subscribe(subject)
        found += [(subject, role) for subject in await permitted(bus, MAY_SUBSCRIBE, publish=False)]
    assert table(found, MAY_SUBSCRIBE) == MAY_SUBSCRIBE


async def test_whoever_only_looks_takes_no_message_away_from_others(running: Running) -> None:
    found = []
    for role, bus in running.buses.items():
        for subject in MAY_TAKE_AWAY:
            await bus.client.subscribe(subject, queue="cutover-state-control")
        found += [(subject, role) for subject in await permitted(bus, MAY_TAKE_AWAY, publish=False)]
    assert table(found, MAY_TAKE_AWAY) == MAY_TAKE_AWAY


# ------------------------------------------------------------------ told to whoever was denied


async def refusal_of(bus: Bus, subject: str) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await bus.request(subject, PlainRequest(), PlainRequest, timeout_s=30)
    return caught.value


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        (MONITOR, "cutover.control.commit.v1"),
        (H1, "cutover.startup.admit.h2"),
        (H1, "cutover.host.h2.status"),
        (H1, "cutover.record.flag-clear.h2.v1"),
        (H1, "cutover.decision.h2.v1"),
    ],
)
async def test_who_asks_what_he_may_not_is_refused_at_once_by_the_subject_and_the_user(
    running: Running, role: str, subject: str
) -> None:
    began = time.monotonic()
    refusal = await refusal_of(running.buses[role], subject)
    assert time.monotonic() - began < 5
    assert refusal.code is Code.NOT_PERMITTED
    assert subject in refusal.message
    assert f"/secrets/{role}.nk" in refusal.message


async def test_of_two_that_wait_only_the_denied_one_is_refused(running: Running) -> None:
    async with NatsEndpoints(running.buses[CONTROL]).serve(SERVICE, [LIST]), asyncio.TaskGroup() as tasks:
        asked = tasks.create_task(
            running.buses[MONITOR].request("cutover.control.list", PlainRequest(), PlainRequest, timeout_s=20)
        )
        refused = tasks.create_task(refusal_of(running.buses[MONITOR], "cutover.control.sync.v1"))
    assert (await refused).code is Code.NOT_PERMITTED
    assert (await asked).operation_id == "answered"


# ------------------------------------------------------------------ had published by the server


async def test_what_the_server_says_in_ones_place_is_no_request(running: Running) -> None:
    """The server publishes where whoever asks it wants the answer, and for that it asks nobody's permission."""
    commanded: list[str] = []

    async def command(about: str, _request: PlainRequest) -> PlainRequest:
        commanded.append(about)
        return PlainRequest(operation_id="done")

    commit = Endpoint(
        name="commit", subject="cutover.control.commit.*", request=PlainRequest, handler=command
    )
    hostile, operator = running.buses[H1], running.buses[OPERATOR]
    consumer = {"name": "c", "deliver_policy": "new", "ack_policy": "none", "mem_storage": True}
    wanted = {"stream_name": "CUTOVER_JOURNAL", "config": consumer | {"filter_subject": "cutover.journal.>"}}
    async with (
        NatsEndpoints(running.buses[CONTROL]).serve(SERVICE, [commit]),
        operator.listen("cutover.>") as told,
    ):
        create = "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL.c.cutover.journal.>"
        made = await hostile.request_bytes(create, orjson.dumps(wanted), timeout_s=10)
        assert "error" not in orjson.loads(made.data)
        for subject, payload in (
            ("$JS.API.CONSUMER.MSG.NEXT.CUTOVER_JOURNAL.c", {"batch": 1, "no_wait": True}),
            ("$JS.API.CONSUMER.MSG.NEXT.CUTOVER_JOURNAL.c", {"batch": 1, "expires": 10_000_000}),
        ):
            await hostile.client.publish(subject, orjson.dumps(payload), reply="cutover.control.commit.v1")
            async with asyncio.timeout(30):
                assert (await anext(told)).subject == "cutover.control.commit.v1", (
                    "the server says it no more"
                )
        await operator.request("cutover.control.commit.v2", PlainRequest(), PlainRequest, timeout_s=10)
    assert commanded == ["v2"]


async def _answer(_about: str, _request: PlainRequest) -> PlainRequest:
    return PlainRequest(operation_id="answered")


SERVICE = ServiceDescription(name="cutover-state-control", description="of a test")
LIST = Endpoint(name="list", subject="cutover.control.list", request=PlainRequest, handler=_answer)


async def test_who_listens_or_answers_where_he_may_not_is_refused(running: Running) -> None:
    bus = running.buses[STARTUP]
    with pytest.raises(Refusal) as caught:
        async with bus.listen("cutover.progress.*"):
            pass
    assert caught.value.code is Code.NOT_PERMITTED
    assert "cutover.progress.*" in caught.value.message
    with pytest.raises(BaseExceptionGroup) as group:
        async with NatsEndpoints(bus).serve(SERVICE, [LIST]):
            pass
    assert group.group_contains(Refusal, match=r"cutover\.control\.list")


async def test_a_journal_that_may_not_be_written_or_read_says_so(running: Running) -> None:
    with pytest.raises(Refusal) as caught:
        await ChainJournal(JetStreamStream(running.buses[STARTUP])).append(state_record(), Tail())
    assert caught.value.code is Code.NOT_PERMITTED
    monitor = JetStreamStream(running.buses[MONITOR])
    await ChainJournal(JetStreamStream(running.buses[CONTROL])).append(state_record(), Tail())
    with pytest.raises(Refusal) as caught:
        await monitor.read("cutover.journal.vol1.>")
    assert caught.value.code is Code.NOT_PERMITTED
    assert "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL." in caught.value.message
    with pytest.raises(Refusal) as caught:
        await bootstrap(running.buses[H1])
    assert caught.value.code is Code.NOT_PERMITTED


@pytest.mark.nats_cli
async def test_an_operator_takes_a_copy_of_a_journal_that_is_larger_than_what_the_server_sends_unasked(
    running: Running, nats_cli: Path, tmp_path: Path
) -> None:
    """It sends 8 MiB, and goes on as pieces are acknowledged; unacknowledged, the copy stops there."""
    for _ in range(20):
        await running.buses[RECORDING].client.request("cutover.journal.v1.flag", random_bytes(900_000))
    config = running.installation.config(OPERATOR)
    copy = tmp_path / "copy"
    process = await asyncio.create_subprocess_exec(
        nats_cli, "--no-context", "--server", config.url, "--nkey", str(config.nkey_seed_file),
        "--tlsca", str(config.tls_ca_file), "stream", "backup", "CUTOVER_JOURNAL", str(copy), "--no-progress",
        stdout=PIPE, stderr=STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    assert process.returncode == 0, said
    assert b"iolation" not in said
    assert sum(file.stat().st_size for file in copy.iterdir()) > 18_000_000


@pytest.mark.parametrize("role", sorted(READERS | {OPERATOR}))
async def test_those_who_rely_on_the_journal_can_read_it(running: Running, role: str) -> None:
    await ChainJournal(JetStreamStream(running.buses[CONTROL])).append(state_record(), Tail())
    journal = ChainJournal(JetStreamStream(running.buses[role]))
    ledger = await journal.read("vol1")
    assert [entry.record.kind for entry in ledger.entries] == ["state"]
    assert (await journal.read_living())["vol1"] == ledger
    assert not running.buses[role].denials


async def test_a_search_for_hosts_that_is_denied_does_not_find_none(running: Running) -> None:
    with pytest.raises(Refusal) as caught:
        await running.buses[RECORDING].instances("cutover-write-cloning", timeout_s=5)
    assert caught.value.code is Code.NOT_PERMITTED


async def test_a_service_that_may_hear_nothing_is_told_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Who serves is refused, with the number of subjects, and the log is left alone; who only subscribes has one line of it."""
    bus = running.buses[MONITOR]
    with pytest.raises(BaseExceptionGroup) as group:
        async with NatsEndpoints(bus).serve(SERVICE, [LIST]):
            pass
    assert group.group_contains(Refusal, match=r"cutover\.control\.list, nor to 9 others")
    for number in range(9):
        await bus.client.subscribe(f"cutover-other.{number}.UP")
    await bus.settle()
    await asyncio.sleep(DEAF_TOLD_AFTER_S + 0.1)
    (line,) = [each.getMessage() for each in caplog.records if "permit" in each.getMessage()]
    assert line.endswith("to subscribe to cutover-other.0.UP, nor to 8 others.")


async def test_progress_that_may_not_be_told_is_logged_once(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    bus = running.buses[CONTROL]
    for _ in range(3):
        await bus.publish("cutover.progress.v1", PlainRequest())
    await bus.settle()
    told = [each.getMessage() for each in caplog.records if "cutover.progress.v1" in each.getMessage()]
    assert len(told) == 1
    assert "does not permit" in told[0]


# ------------------------------------------------------------------ around the permissions


@pytest.mark.parametrize("lossy", [{"discard": "old", "max_msgs": 1}, {"max_age": 1_000_000_000}])
async def test_the_key_that_creates_the_journal_cannot_empty_it(
    running: Running, lossy: dict[str, object]
) -> None:
    """Other settings would drop records, whatever is denied: neither an update nor another creation brings them in."""
    journal = ChainJournal(JetStreamStream(running.buses[CONTROL]))
    name = f"lossy-{min(lossy)}".replace("_", "-")  # the tests here share a store
    first = await journal.append(state_record(migration=name), Tail())
    await ChainJournal(JetStreamStream(running.buses[RECORDING])).append(
        flag_set(migration=name), Tail(sequence=first.sequence, index=1, digest=first.digest)
    )
    bus = running.buses["bootstrap"]
    info = await bus.client.request("$JS.API.STREAM.INFO.CUTOVER_JOURNAL", b"")
    config = orjson.dumps(orjson.loads(info.data)["config"] | lossy)
    with pytest.raises(Refusal) as caught:
        await bus.request_bytes("$JS.API.STREAM.UPDATE.CUTOVER_JOURNAL", config, timeout_s=5)
    assert caught.value.code is Code.NOT_PERMITTED
    answer = await bus.client.request("$JS.API.STREAM.CREATE.CUTOVER_JOURNAL", config)
    assert "error" in orjson.loads(answer.data)
    assert len((await journal.read(name)).entries) == 2
    await bootstrap(bus)


async def test_an_answer_is_never_sent_where_the_asker_may_not_publish(running: Running) -> None:
    """Whoever asks names the subject of the answer, and a service may publish more than he: to a host, to the journal."""
    served: list[str] = []
    control, monitor = running.buses[CONTROL], running.buses[MONITOR]

    async def carry_out(about: str, _request: PlainRequest) -> PlainRequest:
        served.append(about)
        return PlainRequest()

    commit = Endpoint(
        name="commit", subject="cutover.host.h1.commit.*", request=PlainRequest, handler=carry_out
    )
    host = ServiceDescription(name="cutover-write-cloning", description="of a test")
    async with (
        NatsEndpoints(control).serve(SERVICE, [LIST]),
        NatsEndpoints(running.buses[H1]).serve(host, [commit]),
        running.buses[OPERATOR].listen("cutover.host.>", "cutover.journal.>") as heard,
    ):
        for reply in (
            "cutover.host.h1.commit.v1",
            "cutover.journal.v1.state",
            "$JS.API.STREAM.INFO.CUTOVER_JOURNAL",
        ):
            await monitor.client.publish("cutover.control.list", b"", reply=reply)
        await monitor.request("cutover.control.list", PlainRequest(), PlainRequest, timeout_s=10)
        await control.request("cutover.host.h1.commit.last", PlainRequest(), PlainRequest, timeout_s=10)
        told = await anext(heard)
    assert told.subject == "cutover.host.h1.commit.last"
    assert served == ["last"]


async def test_an_answer_of_the_server_that_is_sent_to_the_journal_does_no_harm(running: Running) -> None:
    """The server sends its answers to whatever subject the asker names, and asks nobody's permission."""
    journal = ChainJournal(JetStreamStream(running.buses[CONTROL]))
    first = await journal.append(state_record(), Tail())
    for role, question in (
        (MONITOR, "$JS.API.STREAM.INFO.CUTOVER_JOURNAL"),
        (MONITOR, "$JS.API.STREAM.MSG.GET.CUTOVER_JOURNAL"),
        (H1, "$JS.API.CONSUMER.DELETE.CUTOVER_JOURNAL.none"),
        (H1, "$JS.API.CONSUMER.MSG.NEXT.CUTOVER_JOURNAL.none"),
        (H1, "$JS.API.CONSUMER.CREATE.CUTOVER_JOURNAL.c.cutover.journal.v1.>"),
    ):
        await running.buses[role].client.publish(question, b"", reply="cutover.journal.vol1.state")
        await running.buses[role].settle()
    ledger = await journal.read("vol1")
    assert ledger.entries == (first,)
    assert ledger.broken is None
    await ChainJournal(JetStreamStream(running.buses[RECORDING])).append(flag_set(), ledger.tail)
    assert (await journal.read("vol1")).broken is None


async def test_nobody_hears_the_answers_to_another(running: Running) -> None:
    """A host listens where another's answers go: it is denied, and hears nothing."""
    listener = running.buses[H2]
    subscription = await listener.client.subscribe("_INBOX_write_cloning.h1.>")
    await listener.settle()
    async with NatsEndpoints(running.buses[CONTROL]).serve(SERVICE, [_DECISION]):
        await running.buses[H1].request("cutover.decision.h1.v1", PlainRequest(), PlainRequest, timeout_s=10)
        await listener.settle()
    assert subscription.pending_msgs == 0
    assert any(each.subject == "_INBOX_write_cloning.h1.>" for each in listener.denials)


async def _answer_host(_host: str, _about: str, _request: PlainRequest) -> PlainRequest:
    return PlainRequest(operation_id="answered")


_DECISION = Endpoint(
    name="decision", subject="cutover.decision.*.*", request=PlainRequest, handler=_answer_host
)


async def test_a_host_clears_no_flag_of_another_by_any_way(running: Running) -> None:
    """Each way is closed by another part: the server, the host in the subject, and the host in the journal."""
    journal = ChainJournal(JetStreamStream(running.buses[RECORDING]))
    first = await ChainJournal(JetStreamStream(running.buses[CONTROL])).append(state_record(), Tail())
    flag = await journal.append(flag_set(), Tail(sequence=first.sequence, index=1, digest=first.digest))
    owner = Origin(migration=NAME, uuid=UUID, attempt=1, host="h1", run=1, decision=1, operation_id="op")
    request = ClearFlagRequest(origin=owner, set_digest=flag.digest, tail_digest=flag.digest)
    strange = replace(request, origin=replace(owner, host="h2"))
    recording = FaultRecording(journal, AcceptedDurability(), SystemClock())
    service = ServiceDescription(name="cutover-fault-recording", description="of a test")
    async with NatsEndpoints(running.buses[RECORDING]).serve(service, recording.endpoints()):
        for subject_host, asked, code in (
            ("h1", request, Code.NOT_PERMITTED),
            ("h2", request, Code.BAD_REQUEST),
            ("h2", strange, Code.STALE),
        ):
            subject = record_subject("flag-clear", subject_host, NAME)
            with pytest.raises(Refusal) as caught:
                await running.buses[H2].request(subject, asked, StoredReply, timeout_s=10)
            assert caught.value.code is code, caught.value.message
        assert (await journal.read(NAME)).flag is Flag.SET
        subject = record_subject("flag-clear", "h1", NAME)
        await running.buses[H1].request(subject, request, StoredReply, timeout_s=10)
        assert (await journal.read(NAME)).flag is Flag.CLEAR


def test_a_host_that_is_called_like_a_word_of_a_subject_may_no_more_than_any() -> None:
    """On cutover.decision.repair.MIGRATION the host `repair` decides: a repair is asked for elsewhere."""
    for name in ("repair", "fault", "flag-set"):
        role = next(each for each in roles([name]) if each.name == cloning_role(name))
        for subject in (
            repair_subject("h1", "v1"),
            repair_subject(name, "v1"),
            record_subject("flag-set", name, "v1"),
        ):
            assert not [pattern for pattern in role.asks if meet(pattern, subject)]


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.c", True),
        ("a.*", "a.c.d", False),
        ("a.>", "a.c.d", True),
        ("a.>", "a", False),
        ("a.*.c", "a.b.*", True),
        ("*.b", "a.>", True),
    ],
)
def test_two_patterns_meet_where_one_subject_is_covered_by_both(one: str, other: str, *, both: bool) -> None:
    assert meet(one, other) is both
    assert meet(other, one) is both
