"""A record of a newer version is refused with words, by whoever meets it; the volume stays closed rather than be guessed at."""

import json

from tests.acceptance.system.journal_store import made_again
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import CLONING, System

WORDS = "The journal holds a record of version 2; this program reads up to version 1."


def test_a_record_of_a_newer_version_keeps_the_volume_closed_and_everyone_says_why(
    running: tuple[System, Pair],
) -> None:
    """As after an upgrade that was taken back: only the version differs, and a program of today must not read on."""
    system, pair = running
    before = pair.source.read_bytes()
    record = system.client.journal("vol1")[-1].record
    assert record["version"] == 1
    assert system.stop_service(CLONING) == 0
    made_again(system, record | {"version": 2, "mood": "fine"})

    refusal = system.client.refused("query", "vol1")
    assert (refusal.code, refusal.message) == ("newer-version", WORDS)
    assert system.client.refused("sync", "vol1").code == "newer-version"
    listed = system.client.ask("cutover.control.list").accepted()
    assert listed["migrations"] == []
    assert any(WORDS in warning for warning in listed["warnings"])
    shown = system.cutover("query", "vol1", "--json")
    assert shown.returncode == 1
    assert json.loads(shown.stdout)["journal_condition"] == "newer-version"

    system.start_service(CLONING)
    (closed,) = system.host_status()["closed"]
    assert (closed["code"], closed["message"]) == ("newer-version", WORDS)
    assert system.host_status()["migrations"] == []
    assert WORDS in system.log(CLONING)
    known = json.loads(system.cutover("recover", "vol1", "--json").stdout)
    assert (known["standing"], known["why"]) == ("closed", WORDS)
    assert known["sides"][0]["holds"].startswith("every acknowledged write"), "by its witness"
    assert {choice["consent"] for choice in known["choices"]} == {"refused"}
    assert pair.source.read_bytes() == before

    # The version that can read it takes over where it was.
    assert system.stop_service(CLONING) == 0
    made_again(system, record)
    system.start_service(CLONING)
    assert system.client.query("vol1")["state"] == "setup"
