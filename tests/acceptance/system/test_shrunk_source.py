"""A source file that is cut short behind Cutover's back is not moved as one that ends in zeroes."""

import os
import subprocess
from pathlib import Path

from tests.acceptance.system.devices import MIB
from tests.acceptance.system.pairs import Pair
from tests.acceptance.system.whole_system import System


def test_source_that_was_cut_short_is_not_found_equal_and_not_committed(
    system: System, pair: Pair, tmp_path: Path
) -> None:
    """Cause: what lies beyond a file's end was taken for a hole.

    Failing, the copy succeeds, both sides are found equal, the migration commits, and `nbdcopy` of the volume ends with status 0.
    """
    client = system.client
    system.set_up("vol1", pair.source, pair.target)
    os.truncate(pair.source, MIB)
    copied = subprocess.run(
        ["nbdcopy", system.export("vol1"), str(tmp_path / "copy.img")], capture_output=True, check=False
    )
    assert copied.returncode != 0
    assert client.query("vol1")["application_errors"]["of_source"] > 0
    client.command("sync", "vol1")
    status = client.until("vol1", lambda each: each["unreadable_regions"], what="unreadable regions")
    assert status["state"] == "syncing"
    assert {(each["side"], each["cause"]) for each in status["faults"]} == {("source", "EIO")}
    client.refused("select-target", "vol1")
    client.refused("commit", "vol1")
    client.command("abort", "vol1")


def test_sides_are_not_equal_once_the_source_was_cut_short(system: System, pair: Pair) -> None:
    client = system.client
    system.set_up("vol1", pair.source, pair.target)
    client.command("sync", "vol1")
    client.until_state("vol1", "source-selected")
    os.truncate(pair.source, MIB)
    client.command("verify", "vol1")
    status = client.until(
        "vol1", lambda each: each["verification"] and each["verification"]["outcome"], what="an outcome"
    )
    assert status["verification"]["outcome"] == "incomplete"
    assert "the source could not be read" in status["verification"]["detail"]
