"""Remote exports as source and target of the whole system, and what has to be vouched for because no server keeps a lock."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.acceptance.system.application import Application
from tests.acceptance.system.conftest import IO_TIMEOUT_S
from tests.acceptance.system.devices import digest, empty_file, run
from tests.acceptance.system.pairs import Pair, make_pair
from tests.acceptance.system.plain_client import Json
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, HOST, System
from tests.integration.devices.servers import Server, nbdkit

CLONING_STATES = ("syncing", "source-selected", "target-selected")


@pytest.fixture
def system(impatient_system: System) -> System:
    return impatient_system


@pytest.fixture
def pair(system: System) -> Pair:
    return make_pair(system)


@pytest.fixture
def source(pair: Pair) -> Iterator[Server]:
    with nbdkit(pair.source.parent, "file", str(pair.source), name="source") as server:
        yield server


@pytest.fixture
def target(pair: Pair) -> Iterator[Server]:
    with nbdkit(pair.target.parent, "file", str(pair.target), name="target") as server:
        yield server


def test_migration_between_two_servers_under_load(
    system: System, pair: Pair, source: Server, target: Server
) -> None:
    client = system.client
    system.set_up("vol1", source.uri, target.uri)
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(100)
        for state in ("source-selected", "target-selected", "committed"):
            if state == "source-selected":
                client.command("sync", "vol1")
                client.until_state("vol1", state)
            elif state == "target-selected":
                client.command("select-target", "vol1")
            else:
                client.command("commit", "vol1")
            application.until_operations(100)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []
    status = client.query("vol1")
    assert status["io_engine"] == "nbd"
    assert status["devices"]["target"]["kind"] == "remote"


# ------------------------------------------------------------------------------------------------------ what is refused


def test_what_is_no_good_is_refused_by_name(
    system: System, pair: Pair, source: Server, target: Server
) -> None:
    def refused(from_: object, to: object) -> tuple[str, str]:
        refusal = system.client.refused("setup", "vol1", source=str(from_), target=str(to), host=HOST)
        return refusal.code, refusal.message

    elsewhere = "nbd://127.0.0.1:1/export"
    code, message = refused(pair.source, elsewhere)
    assert code == "device-not-allowed"
    assert elsewhere in message
    code, message = refused(pair.source, target.uri.replace("target.sock", "nobody.sock"))
    assert code == "device-missing"
    code, message = refused(source.uri, source.uri)
    assert code == "same-device"
    code, message = refused(pair.source, "nbds://127.0.0.1/x")
    assert code == "device-unsuitable"
    assert "TLS" in message
    run("mkfs.ext4", "-q", str(pair.target))
    code, message = refused(pair.source, target.uri)
    assert code == "target-in-use"
    assert "ext4" in message


def test_export_of_another_migration_is_refused_naming_it(
    system: System, pair: Pair, source: Server, target: Server
) -> None:
    system.set_up("first", source.uri, target.uri)
    other = empty_file(pair.target.parent / "other.img", pair.target.stat().st_size)
    refusal = system.client.refused("setup", "vol1", source=source.uri, target=str(other), host=HOST)
    assert refusal.code == "device-busy"
    assert "the source of migration first" in refusal.message


# ------------------------------------------------------------------------------------------------ a connection that breaks


def back_in_setup(status: Json) -> bool:
    """And nothing of it is to be recorded any more, for which a `sync` would wait."""
    return status["state"] == "setup" and not status["error_flag"] and not status["journal_pending"]


@pytest.mark.parametrize("state", CLONING_STATES)
def test_server_that_hangs_and_dies_leaves_requests_that_somebody_must_vouch_for(
    system: System, pair: Pair, target: Server, state: str
) -> None:
    """While it hangs it may still answer; once the connection is broken nobody will ever know."""
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", state)
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        target.stop_answering()
        run("qemu-io", "-f", "raw", "-c", "write 2M 4k", system.export("vol1"))
        status = client.until("vol1", back_in_setup)
        assert {(each["side"], each["cause"]) for each in status["faults"]} == {("target", "timeout")}
        application.until_operations(50)
        refusal = client.refused("sync", "vol1")
        assert refusal.code == "outstanding-requests"
        target.kill()
        refusal = client.refused("sync", "vol1")
        assert refusal.code == "outstanding-requests"
        assert "cutover vouch vol1" in refusal.message
        assert client.refused("cleanup", "vol1", disconnect=True).code == "outstanding-requests"
        with nbdkit(pair.target.parent, "file", str(pair.target), name="target"):
            assert client.refused("sync", "vol1").code == "outstanding-requests", (
                "a new server proves nothing"
            )
            done = system.cutover("vouch", "vol1", "--yes")
            assert done.returncode == 0, done.stderr
            assert client.command("sync", "vol1")["attempt"] == 2
            client.command("resume", "vol1")
            client.until_state("vol1", "source-selected")
            application.until_operations(50)
            report = application.stop()
            assert report.errors == []
            assert report.worst_ms < 4 * IO_TIMEOUT_S * 1000
            client.command("select-target", "vol1")  # flushes the target
            assert digest(pair.source) == digest(pair.target)


def test_server_that_hangs_and_goes_on_has_left_nothing_behind(
    system: System, pair: Pair, target: Server
) -> None:
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "source-selected")
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        target.stop_answering()
        client.until("vol1", back_in_setup)
        assert client.refused("sync", "vol1").code == "outstanding-requests"
        target.go_on()
        client.until(
            "vol1", lambda _: not host_view(system)["outstanding_target_requests"], what="none outstanding"
        )
        client.command("sync", "vol1")
        client.until_state("vol1", "source-selected")
        assert application.stop().errors == []


def test_target_that_was_restarted_while_it_waited_is_connected_to_again(
    system: System, pair: Pair, target: Server
) -> None:
    """In `setup` nothing is asked of it, so nothing can be left behind."""
    system.set_up("vol1", pair.source, target.uri)
    target.kill()
    with nbdkit(pair.target.parent, "file", str(pair.target), name="target"):
        system.client.command("sync", "vol1")
        system.client.until_state("vol1", "source-selected")


def test_source_that_dies_fails_the_application_until_a_restart_and_a_word(
    system: System, pair: Pair, source: Server
) -> None:
    system.set_up("vol1", source.uri, pair.target)
    source.stop_answering()
    with subprocess.Popen(["qemu-io", "-f", "raw", "-c", "write 0 4k", system.export("vol1")]) as application:
        system.client.until("vol1", lambda _: host_view(system)["application_writes"] > 0, what="a write")
        source.kill()
        assert application.wait(IO_TIMEOUT_S) != 0
    with nbdkit(pair.source.parent, "file", str(pair.source), name="source"):
        assert system.stop_service(CLONING) == 1, "the source could not be flushed"
        system.start_service(CLONING)
        vouch_for_closed(system)
        with Application(system.export("vol1"), blocks=256) as another:
            another.until_operations(50)
            assert another.stop().errors == []


def test_source_that_dies_where_it_is_alone_is_told_by_all_who_tell_of_volumes(
    system: System, pair: Pair, source: Server
) -> None:
    """Cause: an error of the side that is alone in use is no fault of an attempt, so nobody but the client knew of it.

    Failing, `query` warns of nothing, `list` ends with status 0, and `doctor` finds no failure.
    """
    client = system.client
    system.set_up("vol1", source.uri, pair.target)
    assert client.query("vol1")["warnings"] == []
    assert system.cutover("list").returncode == 0
    source.kill()
    for _ in range(3):
        read = ["qemu-io", "-r", "-f", "raw", "-c", "read 1M 4k", system.export("vol1")]
        assert subprocess.run(read, capture_output=True, check=False).returncode != 0
    status = client.until("vol1", lambda each: each["application_trouble"], what="the errors")
    errors = status["application_errors"]
    assert (errors["of_source"] >= 1, errors["of_target"], errors["last"]["cause"]) == (True, 0, "ECONNRESET")
    (warning,) = status["warnings"]
    assert warning == status["application_trouble"]
    assert f"The connection to {source.uri}, its source, is broken" in warning
    assert (status["faults"], status["state"]) == ([], "setup")
    listed = system.cutover("list")
    assert (listed.returncode, "open, errors" in listed.stdout) == (1, True)
    told = system.cutover("recover", "vol1").stdout
    assert "open on host" in told
    assert "the application gets errors" in told
    doctor = system.cutover("doctor", "--config", str(system.config_of(CLONING)))
    assert doctor.returncode == 1
    assert re.search(r"failure\s+volumes\s+vol1: the application gets errors", doctor.stdout)
    for words in ("the connection is broken", "the application gets errors"):
        assert re.search(f"ERROR .* migration=vol1 attempt=0: .*{words}", system.log(CLONING)), words


def test_source_that_has_died_in_setup_is_not_forgotten_with_requests_under_way(
    system: System, pair: Pair, source: Server
) -> None:
    """Cause: `cleanup` looked only at devices that were let go of, and this one is in use, though nothing can be asked of it."""
    client = system.client
    system.set_up("vol1", source.uri, pair.target)
    source.stop_answering()
    with subprocess.Popen(["qemu-io", "-f", "raw", "-c", "write 0 4k", system.export("vol1")]) as application:
        client.until("vol1", lambda _: host_view(system)["application_writes"] > 0, what="a write")
        source.kill()
        assert application.wait(IO_TIMEOUT_S) != 0
    for command in ("sync", "cleanup"):
        refusal = client.refused(command, "vol1")
        assert (refusal.code, source.uri in refusal.message) == ("outstanding-requests", True)
    client.command("vouch", "vol1")
    client.command("cleanup", "vol1")


# ------------------------------------------------------------------------------------------------- a host that was killed


def test_volume_on_a_remote_source_stays_closed_after_a_kill_until_somebody_vouches(
    system: System, pair: Pair, source: Server
) -> None:
    system.set_up("vol1", source.uri, pair.target)
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        system.kill_service(CLONING)
        report = application.stop()
    system.start_service(CLONING)
    vouch_for_closed(system)
    assert report.differences(pair.source) == []
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        assert application.stop().errors == []


def test_remote_target_after_a_kill_is_not_used_again_until_somebody_vouches(
    system: System, pair: Pair, target: Server
) -> None:
    """The source is local, so the volume opens; that the word is missing outlives a clean restart."""
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "source-selected")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    client.until_state("vol1", "setup")
    assert "cutover vouch vol1" in client.refused("sync", "vol1").message
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    assert client.refused("sync", "vol1").code == "outstanding-requests"
    assert "cutover vouch vol1" in str(client.query("vol1")["warnings"])
    sync_on_a_word(system)
    assert client.query("vol1")["warnings"] == []


def test_word_that_comes_late_is_not_believed_for_a_doubt_that_came_after_it(
    system: System, pair: Pair, target: Server
) -> None:
    """Cause: a word named nothing, so one that had been under way for long ended doubts that its operator did not know of."""
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "source-selected")
    earlier = client.query("vol1")["doubt"]
    system.kill_service(CLONING)
    system.start_service(CLONING)
    client.until_state("vol1", "setup")
    assert client.refused("vouch", "vol1", doubt=earlier).code == "stale"
    assert client.refused("sync", "vol1").code == "outstanding-requests"
    client.command("vouch", "vol1", doubt=client.query("vol1")["doubt"])
    client.command("sync", "vol1")


def test_target_that_was_given_up_while_it_hung_is_in_doubt_after_a_kill(
    system: System, pair: Pair, target: Server
) -> None:
    """The state was `setup` again, and nothing of that told whether the server still had requests."""
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "source-selected")
    target.stop_answering()
    run("qemu-io", "-f", "raw", "-c", "write 2M 4k", system.export("vol1"))
    client.until("vol1", back_in_setup)
    system.kill_service(CLONING)
    target.go_on()
    system.start_service(CLONING)
    assert "cutover vouch vol1" in client.refused("sync", "vol1").message
    sync_on_a_word(system)


@pytest.mark.parametrize("state", ["setup", *CLONING_STATES, "committed"])
def test_clean_stop_leaves_nothing_to_vouch_for(
    system: System, pair: Pair, source: Server, target: Server, state: str
) -> None:
    client = system.client
    system.set_up("vol1", source.uri, target.uri)
    bring_to(system, "vol1", state)
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    assert client.query("vol1")["state"] == state
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target if state == "committed" else pair.source) == []


def test_stop_waits_a_moment_for_a_target_that_is_being_let_go_of(system: System, pair: Pair) -> None:
    """Cause: its last answers came while the host went, and somebody had to vouch for a connection that was closed in order."""
    client = system.client
    with nbdkit(
        pair.target.parent, "--filter=delay", "file", str(pair.target), "wdelay=500ms", name="target"
    ) as target:
        system.set_up("vol1", pair.source, target.uri)
        with Application(system.export("vol1"), blocks=256) as application:
            client.command("sync", "vol1")
            application.until_operations(50)
            client.command("abort", "vol1")
            assert system.stop_service(CLONING) == 0
            application.stop()
        assert b'"unfenced":[]' in system.witness("vol1").read_bytes()
        system.start_service(CLONING)
        client.command("sync", "vol1")


def test_fault_with_all_answered_leaves_nothing_to_vouch_for_even_after_a_kill(
    system: System, pair: Pair
) -> None:
    client = system.client
    arm = pair.target.parent / "armed"
    fault = ("error-pwrite=EIO", "error-pwrite-rate=100%", f"error-pwrite-file={arm}")
    with nbdkit(
        pair.target.parent, "--filter=error", "file", str(pair.target), *fault, name="target"
    ) as target:
        system.set_up("vol1", pair.source, target.uri)
        bring_to(system, "vol1", "source-selected")
        with Application(system.export("vol1"), blocks=256) as application:
            application.until_operations(50)
            arm.touch()
            client.until("vol1", back_in_setup)
            arm.unlink()
            client.until("vol1", lambda _: b'"unfenced":[]' in system.witness("vol1").read_bytes())
            assert application.stop().errors == []
        system.kill_service(CLONING)
        system.start_service(CLONING)
        client.command("sync", "vol1")
        client.until_state("vol1", "source-selected")


def host_view(system: System) -> Json:
    view: Json = system.client.ask(f"cutover.host.{HOST}.status.vol1").accepted()["migrations"][0]
    return view


def test_lost_witness_leaves_every_remote_device_in_doubt_whichever_word_is_given(
    system: System, pair: Pair, target: Server
) -> None:
    """Nobody knows any more what the lost one named: the word for the source is none for the target's old connection."""
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "source-selected")
    start_without_witness(system)
    client.command("adopt", "vol1", authority="source", accept=True)
    for refused in ("sync", "cleanup"):
        refusal = client.refused(refused, "vol1")
        assert (refusal.code, "cutover vouch vol1" in refusal.message) == ("outstanding-requests", True)
    sync_on_a_word(system)


def test_word_that_is_recorded_is_told_as_that_where_the_volume_stays_closed(
    system: System, pair: Pair, source: Server
) -> None:
    system.set_up("vol1", source.uri, pair.target)
    bring_to(system, "vol1", "source-selected")
    start_without_witness(system)
    done = system.cutover("adopt", "vol1", "--authority", "source", "--yes")
    assert done.returncode == 0, done.stderr
    assert "setup, on the source alone, and not open yet" in done.stdout
    assert "cutover vouch vol1" in done.stdout
    vouch_for_closed(system)


def test_side_that_waits_for_a_word_about_its_old_connection_is_not_adopted_instead(
    system: System, pair: Pair, target: Server
) -> None:
    client = system.client
    system.set_up("vol1", pair.source, target.uri)
    bring_to(system, "vol1", "committed")
    system.kill_service(CLONING)
    system.start_service(CLONING)
    before = client.journal_length()
    refusal = client.refused("adopt", "vol1", authority="target", accept=True)
    assert (refusal.code, "cutover vouch" in refusal.message) == ("not-allowed", True)
    assert client.journal_length() == before
    client.command("vouch", "vol1")
    assert client.query("vol1")["state"] == "committed"


def test_who_gives_up_is_told_that_requests_may_still_land(
    system: System, pair: Pair, source: Server
) -> None:
    system.set_up("vol1", source.uri, pair.target)
    system.kill_service(CLONING)
    system.start_service(CLONING)
    refusal = system.client.refused("give-up", "vol1")
    assert refusal.code == "consent-needed"
    assert "before their servers have dropped the old connections" in refusal.message
    system.client.command("give-up", "vol1", accept=True)
    assert system.client.refused("query", "vol1").code == "unknown-migration"


@pytest.mark.parametrize("outlives", ["the command", "the run"])
def test_source_that_was_left_with_requests_under_way_is_not_forgotten(
    system: System, pair: Pair, source: Server, outlives: str
) -> None:
    """After a commit nobody uses it, and after a clean-up nobody would know of it: `cleanup` waits for the word, too."""
    client = system.client
    system.set_up("vol1", source.uri, pair.target)
    bring_to(system, "vol1", "target-selected")
    source.stop_answering()
    with subprocess.Popen(["qemu-io", "-f", "raw", "-c", "write 0 4k", system.export("vol1")]) as application:
        client.until("vol1", lambda each: each["authority"] == "target")
        assert application.wait(IO_TIMEOUT_S * 3) == 0
    if outlives == "the run":
        system.kill_service(CLONING)
        system.start_service(CLONING)
    client.command("commit", "vol1")
    refusal = client.refused("cleanup", "vol1")
    assert (refusal.code, source.uri in refusal.message) == ("outstanding-requests", True)
    client.command("vouch", "vol1")
    client.command("cleanup", "vol1")


def sync_on_a_word(system: System) -> None:
    """Vouch for the target of `vol1`, which is then copied to again."""
    system.client.command("vouch", "vol1")
    system.client.command("sync", "vol1")
    system.client.until_state("vol1", "source-selected")


def start_without_witness(system: System) -> None:
    """The host was killed, and what it remembered of `vol1` is lost."""
    system.kill_service(CLONING)
    system.witness("vol1").unlink()
    system.start_service(CLONING)


def vouch_for_closed(system: System) -> None:
    """Find `vol1` closed for want of a word, and give it."""
    status = system.client.query("vol1")
    assert "cutover vouch vol1" in status["host_error"], status
    assert system.client.refused("sync", "vol1").code == "not-admitted"
    reply = system.client.command("vouch", "vol1")
    assert reply["state"] == "setup"
    assert system.client.query("vol1")["host_error"] is None


def test_word_for_what_is_in_no_doubt_changes_nothing(
    system: System, pair: Pair, source: Server, target: Server
) -> None:
    system.set_up("vol1", source.uri, target.uri)
    bring_to(system, "vol1", "source-selected")
    with Application(system.export("vol1"), blocks=256) as application:
        application.until_operations(50)
        system.client.command("vouch", "vol1")
        application.until_operations(50)
        assert application.stop().errors == []
    assert system.client.query("vol1")["state"] == "source-selected"
    asked = system.cutover("vouch", "vol1")
    assert asked.returncode == 2
    assert "give --yes" in asked.stderr
