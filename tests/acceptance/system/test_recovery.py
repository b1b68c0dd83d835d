"""`cutover recover` and `cutover adopt`: a closed volume is opened again by what is safe, or by an operator's word."""

import json

from tests.acceptance.system.application import Application
from tests.acceptance.system.devices import digest
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.plain_client import Json
from tests.acceptance.system.ways import bring_to
from tests.acceptance.system.whole_system import CLONING, System

Running = tuple[System, Pair]


def known(system: System, *options: str) -> Json:
    done = system.cutover("recover", "vol1", "--json", *options)
    assert done.returncode == 0, done.stderr
    reply: Json = json.loads(done.stdout)
    return reply


def consents(reply: Json) -> dict[str, str]:
    return {each["choice"]: each["consent"] for each in reply["choices"]}


def lose_witness(system: System, state: str) -> None:
    """Stopped cleanly in a state, and started again without the witness."""
    bring_to(system, "vol1", state)
    assert system.stop_service(CLONING) == 0
    system.witness("vol1").unlink()
    system.start_service(CLONING)


def test_device_that_is_back_is_admitted_without_a_restart(running: Running) -> None:
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    away = pair.source.with_suffix(".away")
    pair.source.rename(away)
    system.start_service(CLONING)
    reply = known(system)
    assert str(pair.source) in reply["why"]
    assert reply["standing"] == "closed"
    assert [side["finding"]["usable"] for side in reply["sides"]] == [False, True]
    assert consents(reply)["try-again"] == "safe"
    done = system.cutover("recover", "vol1", "--try-again")
    assert done.returncode == 1
    assert str(pair.source) in done.stderr
    away.rename(pair.source)
    pid = system.pid(CLONING)
    done = system.cutover("recover", "vol1", "--try-again")
    assert done.stdout == "vol1: open again, in source-selected\n"
    assert system.pid(CLONING) == pid
    with Application(system.export("vol1")) as application:
        application.until_operations(50)
        assert application.stop().errors == []
    assert system.client.query("vol1")["faults"] == [], "the stop was clean, and nothing was cloned since"


def test_open_volume_needs_no_recovery(running: Running) -> None:
    system, _pair = running
    assert set(consents(known(system)).values()) == {"refused"}
    for arguments in (
        ("recover", "vol1", "--give-up", "--yes"),
        ("adopt", "vol1", "--authority", "source", "--yes"),
    ):
        done = system.cutover(*arguments)
        assert (done.returncode, "not-allowed" in done.stderr) == (1, True)
    assert system.client.words("vol1")[-1] == "state setup"


def test_lost_witness_is_made_good_by_a_word_for_the_source(running: Running) -> None:
    system, pair = running
    lose_witness(system, "source-selected")
    contents = digest(pair.source), digest(pair.target)
    reply = known(system)
    assert reply["proved"] is False
    assert [telling["doubt"] for telling in reply["tellings"]] == ["", "there is none"]
    assert consents(reply) == {
        "try-again": "safe", "adopt-source": "asks", "adopt-target": "asks", "give-up": "asks",
    }  # fmt: skip
    before = system.client.journal_length()
    done = system.cutover("adopt", "vol1", "--authority", "source")
    assert done.returncode == 2, "nobody can be asked here"
    refusal = system.client.refused("adopt", "vol1", authority="source")
    assert refusal.code == "consent-needed"
    assert "misses every write since" in refusal.message
    assert system.client.journal_length() == before

    done = system.cutover("adopt", "vol1", "--authority", "source", "--yes")
    assert done.returncode == 0, done.stderr
    assert "setup, on the source alone" in done.stdout
    status = system.client.until("vol1", lambda each: not each["error_flag"])
    assert (status["state"], status["authority"]) == ("setup", "source")
    assert [(fault["side"], fault["cause"]) for fault in status["faults"]] == [("target", "adopted")]
    assert system.client.journal("vol1")[-1].record["trigger"] == "adopt"
    assert (digest(pair.source), digest(pair.target)) == contents
    # It lasts over a restart, and an attempt begins anew.
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    system.client.command("sync", "vol1")
    system.client.command("resume", "vol1")
    system.client.until_state("vol1", "source-selected")
    assert digest(pair.source) == digest(pair.target)


def test_lost_witness_is_made_good_by_a_word_for_the_target(running: Running) -> None:
    system, pair = running
    lose_witness(system, "target-selected")
    done = system.cutover("adopt", "vol1", "--authority", "target", "--yes")
    assert done.returncode == 0, done.stderr
    status = system.client.query("vol1")
    assert (status["state"], status["authority"], status["allowed"]) == ("committed", "target", ["cleanup"])
    in_source = digest(pair.source)
    with Application(system.export("vol1")) as application:
        application.until_operations(50)
        report = application.stop()
    assert report.errors == []
    assert report.differences(pair.target) == []
    assert digest(pair.source) == in_source, "the source was let go"
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    assert system.client.query("vol1")["state"] == "committed"


def test_old_witness_is_replaced_by_a_word(running: Running) -> None:
    system, _pair = running
    old = system.witness("vol1").read_bytes()
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    system.start_service(CLONING)
    assert system.stop_service(CLONING) == 0
    system.witness("vol1").write_bytes(old)
    system.start_service(CLONING)
    assert "old copy" in known(system)["tellings"][1]["doubt"]
    assert system.cutover("recover", "vol1", "--try-again").returncode == 1
    assert system.cutover("adopt", "vol1", "--authority", "source", "--yes").returncode == 0
    system.kill_service(CLONING)
    system.start_service(CLONING)
    assert system.client.query("vol1")["export_uri"]


def test_unfinished_copy_is_never_adopted(running: Running) -> None:
    """The newest witness is there: it is known that the target lacks what the source holds."""
    system, pair = running
    bring_to(system, "vol1", "syncing")
    assert system.stop_service(CLONING) == 0
    away = pair.source.with_suffix(".away")
    pair.source.rename(away)
    system.start_service(CLONING)
    reply = known(system)
    assert (reply["proved"], consents(reply)["adopt-target"]) == (True, "refused")
    done = system.cutover("adopt", "vol1", "--authority", "target", "--yes")
    assert done.returncode == 1
    assert "unfinished copy" in done.stderr
    done = system.cutover("adopt", "vol1", "--authority", "source")
    assert done.returncode == 1, "it is safe, but not there"
    assert str(pair.source) in done.stderr
    away.rename(pair.source)
    assert system.cutover("recover", "vol1", "--try-again").returncode == 0


def test_closed_volume_is_given_up_and_its_name_is_free(running: Running) -> None:
    system, pair = running
    lose_witness(system, "source-selected")
    uuid = system.client.query("vol1")["uuid"]
    assert system.cutover("recover", "vol1", "--give-up").returncode == 2, "nobody can be asked here"
    done = system.cutover("recover", "vol1", "--give-up", "--yes")
    assert done.stdout == "vol1: given up; the name is free\n", done.stderr
    assert system.client.words("vol1")[-1] == "tombstone"
    assert system.client.refused("query", "vol1").code == "unknown-migration"
    again = system.set_up("vol1", pair.source, pair.target, overwrite_target=True)
    assert again["uuid"] != uuid


def tear_witness(system: System) -> None:
    witness = system.witness("vol1")
    witness.write_bytes(witness.read_bytes()[:100])


def test_torn_witness_of_what_was_given_up_does_not_keep_the_name(running: Running) -> None:
    """Cause: the name was said to be free, and its host kept it closed for ever: nobody can tell if that witness is over."""
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    assert system.stop_service(CLONING) == 0
    tear_witness(system)
    system.start_service(CLONING)
    assert "cannot be believed" in known(system)["why"]
    done = system.cutover("recover", "vol1", "--give-up", "--yes")
    assert done.stdout == "vol1: given up; the name is free\n", done.stderr
    assert not system.witness("vol1").exists()
    system.kill_service(CLONING)
    system.start_service(CLONING)
    assert system.host_status()["closed"] == []
    system.set_up("vol1", pair.source, pair.target, overwrite_target=True)


def test_torn_witness_of_a_host_that_was_away_is_given_up_when_it_is_back(running: Running) -> None:
    """Nothing tells whether it is of what was given up, or of what the journal has lost since: that is the operator's to say."""
    system, pair = running
    bring_to(system, "vol1", "source-selected")
    system.kill_service(CLONING)
    tear_witness(system)
    assert system.cutover("recover", "vol1", "--give-up", "--yes").returncode == 0
    system.start_service(CLONING)
    (closed,) = system.host_status()["closed"]
    assert "the journal does not know it" in closed["message"]
    before = system.client.journal_length()
    done = system.cutover("recover", "vol1", "--give-up", "--yes")
    assert done.stdout == "vol1: given up; the name is free\n", done.stderr
    assert system.client.journal_length() == before, "there was nothing to be recorded"
    assert system.host_status()["closed"] == []
    system.set_up("vol1", pair.source, pair.target, overwrite_target=True)


def test_nobody_knows_a_name_that_nobody_has(running: Running) -> None:
    system, _pair = running
    done = system.cutover("recover", "nobody")
    assert (done.returncode, "unknown-migration" in done.stderr) == (1, True)
