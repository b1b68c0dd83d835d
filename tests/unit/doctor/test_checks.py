"""Every check, in every outcome: what it finds, and that it says what to do."""

from dataclasses import replace
from typing import Any

import pytest

from services.console.doctor.facts import Facts, PatternLook, SocketLook, StorageFacts
from services.console.doctor.findings import Outcome
from services.console.doctor.table import CHECKS, Check, _found, lines
from shared.bus.unconnected import Why
from shared.config.model import GIB, MIB, Config, NatsConfig
from shared.messages.host import WAITS_FOR_ADMISSION
from shared.messages.status import JournalWait, UnlistedMigration
from shared.migration.condition import JournalCondition
from shared.migration.devices import Side
from shared.migration.states import State
from tests.support.statuses import status
from tests.unit.doctor.facts import (
    AS_HOST,
    AS_STARTUP,
    BUS,
    CLONING,
    CLOSED,
    CUT_OFF,
    DEVICE,
    INSTANCES,
    MACHINE,
    STATE,
    WELL,
    judged,
    with_bus,
    with_cloning,
    with_device,
    with_file,
    with_host,
    with_machine,
    with_own_word,
    with_pattern,
    with_socket,
    with_state,
)

OK, WARNING, FAILURE = Outcome.OK, Outcome.WARNING, Outcome.FAILURE
AWAY = replace(WELL, bus=None, bus_trouble="NATS at nats://127.0.0.1:4222 cannot be reached.")
NO_HOST = replace(WELL, config=Config(), machine=None)
GONE_BACK = status(journal_condition=JournalCondition.GONE_BACK, warnings=("It has gone back.",))
TROUBLE = "vol1: the application gets errors: source read at 0: EIO."
FAILING = status(application_trouble=TROUBLE, warnings=(TROUBLE,))
WITH_WITNESSES = replace(MACHINE, state=replace(STATE, witnesses=("vol1", "vol2")))
LOST = UnlistedMigration(
    name="vol8",
    uuid="u",
    journal_condition=JournalCondition.UNKNOWN,
    state=State.SETUP,
    attempt=0,
    authority=Side.SOURCE,
    host="h1",
    host_answers=True,
    host_error=None,
    source="/a",
    target="/b",
    export_uri="nbd+unix:///vol8",
    warnings=("The journal does not know it.",),
    view=None,
    as_of="2026-11-29T12:00:00Z",
)
UNTAKEN = replace(
    LOST, journal_condition=JournalCondition.PENDING, warnings=("It has yet to be told of it.",)
)
NO_NAME = replace(
    LOST,
    name="EVIL",
    host="",
    host_answers=False,
    host_error="No host that answers has it.",
    journal_condition=JournalCondition.UNREADABLE,
    warnings=("EVIL: The journal holds no record.",),
    view=None,
)
WAIT = JournalWait(what="decision 4 (setup)", why="No answer.", since="2026-01-31T12:00:00Z")

# Check, facts, outcome, and words of the line.
CASES = (
    ("configuration", WELL, OK, "h1.toml, host h1"),
    ("configuration", NO_HOST, OK, "makes no host of this machine"),
    ("configuration", replace(WELL, config=None, machine=None, mistakes=("nats.url: wrong",)), FAILURE, "nats.url: wrong"),
    ("time-outs", WELL, OK, "io 10 s, stop 60 s"),
    ("time-outs", with_host(shutdown_timeout_s=10.0), FAILURE, "no such stop is clean"),
    ("time-outs", with_host(shutdown_timeout_s=25.0), WARNING, "leaves no time for a target that hangs"),
    ("time-outs", with_host(target_flush_interval_s=11.0), WARNING, "has to be flushed within host.io_timeout_s"),
    ("time-outs", with_host(io_timeout_s=0.5, target_flush_interval_s=0.5), WARNING, "only busy"),
    ("files", with_file(), OK, "nats.nkey_seed_file: /k"),
    ("files", with_file(is_secret=False, expires_in_days=400.0), OK, "good for 400 days"),
    ("files", with_file(trouble="cannot be read: Permission denied"), FAILURE, "Permission denied"),
    ("files", with_file(mode=0o644), WARNING, "open to others (mode 0644)"),
    ("files", with_file(is_secret=False, expires_in_days=-1.0), FAILURE, "has expired"),
    ("files", with_file(is_secret=False, expires_in_days=3.0), WARNING, "expires in 3 days"),
    ("tls", replace(WELL, tls_mistakes=()), OK, "can be served with TLS"),
    ("tls", replace(WELL, tls_mistakes=("nbd.tls_key_file: /k: no",)), FAILURE, "will not start: nbd.tls_key_file: /k: no"),
    ("nats", WELL, OK, "answers"),
    ("nats", AWAY, FAILURE, "cannot be reached"),
    ("certificate", with_bus(certificate_days=200.0), OK, "shows a certificate that is good for 200 days"),
    ("certificate", with_bus(certificate_days=13.0), WARNING, "expires in 13 days"),
    ("certificate", with_bus(certificate_days=-0.1), FAILURE, "has expired"),
    ("nats version", WELL, OK, "2.15.3"),
    ("nats version", with_bus(version="2.14.9"), FAILURE, "before 2.15 acknowledged records could be lost"),
    ("nats sync", WELL, OK, "syncs before it acknowledges"),
    ("nats sync", with_bus(lacking="not set"), FAILURE, "a power cut may take acknowledged records: not set"),
    ("nats sync", with_bus(lacking="not set", accepts_less=True), WARNING, "accepted by nats.accept_unsynced_journal"),
    ("nats sync", with_bus(can_see_sync=False), WARNING, "cannot be seen with this configuration"),
    ("credentials", WELL, OK, "asks who one is"),
    ("credentials", with_bus(asks_for_credentials=False), OK, "this machine's own address"),
    ("credentials", with_bus(asks_for_credentials=False, is_local=False), WARNING, "may do anything"),
    ("permissions", WELL, OK, "is permitted"),
    ("permissions", AS_STARTUP, OK, "as startup is permitted"),
    ("permissions", AS_HOST, OK, "as write_cloning-h1 is permitted"),
    ("permissions", with_bus(role="write_cloning-h2"), FAILURE, "which may not ask for the admission of h1"),
    ("permissions", with_bus(denied=("cutover.control.list is not permitted: …",)), FAILURE, "is not permitted"),
    ("streams", WELL, OK, "are as they have to be"),
    ("streams", with_bus(streams={"CUTOVER_JOURNAL": None}), FAILURE, "CUTOVER_JOURNAL is not there"),
    ("streams", with_bus(streams={"CUTOVER_JOURNAL": (), "CUTOVER_PROGRESS": None}), WARNING, "it is kept in memory"),
    ("streams", with_bus(streams={"CUTOVER_JOURNAL": ("deny_purge is false, not true",)}), FAILURE, "deny_purge is false"),
    ("journal room", WELL, OK, "has no limit"),
    ("journal room", with_bus(storage=StorageFacts(used_bytes=0, limit_bytes=GIB)), OK, "1 GiB left of 1 GiB"),
    ("journal room", with_bus(storage=StorageFacts(used_bytes=900 * MIB, limit_bytes=GIB)), WARNING, "124 MiB left"),
    ("journal room", with_bus(storage=StorageFacts(used_bytes=GIB, limit_bytes=GIB)), FAILURE, "nothing is recorded any more"),
    ("journal", WELL, OK, "no record waits"),
    ("journal", with_bus(store_trouble="the NATS server cannot store: no space left"), FAILURE, "cannot store: no space left"),
    ("journal", with_bus(migrations=(status(journal_wait=WAIT),)), FAILURE, "decision 4 (setup). What keeps it: No answer."),
    ("journal", with_bus(migrations=(status(journal_wait=replace(WAIT, why="")),)), OK, "no record waits for it"),
    ("journal", AS_HOST, OK, "no record of this machine's host waits"),
    ("journal", with_own_word(migrations=(status(journal_wait=WAIT),)), FAILURE, "vol1"),
    ("journal", CUT_OFF, WARNING, "not looked at: nobody could tell"),
    ("journal", with_bus(has_list=False), WARNING, "whether a record waits for it"),
    ("clocks", WELL, OK, "the clocks of the NATS server, host h1 and of this machine agree"),
    ("clocks", with_bus(server_ahead_s=5.0), WARNING, "the NATS server is 5.0 s ahead of"),
    ("clocks", with_bus(hosts_ahead_s={"h1": -7200.0}), FAILURE, "host h1 is 7200.0 s behind"),
    ("clocks", with_bus(server_ahead_s=2.0, clock_doubt_s=1.5), OK, "agree"),
    ("services", WELL, OK, "cutover-startup"),
    ("services", with_bus(instances=INSTANCES[1:]), FAILURE, "nobody answers as cutover-fault-recording"),
    ("services", with_cloning(version="0.0.9"), WARNING, "other versions answer: 0.0.9"),
    ("services", AS_STARTUP, OK, "all answer: cutover-write-cloning"),
    ("hosts", WELL, OK, "up: h1"),
    ("hosts", AS_HOST, OK, "this machine's host, h1, answers"),
    ("hosts", replace(AS_HOST, machine=MACHINE), WARNING, "host, h1, does not answer"),
    ("hosts", replace(AS_HOST, machine=WITH_WITNESSES), FAILURE, "h1, does not answer. It has vol1, vol2"),
    ("hosts", replace(with_bus(instances=INSTANCES[:3]), machine=WITH_WITNESSES), FAILURE, "It has vol1, vol2"),
    (
        "hosts", CUT_OFF, FAILURE,
        "this machine's host, h1, serves its volumes, but has had no NATS since 2026-11-29T11:00:00Z",
    ),
    ("hosts", replace(CUT_OFF, bus=None), FAILURE, "has had no NATS since 2026-11-29T11:00:00Z"),
    ("hosts", with_own_word(nats_is_away=True, migrations=()), FAILURE, "h1, runs, but has had no NATS since it was started"),
    ("hosts", replace(NO_HOST, bus=replace(BUS, instances=())), WARNING, "no host answers"),
    ("hosts", with_bus(instances=(*INSTANCES, CLONING)), FAILURE, "2 services answer as host h1"),
    ("hosts", with_bus(instances=INSTANCES[:3]), WARNING, "this machine's host, h1, does not answer"),
    ("hosts", with_bus(migrations=(status(host="h9", host_answers=False),)), FAILURE, "host h9 does not answer. It has vol1"),
    (
        "hosts", with_bus(migrations=(status(host="h9", host_answers=False, host_error="Host 'h9' is up, and waits."),)),
        FAILURE, "Host 'h9' is up, and waits. It has vol1",
    ),
    ("hosts", replace(NO_HOST, installed_hosts=("h1", "h2")), WARNING, "host h2 does not answer; it has no migration"),
    ("journal", with_bus(unlisted=(LOST,)), FAILURE, "vol8: The journal does not know it."),
    ("journal", with_bus(unlisted=(NO_NAME,)), FAILURE, "EVIL: The journal holds no record."),
    ("journal", with_bus(unlisted=(UNTAKEN,)), FAILURE, "vol8: It has yet to be told of it."),
    ("journal", with_bus(migrations=(GONE_BACK,)), FAILURE, "vol1: It has gone back."),
    ("journal", with_own_word(migrations=(GONE_BACK,)), FAILURE, "It has gone back."),
    ("volumes", with_bus(migrations=(GONE_BACK,), unlisted=(LOST,)), OK, "2 open"),
    ("volumes", with_bus(unlisted=(replace(LOST, host_error="of version 99"),)), FAILURE, "vol8 is closed: of version 99"),
    ("volumes", WELL, OK, "there is no migration"),
    ("volumes", with_bus(has_list=False), WARNING, "not looked at"),
    ("volumes", with_bus(migrations=(status(),)), OK, "1 open"),
    ("volumes", with_bus(migrations=(status(host_error="its witness is lost"),)), FAILURE, "is closed: its witness is lost"),
    ("volumes", with_bus(migrations=(status(warnings=("writes wait",)),)), WARNING, "writes wait"),
    ("volumes", with_bus(migrations=(FAILING,)), FAILURE, "vol1: the application gets errors: source read"),
    ("volumes", with_bus(migrations=(replace(FAILING, warnings=("writes wait",)),)), WARNING, "vol1: writes wait"),
    ("volumes", with_own_word(migrations=(FAILING,)), FAILURE, "the application gets errors"),
    ("volumes", AS_HOST, OK, "1 open on this machine's host"),
    ("volumes", replace(CUT_OFF, bus=None), OK, "open on this machine's host"),
    ("volumes", replace(with_own_word(closed=(CLOSED,)), bus=None), FAILURE, "vol9 is closed: its witness"),
    ("volumes", replace(with_own_word(), bus=replace(BUS, has_list=False)), OK, "1 open on this machine"),
    ("volumes", with_own_word(closed=(CLOSED,)), FAILURE, "vol9 is closed: its witness is lost"),
    ("volumes", with_own_word(migrations=(status(warnings=("it waits",)),)), WARNING, "it waits"),
    ("not checked", AS_HOST, OK, "the volumes of all hosts: the role write_cloning-h1 may not ask for that; use operator.toml"),
    ("questions", with_bus(troubles=("cutover.control.list: No answer.",)), FAILURE, "No answer"),
    ("io engine", WELL, OK, "the host does device I/O with io_uring"),
    ("io engine", AS_HOST, OK, "device I/O with io_uring"),
    ("io engine", with_cloning(metadata={"host": "h1", "io_engine": "threads"}), WARNING, "by threads, which are slower"),
    ("devices", WELL, OK, "1 that can be opened, sectors of 512 bytes"),
    ("devices", with_machine(patterns=()), WARNING, "no device may be opened"),
    ("devices", with_pattern(devices=()), WARNING, "covers nothing that is there"),
    ("devices", with_pattern(devices=(), links=("/srv/l.img",)), WARNING, "covers only links (/srv/l.img)"),
    ("devices", with_pattern(devices=(DEVICE,), has_more=True), OK, "1 or more that can be opened"),
    ("devices", with_machine(patterns=(PatternLook(pattern="nbd://h/*", is_remote=True),)), OK, "looked at when they are used"),
    ("devices", with_device(trouble="cannot be opened: Permission denied"), WARNING, "Permission denied"),
    ("devices", with_device(use="is in use: it is mounted at /"), WARNING, "mounted at /"),
    ("devices", with_device(sector_bytes=8192), WARNING, "has sectors of 8192 bytes"),
    ("devices", with_device(size_bytes=0), WARNING, "a size of zero"),
    ("state directory", WELL, OK, "mode 0700"),
    ("state directory", with_state(is_there=False), OK, "the service makes it"),
    ("state directory", with_state(trouble="is no folder"), FAILURE, "is no folder"),
    ("state directory", with_state(is_in_memory=True), FAILURE, "is in memory"),
    ("state directory", with_state(mode=0o755), WARNING, "open to others (mode 0755)"),
    ("state directory", with_state(is_there=False, earlier="/var/lib holds vol1"), FAILURE, "new, and /var/lib holds vol1"),
    ("state room", WELL, OK, "10 GiB free"),
    ("state room", with_state(free_bytes=100 * MIB), WARNING, "100 MiB free"),
    ("state room", with_state(free_bytes=MIB), FAILURE, "1 MiB free"),
    ("state room", with_state(is_there=False, free_bytes=0), FAILURE, "0 bytes free"),
    ("state sync", WELL, OK, "fsync took 4 ms"),
    ("state sync", with_state(sync_s=2.0), WARNING, "fsync took 2.0 s"),
    ("state sync", with_state(sync_s=None, sync_trouble="Input/output error"), FAILURE, "fsync does not work"),
    ("export", WELL, OK, "is listened on"),
    ("export", with_machine(sockets=(SocketLook(address="unix:///x"),)), OK, "can be listened on"),
    ("export", with_machine(sockets=(SocketLook(address="unix:///x", trouble="has a path of 200 bytes"),)), FAILURE, "200 bytes"),
    ("export", with_socket(is_taken=True, is_nbd=False), FAILURE, "something else listens on tcp://127.0.0.1:4222"),
    ("export", with_socket(is_taken=True), WARNING, "has not greeted as an NBD server does"),
    ("export", with_machine(account_troubles=("nbd.socket_owner: no",)), FAILURE, "socket_owner: no: the host would not start"),
    ("export", AS_HOST, OK, "nbd.sock is listened on"),
    ("export", replace(WELL, bus=replace(BUS, instances=INSTANCES[:3])), FAILURE, "somebody else listens on"),
    ("memory", WELL, OK, "1 volume may take 384 MiB of 16 GiB"),
    ("memory", with_machine(memory_bytes=700 * MIB), WARNING, "384 MiB of 700 MiB"),
    ("memory", with_machine(memory_bytes=400 * MIB), FAILURE, "384 MiB of 400 MiB"),
    ("open files", WELL, OK, "are allowed"),
    ("open files", with_machine(descriptors_max=1024), WARNING, "the clients of few volumes reach that"),
    ("open files", with_machine(descriptors_max=64), FAILURE, "64 open files"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("check", "facts", "outcome", "words"), CASES, ids=[f"{case[0]}, {case[3][:40]}" for case in CASES]
)
def test_a_check_finds_what_is_so_and_says_what_to_do(
    check: str, facts: Facts, outcome: Outcome, words: str
) -> None:
    found = judged(check, facts)
    told = [each for each in found if words in each.message]
    assert [each.outcome for each in told] == [outcome], found
    assert bool(told[0].todo) == (outcome is not OK)


def test_every_check_is_tried_in_every_outcome_that_it_has() -> None:
    assert {case[0] for case in CASES} == {check.name for check in CHECKS}
    tried: dict[str, set[Outcome]] = {}
    for check, _facts, outcome, _words in CASES:
        tried.setdefault(check, set()).add(outcome)
    assert all(OK in outcomes for check, outcomes in tried.items() if check != "questions")
    of_one = {"questions", "not checked"}
    assert all(len(outcomes) > 1 for check, outcomes in tried.items() if check not in of_one)


def test_on_a_machine_where_all_is_well_every_line_is_ok() -> None:
    found = list(lines(WELL))
    assert [line for line in found if line.outcome is not OK] == []
    assert {line.check for line in found} == {check.name for check in CHECKS} - {
        "questions",
        "not checked",
        "files",
        "tls",
        "certificate",
    }


def test_without_a_server_and_without_a_host_the_rest_is_told_all_the_same() -> None:
    found = list(lines(replace(AWAY, config=None, machine=None, mistakes=("x: wrong",))))
    assert [(line.check, line.outcome) for line in found] == [("configuration", FAILURE), ("nats", FAILURE)]


def engine_facts(wanted: str, why_not: str) -> Facts:
    """A host that does not run."""
    facts = replace(with_host(io_engine=wanted), bus=None)
    assert facts.machine is not None
    return replace(facts, machine=replace(facts.machine, why_not_io_uring=why_not))


@pytest.mark.parametrize(
    ("wanted", "why_not", "outcome", "words"),
    [
        ("auto", "", OK, "io_uring can be used here"),
        ("auto", "it is switched off", WARNING, "by threads, which are slower: it is switched off"),
        ("threads", "it is switched off", OK, "as configured"),
        ("io_uring", "it is switched off", FAILURE, "the host will not start: it is switched off"),
    ],
)
def test_where_the_host_does_not_run_its_engine_is_tried(
    wanted: str, why_not: str, outcome: Outcome, words: str
) -> None:
    (found,) = judged("io engine", engine_facts(wanted, why_not))
    assert found.outcome is outcome
    assert words in found.message


@pytest.mark.parametrize("facts", [AS_HOST, AS_STARTUP], ids=["as host", "as startup"])
def test_what_a_role_may_not_ask_is_no_failure(facts: Facts) -> None:
    found = list(lines(facts))
    assert [line for line in found if line.outcome is not OK] == []
    (told,) = [line for line in found if line.check == "not checked"]
    assert "use operator.toml" in told.message


def test_the_budget_of_every_volume_of_the_host_counts() -> None:
    migrations = tuple(status(name=f"vol{number}", host="h1") for number in range(10))
    (found,) = judged("memory", with_bus(migrations=migrations))
    assert "10 volumes may take 3.75 GiB" in found.message


def test_a_file_that_cannot_be_read_is_told_once() -> None:
    missing = with_file(key="nbd.tls_key_file", trouble="cannot be read: No such file or directory")
    facts = replace(missing, tls_mistakes=("nbd.tls_key_file: /k: No such file or directory",))
    assert judged("tls", facts) == []
    (told,) = judged("files", facts)
    assert told.outcome is FAILURE


@pytest.mark.parametrize("why", Why)
def test_each_cause_of_no_connection_has_a_remedy_of_its_own(why: Why) -> None:
    (found,) = judged("nats", replace(AWAY, bus_why=why))
    others = {judged("nats", replace(AWAY, bus_why=each))[0].todo for each in Why if each is not why}
    assert found.todo not in others
    assert ("start it" in found.todo) is (why is Why.AWAY)


@pytest.mark.parametrize(
    "nats", [NatsConfig(url="tls://n:4222"), NatsConfig(nkey_seed_file="/s"), NatsConfig(tls_ca_file="/c")]
)
def test_the_server_of_an_installation_is_not_started_by_up(nats: NatsConfig) -> None:
    """It starts another one beside it, without keys and with an empty journal."""
    secured = replace(AWAY, bus_why=Why.AWAY, config=Config(nats=nats))
    assert "cutover up" not in judged("nats", secured)[0].todo
    assert "cutover up" in judged("nats", replace(AWAY, bus_why=Why.AWAY))[0].todo


SILENT = replace(
    with_bus(
        instances=INSTANCES[:3], migrations=(status(host="h1", host_answers=False, host_error="It is away."),)
    ),
    machine=replace(MACHINE, state=replace(STATE, locked_by=123)),
)


@pytest.mark.parametrize("check", ["services", "hosts", "export"])
@pytest.mark.parametrize(
    "facts", [SILENT, replace(SILENT, bus=None, bus_trouble="It is away.", bus_why=Why.AWAY)]
)
def test_a_host_that_hangs_is_neither_ended_nor_started(check: str, facts: Facts) -> None:
    """It was called somebody else, who was to be ended, which is an unclean stop; and another was to be started."""
    found = judged(check, facts)
    assert len(found) == (check != "services" or facts.bus is not None)
    for each in found:
        assert each.outcome is FAILURE
        assert "Start no other" in each.todo
        assert "somebody else" not in each.message
        assert "process 123" in each.message or check == "services"


def test_a_host_that_is_away_is_told_of_beside_one_that_hangs() -> None:
    away = status(name="vol2", host="h2", host_answers=False, host_error="Host 'h2' is away.")
    bus = replace(BUS, instances=INSTANCES[:1], migrations=(away,))
    hanging, other = judged("hosts", replace(SILENT, bus=bus))
    assert "process 123" in hanging.message
    assert other.message.startswith("Host 'h2' is away. It has vol2")
    (services,) = judged("services", replace(SILENT, bus=bus))
    assert services.todo.startswith("start: ")
    assert "write_cloning" not in services.todo


@pytest.mark.parametrize(
    "socket", [SocketLook(address="unix:///s/nbd.sock"), SocketLook(address="unix:///s", trouble="x")]
)
def test_where_a_socket_was_handed_to_the_host_its_own_word_counts(socket: SocketLook) -> None:
    """Cause: the address of the configuration, where nobody listens, was called well while volumes were elsewhere."""
    facts = with_own_word(migrations=(status(export_uri="nbd+unix:///vol1?socket=/run/a%20b/nbd.sock"),))
    assert facts.machine is not None
    (told,) = judged("export", replace(facts, machine=replace(facts.machine, sockets=(socket,))))
    assert told.outcome is OK
    assert "its volumes are at unix:///run/a b/nbd.sock" in told.message
    assert "/s" not in told.message


def test_a_host_that_tells_of_a_configured_socket_or_of_tcp_is_looked_at_there() -> None:
    for uri in ("nbd+unix:///vol1?socket=/run/nbd.sock", "nbds://elsewhere:10809/vol1"):
        (told,) = judged("export", with_own_word(migrations=(status(export_uri=uri),)))
        assert told.message == "unix:///run/nbd.sock is listened on"


def test_a_configuration_that_cannot_be_read_is_no_server_that_is_away() -> None:
    facts = replace(WELL, config=None, machine=None, bus=None, bus_trouble="", mistakes=("x: wrong",))
    assert [line.check for line in lines(facts)] == ["configuration"]


@pytest.mark.parametrize(
    ("key", "changes", "todo"),
    [
        ("nats.nkey_seed_file", {"trouble": "cannot be read: No such file or directory"}, "--new-key"),
        ("nats.tls_ca_file", {"trouble": "cannot be read: No such file or directory"}, "tls/ca.pem"),
        ("nats.tls_ca_file", {"expires_in_days": 3.0}, "a new authority"),
        ("nbd.tls_client_ca_file", {"trouble": "holds no certificate"}, "tls/ca.pem"),
        ("nbd.tls_certificate_file", {"trouble": "cannot be read: No such file or directory"}, "--renew"),
        ("nbd.tls_certificate_file", {"expires_in_days": -3.0}, "--renew"),
        ("nbd.tls_key_file", {"trouble": "cannot be read: No such file or directory"}, "--renew"),
        ("nbd.tls_key_file", {"trouble": "cannot be read by this user"}, "user of the service"),
    ],
)
def test_what_is_wrong_with_a_file_has_a_remedy_that_helps(
    key: str, changes: dict[str, Any], todo: str
) -> None:
    """`init` alone refuses a folder that holds anything, and elsewhere makes an authority that nothing here knows."""
    (found,) = judged("files", with_file(key=key, is_secret=False, **changes))
    assert todo in found.todo


@pytest.mark.parametrize("facts", [CUT_OFF, with_bus(has_list=False), with_bus(instances=(), has_list=False)])
def test_of_what_could_not_be_asked_nothing_is_told_to_be_well(facts: Facts) -> None:
    told = [
        found.message
        for check in ("journal", "hosts")
        for found in judged(check, facts)
        if found.outcome is OK
    ]
    assert told in ([], ["up: h1"])


def test_a_host_that_is_missed_already_is_told_once() -> None:
    away = with_bus(migrations=(status(host="h9", host_answers=False),))
    (told,) = judged("hosts", replace(away, installed_hosts=("h1", "h9")))
    assert told.outcome is FAILURE
    (up,) = judged("hosts", replace(NO_HOST, installed_hosts=("h1",)))
    assert up.outcome is OK
    (own,) = judged("hosts", replace(with_bus(instances=INSTANCES[:3]), installed_hosts=("h1",)))
    assert own.message == "this machine's host, h1, does not answer"


@pytest.mark.parametrize(
    ("name", "todo"), [("EVIL", "no migration has such a name"), ("vol7", "start the host that has it")]
)
def test_what_nobody_has_is_not_to_be_recovered_in_circles(name: str, todo: str) -> None:
    unlisted = replace(NO_NAME, name=name, warnings=(f"{name}: The journal holds no record.",))
    (told,) = judged("journal", with_bus(unlisted=(unlisted,)))
    assert told.todo.startswith(todo)
    assert "cutover recover EVIL" not in told.todo


def test_what_the_journal_does_not_take_is_told_once() -> None:
    pending = status(journal_condition=JournalCondition.PENDING, warnings=("No room.",), journal_wait=WAIT)
    (told,) = judged("journal", with_own_word(migrations=(pending,)))
    assert told.message == "vol1: No room."


def test_a_host_that_waits_is_not_to_be_started_and_one_that_is_refused_has_a_log() -> None:
    away = status(host="h9", host_answers=False)
    (waits,) = judged(
        "hosts", with_bus(migrations=(replace(away, host_error=f"Host 'h9' {WAITS_FOR_ADMISSION}: …"),))
    )
    assert waits.todo == "mend what it waits for; it asks again by itself"
    (gone,) = judged("hosts", with_bus(migrations=(away,)))
    assert gone.todo.startswith("start its write cloning service; if it runs, its log says why")


@pytest.mark.parametrize(
    ("installation", "recording", "cloning", "bootstrap"),
    [
        (
            "/etc/cutover",
            "services.fault_recording --config /etc/cutover/services/fault_recording.toml",
            "services.write_cloning --config /etc/cutover/hosts/h1.toml",
            "shared.bus.bootstrap --config /etc/cutover/services/bootstrap.toml",
        ),
        (
            None,
            "services.fault_recording with its configuration",
            "services.write_cloning with its configuration",
            "shared.bus.bootstrap with its configuration",
        ),
    ],
)
def test_commands_are_told_with_their_configuration(
    installation: str | None, recording: str, cloning: str, bootstrap: str
) -> None:
    """In an installation with keys a service that is started without its file is refused by NATS."""
    bare = with_bus(instances=(), streams={"CUTOVER_JOURNAL": None, "CUTOVER_PROGRESS": None})
    facts = replace(bare, installation=installation)
    (services,) = judged("services", facts)
    assert f"python -P -m {recording}, " in services.todo
    assert services.todo.endswith(f"python -P -m {cloning}")
    assert all(f"`python -P -m {bootstrap}`" in each.todo for each in judged("streams", facts))
    (host,) = judged("hosts", facts)
    assert f"start python -P -m {cloning};" in host.todo


def test_devices_with_trouble_are_named_but_not_without_end() -> None:
    devices = tuple(replace(DEVICE, path=f"/srv/{number}.img", size_bytes=0) for number in range(50))
    found = judged("devices", with_pattern(devices=devices))
    assert len(found) == 9
    assert found[-1].message == "/srv/*.img: 42 more cannot be used"


def test_a_check_that_is_wrong_itself_stops_no_other() -> None:
    def wrong(_facts: Facts) -> list[object]:
        raise LookupError("x")

    (found,) = _found(Check("wrong", wrong), WELL)  # type: ignore[arg-type]
    assert found.outcome is FAILURE
    assert "this check is wrong itself: LookupError" in found.message
